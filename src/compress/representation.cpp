#include "compress/representation.h"

#include <algorithm>

#include "compress/device_grid.h"
#include "ops/host_access.h"
#include "ops/int8_weight.h"
#include "quant/int_quantizer.h"
#include "quant/pq_quantizer.h"

namespace qn {
namespace {

/// The trained part of that role; null when there is none.
Parameter* find_part(const std::vector<WeightPart>& parts, const std::string& role) {
  const auto it = std::find_if(parts.begin(), parts.end(), [&](const WeightPart& part) { return part.role == role; });
  return it == parts.end() ? nullptr : it->parameter;
}

std::vector<float> values_on_host(const Kernels& kernels, const Tensor& tensor) {
  const HostView view(kernels, tensor);
  if (view.view().dtype == DType::f32) return {view.span<float>().begin(), view.span<float>().end()};
  std::vector<float> values;
  for (const double v : view.span<double>()) values.push_back(static_cast<float>(v));
  return values;
}

/// Rows of scale 0 become zeros.
void divide_rows(std::vector<float>& matrix, std::span<const float> scales) {
  const size_t cols = matrix.size() / scales.size();
  for (size_t i = 0; i < matrix.size(); ++i) matrix[i] = scales[i / cols] == 0.0f ? 0.0f : matrix[i] / scales[i / cols];
}

/// Centroids are trained, and scales of rows where there are any. Codes stay, unless there are latent values to move
/// them by.
class PqRepresentation : public Representation, public MovableCodes {
 public:
  PqRepresentation(QuantizedTensor tensor, const std::vector<WeightPart>& parts, const CodeTraining& training)
      : centroids_(find_part(parts, PqQuantizer::kCentroids)),
        scales_(find_part(parts, PqQuantizer::kRowScales)),
        latent_(find_part(parts, kLatent)),
        tensor_(std::move(tensor)),
        training_(training) {
    QN_ASSERT(centroids_ != nullptr);
    count();
  }

  void begin_update(const Kernels& kernels, int64_t) override {
    if (training_.int8_centroids) fit_grid(kernels);
  }

  Var value(Tape& tape) override {
    const int64_t* divisors = divisors_.empty() ? nullptr : device_divisors_.of(tape.k, divisors_);
    Var w = pq_weight(tape, stored(tape, centroids_->var(tape)), device_codes_.of(tape.k, tensor_.codes), divisors,
                      {tensor_.rows, tensor_.cols});
    if (scales_ != nullptr) w = scale_rows(tape, w, scales_->var(tape));
    if (latent_ != nullptr) straight_through(tape, w, latent_->var(tape));
    return w;
  }
  const QuantizedTensor* quantized() const override { return &tensor_; }

  int64_t move_codes(const Kernels& kernels, double share) override;
  void set_codes(const Kernels& kernels, std::span<const uint16_t> codes) override {
    QN_CHECK(codes.size() == tensor_.codes.size(), "{} codes for {}, which has {}", codes.size(), centroids_->name,
             tensor_.codes.size());
    std::copy(codes.begin(), codes.end(), tensor_.codes.begin());  // in place: kernels may know the address
    count();
    device_codes_.update(kernels, tensor_.codes);
    device_divisors_.update(kernels, divisors_);
  }

 private:
  void count() {
    const std::vector<int64_t> counts = count_codes(tensor_.codes, centroids_->shape[0]);
    const std::vector<int64_t> divisors = gradient_divisors(counts, training_.gradient);
    divisors_.resize(divisors.size());
    std::copy(divisors.begin(), divisors.end(), divisors_.begin());
  }

  /// The centroids as a file will hold them. Evaluation finds the grid that they have now, as packing does.
  Var stored(Tape& tape, const Var& centroids) {
    if (!training_.int8_centroids) return centroids;
    if (!tape.training()) fit_grid(tape.k);
    if (!grid_.is_set()) return centroids;  // a pass before the first update, which only counts work
    // No centroid is outside the grid, so that the gradient is that of the masters.
    const Var rounded{tape.parameter_tensor(centroids.value.shape), centroids.slot};
    tape.k.fake_quantize(rounded.value, centroids.value, grid_.scale(), grid_.zero_point(), 8, 1.0, 1, {});
    return rounded;
  }
  void fit_grid(const Kernels& kernels) {
    const std::vector<float> values = values_on_host(kernels, centroids_->value);
    grid_.set(kernels, centroids_->value.dtype, static_cast<double>(int8_scale(values)),
              static_cast<double>(kInt8ZeroPoint));
  }

