#include "tasks/image_import.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "core/file_io.h"
#include "core/folder_lock.h"
#include "core/stored_values.h"
#include "core/tensor_files.h"
#include "core/text.h"
#include "data/prepared_folder.h"
#include "models/efficientnet_names.h"
#include "tasks/classes.h"
#include "tasks/run.h"
#include "train/checkpoint_file.h"
#include "train/run_state.h"

namespace qn {
namespace fs = std::filesystem;
namespace {

using Tensors = std::map<std::string, const StoredTensor*>;

/// Counters of batches, which nothing depends on.
bool is_counter(const std::string& name) { return name.ends_with(".num_batches_tracked"); }

EfficientNetNames names_of_file(const TensorFiles& files) {
  std::vector<std::string> first;
  for (const EfficientNetNames names : all_values<EfficientNetNames>()) {
    if (files.tensors().contains(first_tensor(names))) return names;
    first.push_back(fmt::format("{} ({})", first_tensor(names), name_of(names)));
  }
  fail("{} is no EfficientNet that is known: it has none of the tensors {}", files.path().string(),
       fmt::join(first, ", "));
}

/// "a, b and 12 more"
std::string listed(const std::vector<std::string>& names) {
  constexpr size_t kMost = 8;
  if (names.size() <= kMost) return fmt::format("{}", fmt::join(names, ", "));
  return fmt::format("{} and {} more", fmt::join(names.begin(), names.begin() + kMost, ", "), names.size() - kMost);
}

const std::vector<int64_t>& shape_of(const TensorFiles& files, const std::string& name, size_t rank) {
  const auto found = files.tensors().find(name);
  QN_CHECK(found != files.tensors().end(), "{} lacks the tensor {}", files.path().string(), name);
  QN_CHECK(found->second->shape.size() == rank, "{}: {} has {} dimensions, not {}", files.path().string(), name,
           found->second->shape.size(), rank);
  return found->second->shape;
}

/// How far a variant is from what the file holds: nothing where all tensors have its names and shapes.
std::string mismatch(const TensorFiles& files, const Module& module,
                     const std::vector<std::pair<std::string, std::string>>& names) {
  std::map<std::string, std::vector<int64_t>> wanted;
  for (const auto& p : module.parameters().all()) wanted[p->name] = p->shape.to_vector();
  for (const auto& b : module.buffers().all()) wanted[b->name] = b->shape.to_vector();
  std::vector<std::string> missing, other, left;
  std::set<std::string> known;
  for (const auto& [ours, theirs] : names) {
    known.insert(theirs);
    const auto found = files.tensors().find(theirs);
    if (found == files.tensors().end())
      missing.push_back(theirs);
    else if (found->second->shape != wanted.at(ours))
      other.push_back(theirs);
  }
  for (const auto& [name, tensor] : files.tensors())
    if (!known.contains(name) && !is_counter(name)) left.push_back(name);
  std::string text;
  for (const auto& [what, list] :
       {std::pair{"it lacks", &missing}, {"of other shapes are", &other}, {"it has no place for", &left}})
    if (!list->empty()) text += fmt::format("{}{} {}", text.empty() ? "" : "; ", what, listed(*list));
  return text;
}

ModelConfig config_of(EfficientNetVariant variant, EfficientNetNames names) {
  ModelConfig config(ModelType::efficientnet);
  config.select(variant);
  if (names == EfficientNetNames::torchvision) {
    config.padding = ConvPadding::symmetric;
    if (variant <= EfficientNetVariant::b4) config.norm_eps = 1e-5;
  }
  return config;
}

ImageTransform transform_of(EfficientNetVariant variant, EfficientNetNames names) {
  ImageTransform transform;
  transform.size = published_resolution(variant);
  if (variant >= EfficientNetVariant::lite0) {
    transform.mean = {127.0};
    transform.std = {128.0};
    return transform;
  }
  transform.mean = {123.675, 116.28, 103.53};  // of ImageNet
  transform.std = {58.395, 57.12, 57.375};
  if (names != EfficientNetNames::efficientnet_pytorch) transform.order = CropOrder::resize_first;
  return transform;
}

/// The variant whose tensors the file holds.
EfficientNetVariant variant_of(const TensorFiles& files, EfficientNetNames names, const ImageClasses& classes) {
  std::string nearest;
  EfficientNetVariant best{};
  for (const EfficientNetVariant variant : all_values<EfficientNetVariant>()) {
    const EfficientNetShape shape = EfficientNetShape::of(config_of(variant, names));
    const std::string problem = mismatch(files, EfficientNet(shape, classes), tensor_names(shape, names));
    if (problem.empty()) return variant;
    if (nearest.empty() || problem.size() < nearest.size()) {
      nearest = problem;
      best = variant;
    }
  }
  fail("{} is no EfficientNet of a published size; nearest is {}: {}", files.path().string(), name_of(best), nearest);
}

std::vector<std::string> class_names(const fs::path& file, int64_t count) {
  std::vector<std::string> names;
  if (file.empty()) {
    for (int64_t c = 0; c < count; ++c) names.push_back(std::to_string(c));
    return names;
  }
  const std::vector<std::byte> bytes = read_file_bytes(file);
  names = labels_of({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  QN_CHECK(std::ssize(names) == count, "{} has {} lines, the model {} classes", file.string(), names.size(), count);
  return names;
}

void fill(Module& module, const TensorFiles& files, const std::vector<std::pair<std::string, std::string>>& names) {
  for (const auto& [ours, theirs] : names) {
    const StoredTensor& tensor = *files.tensors().at(theirs);
    QN_CHECK(is_weight_type(tensor.type), "{}: {} is of a type that holds no weights", files.path().string(), theirs);
    const std::vector<float> values = floats_of(tensor);
    QN_CHECK(std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); }),
             "{}: {} has values that are not finite", files.path().string(), theirs);
    if (Parameter* parameter = module.parameters().find(ours)) {
      module.parameters().set_values(*parameter, values);
      continue;
    }
    const Tensor& buffer = module.buffers().find(ours)->value.view();
    std::copy(values.begin(), values.end(), buffer.as<float>());
  }
}

/// What an import's configuration says.
struct ImportedRun {
  RunConfig run;
  void visit(ConfigVisitor& v) {
    visit_model_and_task(v, run.model, run.task);
    v.section("data", run.images, "what it is trained on");
  }
};

/// A JSON string is one of YAML.
std::string quoted(const fs::path& path) { return nlohmann::json(path.string()).dump(); }

std::string continued(const ImportedRun& imported, const fs::path& out) {
  return "# An imported model. To train it further, set data.path to images that were prepared with its classes.\n" +
         dump_config(imported) +
         fmt::format("checkpoint:\n  init_from: {}\n  dir: {}\n", quoted(out / kImportedCheckpoint),
                     quoted(out / "run"));
}

}  // namespace

