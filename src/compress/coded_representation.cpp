#include "compress/coded_representation.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "compress/representation.h"
#include "core/text.h"
#include "nn/activation_point.h"
#include "ops/cpu/codes_variants.h"
#include "ops/cuda/backend.h"
#include "ops/device.h"
#include "ops/host_access.h"
#include "quant/bit_packing.h"
#include "quant/int_quantizer.h"
#include "quant/pq_quantizer.h"

namespace qn {
namespace {

constexpr const char *kScale = "scale", *kZeroPoint = "zero_point";

/// Throws unless all packed codes are below `levels`; a few at a time, so that they need no memory.
void check_codes(std::span<const uint8_t> packed, int64_t count, int bits, int64_t levels, const std::string& name) {
  if (levels == int64_t{1} << bits) return;
  constexpr int64_t kChunk = 1 << 13;  // a multiple of 8: chunks begin with bytes
  std::vector<uint16_t> codes;
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    codes.resize(static_cast<size_t>(std::min(kChunk, count - begin)));
    const auto first = static_cast<size_t>(begin * bits / 8);
    unpack_codes(packed.subspan(first, static_cast<size_t>(packed_bytes(std::ssize(codes), bits))), bits, codes);
    const auto largest = std::max_element(codes.begin(), codes.end());
    QN_CHECK(*largest < levels,
             "quantized weight '{}': code {} at place {} is beyond its {} levels: the file is damaged", name, *largest,
             begin + (largest - codes.begin()), levels);
  }
}

/// What a byte of stored row scales stands for.
std::vector<float> row_scale_values(const SafetensorsReader& file, const std::string& name) {
  const std::vector<float> scale = file.values<float>(name + "_scale", StoredType::f32);
  const LogGrid grid{scale.at(0), scale.at(1)};
  std::vector<float> values;
  for (int code = 0; code < 256; ++code) values.push_back(grid.value(static_cast<int8_t>(static_cast<uint8_t>(code))));
  return values;
}

template <typename T>
std::vector<T> downloaded(const Kernels& kernels, const T* from, int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  kernels.download(values.data(), from, values.size() * sizeof(T));
  return values;
}

/// For people.
std::string codes_way(const Kernels& kernels, const CodeMatrix& weight, int64_t tokens) {
  if (Device(kernels).is_cuda()) return cuda_codes_path(weight, tokens, DType::f32);
  return cpu::name_of(cpu::path_of(weight, tokens, DType::f32, false));
}

}  // namespace

bool CodedRepresentation::serves(const Tape& tape) const {
  return tape.k.from_codes && tape.k.memory == kernels_.memory && !tape.recording();
}

Var CodedRepresentation::value(Tape& tape) {
  const Tensor w = tape.parameter_tensor({weight_.view().rows, weight_.view().cols});
  if (tape.k.from_codes && tape.k.memory == kernels_.memory)
    tape.k.decode_codes(w, weight_.view());
  else
    write_on_host(tape.k, w, [&](const Tensor& host) { quantizer_->decode(*quantized(), host.as<float>()); });
  return {w, nullptr};
}

bool CodedRepresentation::multiply(Tape& tape, const Tensor& y, int64_t column, const Tensor& x,
                                   const ActivationQuantizer* input) {
  if (multiply_int8(tape, y, column, x, input)) return true;
  if (!serves(tape)) return false;
  tape.k.matmul_codes({.weight = weight_.view(), .x = x, .y = y, .column = column});
  return true;
}

bool CodedRepresentation::multiply_int8(Tape& tape, const Tensor& y, int64_t column, const Tensor& x,
                                        const ActivationQuantizer* input) {
  const ActivationGrid* grid = input != nullptr ? input->grid() : nullptr;
  if (weight_.view().block > 0 || !int8_product_serves(tape, grid, weight_.view().cols)) return false;
  if (tape.k.memory != kernels_.memory) return false;
  if (!int8_) int8_ = int8_weight(tape.k, unpacked());
  multiply_int8_into(tape, y, column, {x, nullptr}, *int8_, *grid, {});
  return true;
}

bool CodedRepresentation::multiply_transposed(Tape& tape, const Tensor& y, const Tensor& x) {
  if (!serves(tape)) return false;
  tape.k.matmul_codes({.weight = weight_.view(), .x = x, .y = y, .transposed = true});
  return true;
}

bool CodedRepresentation::lookup(Tape& tape, const Tensor& y, const int32_t* ids, double scale) {
  if (!serves(tape)) return false;
  tape.k.lookup_codes(y, weight_.view(), ids, scale);
  return true;
}

