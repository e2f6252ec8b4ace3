#include "quant/int_quantizer.h"

#include "core/error.h"

namespace qn {
namespace {

constexpr const char *kScale = "scale", *kZeroPoint = "zero_point";

}  // namespace

IntQuantizer::IntQuantizer(ScalarOptions options) : options_(options) {
  QN_CHECK(options.bits >= kMinScalarBits && options.bits <= kMaxScalarBits,
           "scalar quantization to {} bits: {} to {} are possible", options.bits, kMinScalarBits, kMaxScalarBits);
}

ScalarOptions IntQuantizer::options_from(const QuantizerOptions& options) {
  OptionReader reader(kType, options);
  const int64_t bits = reader.integer("bits");
  QN_CHECK(bits >= kMinScalarBits && bits <= kMaxScalarBits, "scalar quantization to {} bits: {} to {} are possible",
           bits, kMinScalarBits, kMaxScalarBits);
  const auto method = value_named<RangeMethod>(reader.text("range"), "quantizer of type 'int': range");
  reader.finish();
  return {static_cast<int>(bits), method};
}

std::shared_ptr<const Quantizer> IntQuantizer::make(const QuantizerOptions& options) {
  return std::make_shared<IntQuantizer>(options_from(options));
}

QuantizerOptions IntQuantizer::options() const {
  return {{"bits", std::to_string(options_.bits)}, {"range", name_of(options_.method)}};
}

std::string IntQuantizer::text() const { return fmt::format("int{} {}", options_.bits, name_of(options_.method)); }

void IntQuantizer::check(int64_t rows, int64_t cols, const std::string& name) const {
  QN_CHECK(rows > 0 && cols > 0, "quantized weight '{}': {} x {} has no elements", name, rows, cols);
}

QuantizedLayout IntQuantizer::layout(int64_t rows, int64_t cols) const {
  const bool per_row = options_.method == RangeMethod::channel || options_.method == RangeMethod::channel_affine;
  const Shape grid{per_row ? rows : 1};
  return {.codes = rows * cols,
          .levels = int64_t{1} << options_.bits,
          .code_shape = {rows, cols},
          .side = {{kScale, grid}, {kZeroPoint, grid}}};
}

QuantizedTensor IntQuantizer::quantize(const float* weight, int64_t rows, int64_t cols,
                                       std::span<const float> /*row_importance*/) const {
  check(rows, cols, "");
  ScalarTable table = encode(weight, rows, cols, fit_grid(weight, rows, cols, options_));
  const Shape grid{std::ssize(table.grid.scale)};
  return {
      .quantizer = shared_from_this(),
      .rows = rows,
      .cols = cols,
      .codes = {table.codes.begin(), table.codes.end()},
      .values = {{kScale, grid, std::move(table.grid.scale)}, {kZeroPoint, grid, std::move(table.grid.zero_point)}}};
}

ScalarTable IntQuantizer::table_of(const QuantizedTensor& tensor) const {
  ScalarTable table{tensor.rows,
                    tensor.cols,
                    {options_.bits, tensor.side(kScale).values, tensor.side(kZeroPoint).values},
                    std::vector<uint8_t>(tensor.codes.size())};
  for (size_t i = 0; i < table.codes.size(); ++i) table.codes[i] = static_cast<uint8_t>(tensor.codes[i]);
  return table;
}

void IntQuantizer::decode(const QuantizedTensor& tensor, float* weight) const { qn::decode(table_of(tensor), weight); }

void IntQuantizer::check_values(const QuantizedTensor& tensor, const std::string& name) const {
  check_grid({options_.bits, tensor.side(kScale).values, tensor.side(kZeroPoint).values}, tensor.rows, name);
}

}  // namespace qn
