// The two libraries behind image_file.h.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "data/image.h"

namespace qn {

/// Grey files give 1 channel, all others 3. Throw qn::Error, beginning with `name`.
Image decode_jpeg(std::span<const std::byte> file, const std::string& name);
Image decode_png(std::span<const std::byte> file, const std::string& name);

/// Throws qn::Error unless a picture of this size may be decoded from a file of `bytes` bytes, none of which can stand
/// for more than `most_pixels_per_byte` pixels: before memory is taken for what is only claimed.
void check_image_size(int64_t height, int64_t width, size_t bytes, int64_t most_pixels_per_byte,
                      const std::string& name);

}  // namespace qn
