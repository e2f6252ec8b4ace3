#include "compress/ipq.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <cmath>

#include "compress/fairseq_config.h"
#include "core/profiler.h"
#include "core/special_tokens.h"

namespace qn {
namespace {

/// What fairseq's layer has that does not follow from the weight's shape: of token tables, only the one with the
/// padding token's row knows it.
std::map<std::string, std::string> attributes_of(const Weight& weight) {
  if (weight.kind() != WeightKind::embedding || weight.first_token() < 0) return {};
  const bool has_padding = weight.first_token() <= kPadId && kPadId < weight.first_token() + weight.rows();
  return {{"padding_idx", has_padding ? std::to_string(kPadId - weight.first_token()) : "None"}};
}

std::vector<WeightInfo> infos_of(const WeightSet& weights) {
  std::vector<WeightInfo> infos;
  for (const auto& w : weights.all())
    infos.push_back({.name = w->name(),
                     .kind = w->kind(),
                     .rows = w->rows(),
                     .cols = w->cols(),
                     .group = w->group(),
                     .aliases = weights.aliases_of(w.get()),
                     .attributes = attributes_of(*w)});
  return infos;
}

template <typename T>
OwnedTensor tensor_of(const std::vector<T>& values, Shape shape) {
  return copy_of(qn::view_of(values.data(), shape));
}

template <typename T>
std::vector<T> values_of(const Tensor& tensor) {
  return {tensor.span<T>().begin(), tensor.span<T>().end()};
}

}  // namespace

QuantizePlan make_ipq_plan(const IpqConfig& config, const WeightSet& weights) {
  QuantizeRules rules = config.rules.empty() ? default_quantize_rules() : read_quantize_rules(config.rules);
  if (!config.stages.empty()) {
    rules.stages.clear();
    for (const std::string& pattern : config.stages) rules.stages.push_back({pattern, "ipq.stages"});
  }
  return make_plan(rules, infos_of(weights));
}

IpqMachine::IpqMachine(const IpqConfig& config, Module& model, Communicator& comm, uint64_t seed,
                       std::function<std::vector<float>(const Weight&)> row_importance)
    : config_(config),
      model_(model),
      comm_(comm),
      seed_(seed),
      plan_(make_ipq_plan(config, model.weights())),
      row_importance_(std::move(row_importance)) {}

std::span<const float> IpqMachine::row_importance_of(const Weight& weight) {
  const auto [entry, is_new] = importances_.try_emplace(&weight);
  if (is_new && row_importance_) entry->second = row_importance_(weight);
  return entry->second;
}

std::vector<KMeansProblem> IpqMachine::problems_of(int64_t stage) {
  std::vector<KMeansProblem> problems;
  for (const PlannedWeight& planned : plan_.stages[static_cast<size_t>(stage)]) {
    const Weight* weight = model_.weights().find(planned.name);
    problems.push_back({.name = planned.name,
                        .weight = weight->dense()->value.as<float>(),
                        .rows = planned.rows,
                        .cols = planned.cols,
                        .block_size = planned.block_size,
                        .n_centroids = planned.n_centroids,
                        .initial_centroids = {},
                        .row_importance = row_importance_of(*weight)});
  }
  return problems;
}

void IpqMachine::represent(const PlannedWeight& planned, PqTable table, RepresentationSwap& swap) {
  Weight* weight = model_.weights().find(planned.name);
  if (config_.dense_softmax) model_.weights().untie(model_.parameters(), weight);
  swap.replace(*weight, std::move(table));
}

StageReport IpqMachine::apply(int64_t stage, std::vector<WeightResult> results, std::span<const SquaredErrors> errors) {
  StageReport report{.stage = stage, .weights = static_cast<int64_t>(results.size())};
  RepresentationSwap swap(model_, config_.centroid_gradient);
  double error = 0.0, original = 0.0;
  for (size_t i = 0; i < results.size(); ++i) {
    const PlannedWeight& planned = plan_.stages[static_cast<size_t>(stage)][i];
    error += errors[i].error;
    original += errors[i].original;
    report.splits += results[i].resolved_empty;
    represent(planned, std::move(results[i].table), swap);
  }
  swap.finish();
  report.relative_error = original > 0.0 ? std::sqrt(error / original) : 0.0;
  return report;
}

std::optional<StageReport> IpqMachine::run_stage(const std::function<bool(int64_t)>& keep_going) {
  QN_ASSERT(stages_done_ < stages());
  const ProfileScope phase(Phase::kmeans, stages_done_ + 1);
  const auto start = std::chrono::steady_clock::now();
  StageKMeans kmeans(
      problems_of(stages_done_),
      {.iterations = config_.kmeans_iterations, .seed = seed_, .stage = static_cast<uint32_t>(stages_done_)}, comm_,
      model_.parameters().kernels());
  if (pending_) kmeans.restore(*pending_);
  while (kmeans.step()) {
    pending_ = kmeans.state();
    if (!keep_going(pending_->iteration)) return std::nullopt;
  }
  std::vector<WeightResult> results = kmeans.finish();
  StageReport report = apply(stages_done_, std::move(results), kmeans.squared_errors());
  pending_.reset();
  ++stages_done_;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

void IpqMachine::save(StateDict& state) const {
  state.ints["ipq/stages_done"] = stages_done_;
  state.ints["ipq/kmeans_iteration"] = pending_ ? pending_->iteration : 0;
  for (int64_t s = 0; s < stages_done_; ++s)
    for (const PlannedWeight& planned : plan_.stages[static_cast<size_t>(s)]) {
      const PqTable& table = pq_representation(*model_.weights().find(planned.name))->table();
      const std::vector<int32_t> codes(table.codes.begin(), table.codes.end());
      state.tensors["ipq/codes/" + planned.name] = tensor_of(codes, {static_cast<int64_t>(codes.size())});
    }
  if (!pending_) return;
  const auto& stage = plan_.stages[static_cast<size_t>(stages_done_)];
  state.tensors["ipq/kmeans/splits"] = tensor_of(pending_->splits, {static_cast<int64_t>(stage.size())});
  for (size_t i = 0; i < stage.size(); ++i) {
    const Shape shape{stage[i].n_centroids, stage[i].block_size};
    state.tensors["ipq/kmeans/centroids/" + stage[i].name] = tensor_of(pending_->centroids[i], shape);
    state.tensors["ipq/kmeans/assigning_centroids/" + stage[i].name] =
        tensor_of(pending_->assigning_centroids[i], shape);
    state.tensors["ipq/kmeans/objective/" + stage[i].name] =
        tensor_of(pending_->objective_history[i], {static_cast<int64_t>(pending_->objective_history[i].size())});
  }
}

void IpqMachine::load(const StateDict& state) {
  const int64_t done = state.integer("ipq/stages_done");
  QN_CHECK(done <= stages(),
           "the checkpoint has {} quantized stages, ipq.stages has {}: resume with the stages it was "
           "started with",
           done, stages());
  RepresentationSwap swap(model_, config_.centroid_gradient);
  for (stages_done_ = 0; stages_done_ < done; ++stages_done_)
    for (const PlannedWeight& planned : plan_.stages[static_cast<size_t>(stages_done_)]) {
      PqTable table{.rows = planned.rows,
                    .cols = planned.cols,
                    .block_size = planned.block_size,
                    .n_centroids = planned.n_centroids,
                    .centroids = {},
                    .codes = {},
                    .counts = {}};
      const auto codes = state.tensor("ipq/codes/" + planned.name).span<int32_t>();
      table.codes.assign(codes.begin(), codes.end());
      table.centroids.resize(static_cast<size_t>(planned.n_centroids * planned.block_size));
      represent(planned, std::move(table), swap);
    }
  swap.finish();
  const int64_t iteration = state.integer("ipq/kmeans_iteration");
  if (iteration == 0) return;
  KMeansState pending{.iteration = iteration,
                      .centroids = {},
                      .assigning_centroids = {},
                      .objective_history = {},
                      .splits = values_of<int64_t>(state.tensor("ipq/kmeans/splits"))};
  for (const PlannedWeight& planned : plan_.stages[static_cast<size_t>(stages_done_)]) {
    pending.centroids.push_back(values_of<float>(state.tensor("ipq/kmeans/centroids/" + planned.name)));
    pending.assigning_centroids.push_back(
        values_of<float>(state.tensor("ipq/kmeans/assigning_centroids/" + planned.name)));
    pending.objective_history.push_back(values_of<double>(state.tensor("ipq/kmeans/objective/" + planned.name)));
  }
  pending_ = std::move(pending);
}

}  // namespace qn
