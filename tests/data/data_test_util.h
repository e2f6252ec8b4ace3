// What the data tests share.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/batching.h"
#include "data/token_stream.h"
#include "support/capture.h"

namespace qn::test {

inline void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// A stream of `tokens`, cut into sentences of these sizes, in the folder's files NAME.bin and NAME.idx.
inline TokenStream make_stream(const std::filesystem::path& prefix, std::span<const int64_t> sizes,
                               std::span<const int64_t> tokens) {
  const int64_t vocabulary = tokens.empty() ? 1 : 1 + *std::max_element(tokens.begin(), tokens.end());
  write_token_stream(prefix, vocabulary, [&](TokenStreamWriter& writer) {
    size_t next = 0;
    for (const int64_t size : sizes) {
      for (int64_t i = 0; i < size; ++i) writer.add_token(static_cast<int32_t>(tokens[next++]));
      writer.end_sentence();
    }
  });
  return TokenStream(prefix);
}

/// Tokens 4, 5, ... 99, 4, ... with 2 at the end of every sentence.
inline std::vector<int64_t> count_up(std::span<const int64_t> sizes) {
  std::vector<int64_t> tokens;
  for (const int64_t size : sizes) {
    for (int64_t i = 1; i < size; ++i) tokens.push_back(4 + static_cast<int64_t>(tokens.size()) % 96);
    tokens.push_back(2);
  }
  return tokens;
}

inline std::vector<std::vector<int64_t>> to_lists(const BatchList& batches) {
  std::vector<std::vector<int64_t>> lists;
  for (int64_t b = 0; b < batches.size(); ++b) lists.emplace_back(batches[b].begin(), batches[b].end());
  return lists;
}

/// Flat items cut into lists of the given sizes: how the reference vectors store batches.
inline std::vector<std::vector<int64_t>> cut(std::span<const int64_t> items, std::span<const int64_t> sizes) {
  std::vector<std::vector<int64_t>> lists;
  size_t next = 0;
  for (const int64_t size : sizes) {
    const auto part = items.subspan(next, static_cast<size_t>(size));
    lists.emplace_back(part.begin(), part.end());
    next += part.size();
  }
  return lists;
}

}  // namespace qn::test
