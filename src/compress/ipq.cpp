#include "compress/ipq.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "compress/kmeans_state.h"
#include "core/fault_point.h"
#include "core/profiler.h"
#include "ops/host_access.h"
#include "quant/pq_quantizer.h"

namespace qn {
namespace {

constexpr const char *kPrefix = "ipq", *kStarts = "ipq/starts/", *kNoise = "noise/centroids/";

/// Weights of a stage whose fit is a k-means (`kmeans`), or the others.
std::vector<WeightPlan> weights_of(const QuantizationPlan& plan, int64_t stage, bool kmeans) {
  std::vector<WeightPlan> weights = plan.stage(stage);
  std::erase_if(weights, [&](const WeightPlan& w) { return w.quantizer->kmeans().has_value() != kmeans; });
  return weights;
}

std::vector<KMeansOf> kmeans_of(const std::vector<WeightPlan>& weights) {
  std::vector<KMeansOf> result;
  for (const WeightPlan& w : weights) result.push_back({w.name, w.quantizer->kmeans().value()});
  return result;
}

/// All weights of a stage, in the order in which they are represented anew: it is the order of the store.
std::vector<WeightPlan> in_order(const QuantizationPlan& plan, int64_t stage) {
  std::vector<WeightPlan> weights = weights_of(plan, stage, true), others = weights_of(plan, stage, false);
  std::move(others.begin(), others.end(), std::back_inserter(weights));
  return weights;
}

void represent(Module& module, const QuantizationPlan& plan, const std::string& name, QuantizedTensor tensor,
               RepresentationSwap& swap) {
  Weight* weight = module.weights().find(name);
  if (plan.cut_ties)
    for (Weight* own : module.weights().untie(module.parameters(), weight)) apply_noise(*own, plan);
  swap.replace(*weight, std::move(tensor));
}

std::string side_entry(const std::string& weight, const std::string& side) {
  return "ipq/values/" + weight + "/" + side;
}

bool is_trained(const Weight& weight, const std::string& side) {
  return std::any_of(weight.parts().begin(), weight.parts().end(),
                     [&](const WeightPart& part) { return part.role == side; });
}

std::string codes_entry(const std::string& weight) { return "ipq/codes/" + weight; }

/// As small integers.
OwnedTensor tensor_of_codes(const QuantizedTensor& tensor) {
  return codes_to_tensor(tensor.codes, tensor.quantizer->layout(tensor.rows, tensor.cols).bits() <= 8);
}

/// Codes, and the values that no parameter holds.
void save_quantized(const Weight& weight, StateDict& state) {
  const QuantizedTensor& tensor = *weight.representation().quantized();
  state.tensors[codes_entry(weight.name())] = tensor_of_codes(tensor);
  for (const SideValues& side : tensor.values)
    if (!is_trained(weight, side.name))
      state.tensors[side_entry(weight.name(), side.name)] = tensor_of(side.values, side.shape);
}

/// Values that are no entries of their own are zero: they are trained, and loaded with the parameters.
QuantizedTensor load_quantized(const WeightPlan& planned, const StateDict& state) {
  QuantizedTensor tensor{.quantizer = planned.quantizer, .rows = planned.rows, .cols = planned.cols};
  tensor.codes = codes_from_tensor(state.tensor(codes_entry(planned.name)));
  for (const SideLayout& side : planned.quantizer->layout(planned.rows, planned.cols).side) {
    SideValues& values = tensor.values.emplace_back(SideValues{side.name, side.shape, {}});
    const auto entry = state.tensors.find(side_entry(planned.name, side.name));
    if (entry != state.tensors.end())
      values.values = values_of<float>(entry->second.view());
    else
      values.values.resize(static_cast<size_t>(side.shape.elements()));
  }
  return tensor;
}

void add_errors(const float* original, const QuantizedTensor& tensor, SquaredErrors& errors) {
  std::vector<float> decoded(static_cast<size_t>(tensor.rows * tensor.cols));
  tensor.quantizer->decode(tensor, decoded.data());
  for (size_t i = 0; i < decoded.size(); ++i) {
    const double value = original[i], difference = static_cast<double>(decoded[i]) - value;
    errors.error += difference * difference;
    errors.original += value * value;
  }
}

CodeTraining training_of(const QuantizationPlan& plan, CentroidGradient gradient, bool latent) {
  return {.gradient = gradient, .int8_centroids = plan.storage.side == ValueStorage::int8, .latent = latent};
}

}  // namespace

int64_t restore_quantized(Module& module, const QuantizationPlan& plan, CentroidGradient gradient,
                          const StateDict& state, bool latent) {
  const auto entry = state.ints.find("ipq/stages_done");
  const int64_t done = entry == state.ints.end() ? 0 : entry->second;
  QN_CHECK(done <= plan.stages,
           "the checkpoint has {} quantized stages, ipq.stages has {}: resume with the stages it was "
           "started with",
           done, plan.stages);
  if (done == 0) return 0;
  RepresentationSwap swap(module, training_of(plan, gradient, latent));
  for (int64_t stage = 0; stage < done; ++stage)
    for (const WeightPlan& planned : in_order(plan, stage))
      represent(module, plan, planned.name, load_quantized(planned, state), swap);
  swap.finish();
  return done;
}

void save_codes(const Module& module, StateDict& state) {
  for (const auto& weight : module.weights().all())
    if (const QuantizedTensor* tensor = weight->representation().quantized())
      state.tensors[codes_entry(weight->name())] = tensor_of_codes(*tensor);
}

void load_codes(Module& module, const StateDict& state) {
  for (const auto& weight : module.weights().all())
    if (MovableCodes* movable = movable_codes(*weight))
      movable->set_codes(module.parameters().kernels(), codes_from_tensor(state.tensor(codes_entry(weight->name()))));
}

IpqMachine::IpqMachine(const IpqConfig& config, Module& module, Communicator& comm, uint64_t seed,
                       QuantizationPlan plan, RowImportance row_importance)
    : config_(config),
      module_(module),
      comm_(comm),
      seed_(seed),
      plan_(std::move(plan)),
      importances_(std::move(row_importance)) {}

std::vector<std::string> IpqMachine::weights_with_columns() const {
  std::vector<std::string> names;
  for (const WeightPlan& planned : weights_of(plan_, stages_done_, true)) names.push_back(planned.name);
  return names;
}

std::map<std::string, double> IpqMachine::kmeans_objectives() const {
  std::map<std::string, double> objectives;
  if (!pending_) return objectives;
  const std::vector<WeightPlan> weights = weights_of(plan_, stages_done_, true);
  for (size_t i = 0; i < weights.size(); ++i) objectives[weights[i].name] = pending_->objective_history[i].back();
  return objectives;
}

std::span<const float> IpqMachine::columns_of(const std::string& weight) const {
  const auto found = columns_.find(weight);
  return found == columns_.end() ? std::span<const float>() : std::span<const float>(found->second);
}

std::vector<KMeansProblem> IpqMachine::problems_of(const std::vector<WeightPlan>& weights,
                                                   std::vector<ScaledRows>& scaled) {
  std::vector<KMeansProblem> problems;
  scaled.resize(weights.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    const WeightPlan& planned = weights[i];
    const Weight* weight = module_.weights().find(planned.name);
    const KMeansShape shape = planned.quantizer->kmeans().value();
    const auto start = starts_.find(planned.name);
    KMeansProblem problem{.name = planned.name,
                          .weight = weight->dense()->value.as<float>(),
                          .rows = planned.rows,
                          .cols = planned.cols,
                          .block_size = shape.block_size,
                          .n_centroids = shape.n_centroids,
                          .initial_centroids = start == starts_.end() ? std::vector<float>{} : start->second,
                          .row_importance = importances_.of(*weight),
                          .column_importance = columns_of(planned.name)};
    if (shape.row_scales) {
      scaled[i] = ScaledRows(module_.parameters().kernels(),
                             weight->dense()->value.reshaped({planned.rows, planned.cols}), problem.row_importance);
      problem.weight = scaled[i].values();
      problem.row_importance = scaled[i].importance();
    }
    problems.push_back(std::move(problem));
  }
  return problems;
}

QuantizedTensor IpqMachine::fitted(const WeightPlan& planned, PqTable table, SquaredErrors& errors) {
  if (!planned.quantizer->kmeans()->row_scales) return tensor_of_table(planned.quantizer, std::move(table));
  const HostView values(module_.parameters().kernels(), module_.weights().find(planned.name)->dense()->value);
  const float* original = values.span<float>().data();
  std::vector<float> scales = fitted_row_scales(original, table, columns_of(planned.name));
  QuantizedTensor tensor = tensor_of_table(planned.quantizer, std::move(table), std::move(scales));
  add_errors(original, tensor, errors);
  return tensor;
}

bool IpqMachine::run_kmeans(const std::vector<WeightPlan>& weights, const std::function<bool(int64_t)>& keep_going,
                            StageReport& report, SquaredErrors& errors, RepresentationSwap& swap) {
  if (weights.empty()) return true;
  std::vector<ScaledRows> scaled;
  StageKMeans kmeans(
      problems_of(weights, scaled),
      {.iterations = config_.kmeans_iterations, .seed = seed_, .stage = static_cast<uint32_t>(stages_done_)}, comm_,
      module_.parameters().kernels());
  if (pending_) kmeans.restore(*pending_);
  while (kmeans.step()) {
    pending_ = kmeans.state();
    fault_point("kmeans.iteration");
    if (keep_going && !keep_going(pending_->iteration)) return false;
  }
  std::vector<WeightResult> results = kmeans.finish();
  report.iterations = kmeans.state().iteration;
  for (size_t i = 0; i < results.size(); ++i) report.objectives[weights[i].name] = results[i].objective;
  fault_point("kmeans.end");
  const std::vector<SquaredErrors> found = kmeans.squared_errors();
  for (size_t i = 0; i < results.size(); ++i) {
    report.splits += results[i].resolved_empty;
    if (!weights[i].quantizer->kmeans()->row_scales) {  // those of scaled rows are not the weight's
      errors.error += found[i].error;
      errors.original += found[i].original;
    }
    represent(module_, plan_, weights[i].name, fitted(weights[i], std::move(results[i].table), errors), swap);
  }
  return true;
}

/// Every rank has the whole weight and comes to the same codes.
QuantizedTensor IpqMachine::quantize(const WeightPlan& planned, SquaredErrors& errors) {
  const Weight* weight = module_.weights().find(planned.name);
  const HostView values(module_.parameters().kernels(), weight->dense()->value);
  const float* original = values.span<float>().data();
  QuantizedTensor tensor = planned.quantizer->quantize(original, planned.rows, planned.cols, importances_.of(*weight));
  add_errors(original, tensor, errors);
  return tensor;
}

std::optional<StageReport> IpqMachine::run_stage(const std::function<bool(int64_t)>& keep_going) {
  QN_ASSERT(stages_done_ < stages());
  const ProfileScope phase(Phase::kmeans, stages_done_ + 1);
  const auto start = std::chrono::steady_clock::now();
  StageReport report{.stage = stages_done_, .weights = std::ssize(plan_.stage(stages_done_))};
  SquaredErrors errors;
  RepresentationSwap swap(module_, training_of(plan_, config_.centroid_gradient, config_.reassign_updates > 0));
  if (!run_kmeans(weights_of(plan_, stages_done_, true), keep_going, report, errors, swap)) return std::nullopt;
  for (const WeightPlan& planned : weights_of(plan_, stages_done_, false))
    represent(module_, plan_, planned.name, quantize(planned, errors), swap);
  fault_point("stage.swap");
  swap.finish();
  pending_.reset();
  columns_.clear();
  ++stages_done_;
  report.relative_error = errors.original > 0.0 ? std::sqrt(errors.error / errors.original) : 0.0;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

void IpqMachine::read_starts(const StateDict& state, const char* prefix) {
  for (const WeightPlan& planned : plan_.quantized()) {
    const auto kmeans = planned.quantizer->kmeans();
    const auto centroids = state.tensors.find(prefix + planned.name);
    // Codebooks of noise are of rows that are not scaled.
    if (!kmeans || kmeans->row_scales || centroids == state.tensors.end()) continue;
    const Tensor& values = centroids->second.view();
    if (values.shape == Shape{kmeans->n_centroids, kmeans->block_size})
      starts_[planned.name] = values_of<float>(values);
  }
}

void IpqMachine::start_from_noise(const StateDict& state) { read_starts(state, kNoise); }

int64_t IpqMachine::move_codes() {
  int64_t moved = 0;
  for (const auto& weight : module_.weights().all())
    if (MovableCodes* movable = movable_codes(*weight))
      moved += movable->move_codes(module_.parameters().kernels(), config_.reassign_share);
  return moved;
}

void IpqMachine::save(StateDict& state) const {
  state.ints["ipq/stages_done"] = stages_done_;
  for (int64_t s = 0; s < stages_done_; ++s)
    for (const WeightPlan& planned : plan_.stage(s)) save_quantized(*module_.weights().find(planned.name), state);
  save_kmeans(state, kPrefix, kmeans_of(weights_of(plan_, stages_done_, true)), pending_);
  for (int64_t s = stages_done_; s < stages(); ++s)
    for (const WeightPlan& planned : plan_.stage(s))
      if (const auto start = starts_.find(planned.name); start != starts_.end()) {
        const KMeansShape kmeans = planned.quantizer->kmeans().value();
        state.tensors[kStarts + planned.name] = tensor_of(start->second, {kmeans.n_centroids, kmeans.block_size});
      }
}

void IpqMachine::load(const StateDict& state) {
  stages_done_ = restore_quantized(module_, plan_, config_.centroid_gradient, state, config_.reassign_updates > 0);
  pending_ = load_kmeans(state, kPrefix, kmeans_of(weights_of(plan_, stages_done_, true)));
  read_starts(state, kStarts);
}

}  // namespace qn
