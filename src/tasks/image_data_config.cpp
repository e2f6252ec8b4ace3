#include "tasks/image_data_config.h"

namespace qn {

void ImageDataConfig::visit(ConfigVisitor& v) {
  v.field("path", path, "folder made by `quantnoise prepare` with --images, --cifar or --mnist");
  v.field("valid", valid, "split that validation uses");
  v.field("batch_size", batch_size, "images per micro-batch; batch normalisation takes its statistics over these");
  v.field("workers", workers, "threads of every rank that read, decode and augment images ahead (0: none)");
  v.section("transform", transform, "from a picture to the network's input; part of the model");
  v.section("augmentation", augmentation, "what training does to pictures beyond that");
}

void ImageDataConfig::validate(const ConfigChecker& c) const {
  constexpr int64_t kMostImages = 1 << 20, kMostWorkers = 1024;
  c.check(batch_size >= 1 && batch_size <= kMostImages, "batch_size", "must be in 1 to {}, got {}", kMostImages,
          batch_size);
  c.check(workers >= 0 && workers <= kMostWorkers, "workers", "must be in 0 to {}, got {}", kMostWorkers, workers);
}

}  // namespace qn
