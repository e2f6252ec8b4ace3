// The section `data` of image networks.
#pragma once

#include <cstdint>
#include <string>

#include "core/config.h"
#include "data/image_augment.h"
#include "data/image_transform.h"

namespace qn {

struct ImageDataConfig {
  std::string path;
  std::string valid = "valid";
  int64_t batch_size = 32;
  int64_t workers = 1;
  ImageTransform transform;
  ImageAugmentation augmentation;
  void visit(ConfigVisitor& v);
  void validate(const ConfigChecker& c) const;
};

}  // namespace qn
