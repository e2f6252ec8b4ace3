// What a compressed model weighs, tensor by tensor, in real bytes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "nn/module.h"
#include "quant/quantizer.h"

namespace qn {

/// One line of the report.
struct SizeEntry {
  std::string name;
  std::string storage;       ///< "pq d=8 K=256 fp16", "fp32", ...
  int64_t values = 0;        ///< weights represented
  uint64_t code_bytes = 0;   ///< packed codes
  uint64_t side_bytes = 0;   ///< what codes are decoded with: codebooks, scales
  uint64_t dense_bytes = 0;  ///< values stored one by one
  uint64_t other_bytes = 0;  ///< of no tensor of the model: the file's vocabulary and header
  uint64_t bytes() const { return code_bytes + side_bytes + dense_bytes + other_bytes; }
  double bits_per_value() const {
    return values == 0 ? 0.0 : 8.0 * static_cast<double>(bytes()) / static_cast<double>(values);
  }
};

class SizeReport {
 public:
  /// A matrix [rows, cols] as codes, and what they are decoded with stored as `side` where it may be rounded.
  void add_quantized(const std::string& name, const Quantizer& quantizer, int64_t rows, int64_t cols,
                     ValueStorage side);
  void add_dense(const std::string& name, int64_t values, ValueStorage storage);
  /// A tensor stored as it is, in a type of any name.
  void add_stored(const std::string& name, const std::string& storage, int64_t values, uint64_t bytes);
  /// Bytes that belong to no tensor: a file's header and metadata.
  void set_header_bytes(uint64_t bytes) { header_bytes_ = bytes; }
  /// Bytes of the words that a model reads and writes: of no tensor of the model.
  void add_vocabulary_bytes(uint64_t bytes) { vocabulary_bytes_ += bytes; }
  /// Values of the original model, where they are fewer than those stored: ties that were cut are stored twice.
  void set_original_values(int64_t values) { original_values_ = values; }

  const std::vector<SizeEntry>& entries() const { return entries_; }
  SizeEntry total() const;  ///< sums over the entries, the vocabulary and the header
  uint64_t header_bytes() const { return header_bytes_; }
  uint64_t vocabulary_bytes() const { return vocabulary_bytes_; }
  uint64_t total_bytes() const { return total().bytes(); }  ///< the size of the file
  uint64_t original_bytes() const;                          ///< the original model in float32
  double ratio() const;                                     ///< original / total

  /// A fixed-width table, one line per tensor, one each for the vocabulary and the header, then the totals.
  std::string to_table() const;
  /// The same as JSON text.
  std::string to_json() const;

 private:
  std::vector<SizeEntry> entries_;
  uint64_t header_bytes_ = 0, vocabulary_bytes_ = 0;
  int64_t original_values_ = 0;  // 0: those of the entries
};

/// Bytes in a packed file by group of weights (nn/weight.h). What belongs to no weight (biases, norms) is "other"; then
/// there are "vocabulary" and "header", where they are not empty. The sum is total_bytes().
std::map<std::string, double> bytes_by_group(const SizeReport& report, const Module& module);

}  // namespace qn
