// The section `model` of a configuration: which network, and of what size.
#pragma once

#include <cstdint>
#include <vector>

#include "core/config.h"
#include "nn/layers/conv_padding.h"
#include "ops/kernels.h"
#include "ops/norm_limits.h"

namespace qn {

/// Limits of what a configuration may ask for, far beyond what anyone trains: a slip of the keyboard or a damaged file
/// is told by its key and not by what the machine does when it runs out of memory.
inline constexpr int64_t kMostTokenTypes = 16, kMostLayers = 10'000, kMostWidth = 1 << 20, kMostPositions = 1 << 24;

inline constexpr uint64_t kEmbeddingSite = 0;  ///< dropout site of the input end of models that have one input

/// Frequency bands of adaptive input and output.
struct AdaptiveConfig {
  std::vector<int64_t> cutoffs;
  double factor = 4.0;
  double dropout = 0.0;
  bool input = false;
  bool softmax = false;
  bool tie_weights = false;
  bool tie_projections = false;
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

enum class ModelType { transformer_lm, roberta, transformer, bert, efficientnet, resnet };
template <>
struct EnumNames<ModelType> {
  static constexpr EnumName<ModelType> kAll[] = {
      {ModelType::transformer_lm, "transformer_lm"}, {ModelType::roberta, "roberta"},
      {ModelType::transformer, "transformer"},       {ModelType::bert, "bert"},
      {ModelType::efficientnet, "efficientnet"},     {ModelType::resnet, "resnet"}};
};
/// Whether its inputs are images.
inline bool is_image_model(ModelType type) { return type == ModelType::efficientnet || type == ModelType::resnet; }

/// Sizes of published models.
enum class ModelPreset { base, large };
template <>
struct EnumNames<ModelPreset> {
  static constexpr EnumName<ModelPreset> kAll[] = {{ModelPreset::base, "base"}, {ModelPreset::large, "large"}};
};

enum class EfficientNetVariant { b0, b1, b2, b3, b4, b5, b6, b7, lite0, lite1, lite2, lite3, lite4 };
template <>
struct EnumNames<EfficientNetVariant> {
  using V = EfficientNetVariant;
  static constexpr EnumName<V> kAll[] = {
      {V::b0, "b0"},       {V::b1, "b1"},       {V::b2, "b2"},      {V::b3, "b3"},       {V::b4, "b4"},
      {V::b5, "b5"},       {V::b6, "b6"},       {V::b7, "b7"},      {V::lite0, "lite0"}, {V::lite1, "lite1"},
      {V::lite2, "lite2"}, {V::lite3, "lite3"}, {V::lite4, "lite4"}};
};
/// Pixels of a side that the published variant was trained with.
int64_t published_resolution(EfficientNetVariant variant);

/// The section `model` of a configuration. `type` decides which keys there are, and what they are where they are not
/// given: see the function of each type in model_config.cpp. A key of another type is refused as unknown. Names follow
/// fairseq's models where it has one (reference 5.2, 5.8).
struct ModelConfig {
  ModelConfig() = default;
  /// What a type is where nothing else is said.
  explicit ModelConfig(ModelType of);

  ModelType type = ModelType::transformer_lm;
  // Transformers of any type
  int64_t layers = 6, embed_dim = 512, ffn_dim = 2048, heads = 8;
  int64_t max_positions = 0;
  double dropout = 0.1, attention_dropout = 0.0, activation_dropout = 0.0;
  Activation activation = Activation::relu;
  bool prenorm = false, noise_projection = false;
  double layerdrop = 0.0;
  int64_t share_layers = 1;
  // transformer_lm
  int64_t input_dim = 0, output_dim = 0;
  bool final_norm = false, learned_positions = false, scale_embedding = true, share_input_output = false;
  AdaptiveConfig adaptive;
  // transformer: layers and ffn_dim are the decoder's; learned_positions, scale_embedding and share_input_output as
  // above
  int64_t encoder_layers = 0, encoder_ffn_dim = 0;
  bool share_all_embeddings = false;
  // roberta and bert
  ModelPreset preset = ModelPreset::base;
  bool untie_output = false;
  int64_t pooler_dim = 0;
  double pooler_dropout = 0.0;
  // bert
  int64_t token_types = 0;
  double norm_eps = kNormEps;  ///< of image networks, too
  // efficientnet (dropout, activation and norm_eps as above)
  EfficientNetVariant variant = EfficientNetVariant::b0;
  double width = 1.0, depth = 1.0;
  int64_t stem_stride = 2;
  bool squeeze = true;
  ConvPadding padding = ConvPadding::same;
  double drop_path = 0.0;
  // efficientnet and resnet; of resnet, layers counts those with weights, and embed_dim is the first stage's channels
  double norm_momentum = 0.01;

  /// The sizes of a published EfficientNet.
  void select(EfficientNetVariant which);

  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;

 private:
  void visit_language_model(ConfigVisitor& v);
  void visit_encoder(ConfigVisitor& v);
  void visit_transformer(ConfigVisitor& v);
  void visit_efficientnet(ConfigVisitor& v);
  void visit_resnet(ConfigVisitor& v);
  void validate_image_model(const ConfigChecker& c) const;
  void validate_language_model(const ConfigChecker& c) const;
};

}  // namespace qn
