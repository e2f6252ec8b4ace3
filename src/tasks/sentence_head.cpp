// What the checkpoints of classifiers of sentences say of classes, and what a run takes of another one's head.
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "ops/host_access.h"
#include "tasks/classes.h"
#include "tasks/sentence_prediction.h"

namespace qn {
namespace {

constexpr const char *kHead = "classification_heads.", *kHeadName = "sentence_classification_head";

std::string named(const std::vector<std::string>& labels) {
  return labels.empty() ? "numbers" : fmt::format("the classes {}", fmt::join(labels, ", "));
}

const char* inputs_named(bool pairs) { return pairs ? "pairs of sentences" : "single sentences"; }

}  // namespace

/// Whether a file's inputs are pairs, where it says so.
std::optional<bool> SentencePrediction::pairs_of(const std::map<std::string, std::string>& texts) {
  const auto found = texts.find(kPairs);
  return found == texts.end() ? std::nullopt : std::optional(found->second == "true");
}

void SentencePrediction::save(StateDict& state) const {
  TextTask::save(state);
  state.texts[kLabels] = labels_text(labels_);
  if (pairs_) state.texts[kPairs] = *pairs_ ? "true" : "false";
}

void SentencePrediction::load(const StateDict& state) {
  const Labels theirs = labels_of(state.text(kLabels));
  QN_CHECK(theirs == labels_,
           "{} has {} by now, but the run that is to go on began with {}, in this order: prepare it with --label-dict "
           "as it was, or begin anew in another folder",
           data_path(), named(labels_), named(theirs));
  TextTask::load(state);
}

/// The first half of BERT's head was pretrained, for whatever classes.
bool SentencePrediction::keeps_pooler(const std::string& name) const {
  return blueprint().model.type == ModelType::bert && name.starts_with(std::string(kHead) + kHeadName + ".dense.");
}

std::string SentencePrediction::other_head(const StateDict& state) const {
  const auto labels = state.texts.find(kLabels);
  if (labels == state.texts.end()) return "the checkpoint is of a model without one";
  const Labels theirs = labels_of(labels->second);
  if (!std::is_permutation(theirs.begin(), theirs.end(), labels_.begin(), labels_.end()))
    return fmt::format("that of the checkpoint is for {}, these data have {}", named(theirs), named(labels_));
  const std::optional<bool> pairs = pairs_of(state.texts);
  if (pairs && pairs_ && *pairs != *pairs_)
    return fmt::format("that of the checkpoint is for {}, these data have {}", inputs_named(*pairs),
                       inputs_named(*pairs_));
  return {};
}

/// Classes are numbered as the data have them, which may be another order: rows of the last layer go with their names.
void SentencePrediction::reorder_head(StateDict& state) const {
  const Labels theirs = labels_of(state.text(kLabels));
  if (theirs == labels_) return;
  for (const char* part : {".out_proj.weight", ".out_proj.bias"}) {
    const auto entry = state.tensors.find(std::string(kParameters) + kHead + kHeadName + part);
    if (entry == state.tensors.end()) continue;  // load_module() will say so
    const Tensor rows = entry->second.view();
    QN_CHECK(rows.dtype == DType::f32 && rows.shape[0] == std::ssize(labels_),
             "the checkpoint's {} has {} rows, its {} classes are due: it is damaged", entry->first, rows.shape[0],
             labels_.size());
    OwnedTensor ordered(rows.shape, DType::f32, host_memory());
    const int64_t width = rows.elements() / std::ssize(labels_);
    for (size_t i = 0; i < labels_.size(); ++i) {
      const auto row = std::find(theirs.begin(), theirs.end(), labels_[i]) - theirs.begin();
      std::copy_n(rows.as<float>() + row * width, width, ordered.view().as<float>() + static_cast<int64_t>(i) * width);
    }
    entry->second = std::move(ordered);
  }
  spdlog::info("the checkpoint has its classes in another order ({}): its head goes by their names",
               fmt::join(theirs, ", "));
}

void SentencePrediction::adapt_whole_weights(StateDict& state) const {
  const std::string other = other_head(state);
  QN_CHECK(other.empty(),
           "the model cannot be compressed with the data of {}, as for its classification head: {}. Name a checkpoint "
           "that was trained on such data, or data with its classes (prepare --label-dict)",
           data_path(), other);
  reorder_head(state);
}

/// A head for other classes is of no use here: the new one begins as it was drawn.
void SentencePrediction::adapt_weights(StateDict& state) const {
  std::string other = other_head(state);
  const auto fits = [&](const std::string& entry, const Shape& shape) {
    const auto found = state.tensors.find(entry);
    return found != state.tensors.end() && found->second.view().shape == shape;
  };
  const ParameterStore& store = model_->parameters();
  for (const auto& p : store.all())
    if (other.empty() && p->name.starts_with(kHead) && !fits(kParameters + p->name, p->shape))
      other = "that of the checkpoint is of another shape";
  if (other.empty()) {
    reorder_head(state);
    spdlog::info("the classification head is that of the checkpoint: it has the same classes");
    return;
  }
  bool pooler = false;
  for (const auto& p : store.all()) {
    if (!p->name.starts_with(kHead)) continue;
    if (keeps_pooler(p->name) && fits(kParameters + p->name, p->shape)) {
      pooler = true;
      continue;
    }
    OwnedTensor fresh(p->shape, DType::f32, host_memory());
    const std::vector<float> values = store.values_of(*p);
    std::copy(values.begin(), values.end(), fresh.view().as<float>());
    state.tensors[kParameters + p->name] = std::move(fresh);
  }
  for (const auto& buffer : model_->buffers().all())
    if (const std::string entry = "buffers/" + buffer->name;
        buffer->name.starts_with(kHead) && !state.tensors.contains(entry))
      state.tensors[entry] = copy_of(HostView(store.kernels(), buffer->value.view()).view());
  spdlog::info("the classification head begins anew{}: {}", pooler ? ", but for the pooler" : "", other);
}

}  // namespace qn
