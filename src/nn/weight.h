// A layer asks its weight to act: to multiply, to look rows up. How the weight does it (dense, noisy, from codes) is
// the business of its representation. Layers know nothing of quantization, quantization knows nothing of layers.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "nn/parameters.h"
#include "ops/ops.h"

namespace qn {

/// Groups that noise and stages select by.
namespace groups {
inline constexpr const char* kFfn = "ffn";
inline constexpr const char* kAttention = "attn";             ///< self-attention
inline constexpr const char* kCrossAttention = "cross_attn";  ///< of a decoder to an encoder
inline constexpr const char* kEmbedding = "embed";            ///< token tables
inline constexpr const char* kPositions = "positions";        ///< tables of learned positions
inline constexpr const char* kEmbeddingProjection = "embed_proj";
inline constexpr const char* kSoftmax = "softmax";        ///< output matrices that are not tied to a table
inline constexpr const char* kHead = "head";              ///< what stands between an encoder and its outputs
inline constexpr const char* kConv = "conv";              ///< convolutions over pixels and channels
inline constexpr const char* kDepthwise = "depthwise";    ///< convolutions with a filter of its own for every channel
inline constexpr const char* kPointwise = "pointwise";    ///< convolutions of single pixels
inline constexpr const char* kSqueeze = "squeeze";        ///< of squeeze and excitation
inline constexpr const char* kClassifier = "classifier";  ///< from an image's features to classes
}  // namespace groups

/// Linear weights are [out, in], embedding tables [rows, dim], convolutions [out, in / groups, kh, kw].
enum class WeightKind : uint8_t { linear, embedding, conv };

class ActivationQuantizer;
struct QuantizedTensor;  // quant/quantizer.h

/// A trainable tensor behind a representation.
struct WeightPart {
  std::string role;  ///< "centroids"
  Parameter* parameter;
};

/// Where a weight's values come from.
class Representation {
 public:
  virtual ~Representation() = default;
  /// The value to compute with in this pass, as a matrix [rows, cols]: the tape's type, or the parameters'.
  virtual Var value(Tape& tape) = 0;
  /// y[:, column .. column + rows) = x W^T without making the value, where that is better: in passes that record no
  /// gradient. `input` is what quantizes x, or null. False: nothing was done, and value() is to be multiplied by.
  virtual bool multiply(Tape& tape, const Tensor& y, int64_t column, const Tensor& x,
                        const ActivationQuantizer* input) {
    (void)tape, (void)y, (void)column, (void)x, (void)input;
    return false;
  }
  /// y = x W likewise, x [N, rows].
  virtual bool multiply_transposed(Tape& tape, const Tensor& y, const Tensor& x) {
    (void)tape, (void)y, (void)x;
    return false;
  }
  /// y[i, :] = scale * row ids[i], zeros for negative ids, likewise. `ids` are where kernels find them.
  virtual bool lookup(Tape& tape, const Tensor& y, const int32_t* ids, double scale) {
    (void)tape, (void)y, (void)ids, (void)scale;
    return false;
  }
  /// Before the passes of an update (its number counts those before it), on every rank: the weight has the values that
  /// the passes will see.
  virtual void begin_update(const Kernels& kernels, int64_t update) { (void)kernels, (void)update; }
  /// What a checkpoint must keep beside the parameters, and taking it back; nothing by default.
  virtual std::vector<float> state() const { return {}; }
  virtual void set_state(std::span<const float> state) { (void)state; }
  /// The codes behind the values, null where there are none. Values beside codes that are trained are zero here: they
  /// are the weight's parts().
  virtual const QuantizedTensor* quantized() const { return nullptr; }
};

/// The plain trainable matrix.
class DenseRepresentation : public Representation {
 public:
  explicit DenseRepresentation(Parameter* parameter) : parameter_(parameter) {}
  Var value(Tape& tape) override;

 private:
  Parameter* parameter_;
};

/// What a layer multiplies by or looks rows up in. It has the shape that the model's files give it, and a matrix view
/// [rows, cols] with everything behind the first axis flattened.
class Weight {
 public:
  Weight(std::string name, std::string group, WeightKind kind, Shape shape, Parameter* dense);