  Parameter *centroids_, *scales_, *latent_;  // of the rows, and latent values, where there are any
  QuantizedTensor tensor_;
  CodeTraining training_;
  std::vector<int64_t> divisors_;
  DeviceCopy<uint16_t> device_codes_;
  DeviceCopy<int64_t> device_divisors_;
  DeviceGrid grid_;  // of centroids in int8
};

int64_t PqRepresentation::move_codes(const Kernels& kernels, double share) {
  if (latent_ == nullptr) return 0;
  std::vector<float> latent = values_on_host(kernels, latent_->value);
  std::vector<float> scales(static_cast<size_t>(tensor_.rows), 1.0f);
  if (scales_ != nullptr) scales = values_on_host(kernels, scales_->value);
  divide_rows(latent, scales);
  std::vector<float> centroids = values_on_host(kernels, centroids_->value);
  if (training_.int8_centroids) round_to_storage(centroids, ValueStorage::int8);
  const int64_t d = centroids_->shape[1], rows = tensor_.rows, cols = tensor_.cols;
  const PqTable nearest = encode(latent.data(), rows, cols, d, centroids);
  const auto distance = [&](int64_t block, uint16_t code) {
    const float* x = latent.data() + block % rows * cols + block / rows * d;
    const auto scale = static_cast<double>(scales[static_cast<size_t>(block % rows)]);
    const float* c = centroids.data() + int64_t{code} * d;
    double sum = 0.0;
    for (int64_t t = 0; t < d; ++t) {
      const double difference = static_cast<double>(x[t]) - static_cast<double>(c[t]);
      sum += difference * difference;
    }
    return scale * scale * sum;
  };
  struct Move {
    double gain;
    int64_t block;
  };
  std::vector<Move> moves;
  for (int64_t n = 0; n < std::ssize(nearest.codes); ++n) {
    const uint16_t from = tensor_.codes[static_cast<size_t>(n)], to = nearest.codes[static_cast<size_t>(n)];
    if (from != to) moves.push_back({distance(n, from) - distance(n, to), n});
  }
  std::sort(moves.begin(), moves.end(),
            [](const Move& a, const Move& b) { return a.gain != b.gain ? a.gain > b.gain : a.block < b.block; });
  moves.resize(std::min(moves.size(), static_cast<size_t>(share * static_cast<double>(nearest.codes.size()))));
  std::vector<uint16_t> codes = tensor_.codes;
  for (const Move& move : moves)
    codes[static_cast<size_t>(move.block)] = nearest.codes[static_cast<size_t>(move.block)];
  set_codes(kernels, codes);
  return std::ssize(moves);
}

/// For every quantizer that has no representation of its own: nothing is trained, values are decoded at first use.
class FrozenRepresentation : public Representation {
 public:
  explicit FrozenRepresentation(QuantizedTensor tensor) : tensor_(std::move(tensor)) {}
  Var value(Tape& tape) override {
    if (memory_ != tape.k.memory) {
      value_ = OwnedTensor({tensor_.rows, tensor_.cols}, DType::f32, *tape.k.memory);
      write_on_host(tape.k, value_.view(),
                    [&](const Tensor& host) { tensor_.quantizer->decode(tensor_, host.as<float>()); });
      memory_ = tape.k.memory;
    }
    return {value_.view(), nullptr};
  }
  const QuantizedTensor* quantized() const override { return &tensor_; }

 private:
  QuantizedTensor tensor_;
  OwnedTensor value_;
  const Memory* memory_ = nullptr;
};

/// Codes of up to 8 bits: decoded like the others, but multiplied in integers where the input is quantized, too.
class IntRepresentation : public FrozenRepresentation {
 public:
  using FrozenRepresentation::FrozenRepresentation;
  bool multiply(Tape& tape, const Tensor& y, int64_t column, const Tensor& x,
                const ActivationQuantizer* input) override {
    const ActivationGrid* grid = input != nullptr ? input->grid() : nullptr;
    if (!int8_product_serves(tape, grid, quantized()->cols)) return false;
    if (memory_ != tape.k.memory) {
      weight_ = int8_weight(tape.k, *quantized());
      memory_ = tape.k.memory;
    }
    multiply_int8_into(tape, y, column, {x, nullptr}, weight_, *grid, {});
    return true;
  }

