// Plans as JSON, and what two plans differ in.
#include <algorithm>

#include "compress/plan.h"
#include "core/error.h"
#include "core/strict_json.h"
#include "quant/scalar_quantizer.h"

namespace qn {
namespace {

using Json = nlohmann::ordered_json;

Json noise_to_json(const WeightNoise& noise) {
  Json json{{"form", noise.form}, {"rate", noise.rate}, {"block", noise.block}};
  if (!noise.options.empty()) json["options"] = noise.options;
  if (!noise.schedule.always()) {
    json["window"] = {noise.schedule.start, noise.schedule.end};
    json["schedule"] = name_of(noise.schedule.rate);
  }
  return json;
}

WeightNoise noise_from_json(const Json& json, const std::string& what) {
  WeightNoise noise{.form = json.at("form"),
                    .rate = json.at("rate"),
                    .block = json_integer(json.at("block"), what + "block of the noise", 1, INT32_MAX),
                    .options = json.value("options", QuantizerOptions())};
  QN_CHECK(noise.rate >= 0.0 && noise.rate <= 1.0, "{}rate of the noise is {}: 0 to 1 are possible", what, noise.rate);
  if (json.contains("window")) {
    noise.schedule = {.start = json.at("window").at(0),
                      .end = json.at("window").at(1),
                      .rate = value_named<RateSchedule>(json.at("schedule").get<std::string>(), what + "noise")};
    QN_CHECK(noise.schedule.start >= 0.0 && noise.schedule.start < noise.schedule.end && noise.schedule.end <= 1.0,
             "{}window of the noise from {} to {}: 0 to 1 are possible", what, noise.schedule.start,
             noise.schedule.end);
  }
  return noise;
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

/// What becomes of a weight; what is not there is not planned.
Json fate_to_json(const WeightPlan& weight, Shared& quantizers, Shared& noises) {
  Json json = Json::object();
  if (weight.stage >= 0) {
    json["stage"] = weight.stage;
    json["quantizer"] =
        quantizers.number_of({{"type", weight.quantizer->type()}, {"options", weight.quantizer->options()}});
  }
  if (!weight.noise.form.empty()) json["noise"] = noises.number_of(noise_to_json(weight.noise));
  return json;
}

/// [rows, columns] of a weight of the most common fate, otherwise [rows, columns, fate]: plans are part of packed
/// files, where every byte counts.
Json weight_to_json(const WeightPlan& weight, Json fate, const Json& usual) {
  Json json{weight.rows, weight.cols};
  if (fate == usual && weight.tied_to.empty()) return json;
  if (!weight.tied_to.empty()) fate["tied_to"] = weight.tied_to;
  json.push_back(fate);
  return json;
}

const Json& most_common(const std::vector<Json>& fates) {
  static const Json kNothing = Json::object();
  const Json* best = &kNothing;
  std::ptrdiff_t most = 0;
  for (const Json& fate : fates) {
    const std::ptrdiff_t count = std::count(fates.begin(), fates.end(), fate);
    if (count > most) most = count, best = &fate;
  }
  return *best;
}

const Json& place_in(const Json& list, const Json& number, const std::string& what) {
  QN_CHECK(list.is_array() && !list.empty(), "{} is {} of an empty list", what, number.dump());
  return list[static_cast<size_t>(json_integer(number, what, 0, std::ssize(list) - 1))];
}

/// Older programs wrote an object {"shape": [R, C], ...} for every weight.
WeightPlan weight_from_json(const std::string& name, const Json& json, const Json& plan, const std::string& where) {
  const std::string what = fmt::format("{}: '{}': ", where, name);
  const Json& shape = json.is_array() ? json : json.at("shape");
  const Json& fate = json.is_object() ? json : json.size() > 2 ? json.at(2) : plan.at("usual");
  WeightPlan weight{.name = name,
                    .group = {},
                    .rows = json_integer(shape.at(0), what + "rows", 1, INT32_MAX),
                    .cols = json_integer(shape.at(1), what + "columns", 1, INT32_MAX),
                    .tied_to = fate.value("tied_to", std::string())};
  if (fate.contains("stage")) {
    weight.stage = json_integer(fate.at("stage"), what + "stage", 0, plan.at("stages").get<int64_t>() - 1);
    const Json& quantizer = place_in(plan.at("quantizers"), fate.at("quantizer"), what + "quantizer");
    weight.quantizer = make_quantizer(quantizer.at("type"), quantizer.at("options").get<QuantizerOptions>());
    weight.quantizer->check(weight.rows, weight.cols, name);
  }
  if (fate.contains("noise"))
    weight.noise = noise_from_json(place_in(plan.at("noises"), fate.at("noise"), what + "noise"), what);
  return weight;
}

QuantizationPlan plan_from_json(const Json& json, const std::string& where) {
  QuantizationPlan plan;
  plan.stages = json_integer(json.at("stages"), where + ": stages", 0, INT32_MAX);
  plan.cut_ties = json.at("cut_ties");
  plan.storage.side = value_named<ValueStorage>(json.at("storage").at("side").get<std::string>(), where + ": storage");
  plan.storage.dense =
      value_named<ValueStorage>(json.at("storage").at("dense").get<std::string>(), where + ": storage");
  if (json.at("storage").contains("norms"))
    plan.storage.norms =
        value_named<NormStorage>(json.at("storage").at("norms").get<std::string>(), where + ": storage");
  for (const auto& [name, weight] : json.at("weights").items())
    plan.weights.push_back(weight_from_json(name, weight, json, where));
  if (json.contains("activations")) {
    const Json& activations = json.at("activations");
    plan.round_activations = activations.at("round_in_training");
    const std::string range = activations.value("range", name_of(RangeMethod::tensor));
    for (const auto& [name, bits] : activations.at("bits").items())
      plan.activations.push_back(
          {.name = name,
           .bits = static_cast<int>(json_integer(bits, where + ": bits of " + name, kMinScalarBits, kMaxScalarBits)),
           .range = value_named<RangeMethod>(range, where + ": range of activations")});
  }
  return plan;
}

std::string how(const WeightPlan& weight) {
  return weight.stage < 0 ? "not quantized" : fmt::format("stage {}, {}", weight.stage + 1, weight.quantizer->text());
}

}  // namespace

std::string plan_to_text(const QuantizationPlan& plan) {
  Shared quantizers, noises;
  std::vector<Json> fates;
  for (const WeightPlan& weight : plan.weights) fates.push_back(fate_to_json(weight, quantizers, noises));
  const Json& usual = most_common(fates);
  Json weights = Json::object();
  for (size_t i = 0; i < fates.size(); ++i)
    weights[plan.weights[i].name] = weight_to_json(plan.weights[i], fates[i], usual);
  Json json{{"stages", plan.stages},
            {"cut_ties", plan.cut_ties},
            {"storage", {{"side", name_of(plan.storage.side)}, {"dense", name_of(plan.storage.dense)}}},
            {"quantizers", quantizers.all()},
            {"noises", noises.all()},
            {"usual", usual},
            {"weights", weights}};
  if (plan.storage.norms != NormStorage::keep) json["storage"]["norms"] = name_of(plan.storage.norms);
  if (!plan.activations.empty()) {
    Json bits = Json::object();
    for (const ActivationPlan& activation : plan.activations) bits[activation.name] = activation.bits;
    json["activations"] = {{"round_in_training", plan.round_activations}, {"bits", bits}};
    const RangeMethod range = plan.activations.front().range;
    if (range != RangeMethod::tensor) json["activations"]["range"] = name_of(range);
  }
  return json.dump();
}

QuantizationPlan plan_from_text(const std::string& text, const std::string& where) {
  try {
    return plan_from_json(parse_strict_json<Json>(text, where), where);
  } catch (const Json::exception& error) {
    fail("{} is no quantization plan ({}): the file is damaged, or a newer quantnoise wrote it", where,
         json_problem(error));
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
