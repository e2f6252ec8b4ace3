#include "tasks/hf_names.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "core/error.h"
#include "core/special_tokens.h"
#include "core/stored_values.h"

namespace qn {
namespace {

constexpr int64_t kPaddingRows = kPadId + 1;  // at the beginning of our tables of positions

bool per_layer(std::string_view pattern) { return pattern.find("{}") != std::string_view::npos; }

std::string numbered(std::string name, int64_t layer) {
  if (const size_t place = name.find("{}"); place != std::string::npos) name.replace(place, 2, std::to_string(layer));
  return name;
}

/// [rows, cols] -> [cols, rows]
std::vector<float> transposed(const std::vector<float>& values, int64_t rows, int64_t cols) {
  std::vector<float> result(values.size());
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c)
      result[static_cast<size_t>(c * rows + r)] = values[static_cast<size_t>(r * cols + c)];
  return result;
}

Shape shape_of(const Module& module, const std::string& name) {
  if (const Weight* weight = module.weights().find(name)) return weight->shape();
  const Parameter* parameter = module.parameters().find(name);
  return parameter != nullptr ? parameter->shape : Shape{};
}

/// A line of the table for one layer.
struct Entry {
  std::string theirs, second;
  std::vector<std::string> ours;
  HfLayout layout;
  Shape part;         ///< of each of ours
  bool both = false;  ///< files have the second name as well

  bool swaps() const { return part.rank() == 2 && (layout == HfLayout::transposed || layout == HfLayout::fused); }
  std::vector<int64_t> their_shape() const {
    const auto parts = std::ssize(ours);
    if (layout == HfLayout::added) return {1, part[1]};
    if (part.rank() == 1) return {parts * part[0]};
    if (swaps()) return {part[1], parts * part[0]};
    return {layout == HfLayout::positions ? part[0] - kPaddingRows : parts * part[0], part[1]};
  }
};

/// Those of which the module has the parameters.
std::vector<Entry> entries(const HfFamily& family, int64_t layers, const Module& module) {
  std::vector<Entry> all;
  for (const HfName& name : family.names)
    for (int64_t layer = 0; layer < (per_layer(name.theirs) ? layers : 1); ++layer) {
      Entry entry{numbered(name.theirs, layer), name.second, {}, name.layout, {}};
      entry.both = !name.second.empty() && shape_of(module, name.second_of).rank() > 0;
      for (const std::string& own : name.ours) entry.ours.push_back(numbered(own, layer));
      entry.part = shape_of(module, entry.ours.front());
      if (entry.part.rank() > 0) all.push_back(std::move(entry));
    }
  return all;
}

/// Tensors of files by the names of the table, with what has been used.
class Source {
 public:
  Source(const HfFamily& family, const TensorFiles& files) : family_(family), files_(files) {}

  const StoredTensor* find(const std::string& name) {
    const std::string& prefix = family_.prefix;
    for (const std::string& own : {name, former(name)})
      for (const std::string& candidate : {own, own.substr(own.starts_with(prefix) ? prefix.size() : 0)})
        if (const auto found = files_.tensors().find(candidate); found != files_.tensors().end()) {
          used_.insert(candidate);
          return found->second;
        }
    return nullptr;
  }

  void ignore(int64_t layers) {
    for (const std::string& name : family_.ignored)
      for (int64_t layer = 0; layer < layers; ++layer) find(numbered(name, layer));
  }

  std::vector<std::string> left() const {
    std::vector<std::string> names;
    for (const auto& entry : files_.tensors())
      if (!used_.contains(entry.first)) names.push_back(entry.first);
    return names;
  }

 private:
  std::string former(const std::string& name) const {
    for (const auto& [now, then] : family_.formerly)
      if (name.ends_with(now)) return name.substr(0, name.size() - now.size()) + then;
    return name;
  }

