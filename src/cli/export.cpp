#include <fmt/ranges.h>

#include <iostream>
#include <optional>

#include "cli/choice_option.h"
#include "cli/commands.h"
#include "compress/export_plain.h"
#include "core/text.h"
#include "tasks/hf_folder.h"
#include "tasks/model_file.h"
#include "tasks/pruning.h"
#include "tasks/run.h"
#include "train/start_checks.h"

namespace qn::cli {
namespace {

enum class Target : uint8_t { safetensors, hf };

struct ExportArguments {
  std::string packed, out, layers_to_keep, vocabulary;
  bool stay_packed = false, no_vocabulary = false;
  Target target = Target::safetensors;
  ExportType type = ExportType::f32;
};

void run_hf(const ExportArguments& a) {
  QN_CHECK_USAGE(a.type == ExportType::f32 && !a.stay_packed,
                 "--to hf writes decoded values as float32: leave --dtype and --packed out");
  const std::vector<std::string> files =
      export_hf(load_model_file(a.packed, cpu_kernels(), a.layers_to_keep), a.packed, a.vocabulary, a.out);
  std::cout << fmt::format("{}: {}\n", a.out, fmt::join(files, ", "));
}

/// A packed file again, with other layers or another vocabulary.
void run_packed(const ExportArguments& a, SafetensorsReader& file) {
  QN_CHECK_USAGE(!a.layers_to_keep.empty() || !a.vocabulary.empty() || a.no_vocabulary,
                 "--packed alone would write the same file again: name what is to change, --layers-to-keep, "
                 "--vocabulary or --no-vocabulary");
  std::optional<PackedVocabulary> vocabulary;
  PackedMetadata metadata;
  if (!a.vocabulary.empty()) {
    const std::unique_ptr<RunTask> task = task_of_packed(file, a.packed);
    vocabulary.emplace(task->vocabulary_parts(a.vocabulary));
    metadata = task->packed_metadata();
  }
  if (vocabulary || a.no_vocabulary)
    file.rename([&](const std::string& name) {
      return is_vocabulary(name, file.metadata()) ? std::nullopt : std::optional(name);
    });
  SafetensorsWriter copy = packed_copy(file);
  if (vocabulary)
    for (const StoredTensor& tensor : vocabulary->tensors())
      copy.add(tensor.name, tensor.type, tensor.shape, tensor.bytes);
  for (const auto& [key, value] : metadata)  // what the folder says that the file did not
    if (!file.metadata().contains(key)) copy.set_metadata(key, value);
  copy.write(a.out);
  std::cout << fmt::format("{}: {} bytes, packed; {} had {}\n", a.out,
                           group_digits(static_cast<int64_t>(copy.file_size())), a.packed,
                           group_digits(static_cast<int64_t>(file.file_size())));
}

void run_export(const ExportArguments& a) {
  if (a.target == Target::hf) return run_hf(a);
  QN_CHECK_USAGE(a.vocabulary.empty() || a.stay_packed, "--vocabulary is for --to hf and for --packed");
  check_output_file(a.out, "--out", FileKind::safetensors, {a.packed});
  SafetensorsReader file(a.packed);
  check_packed_format(file, a.packed);
  if (!a.layers_to_keep.empty()) prune_packed(file, a.layers_to_keep);
  if (a.stay_packed) return run_packed(a, file);
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
  add_choice_option(
      app, "--to", [a](const std::string& name) { a->target = name == "hf" ? Target::hf : Target::safetensors; },
      "hf: a folder that transformers loads, for models of GPT-2's, RoBERTa's and BERT's form", {"safetensors", "hf"});
  app.add_option(
      "--vocabulary", a->vocabulary,
      "With --to hf: the folder of the import, or of prepared data, whose dict.txt and tokenizer/ tell which "
      "token is which (default: what the file carries, or the folder that it comes from). With --packed: the folder of "
      "prepared data "
      "whose vocabulary the file is to carry, so that predict and generate need no --data");
  add_choice(app, "--dtype", a->type, "What floating-point tensors become; original: what they were before packing");
  add_layers_to_keep(app, a->layers_to_keep, "Layers to write");
  CLI::Option* const packed =
      app.add_flag(
             "--packed", a->stay_packed,
             "Write a packed file again instead of a plain one: with --layers-to-keep, with --vocabulary, or with "
             "--no-vocabulary")
          ->excludes("--dtype");
  app.add_flag("--no-vocabulary", a->no_vocabulary, "With --packed: leave out the vocabulary that the file carries")
      ->needs(packed)
      ->excludes("--vocabulary");
  app.footer(
      "Decodes what is packed to the original names and shapes, for any program that reads safetensors.\n"
      "Example: quantnoise export model.packed.safetensors -o model.safetensors --dtype original");
  return [a](Communicator& comm) {
    if (comm.is_root()) run_export(*a);
    return kSuccess;
  };
}

}  // namespace qn::cli