 private:
  Int8Weight weight_;
  const Memory* memory_ = nullptr;
};

/// Representations of their own: those that train what their quantizer's layout calls trainable.
struct Maker {
  const char* type;
  std::unique_ptr<Representation> (*make)(QuantizedTensor, const std::vector<WeightPart>&, const CodeTraining&);
};
constexpr Maker kMakers[] = {{PqQuantizer::kType,
                              [](QuantizedTensor tensor, const std::vector<WeightPart>& parts,
                                 const CodeTraining& training) -> std::unique_ptr<Representation> {
                                return std::make_unique<PqRepresentation>(std::move(tensor), parts, training);
                              }},
                             {IntQuantizer::kType,
                              [](QuantizedTensor tensor, const std::vector<WeightPart>&,
                                 const CodeTraining&) -> std::unique_ptr<Representation> {
                                return std::make_unique<IntRepresentation>(std::move(tensor));
                              }}};

const Maker* maker_of(const Quantizer& quantizer) {
  const std::string type = quantizer.type();
  const auto* it = std::find_if(std::begin(kMakers), std::end(kMakers), [&](const Maker& m) { return type == m.type; });
  return it == std::end(kMakers) ? nullptr : it;
}

}  // namespace

std::string part_name(const std::string& weight_name, const std::string& role) {
  static const std::string kSuffix = "weight";
  QN_ASSERT(weight_name.ends_with("." + kSuffix), "{}", weight_name);
  return weight_name.substr(0, weight_name.size() - kSuffix.size()) + role;
}

bool int8_product_serves(const Tape& tape, const ActivationGrid* grid, int64_t cols) {
  return grid != nullptr && tape.dtype() != DType::f64 && cols <= kMostInt8Columns;
}

Int8Weight int8_weight(const Kernels& kernels, const QuantizedTensor& tensor) {
  const auto copy = [&](const auto* values, Shape shape, DType dtype) {
    OwnedTensor result(shape, dtype, *kernels.memory);
    kernels.upload(result.view().data, values, result.view().bytes());
    return result;
  };
  const std::vector<uint8_t> codes(tensor.codes.begin(), tensor.codes.end());
  const SideValues &scale = tensor.side("scale"), &zero_point = tensor.side("zero_point");
  return Int8Weight(kernels, copy(codes.data(), {tensor.rows, tensor.cols}, DType::u8).view(),
                    copy(scale.values.data(), scale.shape, DType::f32).view(),
                    copy(zero_point.values.data(), zero_point.shape, DType::f32).view());
}

std::optional<QuantizedTensor> quantized_tensor(const Weight& weight, const ParameterStore& store) {
  const QuantizedTensor* codes = weight.representation().quantized();
  if (codes == nullptr) return std::nullopt;
  QuantizedTensor tensor = *codes;
  for (const WeightPart& part : weight.parts())
    for (SideValues& side : tensor.values)
      if (side.name == part.role) side.values = store.values_of(*part.parameter);
  return tensor;
}

MovableCodes* movable_codes(Weight& weight) { return dynamic_cast<MovableCodes*>(&weight.representation()); }

void RepresentationSwap::replace(Weight& weight, QuantizedTensor tensor) {
  check_tensor(tensor, weight.name());
  QN_CHECK(tensor.rows == weight.rows() && tensor.cols == weight.cols(), "{} is {} x {}, its codes are for {} x {}",
           weight.name(), weight.rows(), weight.cols(), tensor.rows, tensor.cols);
  QN_ASSERT(weight.dense() != nullptr, "{} is represented by codes already", weight.name());
  ParameterStore& store = module_.parameters();
  std::vector<float> latent;
  if (training_.latent && weight.dense()->value.defined()) latent = store.values_of(*weight.dense());
  store.remove(weight.dense());
  const Maker* maker = maker_of(*tensor.quantizer);
  if (maker == nullptr)
    return weight.set_representation(std::make_unique<FrozenRepresentation>(std::move(tensor)), nullptr);
  std::vector<WeightPart> parts;
  const QuantizedLayout layout = tensor.quantizer->layout(tensor.rows, tensor.cols);
  for (size_t i = 0; i < layout.side.size(); ++i) {
    if (!layout.side[i].trainable) continue;
    SideValues& side = tensor.values[i];
    parts.push_back({side.name, store.add(part_name(weight.name(), side.name), side.shape, {})});
    pending_.push_back({parts.back().parameter, std::move(side.values)});
    side.values.assign(static_cast<size_t>(side.shape.elements()), 0.0f);
  }
  if (training_.latent && !parts.empty()) {
    parts.push_back({kLatent, store.add(part_name(weight.name(), kLatent), {tensor.rows, tensor.cols}, {})});
    pending_.push_back({parts.back().parameter, std::move(latent)});
  }
  auto representation = maker->make(std::move(tensor), parts, training_);
  weight.set_representation(std::move(representation), nullptr, std::move(parts));
}

void RepresentationSwap::finish() {
  ParameterStore& store = module_.parameters();
  store.allocate(store.dtype());
  for (const Pending& p : pending_) store.set_values(*p.parameter, p.values);
  pending_.clear();
}

void round_side_values(Weight& weight, ValueStorage storage) {
  const QuantizedTensor* codes = weight.representation().quantized();
  if (codes == nullptr || !weight.parts().empty()) return;
  QuantizedTensor tensor = *codes;
  const QuantizedLayout layout = tensor.quantizer->layout(tensor.rows, tensor.cols);
  for (size_t i = 0; i < layout.side.size(); ++i)
    round_to_storage(tensor.values[i].values, layout.side[i].stored(storage));
  // Where nothing is trained, types whose values could be have no representation of their own.
  const bool trainable =
      std::any_of(layout.side.begin(), layout.side.end(), [](const SideLayout& s) { return s.trainable; });
  const Maker* maker = trainable ? nullptr : maker_of(*tensor.quantizer);
  weight.set_representation(maker != nullptr ? maker->make(std::move(tensor), {}, {})
                                             : std::make_unique<FrozenRepresentation>(std::move(tensor)),
                            nullptr);
}

}  // namespace qn
