// From images to the folder that ImageDataset reads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/image_sources.h"

namespace qn {

struct PrepareImagesOptions {
  std::filesystem::path destdir;  ///< created if needed
  int64_t hold_out = 0;           ///< images of train, drawn at random, that become the split valid
  bool skip_damaged = false;      ///< leave images out that cannot be read, instead of stopping
};

struct ImageSplitSummary {
  std::string name, origin;
  int64_t images = 0, unlabelled = 0;
  std::vector<std::string> skipped;  ///< what is wrong with images that were left out
  uint64_t bytes = 0;                ///< of the file
};

struct PrepareImagesSummary {
  std::vector<ImageSplitSummary> splits;
};

/// Writes SPLIT.images for every source, reading images on all of OpenMP's threads. The order of images is that of the
/// sources. Throws qn::Error when images cannot be read (all of them are tried, and the first ones named), when the
/// folder holds other splits of other classes or channels, or cannot be written; a split is then as it was before.
PrepareImagesSummary prepare_images(const ImageSources& sources, const PrepareImagesOptions& options);

}  // namespace qn
