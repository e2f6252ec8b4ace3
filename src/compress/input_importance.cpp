#include "compress/input_importance.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "ops/host_access.h"

namespace qn {
namespace {

// Sums of squares are kept as whole numbers, so that the order in which passes are added does not matter: multiples of
// 2^-12 in one, of 2^-52 of what is left in the other.
constexpr int kWholeBits = 12, kRestBits = 40;
constexpr double kMostPerPass = 0x1p36;
constexpr double kLeast = 1e-3;

}  // namespace

struct InputStatistics::Sums {
  std::string weight;
  std::vector<int64_t> whole, rest;  // [cols]
  int64_t rows = 0;
  bool sound = true;

  void add(const Kernels& kernels, const Tensor& x);
};

void InputStatistics::Sums::add(const Kernels& kernels, const Tensor& x) {
  OwnedTensor cast;
  if (x.dtype != DType::f32 && x.dtype != DType::f64) {
    cast = OwnedTensor(x.shape, DType::f32, *kernels.memory);
    kernels.copy(cast.view(), x);
  }
  const HostView view(kernels, cast.defined() ? cast.view() : x);
  const int64_t n = view.view().rows(), cols = view.view().cols();
  std::vector<double> squares(static_cast<size_t>(cols), 0.0);
  const auto sum = [&](const auto* values) {
    for (int64_t r = 0; r < n; ++r)
      for (int64_t c = 0; c < cols; ++c) {
        const auto value = static_cast<double>(values[r * cols + c]);
        squares[static_cast<size_t>(c)] += value * value;
      }
  };
  view.view().dtype == DType::f64 ? sum(view.view().as<double>()) : sum(view.view().as<float>());
  rows += n;
  for (size_t c = 0; c < squares.size(); ++c) {
    sound = sound && squares[c] < kMostPerPass;
    if (!sound) return;
    const double units = std::ldexp(squares[c], kWholeBits), below = std::floor(units);
    whole[c] += static_cast<int64_t>(below);
    rest[c] += static_cast<int64_t>(std::ldexp(units - below, kRestBits));
  }
}

/// Stands in front of a weight's representation.
class InputStatistics::Watched : public Representation {
 public:
  explicit Watched(Sums& sums) : sums_(sums) {}
  void watch(std::unique_ptr<Representation> inner) { inner_ = std::move(inner); }
  std::unique_ptr<Representation> release() { return std::move(inner_); }

  Var value(Tape& tape) override { return inner_->value(tape); }
  bool multiply(Tape& tape, const Tensor& y, int64_t column, const Tensor& x,
                const ActivationQuantizer* input) override {
    sums_.add(tape.k, x);
    return inner_->multiply(tape, y, column, x, input);
  }
  const QuantizedTensor* quantized() const override { return inner_->quantized(); }

 private:
  std::unique_ptr<Representation> inner_;
  Sums& sums_;
};

InputStatistics::InputStatistics(Module& module, const std::vector<std::string>& weights) : module_(module) {
  for (const std::string& name : weights) {
    Weight* weight = module_.weights().find(name);
    QN_ASSERT(weight != nullptr, "{}", name);
    const auto cols = static_cast<size_t>(weight->cols());
    Sums& sums = *sums_.emplace_back(std::make_unique<Sums>());
    sums.weight = name;
    sums.whole.assign(cols, 0);
    sums.rest.assign(cols, 0);
    auto watched = std::make_unique<Watched>(sums);
    Watched& place = *watched;
    place.watch(weight->exchange_representation(std::move(watched)));
  }
}

InputStatistics::~InputStatistics() {
  for (const auto& sums : sums_) {
    Weight& weight = *module_.weights().find(sums->weight);
    auto& watched = dynamic_cast<Watched&>(weight.representation());
    weight.exchange_representation(watched.release());
  }
}

ColumnImportances InputStatistics::importances(double exponent, const AcrossRanks& ranks) const {
  std::vector<int64_t> all;
  for (const auto& sums : sums_) {
    all.insert(all.end(), {sums->rows, sums->sound ? 0 : 1});
    all.insert(all.end(), sums->whole.begin(), sums->whole.end());
    all.insert(all.end(), sums->rest.begin(), sums->rest.end());
  }
  ranks.sum(all);
  ColumnImportances found;
  const int64_t* at = all.data();
  for (const auto& sums : sums_) {
    const size_t cols = sums->whole.size();
    const int64_t rows = at[0], unsound = at[1], *whole = at + 2, *rest = whole + cols;
    at = rest + cols;
    QN_CHECK(unsound == 0,
             "the inputs of '{}' are not finite or beyond all measure: the model has diverged, and ipq.input_exponent "
             "has nothing to go by",
             sums->weight);
    std::vector<double> squares;
    for (size_t c = 0; c < cols; ++c)
      squares.push_back(std::ldexp(static_cast<double>(whole[c]), -kWholeBits) +
                        std::ldexp(static_cast<double>(rest[c]), -kWholeBits - kRestBits));
    const double mean = std::accumulate(squares.begin(), squares.end(), 0.0) / static_cast<double>(cols);
    if (rows == 0 || mean == 0.0) continue;
    for (double& s : squares) s = std::pow(std::max(s / mean, kLeast), exponent);
    const double size = std::accumulate(squares.begin(), squares.end(), 0.0) / static_cast<double>(cols);
    std::vector<float>& result = found[sums->weight];
    for (const double s : squares) result.push_back(static_cast<float>(s / size));
  }
  return found;
}

}  // namespace qn