  const HfFamily& family_;
  const TensorFiles& files_;
  std::set<std::string> used_;
};

std::vector<float> values_of(const StoredTensor& tensor, const Entry& entry, const std::string& file) {
  QN_CHECK(tensor.shape == entry.their_shape(), "{}: {} has the shape [{}], by config.json it should be [{}]", file,
           tensor.name, fmt::join(tensor.shape, ", "), fmt::join(entry.their_shape(), ", "));
  QN_CHECK(is_weight_type(tensor.type), "{}: {} is of type {}; weights of F32, F16 and BF16 can be read", file,
           tensor.name, name_of(tensor.type));
  std::vector<float> values = floats_of(tensor);
  for (const float value : values)
    QN_CHECK(std::isfinite(value), "{}: {} holds a value that is not finite", file, tensor.name);
  return values;
}

/// A tied matrix may be in the file as well, if it is the same.
void check_tied(const HfFamily& family, const Module& module, Source& source, const std::string& file) {
  const auto theirs_of = [&](const std::string& ours) {
    const auto found = std::find_if(family.names.begin(), family.names.end(),
                                    [&](const HfName& name) { return name.ours.front() == ours; });
    return found == family.names.end() ? nullptr : source.find(found->theirs);
  };
  for (const TiedUse& tie : module.weights().ties()) {
    const StoredTensor* copy = theirs_of(tie.name);
    const StoredTensor* owner = theirs_of((*tie.place)->name());
    QN_CHECK(copy == nullptr || owner == nullptr ||
                 (copy->type == owner->type && copy->shape == owner->shape &&
                  std::equal(copy->bytes.begin(), copy->bytes.end(), owner->bytes.begin(), owner->bytes.end())),
             "{}: {} and {} differ, though config.json ties them (tie_word_embeddings)", file, copy->name, owner->name);
  }
}

std::vector<float> sum_with_row(const Module& module, const std::string& name, const std::vector<float>& row) {
  std::vector<float> values = module.parameters().values_of(*module.parameters().find(name));
  for (size_t i = 0; i < values.size(); ++i) values[i] += row[i % row.size()];
  return values;
}

std::string listed(const std::vector<std::string>& names) {
  constexpr size_t kMost = 12;
  const std::vector<std::string> first(names.begin(),
                                       names.begin() + static_cast<std::ptrdiff_t>(std::min(names.size(), kMost)));
  return fmt::format("{}{}", fmt::join(first, ", "),
                     names.size() > kMost ? fmt::format(" and {} more", names.size() - kMost) : "");
}

}  // namespace

void import_tensors(const HfFamily& family, int64_t layers, const TensorFiles& files, const HfVocabulary& vocabulary,
                    Module& module) {
  const std::string file = files.path().string();
  Source source(family, files);
  std::vector<std::string> missing;
  std::set<std::string> filled;
  for (const Entry& entry : entries(family, layers, module)) {
    for (const std::string& own : entry.ours) filled.insert(own);
    const StoredTensor* tensor = source.find(entry.theirs);
    if (const StoredTensor* other = entry.second.empty() ? nullptr : source.find(entry.second)) tensor = other;
    if (tensor == nullptr) {
      missing.push_back(entry.theirs);
      continue;
    }
    std::vector<float> values = values_of(*tensor, entry, file);
    if (entry.swaps()) values = transposed(values, tensor->shape[0], tensor->shape[1]);
    if (entry.layout == HfLayout::tokens) values = vocabulary.to_ours(values);
    if (entry.layout == HfLayout::positions)
      values.insert(values.begin(), static_cast<size_t>(kPaddingRows * entry.part[1]), 0.0f);
    if (entry.layout == HfLayout::added) values = sum_with_row(module, entry.ours.front(), values);
    const std::span<const float> all(values);
    const size_t size = all.size() / entry.ours.size();
    for (size_t part = 0; part < entry.ours.size(); ++part)
      module.parameters().set_values(*module.parameters().find(entry.ours[part]), all.subspan(part * size, size));
  }
  source.ignore(layers);
  check_tied(family, module, source, file);
  QN_CHECK(missing.empty(), "{} lacks tensors that a model like this ({}) has: {}", file, family.name, listed(missing));
  const std::vector<std::string> left = source.left();
  QN_CHECK(left.empty(), "{} has tensors that a model like this ({}) does not have: {}", file, family.name,
           listed(left));
  for (const auto& parameter : module.parameters().all())
    QN_ASSERT(filled.contains(parameter->name), "{} is in no table", parameter->name);
}

