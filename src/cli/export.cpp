#include <iostream>
#include <optional>

#include "cli/choice_option.h"
#include "cli/commands.h"
#include "compress/export_plain.h"
#include "core/text.h"
#include "tasks/hf_folder.h"
#include "tasks/model_file.h"
#include "tasks/pruning.h"
#include "train/start_checks.h"

namespace qn::cli {
namespace {

enum class Target : uint8_t { safetensors, hf };

struct ExportArguments {
  std::string packed, out, layers_to_keep, vocabulary;
  bool stay_packed = false;
  Target target = Target::safetensors;
  ExportType type = ExportType::f32;
};

void run_hf(const ExportArguments& a) {
  QN_CHECK_USAGE(a.type == ExportType::f32 && !a.stay_packed,
                 "--to hf writes decoded values as float32: leave --dtype and --packed out");
  export_hf(load_model_file(a.packed, cpu_kernels(), a.layers_to_keep), a.packed, a.vocabulary, a.out);
  std::cout << fmt::format("{}: config.json, model.safetensors\n", a.out);
}

void run_export(const ExportArguments& a) {
  if (a.target == Target::hf) return run_hf(a);
  QN_CHECK_USAGE(a.vocabulary.empty(), "--vocabulary is for --to hf");
  check_output_file(a.out, "--out", FileKind::safetensors, {a.packed});
  SafetensorsReader file(a.packed);
  check_packed_format(file, a.packed);
  if (!a.layers_to_keep.empty()) prune_packed(file, a.layers_to_keep);
  if (a.stay_packed) {
    const SafetensorsWriter copy = packed_copy(file);
    copy.write(a.out);
    std::cout << fmt::format("{}: {} bytes, packed; {} had {}\n", a.out,
                             group_digits(static_cast<int64_t>(copy.file_size())), a.packed,
                             group_digits(static_cast<int64_t>(file.file_size())));
    return;
  }
  // Version 1 does not tell all sizes; its model does.
  const bool old = file.metadata_at("version") == kVersion1;
  std::optional<ModelFile> model;
  if (old) model = load_model_file(a.packed, cpu_kernels(), a.layers_to_keep);
  const uint64_t bytes = export_plain(file, a.packed, a.out, a.type, old ? &model->module().weights() : nullptr);
  std::cout << fmt::format("{}: {}, {} of it packed\n", a.out, format_bytes(bytes), format_bytes(file.file_size()));
}

}  // namespace

Command add_export(CLI::App& app) {
  auto a = std::make_shared<ExportArguments>();
  app.add_option(
         "file", a->packed,
         "Packed file (.safetensors), of a model or of another program's weights; with --to hf also a checkpoint")
      ->required();
  app.add_option("-o,--out", a->out, "Plain safetensors file to write; with --to hf the folder")->required();
  CLI::Option* const to = add_choice_option(
      app, "--to", [a](const std::string& name) { a->target = name == "hf" ? Target::hf : Target::safetensors; },
      "hf: a folder that transformers loads, for models of GPT-2's and RoBERTa's form", {"safetensors", "hf"});
  app.add_option(
         "--vocabulary", a->vocabulary,
         "With --to hf: the folder of the import, or of prepared data, whose dict.txt and tokenizer/ tell which "
         "token is which (without it ids stay as they are here)")
      ->needs(to);
  add_choice(app, "--dtype", a->type, "What floating-point tensors become; original: what they were before packing");
  add_layers_to_keep(app, a->layers_to_keep, "Layers to write");
  app.add_flag("--packed", a->stay_packed, "With --layers-to-keep: write a packed file again instead of a plain one")
      ->needs("--layers-to-keep")
      ->excludes("--dtype");
  app.footer(
      "Decodes what is packed to the original names and shapes, for any program that reads safetensors.\n"
      "Example: quantnoise export model.packed.safetensors -o model.safetensors --dtype original");
  return [a](Communicator& comm) {
    if (comm.is_root()) run_export(*a);
    return kSuccess;
  };
}

}  // namespace qn::cli
