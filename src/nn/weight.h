// A layer asks its weight for a value; what that value is (dense, noisy, decoded from codes) is the business of the
// weight's source. Layers know nothing of quantization, quantization knows nothing of layers.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nn/parameters.h"

namespace qn {

/// Groups that noise and stages select by.
namespace groups {
inline constexpr const char* kFfn = "ffn";
inline constexpr const char* kAttention = "attn";
inline constexpr const char* kEmbedding = "embed";  ///< token tables
inline constexpr const char* kEmbeddingProjection = "embed_proj";
inline constexpr const char* kSoftmax = "softmax";  ///< output matrices that are not tied to a table
}  // namespace groups

/// Linear weights are [out, in], embedding tables [rows, dim], convolutions [out, in / groups * kernel].
enum class WeightKind : uint8_t { linear, embedding, conv };

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  /// The [rows, cols] value to compute with in this pass: the tape's type, or the parameters'.
  virtual Var value(Tape& tape) = 0;
};

/// The plain trainable matrix.
class DenseSource : public WeightSource {
 public:
  explicit DenseSource(Parameter* parameter) : parameter_(parameter) {}
  Var value(Tape& tape) override { return parameter_->var(tape); }

 private:
  Parameter* parameter_;
};

/// A matrix that a layer multiplies by or looks rows up in.
class Weight {
 public:
  Weight(std::string name, std::string group, WeightKind kind, int64_t rows, int64_t cols, Parameter* dense);

  const std::string& name() const { return name_; }  ///< fairseq's parameter name, ending in ".weight"
  const std::string& group() const { return group_; }
  WeightKind kind() const { return kind_; }
  /// Token table: the id whose vector row 0 is; -1 for anything else.
  int64_t first_token() const { return first_token_; }
  void set_first_token(int64_t id) { first_token_ = id; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  /// The dense parameter; nullptr once the weight is represented by codes.
  Parameter* dense() const { return dense_; }
  const WeightSource& source() const { return *source_; }

  /// The matrix to multiply by, in the tape's type. Computed once per pass: all uses of a tied weight see the same
  /// value.
  Var value(Tape& tape);
  /// The same value as its source gives it, which may be the master itself: for looking rows up without a cast of the
  /// whole table.
  Var table(Tape& tape);
  /// Replaces where values come from. `dense` is the trainable matrix behind the new source, or nullptr.
  void set_source(std::unique_ptr<WeightSource> source, Parameter* dense);

 private:
  std::string name_, group_;
  WeightKind kind_;
  int64_t rows_, cols_;
  int64_t first_token_ = -1;
  Parameter* dense_;
  std::unique_ptr<WeightSource> source_;
  uint64_t table_pass_ = 0, value_pass_ = 0;  ///< passes that the cached values belong to
  Var table_, value_;
};

/// A second use of a weight under a name of its own (tied softmax).
struct TiedUse {
  std::string name;
  std::string group;  ///< of the weight that comes into being when the tie is cut
  Weight** place;     ///< the layer's handle
};

/// All weights of a model.
class WeightSet {
 public:
  Weight* add(ParameterStore& store, std::string name, std::string group, WeightKind kind, int64_t rows, int64_t cols,
              InitRule init);
  void tie(std::string name, std::string group, Weight** place) {
    ties_.push_back({std::move(name), std::move(group), place});
  }

  const std::vector<std::unique_ptr<Weight>>& all() const { return weights_; }
  const std::vector<TiedUse>& ties() const { return ties_; }
  Weight* find(const std::string& name) const;  ///< nullptr when there is none
  std::vector<std::string> aliases_of(const Weight* weight) const;

  /// Gives every tied use of `weight` a dense weight of its own with the same values (which must be allocated, or not
  /// yet needed). The caller re-lays the store out afterwards.
  std::vector<Weight*> untie(ParameterStore& store, Weight* weight);

 private:
  std::vector<std::unique_ptr<Weight>> weights_;
  std::vector<TiedUse> ties_;
};

}  // namespace qn
