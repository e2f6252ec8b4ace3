// What a compressed model weighs, tensor by tensor, in real bytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/enum_names.h"

namespace qn {

/// How values that are not codes are stored.
enum class ValueStorage : uint8_t { f32, f16, int8 };  ///< int8: one byte per value plus one float32 scale per tensor
template <>
struct EnumNames<ValueStorage> {
  static constexpr EnumName<ValueStorage> kAll[] = {
      {ValueStorage::f32, "fp32"}, {ValueStorage::f16, "fp16"}, {ValueStorage::int8, "int8"}};
};

/// Bytes that `count` values take.
uint64_t stored_bytes(int64_t count, ValueStorage storage);

/// Shape of a product-quantized weight.
struct PqShape {
  int64_t rows = 0, cols = 0, block_size = 1, n_centroids = 1;
};

/// One line of the report.
struct SizeEntry {
  std::string name;
  std::string storage;          ///< "pq d=8 K=256 fp16", "fp32", ...
  int64_t values = 0;           ///< weights represented
  uint64_t code_bytes = 0;      ///< packed codes
  uint64_t centroid_bytes = 0;  ///< codebook
  uint64_t dense_bytes = 0;     ///< values stored one by one

  uint64_t bytes() const { return code_bytes + centroid_bytes + dense_bytes; }
  double bits_per_value() const {
    return values == 0 ? 0.0 : 8.0 * static_cast<double>(bytes()) / static_cast<double>(values);
  }
};

class SizeReport {
 public:
  /// Codes at bits_per_code(K) each, rounded up to whole bytes per tensor, plus the codebook.
  void add_quantized(const std::string& name, const PqShape& shape, ValueStorage centroids);
  void add_dense(const std::string& name, int64_t values, ValueStorage storage);
  /// Bytes that belong to no tensor: a file's header and metadata.
  void set_header_bytes(uint64_t bytes) { header_bytes_ = bytes; }
  /// Values of the original model, where they are fewer than those stored: ties that were cut are stored twice.
  void set_original_values(int64_t values) { original_values_ = values; }

  const std::vector<SizeEntry>& entries() const { return entries_; }
  SizeEntry total() const;  ///< sums over the entries, without the header
  uint64_t header_bytes() const { return header_bytes_; }
  uint64_t total_bytes() const { return total().bytes() + header_bytes_; }  ///< the size of the file
  uint64_t original_bytes() const;                                          ///< the original model in float32
  double ratio() const;                                                     ///< original / total

  /// A fixed-width table, one line per tensor, then the totals.
  std::string to_table() const;
  /// The same as JSON text.
  std::string to_json() const;

 private:
  std::vector<SizeEntry> entries_;
  uint64_t header_bytes_ = 0;
  int64_t original_values_ = 0;  // 0: those of the entries
};

}  // namespace qn