QuantizedTensor CodedRepresentation::unpacked() const {
  const CodeMatrix& m = weight_.view();
  QuantizedTensor tensor{.quantizer = quantizer_, .rows = m.rows, .cols = m.cols};
  tensor.codes.resize(static_cast<size_t>(m.rows * m.blocks()));
  const auto packed = downloaded(kernels_, m.codes, packed_bytes(std::ssize(tensor.codes), m.bits));
  unpack_codes(packed, m.bits, tensor.codes);
  if (m.block == 0) {
    const Shape grid{m.grid_per_row ? m.rows : 1};
    tensor.values = {{kScale, grid, downloaded(kernels_, m.scales, grid.elements())},
                     {kZeroPoint, grid, downloaded(kernels_, m.zero_points, grid.elements())}};
    return tensor;
  }
  tensor.values = {
      {PqQuantizer::kCentroids, {m.levels, m.block}, downloaded(kernels_, m.centroids, m.levels * m.block)}};
  if (m.row_scales == nullptr) return tensor;
  const std::vector<float> table = downloaded(kernels_, m.row_scale_values, 256);
  std::vector<float> scales;
  for (const uint8_t place : downloaded(kernels_, m.row_scales, m.rows)) scales.push_back(table[place]);
  tensor.values.push_back({PqQuantizer::kRowScales, {m.rows}, std::move(scales)});
  return tensor;
}

const QuantizedTensor* CodedRepresentation::quantized() const {
  if (!quantized_) quantized_ = unpacked();
  return &*quantized_;
}

std::unique_ptr<CodedRepresentation> read_coded(const SafetensorsReader& file, const std::string& weight,
                                                const PackedWeight& packed, const Kernels& kernels) {
  const QuantizedLayout layout = packed.quantizer->layout(packed.rows, packed.cols);
  QuantizedTensor head = read_side_values(file, weight, packed);
  check_side_values(head, weight);
  const std::span<const std::byte> bytes = file.at(part_name(weight, kCodes)).bytes;
  check_codes({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, layout.codes, layout.bits(),
              layout.levels, weight);
  const auto made = [&](CodeWeight codes) {
    return std::make_unique<CodedRepresentation>(std::move(codes), packed.quantizer, kernels);
  };
  const std::string type = packed.quantizer->type();
  if (type == IntQuantizer::kType)
    return made({kernels, CodeWeight::Grid{.rows = packed.rows,
                                           .cols = packed.cols,
                                           .bits = layout.bits(),
                                           .codes = bytes,
                                           .scales = head.side(kScale).values,
                                           .zero_points = head.side(kZeroPoint).values}});
  if (type != PqQuantizer::kType) return nullptr;
  const KMeansShape shape = packed.quantizer->kmeans().value();
  CodeWeight::Blocks blocks{.rows = packed.rows,
                            .cols = packed.cols,
                            .block = shape.block_size,
                            .levels = shape.n_centroids,
                            .bits = layout.bits(),
                            .codes = bytes,
                            .centroids = head.side(PqQuantizer::kCentroids).values};
  if (!shape.row_scales) return made({kernels, blocks});
  const std::string scales = part_name(weight, PqQuantizer::kRowScales);
  const StoredTensor& stored = file.at(scales);
  if (stored.type != StoredType::i8) return nullptr;  // as no version of ours writes them
  const std::vector<float> values = row_scale_values(file, scales);
  blocks.row_scales = {reinterpret_cast<const uint8_t*>(stored.bytes.data()), stored.bytes.size()};
  blocks.row_scale_values = values;
  return made({kernels, blocks});
}

std::string describe_coded(const Module& module) {
  constexpr int64_t kMany = 1024;
  size_t bytes = 0;
  int64_t count = 0;
  std::string on;
  std::map<std::string, int64_t> few, many;
  for (const auto& weight : module.weights().all()) {
    const auto* coded = dynamic_cast<const CodedRepresentation*>(&weight->representation());
    if (coded == nullptr) continue;
    bytes += coded->weight().bytes();
    ++count;
    on = coded->kernels().memory == &host_memory() ? cpu::codes_variant().name : coded->kernels().backend;
    ++few[codes_way(coded->kernels(), coded->weight().view(), 1)];
    ++many[codes_way(coded->kernels(), coded->weight().view(), kMany)];
  }
  if (count == 0) return {};
  const auto text = [](const std::map<std::string, int64_t>& ways) {
    std::vector<std::string> parts;
    for (const auto& [way, weights] : ways) parts.push_back(fmt::format("{} ({})", way, weights));
    return fmt::format("{}", fmt::join(parts, ", "));
  };
  return fmt::format("{} weights stay codes, {} in memory; fp32 products with {}: of one token by {}, of {} by {}",
                     count, format_bytes(bytes), on, text(few), kMany, text(many));
}

}  // namespace qn
