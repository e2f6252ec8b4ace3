// Plans as JSON, and what two plans differ in.
#include <nlohmann/json.hpp>

#include "compress/plan.h"
#include "core/error.h"

namespace qn {
namespace {

using Json = nlohmann::ordered_json;

Json noise_to_json(const WeightNoise& noise) {
  Json json{{"form", noise.form}, {"rate", noise.rate}, {"block", noise.block}};
  if (!noise.options.empty()) json["options"] = noise.options;
  return json;
}

WeightNoise noise_from_json(const Json& json) {
  return {.form = json.at("form"),
          .rate = json.at("rate"),
          .block = json.at("block"),
          .options = json.value("options", QuantizerOptions())};
}

/// What weights have in common is written once, and named by its number.
class Shared {
 public:
  int64_t number_of(const Json& value) {
    for (size_t i = 0; i < values_.size(); ++i)
      if (values_[i] == value) return static_cast<int64_t>(i);
    values_.push_back(value);
    return std::ssize(values_) - 1;
  }
  const Json& all() const { return values_; }

 private:
  Json values_ = Json::array();
};

/// What is not there is not planned.
Json weight_to_json(const WeightPlan& weight, Shared& quantizers, Shared& noises) {
  Json json{{"shape", {weight.rows, weight.cols}}};
  if (!weight.tied_to.empty()) json["tied_to"] = weight.tied_to;
  if (weight.stage >= 0) {
    json["stage"] = weight.stage;
    json["quantizer"] =
        quantizers.number_of({{"type", weight.quantizer->type()}, {"options", weight.quantizer->options()}});
  }
  if (!weight.noise.form.empty()) json["noise"] = noises.number_of(noise_to_json(weight.noise));
  return json;
}

WeightPlan weight_from_json(const std::string& name, const Json& json, const Json& plan) {
  WeightPlan weight{.name = name,
                    .group = {},
                    .rows = json.at("shape").at(0),
                    .cols = json.at("shape").at(1),
                    .tied_to = json.value("tied_to", std::string())};
  if (json.contains("stage")) {
    weight.stage = json.at("stage");
    const Json& quantizer = plan.at("quantizers").at(json.at("quantizer").get<size_t>());
    weight.quantizer = make_quantizer(quantizer.at("type"), quantizer.at("options").get<QuantizerOptions>());
    weight.quantizer->check(weight.rows, weight.cols, name);
  }
  if (json.contains("noise")) weight.noise = noise_from_json(plan.at("noises").at(json.at("noise").get<size_t>()));
  return weight;
}

QuantizationPlan plan_from_json(const Json& json, const std::string& where) {
  QuantizationPlan plan;
  plan.stages = json.at("stages");
  plan.cut_ties = json.at("cut_ties");
  plan.storage.side = value_named<ValueStorage>(json.at("storage").at("side").get<std::string>(), where + ": storage");
  plan.storage.dense =
      value_named<ValueStorage>(json.at("storage").at("dense").get<std::string>(), where + ": storage");
  for (const auto& [name, weight] : json.at("weights").items()) {
    plan.weights.push_back(weight_from_json(name, weight, json));
    const int64_t stage = plan.weights.back().stage;
    QN_CHECK(stage >= -1 && stage < plan.stages, "{}: '{}' is in stage {} of {}", where, name, stage, plan.stages);
  }
  if (json.contains("activations")) {
    plan.round_activations = json.at("activations").at("round_in_training");
    for (const auto& [name, bits] : json.at("activations").at("bits").items())
      plan.activations.push_back({name, bits.get<int>()});
  }
  return plan;
}

std::string how(const WeightPlan& weight) {
  return weight.stage < 0 ? "not quantized" : fmt::format("stage {}, {}", weight.stage + 1, weight.quantizer->text());
}

}  // namespace

std::string plan_to_text(const QuantizationPlan& plan) {
  Shared quantizers, noises;
  Json weights = Json::object();
  for (const WeightPlan& weight : plan.weights) weights[weight.name] = weight_to_json(weight, quantizers, noises);
  Json json{{"stages", plan.stages},
            {"cut_ties", plan.cut_ties},
            {"storage", {{"side", name_of(plan.storage.side)}, {"dense", name_of(plan.storage.dense)}}},
            {"quantizers", quantizers.all()},
            {"noises", noises.all()},
            {"weights", weights}};
  if (!plan.activations.empty()) {
    Json bits = Json::object();
    for (const ActivationPlan& activation : plan.activations) bits[activation.name] = activation.bits;
    json["activations"] = {{"round_in_training", plan.round_activations}, {"bits", bits}};
  }
  return json.dump();
}

QuantizationPlan plan_from_text(const std::string& text, const std::string& where) {
  try {
    return plan_from_json(Json::parse(text), where);
  } catch (const Json::exception& error) {
    fail("{} is no quantization plan ({}): the file is damaged, or a newer quantnoise wrote it", where, error.what());
  }
}

void check_plan(const QuantizationPlan& plan, const WeightSet& weights, const std::string& where) {
  for (const WeightPlan& planned : plan.weights) {
    const Weight* weight = weights.find(planned.tied_to.empty() ? planned.name : planned.tied_to);
    QN_CHECK(weight != nullptr, "{} plans a weight '{}' that the model does not have: it belongs to another model",
             where, planned.name);
    QN_CHECK(weight->rows() == planned.rows && weight->cols() == planned.cols,
             "{} plans '{}' as {} x {}, the model's is {} x {}: it belongs to another model", where, planned.name,
             planned.rows, planned.cols, weight->rows(), weight->cols());
  }
}

std::vector<std::string> quantization_differences(const QuantizationPlan& stored, const QuantizationPlan& fresh) {
  std::vector<std::string> lines;
  if (stored.stages != fresh.stages) lines.push_back(fmt::format("{} stages, now {}", stored.stages, fresh.stages));
  if (stored.cut_ties != fresh.cut_ties)
    lines.push_back(fmt::format("ties of quantized weights are {}, now {}", stored.cut_ties ? "cut" : "kept",
                                fresh.cut_ties ? "cut" : "kept"));
  for (const WeightPlan& was : stored.weights) {
    const WeightPlan* now = fresh.find(was.name);
    if (now != nullptr && how(was) != how(*now))
      lines.push_back(fmt::format("{}: {}, now {}", was.name, how(was), how(*now)));
  }
  return lines;
}

}  // namespace qn
