#include "models/efficientnet_names.h"

#include <fmt/core.h>

namespace qn {
namespace {

/// Where a layer stands.
struct Place {
  size_t stage = 0;
  int64_t layer = 0, block = 0;  ///< of its stage, of the network
  bool expands = false, squeezes = false;
};

/// The names of a network's layers, without ".weight" behind.
struct BlockNames {
  std::string expand, expand_norm, depthwise, depthwise_norm, reduce, excite, project, project_norm;
};
struct OuterNames {
  std::string stem, stem_norm, head, head_norm, classifier;
};

BlockNames timm_block(const Place& p) {
  const std::string at = fmt::format("blocks.{}.{}.", p.stage, p.layer);
  const int first = p.expands ? 2 : 1;  // norm behind the depthwise convolution
  return {at + "conv_pw",
          at + "bn1",
          at + "conv_dw",
          at + fmt::format("bn{}", first),
          at + "se.conv_reduce",
          at + "se.conv_expand",
          at + (p.expands ? "conv_pwl" : "conv_pw"),
          at + fmt::format("bn{}", first + 1)};
}

BlockNames torchvision_block(const Place& p) {
  const std::string at = fmt::format("features.{}.{}.block.", p.stage + 1, p.layer);
  const int depthwise = p.expands ? 1 : 0, squeeze = depthwise + 1, project = squeeze + (p.squeezes ? 1 : 0);
  const auto conv = [&](int number) { return at + fmt::format("{}.0", number); };
  const auto norm = [&](int number) { return at + fmt::format("{}.1", number); };
  return {conv(0),
          norm(0),
          conv(depthwise),
          norm(depthwise),
          at + fmt::format("{}.fc1", squeeze),
          at + fmt::format("{}.fc2", squeeze),
          conv(project),
          norm(project)};
}

BlockNames efficientnet_pytorch_block(const Place& p) {
  const std::string at = fmt::format("_blocks.{}._", p.block);
  return {at + "expand_conv", at + "bn0",       at + "depthwise_conv", at + "bn1",
          at + "se_reduce",   at + "se_expand", at + "project_conv",   at + "bn2"};
}

BlockNames block_names(EfficientNetNames names, const Place& place) {
  switch (names) {
    case EfficientNetNames::timm:
      return timm_block(place);
    case EfficientNetNames::torchvision:
      return torchvision_block(place);
    case EfficientNetNames::efficientnet_pytorch:
      return efficientnet_pytorch_block(place);
  }
  QN_ASSERT(false, "unknown names");
}

OuterNames outer_names(EfficientNetNames names, size_t stages) {
  switch (names) {
    case EfficientNetNames::timm:
      return {"conv_stem", "bn1", "conv_head", "bn2", "classifier"};
    case EfficientNetNames::torchvision: {
      const std::string head = fmt::format("features.{}.", stages + 1);
      return {"features.0.0", "features.0.1", head + '0', head + '1', "classifier.1"};
    }
    case EfficientNetNames::efficientnet_pytorch:
      return {"_conv_stem", "_bn0", "_conv_head", "_bn1", "_fc"};
  }
  QN_ASSERT(false, "unknown names");
}

}  // namespace

std::string first_tensor(EfficientNetNames names) { return outer_names(names, 0).stem + ".weight"; }

std::vector<std::pair<std::string, std::string>> tensor_names(const EfficientNetShape& shape,
                                                              EfficientNetNames theirs) {
  std::vector<std::pair<std::string, std::string>> pairs;
  const auto add = [&](const std::string& own, const std::string& other, std::initializer_list<const char*> endings) {
    for (const char* ending : endings) pairs.emplace_back(own + ending, other + ending);
  };
  const auto conv = [&](const std::string& own, const std::string& other) { add(own, other, {".weight"}); };
  const auto biased = [&](const std::string& own, const std::string& other) { add(own, other, {".weight", ".bias"}); };
  const auto norm = [&](const std::string& own, const std::string& other) {
    add(own, other, {".weight", ".bias", ".running_mean", ".running_var"});
  };
  const OuterNames a = outer_names(EfficientNetNames::timm, shape.stages.size()),
                   b = outer_names(theirs, shape.stages.size());
  conv(a.stem, b.stem);
  norm(a.stem_norm, b.stem_norm);
  Place place{.squeezes = shape.squeeze};
  for (const EfficientNetStage& stage : shape.stages) {
    place.expands = stage.expand != 1;
    for (place.layer = 0; place.layer < stage.layers; ++place.layer, ++place.block) {
      const BlockNames own = block_names(EfficientNetNames::timm, place), other = block_names(theirs, place);
      if (place.expands) {
        conv(own.expand, other.expand);
        norm(own.expand_norm, other.expand_norm);
      }
      conv(own.depthwise, other.depthwise);
      norm(own.depthwise_norm, other.depthwise_norm);
      if (place.squeezes) {
        biased(own.reduce, other.reduce);
        biased(own.excite, other.excite);
      }
      conv(own.project, other.project);
      norm(own.project_norm, other.project_norm);
    }
    ++place.stage;
  }
  conv(a.head, b.head);
  norm(a.head_norm, b.head_norm);
  biased(a.classifier, b.classifier);
  return pairs;
}

}  // namespace qn
