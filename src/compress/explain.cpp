#include "compress/explain.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "compress/representation.h"
#include "compress/size_report.h"
#include "core/text.h"

namespace qn {
namespace {

/// One line of the table.
struct WeightLine {
  const WeightPlan* plan = nullptr;
  std::string noise, storage, now;
  double bits = 0.0;
  uint64_t bytes = 0;
};

std::string noise_text(const WeightNoise& noise) {
  if (noise.form.empty()) return "-";
  std::string text = fmt::format("{} p={} d={}", noise.form, noise.rate, noise.block);
  for (const auto& [key, value] : noise.options) text += fmt::format(" {}={}", key, value);
  if (noise.schedule.always()) return text;
  text += fmt::format(" window={}..{}", noise.schedule.start, noise.schedule.end);
  return noise.schedule.rate == RateSchedule::constant ? text : text + " " + name_of(noise.schedule.rate);
}

std::string stage_text(const WeightPlan& planned) {
  return planned.stage < 0 ? "-" : std::to_string(planned.stage + 1);
}

std::string now_text(const WeightPlan& planned, const Module& module) {
  const Weight* weight = module.weights().find(planned.name);
  if (weight == nullptr) return "tied";
  return weight->representation().quantized() != nullptr ? "codes" : "dense";
}

std::vector<WeightLine> lines_of(const QuantizationPlan& plan, const Module& module) {
  std::vector<WeightLine> lines;
  for (const WeightPlan& planned : plan.weights) {
    SizeReport size;
    if (planned.quantizer != nullptr)
      size.add_quantized(planned.name, *planned.quantizer, planned.rows, planned.cols, plan.storage.side);
    else
      size.add_dense(planned.name, planned.rows * planned.cols, plan.storage.dense);
    const SizeEntry& entry = size.entries().back();
    lines.push_back({&planned, noise_text(planned.noise), entry.storage, now_text(planned, module),
                     entry.bits_per_value(), entry.bytes()});
  }
  return lines;
}

}  // namespace

std::string explain(const QuantizationPlan& plan, const Module& module) {
  const std::vector<WeightLine> lines = lines_of(plan, module);
  size_t name_width = 6, noise_width = 5;
  for (const WeightLine& line : lines) {
    name_width = std::max(name_width, line.plan->name.size());
    noise_width = std::max(noise_width, line.noise.size());
  }
  std::string text = fmt::format("{:<{}}  {:>16}  {:<{}}  {:>5}  {:<20} {:>7} {:>14}  {:<5}\n", "weight", name_width,
                                 "shape", "noise", noise_width, "stage", "in the file", "bits", "bytes", "now");
  for (const WeightLine& line : lines)
    text += fmt::format("{:<{}}  {:>16}  {:<{}}  {:>5}  {:<20} {:>7.3f} {:>14}  {:<5}\n", line.plan->name, name_width,
                        fmt::format("{} x {}", line.plan->rows, line.plan->cols), line.noise, noise_width,
                        stage_text(*line.plan), line.storage, line.bits, group_digits(static_cast<int64_t>(line.bytes)),
                        line.now);
  if (!module.shared().empty()) text += "\nshared weights, stored once\n";
  for (const SharedPart& part : module.shared()) text += fmt::format("{} = {}\n", part.name, part.of);
  if (plan.activations.empty()) return text + "\nno activations are quantized\n";
  text += fmt::format(
      "\nactivations that are quantized ({})\n",
      plan.round_activations ? "in training and evaluation" : "in evaluation; training keeps them within their range");
  for (const ActivationPlan& activation : plan.activations)
    text += fmt::format("{}  {} bits{}\n", activation.name, activation.bits,
                        activation.range == RangeMethod::histogram ? " histogram" : "");
  return text;
}

std::string explain_json(const QuantizationPlan& plan, const Module& module) {
  using Json = nlohmann::ordered_json;
  Json weights = Json::array(), shared = Json::object(), activations = Json::array();
  for (const WeightLine& line : lines_of(plan, module)) {
    const WeightPlan& w = *line.plan;
    Json json{{"name", w.name}, {"shape", {w.rows, w.cols}}, {"noise", nullptr}, {"stage", nullptr}};
    if (!w.noise.form.empty())
      json["noise"] = {{"form", w.noise.form},
                       {"rate", w.noise.rate},
                       {"block", w.noise.block},
                       {"options", w.noise.options},
                       {"window", {w.noise.schedule.start, w.noise.schedule.end}},
                       {"schedule", name_of(w.noise.schedule.rate)}};
    if (w.stage >= 0) json["stage"] = w.stage + 1;
    json["storage"] = line.storage;
    json["bits_per_weight"] = line.bits;
    json["bytes"] = line.bytes;
    json["now"] = line.now;
    weights.push_back(std::move(json));
  }
  for (const ActivationPlan& activation : plan.activations)
    activations.push_back({{"name", activation.name}, {"bits", activation.bits}, {"range", name_of(activation.range)}});
  for (const SharedPart& part : module.shared()) shared[part.name] = part.of;
  return Json{{"stages", plan.stages}, {"weights", weights}, {"shared", shared}, {"activations", activations}}.dump();
}

}  // namespace qn