ImportSummary import_image_model(const fs::path& source, const fs::path& classes,
                                 const std::vector<std::string>& overrides, const fs::path& out) {
  QN_CHECK_USAGE(fs::exists(source), "{}: there is no such file", source.string());
  const TensorFiles files(source);
  const EfficientNetNames names = names_of_file(files);
  const ImageClasses what{.channels = shape_of(files, first_tensor(names), 4)[1],
                          .classes = shape_of(files, tensor_names({}, names).back().second, 1)[0]};
  const EfficientNetVariant variant = variant_of(files, names, what);
  ImportedRun imported;
  imported.run.model = config_of(variant, names);
  imported.run.task = TaskConfig(TaskType::image_classification, ModelType::efficientnet);
  imported.run.images.transform = transform_of(variant, names);
  imported = read_config<ImportedRun>(config_tree_from_text(dump_config(imported), "the import", overrides));
  const RunConfig& config = imported.run;
  StateDict state;
  state.texts["labels"] = labels_text(class_names(classes, what.classes));
  state.ints["channels"] = what.channels;
  const std::unique_ptr<RunTask> task = task_of_checkpoint(config, state);
  Module& module = task->module();
  module.allocate(DType::f32, cpu_kernels());
  const auto tensors = tensor_names(EfficientNetShape::of(config.model), names);
  const std::string problem = mismatch(files, module, tensors);
  QN_CHECK_USAGE(problem.empty(), "with these settings the network is not that of {}: {}", source.string(), problem);
  fill(module, files, tensors);
  save_module(module, state);
  RunState().save(state);
  state.texts["config"] = dump_config(config);
  state.texts["plan"] = plan_to_text(make_run_plan(module, config.quant_noise, nullptr));
  check_outputs(files.files(), std::vector<fs::path>{out / kImportedCheckpoint, out / kImportedConfig}, {});
  make_folder(out);
  const FolderLock lock(out, "the folder");
  save_state(out / kImportedCheckpoint, state);
  atomic_write_text(out / kImportedConfig, continued(imported, out));
  return {.task = name_of(config.task.type),
          .parameters = module.parameters().elements(),
          .details = fmt::format("efficientnet {}, {} classes, inputs of {} pixels", name_of(variant),
                                 group_digits(what.classes), config.images.transform.size)};
}

}  // namespace qn