  const std::string& name() const { return name_; }  ///< fairseq's parameter name, ending in ".weight"
  const std::string& group() const { return group_; }
  WeightKind kind() const { return kind_; }
  const Shape& shape() const { return shape_; }
  int64_t rows() const { return shape_[0]; }
  int64_t cols() const { return shape_.elements() / shape_[0]; }
  /// Token table: the id whose vector row 0 is; -1 for anything else.
  int64_t first_token() const { return first_token_; }
  void set_first_token(int64_t id) { first_token_ = id; }
  /// The dense parameter; nullptr once the weight is represented by codes.
  Parameter* dense() const { return dense_; }
  /// What is trained of a weight that is represented by codes.
  const std::vector<WeightPart>& parts() const { return parts_; }
  Representation& representation() { return *representation_; }
  const Representation& representation() const { return *representation_; }

  /// x W^T + bias, x [N, cols] -> [N, rows]; `bias` may be undefined.
  Var linear(Tape& tape, const Var& x, const Var& bias = {}, const ActivationQuantizer* input = nullptr);
  /// x [batch, height, width, in] convolved with a weight of kind conv; see qn::conv2d().
  Var conv2d(Tape& tape, const Var& x, const ConvShape& shape, const ConvEpilogue& epilogue,
             const ActivationQuantizer* input = nullptr);
  /// x W, x [N, rows] -> [N, cols]: a projection used in the opposite direction.
  Var linear_transposed(Tape& tape, const Var& x);
  /// scale * rows of the table: [ids.size(), cols]; zeros for negative ids. Rows with id == pad_id get no gradient.
  Var lookup(Tape& tape, std::span<const int32_t> ids, double scale, int32_t pad_id);

  /// The matrix to multiply by, in the tape's type. Computed once per pass: all uses of a tied weight see the same
  /// value.
  Var value(Tape& tape);
  /// The same value as its representation gives it, which may be the master itself: for looking rows up without a cast
  /// of the whole table.
  Var table(Tape& tape);
  /// Whether the last pass that recorded gradients multiplied by a cast of the trained matrix itself.
  bool is_cast() const { return is_cast_; }
  /// The weight that is multiplied by beside this one, to its right; null where there is none.
  Weight* next_beside() const { return next_beside_; }
  void set_next_beside(Weight* next) { next_beside_ = next; }
  /// A cast of the trained matrix for the passes to come, so that they make none; an undefined one: no longer.
  void keep_cast(const Tensor& cast) { kept_cast_ = cast; }
  /// Replaces where values come from. `dense` is the trainable matrix behind the new representation, or nullptr;
  /// `parts` is what else is trained.
  void set_representation(std::unique_ptr<Representation> representation, Parameter* dense,
                          std::vector<WeightPart> parts = {});
  /// Puts one with the same trainable parts in place, and returns the one before: to watch a weight for a while.
  std::unique_ptr<Representation> exchange_representation(std::unique_ptr<Representation> other);

 private:
  std::string name_, group_;
  WeightKind kind_;
  Shape shape_;
  int64_t first_token_ = -1;
  Parameter* dense_;
  std::vector<WeightPart> parts_;
  std::unique_ptr<Representation> representation_;
  uint64_t table_pass_ = 0, value_pass_ = 0;  ///< passes that the cached values belong to
  Var table_, value_;
  bool is_cast_ = false;
  Weight* next_beside_ = nullptr;
  Tensor kept_cast_;
};

/// The results of several weights side by side: x [N, cols] -> [N, sum of rows]. `biases` is empty or as long as
/// `weights`. With `columns` the result has so many, and what is behind those of the weights is not written.
Var linear_concat(Tape& tape, const Var& x, std::span<Weight* const> weights, std::span<const Var> biases,
                  const ActivationQuantizer* input = nullptr, int64_t columns = 0);

/// A second use of a weight under a name of its own (tied softmax).
struct TiedUse {
  std::string name;
  std::string group;  ///< of the weight that comes into being when the tie is cut
  Weight** place;     ///< the layer's handle
};

/// All weights of a module.
class WeightSet {
 public:
  Weight* add(ParameterStore& store, std::string name, std::string group, WeightKind kind, Shape shape, InitRule init);
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
