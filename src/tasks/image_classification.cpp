#include "tasks/image_classification.h"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numeric>

#include "core/profiler.h"
#include "core/text.h"
#include "core/work_progress.h"
#include "ops/host_access.h"
#include "tasks/classes.h"
#include "tasks/pruning.h"
#include "tasks/stored_config.h"

namespace qn {
namespace {

constexpr const char *kLabels = "labels", *kChannels = "channels", *kTransform = "transform";
constexpr int64_t kTop = 5, kEvalBatch = 32;
constexpr int32_t kNoClass = -1;

/// "cat, dog, frog, ... (10)"
std::string briefly(const std::vector<std::string>& labels) {
  constexpr size_t kShown = 5;
  if (labels.size() <= kShown) return fmt::format("{}", fmt::join(labels, ", "));
  return fmt::format("{}, ... ({})", fmt::join(labels.begin(), labels.begin() + kShown, ", "), labels.size());
}

bool is_number(const std::string& text) { return text.find_first_not_of("0123456789") == text.npos; }

/// Whether classes may be the same: one that is called by its number has no name that could be another, unless the
/// other is a number as well.
bool may_be_same(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  if (a.size() != b.size()) return false;
  const auto nameless = [](const std::string& x, const std::string& other, size_t place) {
    return x == std::to_string(place) && !is_number(other);
  };
  for (size_t c = 0; c < a.size(); ++c)
    if (a[c] != b[c] && !nameless(a[c], b[c], c) && !nameless(b[c], a[c], c)) return false;
  return true;
}

/// The place of a class among all, 0 for the most likely one. Of equals the first comes first.
int64_t place_of(std::span<const double> logits, int32_t target) {
  const double own = logits[static_cast<size_t>(target)];
  int64_t place = 0;
  for (size_t c = 0; c < logits.size(); ++c)
    if (logits[c] > own || (logits[c] == own && static_cast<int32_t>(c) < target)) ++place;
  return place;
}

/// The most likely class of every row of logits.
std::vector<int32_t> first_places(std::span<const double> logits, size_t classes) {
  std::vector<int32_t> found;
  for (; !logits.empty(); logits = logits.subspan(classes)) {
    const std::span<const double> row = logits.first(classes);
    found.push_back(static_cast<int32_t>(std::ranges::max_element(row) - row.begin()));
  }
  return found;
}

/// Rows whose most likely class is the same in both.
int64_t same_first(std::span<const double> a, std::span<const double> b, size_t classes) {
  const std::vector<int32_t> first = first_places(a, classes), second = first_places(b, classes);
  return std::inner_product(first.begin(), first.end(), second.begin(), int64_t{0}, std::plus<>(), std::equal_to<>());
}

/// Batches of items in their order.
BatchList in_order(int64_t items, int64_t batch_size) {
  std::vector<int64_t> all(static_cast<size_t>(items));
  std::iota(all.begin(), all.end(), int64_t{0});
  BatchList batches;
  for (int64_t begin = 0; begin < items; begin += batch_size)
    batches.push_back(
        std::span(all).subspan(static_cast<size_t>(begin), static_cast<size_t>(std::min(batch_size, items - begin))));
  return batches;
}

}  // namespace

ImageClassification::ImageClassification(Blueprint blueprint)
    : what_(std::move(blueprint)),
      model_(make_image_model(what_.model, {.channels = what_.channels, .classes = std::ssize(what_.labels)})) {
  (void)LevelScale(what_.transform, what_.channels);  // mean and std fit
}

std::unique_ptr<RunTask> ImageClassification::from_config(const RunConfig& config) {
  const ImageDataConfig& data = config.images;
  QN_CHECK_USAGE(!data.path.empty(),
                 "data.path is not set: name a folder made by `quantnoise prepare` with --images, --cifar or --mnist");
  auto train = std::make_shared<const ImageDataset>(ImageDataset::open(data.path, "train"));
  QN_CHECK_USAGE(train->classes().size() >= 2, "{} has {} classes: nothing is to be learned", train->path(),
                 train->classes().size());
  std::unique_ptr<ImageClassification> task(
      new ImageClassification({config.model, config.task, data.transform, train->channels(), train->classes()}));
  task->config_ = data;
  task->seed_ = static_cast<uint64_t>(config.seed);
  task->train_data_ = std::move(train);
  return task;
}

/// Without data nobody knows the classes: there are as many as the published models have.
std::unique_ptr<RunTask> ImageClassification::preview(const RunConfig& config, int64_t vocabulary) {
  QN_CHECK_USAGE(vocabulary == 0, "--vocab is for models of text, this one is of images");
  if (!config.images.path.empty()) return from_config(config);
  spdlog::info("what depends on the data is told for 1,000 classes of colour images");
  Blueprint blueprint{config.model, config.task, config.images.transform, 3, {}};
  for (int64_t c = 0; c < 1000; ++c) blueprint.labels.push_back(std::to_string(c));
  return std::unique_ptr<RunTask>(new ImageClassification(std::move(blueprint)));
}

std::unique_ptr<RunTask> ImageClassification::from_checkpoint(const RunConfig& config, const StateDict& state) {
  return std::unique_ptr<RunTask>(new ImageClassification(
      {config.model, config.task, config.images.transform, state.integer(kChannels), labels_of(state.text(kLabels))}));
}

std::unique_ptr<RunTask> ImageClassification::from_packed(const SafetensorsReader& file, const std::string& path) {
  return std::unique_ptr<RunTask>(
      new ImageClassification({packed_model_config(file, path), packed_task_config(file, path),
                               read_stored<ImageTransform>(config_tree_from_text(file.metadata_at(kTransform),
                                                                                 path + " (metadata 'transform')")),
                               metadata_integer(file, kChannels, 1, 3), labels_of(file.metadata_at(kLabels))}));
}

PackedMetadata ImageClassification::packed_metadata() const {
  return {{"model", dump_config(what_.model)},
          {"task", dump_config(what_.task)},
          {kTransform, dump_config(what_.transform)},
          {kChannels, std::to_string(what_.channels)},
          {kLabels, labels_text(what_.labels)}};
}

void ImageClassification::check_data(const ImageDataset& data) const {
  QN_CHECK(data.channels() == what_.channels, "{} has images of {} channels, the model takes {}", data.path(),
           data.channels(), what_.channels);
  QN_CHECK(may_be_same(data.classes(), what_.labels),
           "{} has other classes ({}) than the model ({}): prepare the images with the classes that it was trained on",
           data.path(), briefly(data.classes()), briefly(what_.labels));
}

void ImageClassification::check_labelled(const ImageDataset& data, const char* remedy) const {
  QN_CHECK_USAGE(data.unlabelled() == 0, "{}: {} of {} images have no class, which {}", data.path(),
                 group_digits(data.unlabelled()), group_digits(data.size()), remedy);
}

std::unique_ptr<ImageBatches> ImageClassification::batches_of(std::shared_ptr<const ImageDataset> data,
                                                              bool training) const {
  ImageBatchOptions options{.transform = what_.transform, .augmentation = {}, .seed = seed_};
  if (config_) options.workers = static_cast<int>(config_->workers);
  if (training) options.augmentation = config_->augmentation;
  return std::make_unique<ImageBatches>(std::move(data), options);
}

void ImageClassification::open_training() {
  const ProfileScope phase(Phase::data);
  valid_data_ = std::make_shared<const ImageDataset>(ImageDataset::open(config_->path, config_->valid));
  check_data(*train_data_);
  check_data(*valid_data_);
  check_labelled(*valid_data_, "validation needs: name a split with classes (data.valid)");
  train_ = batches_of(train_data_, true);
  valid_ = batches_of(valid_data_, false);
  updates_.emplace(train_data_->size(), config_->batch_size, seed_);
  updates_->of_data(train_data_->checksum(), valid_data_->checksum());
}

std::string ImageClassification::describe_data(int64_t micro_batches) const {
  return fmt::format("{} training images of {} classes in batches of {}, {} updates per epoch of {} micro-batches",
                     group_digits(train_data_->size()), group_digits(std::ssize(what_.labels)), config_->batch_size,
                     group_digits(updates_per_epoch(micro_batches)), micro_batches);
}

/// What this rank was asked for last time, it will be asked for again.
void ImageClassification::expect(const std::vector<std::vector<int64_t>>& groups, int64_t epoch) {
  for (const int64_t index : asked_)
    if (index < std::ssize(groups)) train_->expect(groups[static_cast<size_t>(index)], epoch);
}

int64_t ImageClassification::next_update(int64_t micro_batches) {
  const int64_t count = updates_->next(micro_batches);
  std::vector<std::vector<int64_t>> drawn;
  for (int64_t i = 0; i < count; ++i) {
    const std::span<const int64_t> items = updates_->micro_batch(i);
    drawn.emplace_back(items.begin(), items.end());
  }
  if (drawn != coming_) expect(drawn, updates_->drawn_epoch());
  coming_ = updates_->coming(micro_batches);
  expect(coming_, updates_->drawn_epoch());
  asked_.clear();
  return count;
}

MicroBatch ImageClassification::micro_batch_of(std::span<const int64_t> items, ImageBatches& batches, int64_t epoch) {
  images_ = batches.get(items, epoch);
  targets_.clear();
  for (const int64_t item : items) targets_.push_back(train_data_->label(item));
  return {.losses =
              [this](Tape& tape) {
                return teachers_.losses(tape, *model_, [this](Module& module, Tape& own) {
                  auto& model = dynamic_cast<ImageModel&>(module);
                  const Var logits = model.logits(own, input(own, images_.span<float>(), images_.shape));
                  if (std::ranges::find(targets_, kNoClass) != targets_.end()) classify_unlabelled(own, logits.value);
                  return cross_entropy(own, logits, targets_, spread(what_.task.images.label_smoothing));
                });
              },
          .sample_size = std::ssize(items),
          .host_reads = std::ranges::find(targets_, kNoClass) != targets_.end()};
}

void ImageClassification::check_targets() const {
  check_labelled(
      *train_data_,
      "training needs; `quantize` does without them where it makes no updates, or learns from a teacher alone "
      "(ipq.teacher, ipq.teacher_weight: 1)");
}

/// Images without a class get the first teacher's; in passes that learn nothing, whatever the model itself says.
void ImageClassification::classify_unlabelled(Tape& tape, const Tensor& logits) {
  const std::vector<double> values = host_doubles(tape, logits);
  const std::vector<int32_t> classes = first_places(values, static_cast<size_t>(logits.cols()));
  for (size_t i = 0; i < targets_.size(); ++i)
    if (targets_[i] == kNoClass) targets_[i] = classes[i];
}

/// Of PyTorch's smoothing, every class has its part, the right one, too; of cross_entropy()'s only the others.
double ImageClassification::spread(double smoothing) const {
  const auto classes = static_cast<double>(what_.labels.size());
  return smoothing * (classes - 1.0) / classes;
}

MicroBatch ImageClassification::micro_batch(int64_t index, const RandomKey&) {
  const ProfileScope reading(Phase::data, index);
  asked_.push_back(index);
  return micro_batch_of(updates_->micro_batch(index), *train_, updates_->drawn_epoch());
}

/// As evaluation sees images: what is measured on examples is for that.
MicroBatch ImageClassification::example(int64_t i, int64_t count) {
  if (examples_ == nullptr) examples_ = batches_of(train_data_, false);
  return micro_batch_of(updates_->example(i, count), *examples_, updates_->drawn_epoch());
}

/// With a teacher also "agreement", the share of images for which both have the same class first. Images without a
/// class are for that alone.
Evaluation ImageClassification::score(ImageModel& model, ImageModel* teacher, ImageBatches& batches, int64_t batch_size,
                                      const Kernels& kernels, Communicator& comm, DType dtype) const {
  const ProfileScope phase(Phase::validation);
  Arena arena(*kernels.memory);
  Tape tape(kernels, arena, dtype, {});
  const ImageDataset& data = batches.data();
  const BatchList list = in_order(data.size(), batch_size);
  constexpr int64_t kNoEpoch = 0;
  double loss = 0.0;
  std::array<int64_t, 3> right{};  // first, among the first five, as the teacher
  const bool labelled = data.unlabelled() == 0;
  if (comm.rank() < list.size()) batches.expect(list[comm.rank()], kNoEpoch);
  for (int64_t b = comm.rank(); b < list.size(); b += comm.size()) {
    tell_work(b, list.size());
    if (b + comm.size() < list.size()) batches.expect(list[b + comm.size()], kNoEpoch);
    const Tensor images = batches.get(list[b], kNoEpoch);
    std::vector<int32_t> targets;
    for (const int64_t item : list[b]) targets.push_back(data.label(item));
    tape.restart({});
    const Var pixels = input(tape, images.span<float>(), images.shape);
    const Var logits = model.logits(tape, pixels);
    const std::vector<double> values = host_doubles(tape, logits.value);
    const auto classes = static_cast<size_t>(logits.value.cols());
    if (teacher != nullptr) {
      const std::vector<double> theirs = host_doubles(tape, teacher->logits(tape, pixels).value);
      right[2] += same_first(values, theirs, classes);
    }
    for (size_t i = 0; labelled && i < targets.size(); ++i) {
      const int64_t place = place_of(std::span(values).subspan(i * classes, classes), targets[i]);
      right[0] += place == 0 ? 1 : 0;
      right[1] += place < kTop ? 1 : 0;
    }
    if (labelled) {
      const HostView losses(kernels, cross_entropy(tape, logits, targets));
      for (const double value : losses.span<double>()) loss += value;
    }
    arena.reset();
  }
  comm.all_reduce_sum(right);
  Evaluation found{.loss = comm.all_reduce_sum_value(loss), .sample_size = data.size(), .metrics = {}};
  const auto share = [&](int64_t count) { return static_cast<double>(count) / static_cast<double>(data.size()); };
  if (teacher != nullptr)
    found.metrics.push_back({.name = "agreement", .value = share(right[2]), .higher_is_better = true});
  if (!labelled) return found;
  found.metrics.push_back({.name = "top1", .value = share(right[0]), .higher_is_better = true});
  if (std::ssize(what_.labels) > kTop)
    found.metrics.push_back({.name = "top5", .value = share(right[1]), .higher_is_better = true});
  found.metrics.push_back({.name = "loss", .value = found.base2()});
  return found;
}

Evaluation ImageClassification::evaluate_module(Module& module, const Kernels& kernels, Communicator& comm,
                                                DType dtype) {
  auto* model = dynamic_cast<ImageModel*>(&module);
  QN_ASSERT(model != nullptr, "no network for images");
  return score(*model, nullptr, *valid_, config_->batch_size, kernels, comm, dtype);
}

EvalReport ImageClassification::score_data(const EvalConfig& config, const Kernels& kernels, Communicator& comm,
                                           DType dtype) {
  QN_CHECK_USAGE(config.context_window == 0 && config.bpe_marker.empty() && config.break_mode == BreakMode::none &&
                     !config.tokens_per_sample,
                 "--context-window, --bpe-marker, --break-mode and --tokens-per-sample are for texts, this model "
                 "takes images");
  const auto data = std::make_shared<const ImageDataset>(ImageDataset::open(config.data, config.split));
  check_data(*data);
  const std::unique_ptr<ImageBatches> batches = batches_of(data, false);
  std::optional<ModelFile> teacher;
  if (config.teacher.empty())
    check_labelled(*data, "evaluation needs; --teacher MODEL tells how often the model agrees with another one");
  else
    check_teacher(*(teacher = load_teacher(config.teacher, "--teacher", {}, kernels))->task, "--teacher",
                  config.teacher);
  auto* other = teacher ? dynamic_cast<ImageModel*>(&teacher->module()) : nullptr;
  const Evaluation found = score(*model_, other, *batches, kEvalBatch, kernels, comm, dtype);
  EvalReport report{.amount = group_digits(found.sample_size) + " images", .result = found.text(), .fields = {}};
  report.fields.push_back({"images", found.sample_size});
  for (const Metric& metric : found.metrics) report.fields.push_back({metric.name, metric.value});
  return report;
}

std::vector<Prediction> ImageClassification::predict_images(std::span<const std::string> paths, const Kernels& kernels,
                                                            DType dtype) {
  Arena arena(*kernels.memory);
  Tape tape(kernels, arena, dtype, {});
  std::vector<Prediction> found;
  for (const std::string& path : paths) {
    const std::vector<float> pixels = load_image(path, what_.channels, what_.transform);
    const int64_t size = what_.transform.size;
    tape.restart({});
    const Var logits = model_->logits(tape, input(tape, pixels, {1, size, size, what_.channels}));
    found.push_back(most_likely(host_doubles(tape, logits.value), what_.labels));
    arena.reset();
  }
  return found;
}

void ImageClassification::check_teacher(const RunTask& teacher, const char* key, const std::string& path) const {
  const auto* other = dynamic_cast<const ImageClassification*>(&teacher);
  QN_CHECK_USAGE(other != nullptr && may_be_same(other->labels(), what_.labels) &&
                     other->what_.transform == what_.transform && other->what_.channels == what_.channels,
                 "{}: {} is no model of task image_classification with the same classes, channels and data.transform",
                 key, path);
}

void ImageClassification::learn_from(const std::vector<std::string>& files, double weight, const Kernels& kernels) {
  const auto check = [&](const RunTask& teacher, const std::string& path) {
    check_teacher(teacher, "ipq.teacher", path);
  };
  teachers_ = Teachers(files, weight, {}, check, kernels);
}

void ImageClassification::save(StateDict& state) const {
  state.texts[kLabels] = labels_text(what_.labels);
  state.ints[kChannels] = what_.channels;
  updates_->save(state);
}

void ImageClassification::load(const StateDict& state) { updates_->load(state, config_->path, "images"); }

/// What decides which function the weights are of.
std::string ImageClassification::architecture(ModelConfig m) const {
  m.dropout = m.drop_path = 0.0;
  m.norm_momentum = 1.0;
  m.variant = {};  // what it stands for is in the other keys
  return dump_config(ModelSection{m});
}

void ImageClassification::check_weights(const StateDict& state) const {
  if (const auto config = state.texts.find("config"); config != state.texts.end())
    check_architecture(architecture(model_of_checkpoint(config->second).model), architecture(what_.model));
}

void ImageClassification::adapt_whole_weights(StateDict& state) const {
  const std::vector<std::string> theirs = labels_of(state.text(kLabels));
  QN_CHECK(may_be_same(theirs, what_.labels),
           "the model cannot be compressed with the images of {}, which have other classes ({}) than it ({}): prepare "
           "them with its classes, in its order (prepare --classes)",
           config_->path, briefly(what_.labels), briefly(theirs));
}

/// A classifier of other classes is of no use here: the new one begins as it was drawn.
void ImageClassification::adapt_weights(StateDict& state) const {
  const auto labels = state.texts.find(kLabels);
  if (labels != state.texts.end() && may_be_same(labels_of(labels->second), what_.labels)) return;
  const ParameterStore& store = model_->parameters();
  for (const auto& weight : model_->weights().all()) {
    if (weight->group() != groups::kClassifier || weight->dense() == nullptr) continue;
    const std::string layer = weight->name().substr(0, weight->name().rfind('.'));
    for (const auto& p : store.all()) {
      if (!p->name.starts_with(layer + '.')) continue;
      OwnedTensor fresh(p->shape, DType::f32, host_memory());
      const std::vector<float> values = store.values_of(*p);
      std::copy(values.begin(), values.end(), fresh.view().as<float>());
      state.tensors[kParameters + p->name] = std::move(fresh);
    }
  }
  spdlog::info("the classifier begins anew: that of the checkpoint is for other classes");
}

}  // namespace qn
