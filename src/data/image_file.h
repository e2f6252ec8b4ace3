// JPEG and PNG files to pixels, as Pillow reads them: JPEG by libjpeg-turbo with its exact transform and smooth
// upsampling, the orientation in Exif ignored, CMYK taken for Adobe's inverted kind, transparency dropped, 16 bits cut
// to the upper 8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "data/image.h"

namespace qn {

/// Pictures of more pixels than this are refused.
inline constexpr int64_t kMostPixels = int64_t{1} << 27;

/// Decodes the content of a file. `channels` is 1 (grey: of colours their luma) or 3 (RGB). `name` is for messages.
/// Throws qn::Error when it is neither JPEG nor PNG, damaged or cut off, or of a kind that is not supported.
Image decode_image(std::span<const std::byte> file, int64_t channels, const std::string& name);

/// The same of a file.
Image read_image(const std::filesystem::path& path, int64_t channels);

/// Whether a file's name ends as those of JPEG and PNG files do, in letters of either case.
bool is_image_name(const std::filesystem::path& path);

}  // namespace qn
