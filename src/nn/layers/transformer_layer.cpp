#include "nn/layers/transformer_layer.h"

#include <numbers>
#include <utility>
#include <vector>

#include "nn/layers/row_parts.h"

namespace qn {

namespace {

/// How the parts of a block start.
struct Starts {
  InitRule qkv, qkv_bias, out, fc1, fc2, fc1_bias, fc2_bias;
};

Starts starts_of(const TransformerLayerOptions& options) {
  const int64_t d = options.width, f = options.ffn;
  if (options.init == LayerInit::bert) {
    const InitRule matrix = init::normal(kBertDeviation), zero = init::zeros();
    return {matrix, zero, matrix, matrix, matrix, zero, zero};
  }
  constexpr double kGain = std::numbers::sqrt2 / 2;
  return {init::xavier(d, d, kGain), init::fan_in(d), init::xavier(d, d), init::fan_in(d),
          init::fan_in(f),           init::fan_in(d), init::fan_in(f)};
}

Var attend(Tape& tape, const Var& qkv, const RowLayout& rows, const TransformerLayerOptions& options,
           const Dropout& drop) {
  if (const auto* equal = std::get_if<EqualSequences>(&rows))
    return attention(tape, qkv, equal->batch, equal->time, options.heads, options.causal, drop);
  return attention(tape, qkv, std::get<Sequences>(rows), options.heads, options.causal, drop);
}

}  // namespace

TransformerLayer::Attention TransformerLayer::Attention::build(const Scope& scope, const char* group, bool cross,
                                                               const TransformerLayerOptions& options) {
  const int64_t d = options.width;
  const Starts starts = starts_of(options);
  Attention built{};
  const auto projection = [&](const char* name) {
    return Linear{.weight = scope.linear(std::string(name) + ".weight", group, d, d, starts.qkv),
                  .bias = scope.parameter(std::string(name) + ".bias", {d}, starts.qkv_bias)};
  };
  built.key = projection("k_proj");
  built.value = projection("v_proj");
  built.query = projection("q_proj");
  built.place(scope, cross);
  built.out = Linear::build(scope, "out_proj", group, d, d, starts.out, init::zeros());
  return built;
}

TransformerLayer::Attention TransformerLayer::Attention::again(const Scope& scope, bool cross) const {
  Attention other = *this;
  other.place(scope, cross);
  other.out = out.again(scope, "out_proj");
  return other;
}

void TransformerLayer::Attention::place(const Scope& scope, bool cross) {
  query_input = key_input = scope.activation("input");
  if (cross) key_input = scope.activation("key_input");
  for (const auto& [linear, name] : {std::pair(&key, "k_proj"), {&value, "v_proj"}, {&query, "q_proj"}}) {
    const std::string own = std::string(name) + ".output";
    linear->output = cross ? scope.activation(own) : scope.activation(own, "qkv.output");
  }
}

Var TransformerLayer::Attention::projected(Tape& tape, const Var& x, const ActivationPoint* input,
                                           std::initializer_list<const Linear*> maps) {
  std::vector<Weight*> weights;
  std::vector<Var> biases;
  bool quantized = false;
  for (const Linear* map : maps) {
    weights.push_back(map->weight);
    biases.push_back(map->bias->var(tape));
    quantized = quantized || map->output->quantizer() != nullptr;
  }
  const Var y = linear_concat(tape, (*input)(tape, x), weights, biases, input->quantizer());
  if (!quantized) return y;
  std::vector<Var> parts;
  for (const Linear* map : maps) {
    const auto count = static_cast<int64_t>(maps.size());
    parts.push_back((*map->output)(tape, count == 1 ? y : select_columns(tape, y, std::ssize(parts), count)));
  }
  return parts.size() == 1 ? parts[0] : join_columns(tape, parts);
}

TransformerLayer::TransformerLayer(const Scope& scope, uint64_t index, const TransformerLayerOptions& options)
    : options_(options), first_site_((index + 1) * kSitesPerLayer) {
  const int64_t d = options.width, f = options.ffn;
  const Starts starts = starts_of(options);
  own_ = Attention::build(scope.in("self_attn"), groups::kAttention, false, options);
  attention_norm_ = LayerNorm::build(scope, "self_attn_layer_norm", d, options.norm_eps);
  if (options.cross_attention) {
    cross_ = Attention::build(scope.in("encoder_attn"), groups::kCrossAttention, true, options);
    cross_norm_ = LayerNorm::build(scope, "encoder_attn_layer_norm", d, options.norm_eps);
  }
  fc1_ = Linear::build(scope, "fc1", groups::kFfn, f, d, starts.fc1, starts.fc1_bias);
  fc2_ = Linear::build(scope, "fc2", groups::kFfn, d, f, starts.fc2, starts.fc2_bias);
  final_norm_ = LayerNorm::build(scope, "final_layer_norm", d, options.norm_eps);
}

TransformerLayer::TransformerLayer(const Scope& scope, uint64_t index, const TransformerLayer& owner,
                                   const Scope& owner_scope)
    : TransformerLayer(owner) {
  first_site_ = (index + 1) * kSitesPerLayer;
  own_ = owner.own_.again(scope.in("self_attn"), false);
  if (options_.cross_attention) cross_ = owner.cross_.again(scope.in("encoder_attn"), true);
  fc1_ = owner.fc1_.again(scope, "fc1");
  fc2_ = owner.fc2_.again(scope, "fc2");
  scope.share(owner_scope);
}

Unbiased TransformerLayer::feed_forward(Tape& tape, const Var& x) const {
  const Unbiased inner = fc1_.without_bias(tape, x);
  const Var hidden =
      activation_dropout(tape, inner.value, inner.bias, options_.activation, site(options_.activation_dropout, 1));
  return fc2_.without_bias(tape, hidden);
}

/// The bias of a branch's last map is added on the way into the residual sum.
Var TransformerLayer::added(Tape& tape, const LayerNorm& norm, uint64_t number, const Var& x,
                            const Unbiased& branch) const {
  const Var sum = residual_dropout(tape, x, branch.value, branch.bias, site(options_.dropout, number));
  return options_.prenorm ? sum : norm(tape, sum);
}

template <typename Own, typename Cross>
Var TransformerLayer::around(Tape& tape, const Var& x, const Own& own, const Cross& cross) const {
  const Var heads = own(before(tape, attention_norm_, x));
  Var y = added(tape, attention_norm_, 2, x, own_.out.without_bias(tape, heads));
  if (options_.cross_attention) {
    const Var seen = cross(before(tape, cross_norm_, y));
    y = added(tape, cross_norm_, 4, y, cross_.out.without_bias(tape, seen));
  }
  return added(tape, final_norm_, 3, y, feed_forward(tape, before(tape, final_norm_, y)));
}

void TransformerLayer::update(Tape& tape, const Tensor& x, const EqualSequences& rows) const {
  QN_ASSERT(may_work_in_parts(tape) && !options_.cross_attention);
  constexpr int64_t kPart = 512;  // of rows: a product of so many has nothing to gain from more
  const auto part = [](const Tensor& all, int64_t begin, int64_t count) {
    return Var{all.row_slice(begin, count), nullptr};
  };
  {
    const ScratchScope scope(tape.arena);
    const Tensor q = tape.tensor({x.rows(), options_.width}), kv = tape.tensor({x.rows(), 2 * options_.width});
    for_row_parts(tape, x.rows(), kPart, [&](int64_t begin, int64_t count) {
      const Var z = before(tape, attention_norm_, part(x, begin, count));
      tape.k.copy(q.row_slice(begin, count), own_.queries(tape, z).value);
      tape.k.copy(kv.row_slice(begin, count), own_.keys(tape, z).value);
    });
    attention_in_place(tape, q, kv, rows.batch, rows.time, options_.heads, options_.causal);
    for_row_parts(tape, x.rows(), kPart, [&](int64_t begin, int64_t count) {
      const Var z = part(x, begin, count);
      const Unbiased branch = own_.out.without_bias(tape, part(q, begin, count));
      tape.k.copy(z.value, added(tape, attention_norm_, 2, z, branch).value);
    });
    tape.restart(tape.pass());
  }
  const ScratchScope scope(tape.arena);
  for_row_parts(tape, x.rows(), kPart, [&](int64_t begin, int64_t count) {
    const Var z = part(x, begin, count);
    const Unbiased branch = feed_forward(tape, before(tape, final_norm_, z));
    tape.k.copy(z.value, added(tape, final_norm_, 3, z, branch).value);
  });
  tape.restart(tape.pass());
}

Var TransformerLayer::forward(Tape& tape, const Var& x, const RowLayout& rows, const Encoded* encoded) const {
  QN_ASSERT(options_.cross_attention == (encoded != nullptr));
  return around(
      tape, x,
      [&](const Var& z) {
        return attend(tape, own_.all(tape, z), rows, options_, site(options_.attention_dropout, 0));
      },
      [&](const Var& z) {
        return cross_attention(tape, cross_.queries(tape, z), cross_.keys(tape, encoded->states),
                               std::get<Sequences>(rows), encoded->sentences, options_.heads,
                               site(options_.attention_dropout, 5));
      });
}

Var TransformerLayer::forward(Tape& tape, const Var& x, const Sequences& sequences, const WantedRows& wanted) const {
  QN_ASSERT(!options_.causal && !options_.cross_attention);
  const Var all = options_.prenorm ? attention_norm_(tape, x) : x;
  return around(
      tape, select_rows(tape, x, wanted.rows),
      [&](const Var& z) {
        return cross_attention(tape, own_.queries(tape, z), own_.keys(tape, all), wanted.sequences, sequences,
                               options_.heads, site(options_.attention_dropout, 0));
      },
      [](const Var& z) { return z; });
}

Var TransformerLayer::step(Tape& tape, const Var& x, const DecodingStep& step, const DecodingMemory& memory) const {
  QN_ASSERT(!tape.recording());
  return around(
      tape, x,
      [&](const Var& z) {
        const Var queries = own_.queries(tape, z);
        tape.k.scatter_rows(memory.own, own_.keys(tape, z).value, tape.upload(step.places), 1.0);
        return cross_attention(tape, queries, {memory.own, nullptr}, step.tokens, step.places_so_far, options_.heads,
                               {});
      },
      [&](const Var& z) {
        return cross_attention(tape, cross_.queries(tape, z), {memory.encoded, nullptr}, step.hypotheses,
                               step.sentences, options_.heads, {});
      });
}

Var TransformerLayer::encoded_keys(Tape& tape, const Var& states) const { return cross_.keys(tape, states); }

}  // namespace qn
