// The contract of quantizers: what represents a matrix by codes and a few further values. Checkpoints, packed files,
// size reports and stages know quantizers by this only. A new one is a file like int_quantizer.cpp and a line in the
// registry (quantizer.cpp).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "quant/value_storage.h"

namespace qn {

class Quantizer;

/// Values beside the codes: a codebook, scales.
struct SideValues {
  std::string name;  ///< "centroids", "scale", "zero_point"
  Shape shape;
  std::vector<float> values;
};

/// A matrix [rows, cols] as codes. Codes and side values are as the quantizer's layout() says, in its order.
struct QuantizedTensor {
  std::shared_ptr<const Quantizer> quantizer;
  int64_t rows = 0, cols = 0;
  std::vector<uint16_t> codes = {};
  std::vector<SideValues> values = {};

  /// The side values of that name, which must be there.
  const SideValues& side(const std::string& name) const;
};

struct SideLayout {
  std::string name;
  Shape shape;
  bool trainable = false;  ///< finetuning may change the values while the codes stay
  bool roundable = false;  ///< files may hold them rounded (ValueStorage); otherwise always as `always`
  ValueStorage always = ValueStorage::f32;

  /// In a file whose values are rounded to `rounded` where they may be.
  ValueStorage stored(ValueStorage rounded) const { return roundable ? rounded : always; }
};

struct QuantizedLayout {
  int64_t codes = 0;   ///< how many
  int64_t levels = 0;  ///< every code is below; at most 65536
  Shape code_shape;    ///< the codes' own shape; files give it to codes of 8 bits, others are a string of bytes
  std::vector<SideLayout> side;

  int bits() const;                           ///< per code
  uint64_t code_bytes() const;                ///< packed (bit_packing.h)
  std::vector<int64_t> stored_shape() const;  ///< of the packed codes
};

/// Bytes in files.
struct QuantizedBytes {
  uint64_t codes = 0, side = 0;
  uint64_t total() const { return codes + side; }
};

/// Block size d and number of centroids K of a k-means (kmeans.h).
struct KMeansShape {
  int64_t block_size = 0, n_centroids = 0;
  bool row_scales = false;  ///< it is that of rows that are divided by scales of their own (row_scales.h)
};

/// Settings as files keep them.
using QuantizerOptions = std::map<std::string, std::string>;

/// Immutable, and always held by a shared_ptr: make_quantizer().
class Quantizer : public std::enable_shared_from_this<Quantizer> {
 public:
  virtual ~Quantizer() = default;
  virtual std::string type() const = 0;  ///< tag in files: "pq", "int"
  virtual QuantizerOptions options() const = 0;
  virtual std::string text() const = 0;  ///< for people: "pq d=8 K=256", "int4 channel"
  /// Throws qn::Error naming the weight when it cannot quantize a matrix of this size.
  virtual void check(int64_t rows, int64_t cols, const std::string& name) const = 0;
  virtual QuantizedLayout layout(int64_t rows, int64_t cols) const = 0;
  /// Fits to `weight` [rows, cols] and encodes it; the same result in every process that is given the same. Row
  /// importances [rows], factors of each row's squared error, may be empty, and may be ignored. The result's quantizer
  /// is this one, or one of its type with smaller options where the matrix is too small for these.
  virtual QuantizedTensor quantize(const float* weight, int64_t rows, int64_t cols,
                                   std::span<const float> row_importance = {}) const = 0;
  /// The dense matrix, `weight` [rows, cols].
  virtual void decode(const QuantizedTensor& tensor, float* weight) const = 0;
  /// What a layout does not say about sound side values, without looking at codes; throws qn::Error naming the weight.
  virtual void check_values(const QuantizedTensor& tensor, const std::string& name) const { (void)tensor, (void)name; }
  /// Given where the fit is the k-means of a stage, over all ranks and weights together: codes and the side values
  /// "centroids" are those of a PqTable.
  virtual std::optional<KMeansShape> kmeans() const { return std::nullopt; }

  /// Of a matrix, side values stored as `storage` where they may be rounded.
  QuantizedBytes bytes(int64_t rows, int64_t cols, ValueStorage storage) const;
};

/// The quantizer of a file's type and options. Throws qn::Error naming the known types, or the option that is missing,
/// unknown or out of range.
std::shared_ptr<const Quantizer> make_quantizer(const std::string& type, const QuantizerOptions& options);
/// The quantizer that a person writes as its type and its options: "int bits=4 range=channel". Throws qn::Error,
/// beginning with `where`.
std::shared_ptr<const Quantizer> quantizer_from_text(const std::string& text, const std::string& where);
bool same_quantizer(const Quantizer& a, const Quantizer& b);

/// Throws qn::Error naming the weight when numbers, shapes or codes are not those of the layout, or values are unsound:
/// for tensors from files.
void check_tensor(const QuantizedTensor& tensor, const std::string& name);

/// The same of a tensor without codes.
void check_side_values(const QuantizedTensor& tensor, const std::string& name);

/// Reads options; every key must be asked for once.
class OptionReader {
 public:
  OptionReader(std::string type, const QuantizerOptions& options) : type_(std::move(type)), left_(options) {}
  int64_t integer(const std::string& key);
  std::string text(const std::string& key);
  bool has(const std::string& key) const { return left_.contains(key); }
  /// Throws qn::Error naming options that nobody asked for.
  void finish() const;

 private:
  std::string type_;
  QuantizerOptions left_;
};

}  // namespace qn
