// Bytes compressed as a zlib stream (RFC 1950), which the standard libraries of most languages read.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qn {

/// As small as zlib makes it.
std::vector<std::byte> compress_bytes(std::string_view content);

/// Throws qn::Error beginning with `where` unless `stream` is a zlib stream, whole, intact and with nothing behind it,
/// of at most `most` bytes. Takes memory only for what the stream really gives.
std::string decompress_bytes(std::span<const std::byte> stream, size_t most, const std::string& where);

/// The same of a gzip file (RFC 1952) of one member.
std::string decompress_gzip(std::span<const std::byte> file, size_t most, const std::string& where);

}  // namespace qn
