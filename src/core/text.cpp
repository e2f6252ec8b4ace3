#include "core/text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <xxhash.h>

#include <algorithm>
#include <numeric>

namespace qn {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}

std::vector<std::string> nearest(std::string_view word, std::span<const std::string> candidates, size_t limit) {
  std::vector<std::pair<size_t, size_t>> ranked;  // distance, index
  for (size_t i = 0; i < candidates.size(); ++i) ranked.emplace_back(edit_distance(word, candidates[i]), i);
  std::sort(ranked.begin(), ranked.end());
  std::vector<std::string> result;
  for (size_t i = 0; i < std::min(limit, ranked.size()); ++i) result.push_back(candidates[ranked[i].second]);
  return result;
}

std::string wrong_choice(std::string_view word, std::string_view got, std::span<const std::string> choices) {
  const std::string nearest_choice = nearest(word, choices)[0];
  const bool near = edit_distance(word, nearest_choice) <= std::max<size_t>(2, word.size() / 3);
  return fmt::format("must be one of {}; got {}{}", fmt::join(choices, ", "), got,
                     near ? fmt::format("; did you mean '{}'?", nearest_choice) : "");
}

std::string format_bytes(uint64_t bytes) {
  const auto b = static_cast<double>(bytes);
  if (bytes < 1024) return fmt::format("{} B", bytes);
  if (bytes < 1024 * 1024) return fmt::format("{:.1f} KiB", b / 1024);
  if (bytes < 1024ULL * 1024 * 1024) return fmt::format("{:.2f} MiB", b / (1024 * 1024));
  return fmt::format("{:.2f} GiB", b / (1024.0 * 1024 * 1024));
}

std::string group_digits(int64_t n) {
  std::string digits = std::to_string(n < 0 ? -n : n);
  for (auto i = static_cast<int64_t>(digits.size()) - 3; i > 0; i -= 3) digits.insert(static_cast<size_t>(i), ",");
  return n < 0 ? "-" + digits : digits;
}

std::string hex64(uint64_t value) { return fmt::format("{:016x}", value); }

uint64_t hash_bytes(const void* data, size_t bytes) { return XXH3_64bits(data, bytes); }

}  // namespace qn