void keep_spare(const HfFamily& family, const TensorFiles& files, int64_t width, const Module& module,
                StateDict& state) {
  Source source(family, files);
  for (const HfName& name : family.names) {
    const std::string& ours = name.ours.front();
    const StoredTensor* tensor = name.spare ? source.find(name.theirs) : nullptr;
    if (tensor == nullptr || module.parameters().find(ours) != nullptr) continue;
    const Shape shape = ours.ends_with(".bias") ? Shape{width} : Shape{width, width};
    const std::vector<float> values = values_of(
        *tensor, {.theirs = {}, .second = {}, .ours = {ours}, .layout = {}, .part = shape}, files.path().string());
    OwnedTensor kept(shape, DType::f32, host_memory());
    std::copy(values.begin(), values.end(), kept.view().as<float>());
    state.tensors[kParameters + ours] = std::move(kept);
  }
}

void export_tensors(const HfFamily& family, int64_t layers, const HfVocabulary& vocabulary, const Module& module,
                    const std::function<std::vector<float>(const std::string&)>& value_of, bool bare,
                    SafetensorsWriter& out) {
  const auto named = [&](const std::string& name) {
    return bare && name.starts_with(family.prefix) ? name.substr(family.prefix.size()) : name;
  };
  for (const Entry& entry : entries(family, layers, module)) {
    const std::vector<int64_t> shape = entry.their_shape();
    std::vector<float> values;
    for (const std::string& own : entry.ours) {
      const std::vector<float> part = value_of(own);
      values.insert(values.end(), part.begin(), part.end());
    }
    if (entry.layout == HfLayout::added) values.assign(static_cast<size_t>(shape[1]), 0.0f);
    if (entry.layout == HfLayout::positions)
      values.erase(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(kPaddingRows * entry.part[1]));
    if (entry.layout == HfLayout::tokens) values = vocabulary.to_theirs(values);
    if (entry.swaps()) values = transposed(values, shape[1], shape[0]);
    out.add(named(entry.theirs), StoredType::f32, shape, values);
    if (entry.both) out.add(named(entry.second), StoredType::f32, shape, values);
  }
}

const HfFamily& gpt2_family() {
  using enum HfLayout;
  static const HfFamily family{
      "gpt2",
      "transformer.",
      {},
      {{"transformer.wte.weight", {"decoder.embed_tokens.weight"}, tokens},
       {"transformer.wpe.weight", {"decoder.embed_positions.weight"}, positions},
       {"transformer.h.{}.ln_1.weight", {"decoder.layers.{}.self_attn_layer_norm.weight"}},
       {"transformer.h.{}.ln_1.bias", {"decoder.layers.{}.self_attn_layer_norm.bias"}},
       {"transformer.h.{}.attn.c_attn.weight",
        {"decoder.layers.{}.self_attn.q_proj.weight", "decoder.layers.{}.self_attn.k_proj.weight",
         "decoder.layers.{}.self_attn.v_proj.weight"},
        fused},
       {"transformer.h.{}.attn.c_attn.bias",
        {"decoder.layers.{}.self_attn.q_proj.bias", "decoder.layers.{}.self_attn.k_proj.bias",
         "decoder.layers.{}.self_attn.v_proj.bias"},
        fused},
       {"transformer.h.{}.attn.c_proj.weight", {"decoder.layers.{}.self_attn.out_proj.weight"}, transposed},
       {"transformer.h.{}.attn.c_proj.bias", {"decoder.layers.{}.self_attn.out_proj.bias"}},
       {"transformer.h.{}.ln_2.weight", {"decoder.layers.{}.final_layer_norm.weight"}},
       {"transformer.h.{}.ln_2.bias", {"decoder.layers.{}.final_layer_norm.bias"}},
       {"transformer.h.{}.mlp.c_fc.weight", {"decoder.layers.{}.fc1.weight"}, transposed},
       {"transformer.h.{}.mlp.c_fc.bias", {"decoder.layers.{}.fc1.bias"}},
       {"transformer.h.{}.mlp.c_proj.weight", {"decoder.layers.{}.fc2.weight"}, transposed},
       {"transformer.h.{}.mlp.c_proj.bias", {"decoder.layers.{}.fc2.bias"}},
       {"transformer.ln_f.weight", {"decoder.layer_norm.weight"}},
       {"transformer.ln_f.bias", {"decoder.layer_norm.bias"}},
       {"lm_head.weight", {"decoder.output_projection.weight"}, tokens}},
      {"transformer.h.{}.attn.bias", "transformer.h.{}.attn.masked_bias"}};
  return family;
}

