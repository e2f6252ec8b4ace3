// Small text helpers shared by the configuration reader, layer patterns and messages.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qn {

/// Levenshtein distance in bytes.
size_t edit_distance(std::string_view a, std::string_view b);

/// Up to `limit` of `candidates`, nearest to `word` first.
std::vector<std::string> nearest(std::string_view word, std::span<const std::string> candidates, size_t limit = 1);

/// What is wrong with `word`, which is none of `choices`, `got` being how to quote it: "must be one of relu, gelu; got
/// 'gel'; did you mean 'gelu'?"
std::string wrong_choice(std::string_view word, std::string_view got, std::span<const std::string> choices);

/// 1536 -> "1.5 KiB", 40544870 -> "38.67 MiB".
std::string format_bytes(uint64_t bytes);

/// 6221568 -> "6,221,568".
std::string group_digits(int64_t n);

/// Lower-case hexadecimal, 16 digits.
std::string hex64(uint64_t value);

/// XXH3 64-bit hash of raw bytes: the checksum of every file format of this project.
uint64_t hash_bytes(const void* data, size_t bytes);

}  // namespace qn
