// What others call the tensors of an EfficientNet.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/enum_names.h"
#include "models/efficientnet.h"

namespace qn {

/// timm (whose names are ours), torchvision, and Luke Melas-Kyriazi's efficientnet-pytorch with its offspring, the
/// packages efficientnet-lite*-pytorch.
enum class EfficientNetNames { timm, torchvision, efficientnet_pytorch };
template <>
struct EnumNames<EfficientNetNames> {
  using N = EfficientNetNames;
  static constexpr EnumName<N> kAll[] = {
      {N::timm, "timm"}, {N::torchvision, "torchvision"}, {N::efficientnet_pytorch, "efficientnet_pytorch"}};
};

/// The first convolution's name, by which the kinds of names are told apart.
std::string first_tensor(EfficientNetNames names);

/// Pairs of our name and theirs, of parameters and running averages, in the network's order.
std::vector<std::pair<std::string, std::string>> tensor_names(const EfficientNetShape& shape, EfficientNetNames theirs);

}  // namespace qn
