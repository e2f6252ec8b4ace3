#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/choice_option.h"
#include "cli/commands.h"
#include "cli/line_input.h"
#include "core/file_io.h"
#include "tasks/model_file.h"
#include "train/precision.h"
#include "train/start_checks.h"

namespace qn::cli {
namespace {

struct EmbedArguments {
  std::string file, data, text, npy;
  Precision precision = Precision::fp32;
  HeldWeights held = HeldWeights::codes;
  ComputeOptions compute;
};

/// numpy's format 1.0: what it is, and its shape, in a header of a multiple of 64 bytes; then the values.
std::string npy_of(const std::vector<float>& values, size_t rows) {
  std::string about = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows,
                                  rows > 0 ? values.size() / rows : 0);
  constexpr size_t kFixed = 10;
  about.append(63 - (kFixed + about.size()) % 64, ' ');
  about += '\n';
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += {static_cast<char>(about.size() & 0xff), static_cast<char>(about.size() >> 8)};
  bytes += about;
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  return bytes;
}

int run_embed(const EmbedArguments& a, const Kernels& kernels, Communicator& comm) {
  const DType dtype = activation_type(a.precision, kernels, comm);  // all ranks agree on it
  if (!comm.is_root()) return kSuccess;
  if (!a.npy.empty()) check_output_file(a.npy, "--npy", FileKind::binary, {a.file, a.text});
  LineInput input(a.text, "--text");
  const ModelFile model = load_model_file(a.file, kernels, {}, a.held);
  set_product_precision(a.precision, kernels);
  std::vector<float> all;
  size_t rows = 0;
  int64_t before = 0;
  constexpr size_t kMost = 1024;  // enough for batches of lines of equal length
  for (std::vector<std::string> lines; !(lines = input.next(kMost)).empty();) {
    for (const std::vector<float>& vector : model.task->embed(a.data, lines, kernels, dtype, before)) {
      ++rows;
      if (a.npy.empty())
        std::cout << nlohmann::json(vector).dump() << '\n';
      else
        all.insert(all.end(), vector.begin(), vector.end());
    }
    before += std::ssize(lines);
    std::cout.flush();
  }
  if (!a.npy.empty()) atomic_write_text(a.npy, npy_of(all, rows));
  return kSuccess;
}

}  // namespace

Command add_embed(CLI::App& app) {
  auto a = std::make_shared<EmbedArguments>();
  app.add_option("file", a->file, "Packed model (.safetensors) or checkpoint (.h5) of task sentence_embedding")
      ->required();
  app.add_option(
      "-d,--data", a->data,
      "Folder with the model's dict.txt and tokenizer/ (of an import, or prepared data): only for packed files "
      "that carry none, and for checkpoints whose data are elsewhere by now");
  app.add_option("-t,--text", a->text, "Text with a sentence per line; - is standard input")->required();
  app.add_option("--npy", a->npy, "Write a file for numpy, float32 [lines, width], instead of printing");
  add_choice(app, "--precision", a->precision,
             "fp32; tf32: fp32 with products in TF32 on GPUs; bf16: where the processor has instructions for it, "
             "else fp32; bf16_always: on any processor; fp16: GPUs only");
  add_held_weights(app, a->held);
  a->compute.add_to(app);
  app.footer(
      "Prints a JSON array per line: a vector of length 1, so that the cosine of two sentences is the sum of the\n"
      "products of their numbers. Lines that are too long for the model lose what is behind.");
  return [a](Communicator& comm) {
    return a->compute.run(comm, [&](const Kernels& k) { return run_embed(*a, k, comm); });
  };
}

}  // namespace qn::cli
