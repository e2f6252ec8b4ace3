// A choice that configurations and convolutions share.
#pragma once

#include "core/enum_names.h"

namespace qn {

/// How many zeros a convolution sees around an image: as TensorFlow's "same", or as many on both sides.
enum class ConvPadding { same, symmetric };
template <>
struct EnumNames<ConvPadding> {
  static constexpr EnumName<ConvPadding> kAll[] = {{ConvPadding::same, "same"}, {ConvPadding::symmetric, "symmetric"}};
};

}  // namespace qn
