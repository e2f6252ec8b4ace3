// How the features of a sentence's tokens become one vector of the sentence.
#pragma once

#include "core/enum_names.h"

namespace qn {

enum class Pooling { mean, cls };
template <>
struct EnumNames<Pooling> {
  static constexpr EnumName<Pooling> kAll[] = {{Pooling::mean, "mean"}, {Pooling::cls, "cls"}};
};

}  // namespace qn