namespace {

const std::string kEncoder = "encoder.sentence_encoder.", kMaskedHead = "encoder.lm_head.",
                  kClassifier = "classification_heads.sentence_classification_head.";

/// A matrix or norm: weight and bias.
void add_both(HfFamily& family, const std::string& theirs, const std::string& ours, bool spare = false) {
  for (const char* part : {".weight", ".bias"})
    family.names.push_back({.theirs = theirs + part, .ours = {ours + part}, .spare = spare});
}

/// What BERT and RoBERTa have in common. `types` is the line of the token types.
HfFamily encoder_family(const std::string& name, const HfName& types) {
  using enum HfLayout;
  HfFamily made{name, name + ".", {}, {}, {name + ".embeddings.position_ids", name + ".embeddings.token_type_ids"}};
  const std::string embeddings = name + ".embeddings.";
  made.names = {{embeddings + "word_embeddings.weight", {kEncoder + "embed_tokens.weight"}, tokens},
                {embeddings + "position_embeddings.weight",
                 {kEncoder + "embed_positions.weight"},
                 types.layout == added ? same : positions},
                types};
  add_both(made, embeddings + "LayerNorm", kEncoder + "layernorm_embedding");
  for (const auto& [layer, own] : {std::pair("attention.self.query", "self_attn.q_proj"),
                                   {"attention.self.key", "self_attn.k_proj"},
                                   {"attention.self.value", "self_attn.v_proj"},
                                   {"attention.output.dense", "self_attn.out_proj"},
                                   {"attention.output.LayerNorm", "self_attn_layer_norm"},
                                   {"intermediate.dense", "fc1"},
                                   {"output.dense", "fc2"},
                                   {"output.LayerNorm", "final_layer_norm"}})
    add_both(made, name + ".encoder.layer.{}." + layer, kEncoder + "layers.{}." + own);
  for (const char* part : {"weight", "bias"}) made.ignored.push_back(name + ".pooler.dense." + part);
  return made;
}

}  // namespace

const HfFamily& roberta_family() {
  static const HfFamily family = [] {
    using enum HfLayout;
    HfFamily made = encoder_family(
        "roberta", {"roberta.embeddings.token_type_embeddings.weight", {kEncoder + "embed_positions.weight"}, added});
    add_both(made, "lm_head.dense", kMaskedHead + "dense");
    add_both(made, "lm_head.layer_norm", kMaskedHead + "layer_norm");
    made.names.push_back({"lm_head.decoder.weight", {kMaskedHead + "weight"}, tokens});
    made.names.push_back(
        {"lm_head.bias", {kMaskedHead + "bias"}, same, "lm_head.decoder.bias", kMaskedHead + "weight"});
    for (const char* part : {"dense", "out_proj"})
      add_both(made, std::string("classifier.") + part, kClassifier + part);
    return made;
  }();
  return family;
}

const HfFamily& bert_family() {
  static const HfFamily family = [] {
    using enum HfLayout;
    HfFamily made = encoder_family(
        "bert", {"bert.embeddings.token_type_embeddings.weight", {kEncoder + "segment_embeddings.weight"}});
    made.formerly = {{"LayerNorm.weight", "LayerNorm.gamma"}, {"LayerNorm.bias", "LayerNorm.beta"}};
    const std::string head = "cls.predictions.";
    add_both(made, head + "transform.dense", kMaskedHead + "dense");
    add_both(made, head + "transform.LayerNorm", kMaskedHead + "layer_norm");
    made.names.push_back({head + "decoder.weight", {kMaskedHead + "weight"}, tokens});
    made.names.push_back(
        {head + "bias", {kMaskedHead + "bias"}, tokens, head + "decoder.bias", kMaskedHead + "weight"});
    add_both(made, "bert.pooler.dense", kClassifier + "dense", true);
    add_both(made, "classifier", kClassifier + "out_proj");
    for (const char* part : {"weight", "bias"})  // which sentence came next in pretraining
      made.ignored.push_back(std::string("cls.seq_relationship.") + part);
    return made;
  }();
  return family;
}

}  // namespace qn
