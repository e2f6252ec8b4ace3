#include "models/model_config.h"

namespace qn {

namespace {
constexpr size_t kMostBands = 8;  // that assemble_rows() puts together
}

void AdaptiveConfig::visit(ConfigVisitor& v) {
  v.field("cutoffs", cutoffs, "word ids where a new frequency band starts, ascending (empty: no bands)");
  v.field("factor", factor, "each band's dimension is the previous one's divided by this");
  v.field("dropout", dropout, "dropout on the features and inside the tails of the adaptive softmax");
  v.field("input", input, "adaptive input: one table and projection per band instead of one table");
  v.field("softmax", softmax, "adaptive softmax instead of a plain one");
  v.field("tie_weights", tie_weights, "the band tables are the output matrices as well");
  v.field("tie_projections", tie_projections, "the band projections are shared as well");
}

void AdaptiveConfig::validate(const ConfigChecker& c) const {
  int64_t previous = 0;
  for (const int64_t cutoff : cutoffs) {
    c.check(cutoff > previous, "cutoffs", "must be positive and ascend; {} follows {}", cutoff, previous);
    previous = cutoff;
  }
  c.check(factor >= 1.0, "factor", "must be at least 1, got {}", factor);
  c.check(dropout >= 0.0 && dropout < 1.0, "dropout", "must be in [0, 1), got {}", dropout);
  c.check(cutoffs.size() < kMostBands, "cutoffs", "{} cutoffs give {} bands; at most {} are possible", cutoffs.size(),
          cutoffs.size() + 1, kMostBands);
  c.check(cutoffs.empty() == !(input || softmax), "cutoffs", "{}",
          cutoffs.empty() ? "are needed by adaptive input and softmax"
                          : "are given, but neither input nor softmax is adaptive");
  c.check(!(tie_weights || tie_projections) || (input && softmax), "tie_weights",
          "needs both adaptive input and adaptive softmax");
  c.check(!tie_projections || tie_weights, "tie_projections", "needs tie_weights");
}

namespace {

/// Of the papers (Devlin et al. 2018, Liu et al. 2019): both have the same sizes.
void take_preset(ModelConfig& m) {
  const bool large = m.preset == ModelPreset::large;
  m.layers = large ? 24 : 12;
  m.embed_dim = large ? 1024 : 768;
  m.ffn_dim = large ? 4096 : 3072;
  m.heads = large ? 16 : 12;
}

// Documentation of keys that several types have.
constexpr const char *kLayers = "Transformer blocks", *kEmbedDim = "width of the residual stream",
                     *kFfnDim = "hidden width of the feed-forward blocks", *kHeads = "attention heads",
                     *kDropout = "dropout after embeddings, attention and feed-forward",
                     *kAttentionDropout = "dropout on attention probabilities",
                     *kActivationDropout = "dropout inside the feed-forward block (fairseq: relu_dropout)",
                     *kActivation = "feed-forward activation (gelu: exact, with erf; gelu_tanh: GPT-2's approximation)",
                     *kLayerdrop =
                         "probability that a block is left out of a training pass, so that the trained model can do "
                         "with fewer (LayerDrop); with share_layers groups of blocks are left out as a whole",
                     *kLearnedPositions = "a learned table instead of sinusoids",
                     *kScaleEmbedding = "multiply embeddings by sqrt(embed_dim)",
                     *kShareLayers = "groups of so many adjacent blocks have their weights in common (1: none do)";
const std::vector<Activation> kActivations = {Activation::relu, Activation::gelu, Activation::gelu_tanh};

}  // namespace

namespace {

struct VariantSizes {
  double width, depth;
  int64_t resolution;
  double dropout;
};
/// Tan and Le's scaling, and that of EfficientNet-Lite.
VariantSizes sizes_of(EfficientNetVariant variant) {
  static constexpr VariantSizes kSizes[] = {
      {1.0, 1.0, 224, 0.2}, {1.0, 1.1, 240, 0.2}, {1.1, 1.2, 260, 0.3}, {1.2, 1.4, 300, 0.3}, {1.4, 1.8, 380, 0.4},
      {1.6, 2.2, 456, 0.4}, {1.8, 2.6, 528, 0.5}, {2.0, 3.1, 600, 0.5}, {1.0, 1.0, 224, 0.2}, {1.0, 1.1, 240, 0.2},
      {1.1, 1.2, 260, 0.3}, {1.2, 1.4, 280, 0.3}, {1.4, 1.8, 300, 0.3}};
  return kSizes[static_cast<size_t>(variant)];
}

}  // namespace

int64_t published_resolution(EfficientNetVariant variant) { return sizes_of(variant).resolution; }

void ModelConfig::select(EfficientNetVariant which) {
  const VariantSizes sizes = sizes_of(which);
  const bool lite = which >= EfficientNetVariant::lite0;
  variant = which;
  width = sizes.width;
  depth = sizes.depth;
  dropout = sizes.dropout;
  squeeze = !lite;
  activation = lite ? Activation::relu6 : Activation::silu;
  drop_path = 0.2;
}

ModelConfig::ModelConfig(ModelType of) : type(of) {
  if (type == ModelType::efficientnet) {
    norm_eps = 1e-3;
    select(variant);
  }
  if (type == ModelType::resnet) {
    layers = 20;
    embed_dim = 16;
    norm_momentum = 0.1;
  }
  if (type != ModelType::roberta && type != ModelType::bert) return;
  activation = Activation::gelu;
  attention_dropout = 0.1;
  take_preset(*this);
  if (type == ModelType::roberta) return;
  pooler_dropout = 0.1;
  token_types = 2;
  norm_eps = 1e-12;
}

/// Values that depend on `type` and `preset` change when these are read, before the keys behind them are.
void ModelConfig::visit(ConfigVisitor& v) {
  const ModelType before = type;
  v.choice("type", type, "architecture; it decides which other keys this section has");
  if (type != before) *this = ModelConfig(type);
  switch (type) {
    case ModelType::transformer_lm:
      return visit_language_model(v);
    case ModelType::roberta:
    case ModelType::bert:
      return visit_encoder(v);
    case ModelType::transformer:
      return visit_transformer(v);
    case ModelType::efficientnet:
      return visit_efficientnet(v);
    case ModelType::resnet:
      return visit_resnet(v);
  }
}

void ModelConfig::visit_language_model(ConfigVisitor& v) {
  v.field("layers", layers, kLayers);
  v.field("embed_dim", embed_dim, kEmbedDim);
  v.field("ffn_dim", ffn_dim, kFfnDim);
  v.field("heads", heads, kHeads);
  v.field("input_dim", input_dim, "dimension of the token table (0: embed_dim)");
  v.field("output_dim", output_dim, "dimension of the features before the softmax (0: embed_dim)");
  v.field("max_positions", max_positions, "longest sequence (0: data.tokens_per_sample)");
  v.field("dropout", dropout, kDropout);
  v.field("attention_dropout", attention_dropout, kAttentionDropout);
  v.field("activation_dropout", activation_dropout, kActivationDropout);
  v.choice("activation", activation, kActivations, kActivation);
  v.field("prenorm", prenorm, "LayerNorm before each sub-block instead of after the residual sum");
  v.field("final_norm", final_norm, "LayerNorm after the last block (with prenorm)");
  v.field("learned_positions", learned_positions, kLearnedPositions);
  v.field("scale_embedding", scale_embedding, kScaleEmbedding);
  v.field("share_input_output", share_input_output, "the token table is the output matrix as well (plain softmax)");
  v.field("noise_projection", noise_projection,
          "the extra embed_dim x embed_dim layer that fairseq adds after a plain embedding when it trains with noise");
  v.field("layerdrop", layerdrop, kLayerdrop);
  v.field("share_layers", share_layers, kShareLayers);
  v.section("adaptive", adaptive, "frequency bands");
}

void ModelConfig::visit_encoder(ConfigVisitor& v) {
  const bool bert = type == ModelType::bert;
  const ModelPreset before = preset;
  v.choice("preset", preset, "sizes of the published models, for those of the next four keys that are not given");
  if (preset != before) take_preset(*this);
  v.field("layers", layers, kLayers);
  v.field("embed_dim", embed_dim, kEmbedDim);
  v.field("ffn_dim", ffn_dim, kFfnDim);
  v.field("heads", heads, kHeads);
  v.field("max_positions", max_positions, "longest sequence, <s> ([CLS]) included (0: data.tokens_per_sample)");
  v.field("dropout", dropout, kDropout);
  v.field("attention_dropout", attention_dropout, kAttentionDropout);
  v.field("activation_dropout", activation_dropout, kActivationDropout);
  v.choice("activation", activation, kActivations, kActivation);
  if (bert) {
    v.field("token_types", token_types,
            "vectors of which one is added to every token: that of first sentences, and that of second ones");
    v.field("norm_eps", norm_eps, "what LayerNorm adds to variances");
  } else {
    v.field("prenorm", prenorm,
            "LayerNorm before each sub-block and after the last one, instead of after the embedding and after each "
            "residual sum (fairseq: roberta_prenorm)");
  }
  v.field("untie_output", untie_output,
          "the masked-LM head has an output matrix of its own instead of the token table (fairseq: "
          "--untie-weights-roberta)");
  if (!bert) v.field("pooler_dim", pooler_dim, "hidden width of the classification head (0: embed_dim)");
  v.field("pooler_dropout", pooler_dropout, "dropout in the classification head");
  if (!bert)
    v.field("noise_projection", noise_projection,
            "the extra embed_dim x embed_dim layer that fairseq adds after the embedding when it trains with noise");
  v.field("layerdrop", layerdrop, kLayerdrop);
  v.field("share_layers", share_layers, kShareLayers);
}

void ModelConfig::visit_transformer(ConfigVisitor& v) {
  v.field("layers", layers, "Transformer blocks of the decoder");
  v.field("encoder_layers", encoder_layers, "Transformer blocks of the encoder (0: as many as the decoder's)");
  v.field("embed_dim", embed_dim, kEmbedDim);
  v.field("ffn_dim", ffn_dim, "hidden width of the decoder's feed-forward blocks");
  v.field("encoder_ffn_dim", encoder_ffn_dim, "hidden width of the encoder's (0: ffn_dim)");
  v.field("heads", heads, kHeads);
  v.field("max_positions", max_positions, "longest sentence on either side, end mark included (0: 1024)");
  v.field("dropout", dropout, kDropout);
  v.field("attention_dropout", attention_dropout, kAttentionDropout);
  v.field("activation_dropout", activation_dropout, kActivationDropout);
  v.choice("activation", activation, kActivations, kActivation);
  v.field("prenorm", prenorm,
          "LayerNorm before each sub-block and after the last one, instead of after each residual sum (fairseq: "
          "--encoder-normalize-before --decoder-normalize-before)");
  v.field("learned_positions", learned_positions, kLearnedPositions);
  v.field("scale_embedding", scale_embedding, kScaleEmbedding);
  v.field("share_input_output", share_input_output, "the decoder's token table is the output matrix as well");
  v.field("share_all_embeddings", share_all_embeddings,
          "one token table for encoder, decoder and output; both languages then have one dictionary");
  v.field("noise_projection", noise_projection,
          "the extra embed_dim x embed_dim layers that fairseq adds behind both embeddings when it trains with noise");
  v.field("layerdrop", layerdrop, kLayerdrop);
  v.field("share_layers", share_layers, kShareLayers);
}

namespace {
constexpr const char *kImageNormEps = "what batch normalisation adds to variances",
                     *kNormMomentum = "share of running averages that every update replaces";
}

void ModelConfig::visit_efficientnet(ConfigVisitor& v) {
  const EfficientNetVariant before = variant;
  v.choice("variant", variant, "sizes of the published models, for those of the keys width to drop_path not given");
  if (variant != before) select(variant);
  v.field("width", width, "factor of all numbers of channels (b0: 1)");
  v.field("depth", depth, "factor of all numbers of blocks (b0: 1)");
  v.field("stem_stride", stem_stride, "of the first convolution; 1 for images of 32 pixels");
  v.field("squeeze", squeeze,
          "squeeze and excitation in every block; false: a Lite, whose stem, head and first and "
          "last stage are not scaled");
  v.choice("activation", activation, {Activation::silu, Activation::relu6, Activation::relu}, "behind normalisations");
  v.field("dropout", dropout, "before the classifier");
  v.field(
      "drop_path", drop_path,
      "stochastic depth: probability that an image goes around a block; rises from 0 in the first to nearly this in "
      "the last");
  v.choice("padding", padding,
           "zeros around images: as in TensorFlow, where the published models come from, or the "
           "same on both sides, as torchvision's models have it");
  v.field("norm_eps", norm_eps, kImageNormEps);
  v.field("norm_momentum", norm_momentum, kNormMomentum);
}

void ModelConfig::visit_resnet(ConfigVisitor& v) {
  v.field("layers", layers, "6 n + 2: 20, 32, 44, 56 in the paper");
  v.field("embed_dim", embed_dim, "channels of the first of three stages");
  v.field("norm_eps", norm_eps, kImageNormEps);
  v.field("norm_momentum", norm_momentum, kNormMomentum);
}

void ModelConfig::validate_image_model(const ConfigChecker& c) const {
  c.check(norm_eps > 0.0 && norm_eps < 1.0, "norm_eps", "must be in (0, 1), got {}", norm_eps);
  c.check(norm_momentum > 0.0 && norm_momentum <= 1.0, "norm_momentum", "must be in (0, 1], got {}", norm_momentum);
  if (type == ModelType::resnet) {
    c.check(layers >= 8 && layers <= kMostLayers && (layers - 2) % 6 == 0, "layers",
            "must be 6 n + 2: 8, 14, 20, ..., got {}", layers);
    c.check(embed_dim >= 1 && embed_dim <= kMostWidth, "embed_dim", "must be in 1 to {}, got {}", kMostWidth,
            embed_dim);
    return;
  }
  constexpr double kMostScale = 100.0;
  for (const auto& [name, factor] : {std::pair{"width", width}, {"depth", depth}})
    c.check(factor > 0.0 && factor <= kMostScale, name, "must be above 0 and at most {}, got {}", kMostScale, factor);
  c.check(stem_stride >= 1 && stem_stride <= 4, "stem_stride", "must be in 1 to 4, got {}", stem_stride);
  for (const auto& [name, p] : {std::pair{"dropout", dropout}, {"drop_path", drop_path}})
    c.check(p >= 0.0 && p < 1.0, name, "must be in [0, 1), got {}", p);
}

void ModelConfig::validate(const ConfigChecker& c) const {
  if (is_image_model(type)) return validate_image_model(c);
  const auto within = [&](const char* key, int64_t value, int64_t least, int64_t most) {
    c.check(value >= least && value <= most, key, "must be in {} to {}, got {}", least, most, value);
  };
  within("layers", layers, 1, kMostLayers);
  within("embed_dim", embed_dim, 4, kMostWidth);
  c.check(embed_dim % 2 == 0, "embed_dim", "must be even, got {}", embed_dim);
  within("ffn_dim", ffn_dim, 1, kMostWidth);
  within("max_positions", max_positions, 0, kMostPositions);
  if (type == ModelType::transformer_lm) {
    within("input_dim", input_dim, 0, kMostWidth);
    within("output_dim", output_dim, 0, kMostWidth);
  } else if (type == ModelType::transformer) {
    within("encoder_layers", encoder_layers, 0, kMostLayers);
    within("encoder_ffn_dim", encoder_ffn_dim, 0, kMostWidth);
    c.check(share_layers < 1 || encoder_layers % share_layers == 0, "share_layers",
            "must divide encoder_layers = {}, got {}", encoder_layers, share_layers);
  } else {
    within("pooler_dim", pooler_dim, 0, kMostWidth);
    c.check(pooler_dropout >= 0.0 && pooler_dropout < 1.0, "pooler_dropout", "must be in [0, 1), got {}",
            pooler_dropout);
    within("token_types", token_types, 0, kMostTokenTypes);
    c.check(norm_eps > 0.0 && norm_eps < 1.0, "norm_eps", "must be in (0, 1), got {}", norm_eps);
  }
  c.check(heads >= 1 && embed_dim % heads == 0, "heads", "must divide embed_dim = {}, got {}", embed_dim, heads);
  for (const auto& [name, p] : {std::pair{"dropout", dropout},
                                {"attention_dropout", attention_dropout},
                                {"activation_dropout", activation_dropout},
                                {"layerdrop", layerdrop}})
    c.check(p >= 0.0 && p < 1.0, name, "must be in [0, 1), got {}", p);
  c.check(share_layers >= 1 && layers % share_layers == 0, "share_layers", "must divide layers = {}, got {}", layers,
          share_layers);
  if (type == ModelType::transformer_lm) validate_language_model(c);
}

void ModelConfig::validate_language_model(const ConfigChecker& c) const {
  c.check(!final_norm || prenorm, "final_norm", "exists only together with prenorm");
  c.check(!(share_input_output && (adaptive.input || adaptive.softmax)), "share_input_output",
          "is for the plain softmax; adaptive models use adaptive.tie_weights");
  c.check(!(noise_projection && adaptive.input), "noise_projection", "exists only without adaptive input");
}

}  // namespace qn
