#include "quant/quantizer.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <sstream>

#include "core/error.h"
#include "quant/bit_packing.h"
#include "quant/int_quantizer.h"
#include "quant/pq_quantizer.h"

namespace qn {
namespace {

struct Type {
  const char* name;
  std::shared_ptr<const Quantizer> (*make)(const QuantizerOptions& options);
};
constexpr Type kTypes[] = {{PqQuantizer::kType, PqQuantizer::make}, {IntQuantizer::kType, IntQuantizer::make}};

}  // namespace

const SideValues& QuantizedTensor::side(const std::string& name) const {
  const auto it = std::find_if(values.begin(), values.end(), [&](const SideValues& v) { return v.name == name; });
  QN_ASSERT(it != values.end(), "no '{}'", name);
  return *it;
}

int QuantizedLayout::bits() const { return bits_per_code(levels); }
uint64_t QuantizedLayout::code_bytes() const { return static_cast<uint64_t>(packed_bytes(codes, bits())); }
std::vector<int64_t> QuantizedLayout::stored_shape() const {
  return bits() == 8 ? code_shape.to_vector() : std::vector<int64_t>{packed_bytes(codes, bits())};
}

QuantizedBytes Quantizer::bytes(int64_t rows, int64_t cols, ValueStorage storage) const {
  const QuantizedLayout own = layout(rows, cols);
  QuantizedBytes bytes{own.code_bytes(), 0};
  for (const SideLayout& side : own.side) bytes.side += stored_bytes(side.shape.elements(), side.stored(storage));
  return bytes;
}

std::shared_ptr<const Quantizer> make_quantizer(const std::string& type, const QuantizerOptions& options) {
  std::vector<std::string> known;
  for (const Type& t : kTypes) {
    if (type == t.name) return t.make(options);
    known.emplace_back(t.name);
  }
  fail("there is no quantizer of type '{}' in this version of quantnoise; it knows {}", type, fmt::join(known, ", "));
}

std::shared_ptr<const Quantizer> quantizer_from_text(const std::string& text, const std::string& where) {
  std::istringstream words(text);
  std::string type;
  words >> type;
  QuantizerOptions options;
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    QN_CHECK(equals != std::string::npos && equals > 0,
             "{}: '{}' in '{}' is no option: write a type and then options, such as int bits=4 range=channel", where,
             word, text);
    const std::string key = word.substr(0, equals);
    QN_CHECK(options.try_emplace(key, word.substr(equals + 1)).second, "{}: '{}' gives {} twice", where, text, key);
  }
  try {
    return make_quantizer(type, options);
  } catch (const Error& error) {
    fail("{}: {}", where, error.what());
  }
}

bool same_quantizer(const Quantizer& a, const Quantizer& b) {
  return a.type() == b.type() && a.options() == b.options();
}

void check_tensor(const QuantizedTensor& tensor, const std::string& name) {
  tensor.quantizer->check(tensor.rows, tensor.cols, name);
  const QuantizedLayout layout = tensor.quantizer->layout(tensor.rows, tensor.cols);
  QN_CHECK(std::ssize(tensor.codes) == layout.codes, "quantized weight '{}': {} codes where {} are due", name,
           tensor.codes.size(), layout.codes);
  const auto largest = std::max_element(tensor.codes.begin(), tensor.codes.end());
  QN_CHECK(largest == tensor.codes.end() || *largest < layout.levels,
           "quantized weight '{}': code {} at place {} is beyond its {} levels: the file is damaged", name, *largest,
           largest - tensor.codes.begin(), layout.levels);
  check_side_values(tensor, name);
}

void check_side_values(const QuantizedTensor& tensor, const std::string& name) {
  const QuantizedLayout layout = tensor.quantizer->layout(tensor.rows, tensor.cols);
  QN_CHECK(tensor.values.size() == layout.side.size(), "quantized weight '{}': {} kinds of values beside codes, {} due",
           name, tensor.values.size(), layout.side.size());
  for (size_t i = 0; i < layout.side.size(); ++i) {
    const SideValues& values = tensor.values[i];
    const SideLayout& due = layout.side[i];
    QN_CHECK(values.name == due.name && values.shape == due.shape && std::ssize(values.values) == due.shape.elements(),
             "quantized weight '{}': '{}' of shape {} where '{}' of shape {} is due", name, values.name,
             values.shape.to_string(), due.name, due.shape.to_string());
  }
  tensor.quantizer->check_values(tensor, name);
}

std::string OptionReader::text(const std::string& key) {
  auto node = left_.extract(key);
  QN_CHECK(!node.empty(), "a quantizer of type '{}' needs the option '{}'", type_, key);
  return std::move(node.mapped());
}

int64_t OptionReader::integer(const std::string& key) {
  const std::string value = text(key);
  int64_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  QN_CHECK(error == std::errc() && end == value.data() + value.size(),
           "quantizer of type '{}': option '{}' must be a whole number, not '{}'", type_, key, value);
  return number;
}

void OptionReader::finish() const {
  QN_CHECK(left_.empty(), "a quantizer of type '{}' has no option '{}' in this version of quantnoise", type_,
           left_.begin()->first);
}

}  // namespace qn
