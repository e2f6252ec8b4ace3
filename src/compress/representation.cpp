#include "compress/representation.h"

#include <algorithm>

#include "ops/host_access.h"
#include "ops/int8_weight.h"
#include "quant/int_quantizer.h"
#include "quant/pq_quantizer.h"

namespace qn {
namespace {

/// Centroids are trained, codes are frozen.
class PqRepresentation : public Representation {
 public:
  PqRepresentation(QuantizedTensor tensor, const std::vector<WeightPart>& parts, CentroidGradient gradient)
      : centroids_(parts.at(0).parameter), tensor_(std::move(tensor)) {
    if (gradient == CentroidGradient::mean) counts_ = count_codes(tensor_.codes, centroids_->shape[0]);
  }
  Var value(Tape& tape) override {
    const int64_t* counts = counts_.empty() ? nullptr : device_counts_.of(tape.k, counts_);
    return pq_weight(tape, centroids_->var(tape), device_codes_.of(tape.k, tensor_.codes), counts,
                     {tensor_.rows, tensor_.cols});
  }
  const QuantizedTensor* quantized() const override { return &tensor_; }

 private:
  Parameter* centroids_;
  QuantizedTensor tensor_;
  std::vector<int64_t> counts_;
  DeviceCopy<uint16_t> device_codes_;
  DeviceCopy<int64_t> device_counts_;
};

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
    if (grid == nullptr || tape.dtype() == DType::f64 || quantized()->cols > kMostInt8Columns) return false;
    if (memory_ != tape.k.memory) {
      weight_ = int8_weight(tape.k);
      memory_ = tape.k.memory;
    }
    multiply_int8_into(tape, y, column, {x, nullptr}, weight_, *grid, {});
    return true;
  }

 private:
  Int8Weight int8_weight(const Kernels& kernels) const {
    const QuantizedTensor& tensor = *quantized();
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

  Int8Weight weight_;
  const Memory* memory_ = nullptr;
};

/// Representations of their own: those that train what their quantizer's layout calls trainable.
struct Maker {
  const char* type;
  std::unique_ptr<Representation> (*make)(QuantizedTensor, const std::vector<WeightPart>&, CentroidGradient);
};
constexpr Maker kMakers[] = {
    {PqQuantizer::kType,
     [](QuantizedTensor tensor, const std::vector<WeightPart>& parts,
        CentroidGradient gradient) -> std::unique_ptr<Representation> {
       return std::make_unique<PqRepresentation>(std::move(tensor), parts, gradient);
     }},
    {IntQuantizer::kType,
     [](QuantizedTensor tensor, const std::vector<WeightPart>&, CentroidGradient) -> std::unique_ptr<Representation> {
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

std::optional<QuantizedTensor> quantized_tensor(const Weight& weight, const ParameterStore& store) {
  const QuantizedTensor* codes = weight.representation().quantized();
  if (codes == nullptr) return std::nullopt;
  QuantizedTensor tensor = *codes;
  for (const WeightPart& part : weight.parts())
    for (SideValues& side : tensor.values)
      if (side.name == part.role) side.values = store.values_of(*part.parameter);
  return tensor;
}

void RepresentationSwap::replace(Weight& weight, QuantizedTensor tensor) {
  check_tensor(tensor, weight.name());
  QN_CHECK(tensor.rows == weight.rows() && tensor.cols == weight.cols(), "{} is {} x {}, its codes are for {} x {}",
           weight.name(), weight.rows(), weight.cols(), tensor.rows, tensor.cols);
  QN_ASSERT(weight.dense() != nullptr, "{} is represented by codes already", weight.name());
  ParameterStore& store = module_.parameters();
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
  auto representation = maker->make(std::move(tensor), parts, gradient_);
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
    if (layout.side[i].roundable) round_to_storage(tensor.values[i].values, storage);
  const Maker* maker = maker_of(*tensor.quantizer);
  weight.set_representation(maker != nullptr ? maker->make(std::move(tensor), {}, CentroidGradient::sum)
                                             : std::make_unique<FrozenRepresentation>(std::move(tensor)),
                            nullptr);
}

}  // namespace qn
