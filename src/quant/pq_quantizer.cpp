#include "quant/pq_quantizer.h"

#include "core/error.h"
#include "ops/cpu/pq_kernels.h"
#include "quant/kmeans.h"
#include "quant/row_scales.h"

namespace qn {

namespace {
constexpr const char* kRms = "rms";
}

PqQuantizer::PqQuantizer(int64_t block_size, int64_t n_centroids, bool row_scales)
    : block_size_(block_size), n_centroids_(n_centroids), row_scales_(row_scales) {
  QN_CHECK(block_size >= 1, "product quantization: blocks of {} columns; at least 1 is needed", block_size);
  QN_CHECK(n_centroids >= 1 && n_centroids <= 65536, "product quantization: {} centroids; 1 to 65536 are possible",
           n_centroids);
}

std::shared_ptr<const Quantizer> PqQuantizer::make(const QuantizerOptions& options) {
  OptionReader reader(kType, options);
  const int64_t block_size = reader.integer("block_size"), n_centroids = reader.integer("n_centroids");
  const bool row_scales = reader.has(kRowScales);
  if (row_scales) {
    const std::string how = reader.text(kRowScales);
    QN_CHECK(how == kRms, "product quantization: row_scales must be {}, not '{}'; leave it out for none", kRms, how);
  }
  reader.finish();
  return std::make_shared<PqQuantizer>(block_size, n_centroids, row_scales);
}

QuantizerOptions PqQuantizer::options() const {
  QuantizerOptions options{{"block_size", std::to_string(block_size_)}, {"n_centroids", std::to_string(n_centroids_)}};
  if (row_scales_) options[kRowScales] = kRms;
  return options;
}

std::string PqQuantizer::text() const {
  return fmt::format("pq d={} K={}{}", block_size_, n_centroids_, row_scales_ ? " rms" : "");
}

void PqQuantizer::check(int64_t rows, int64_t cols, const std::string& name) const {
  QN_CHECK(rows > 0 && cols > 0 && cols % block_size_ == 0,
           "quantized weight '{}': size {} x {} does not divide into blocks of {} columns", name, rows, cols,
           block_size_);
}

QuantizedLayout PqQuantizer::layout(int64_t rows, int64_t cols) const {
  const int64_t blocks_per_row = cols / block_size_;
  QuantizedLayout layout{.codes = rows * blocks_per_row,
                         .levels = n_centroids_,
                         .code_shape = {blocks_per_row, rows},
                         .side = {{kCentroids, {n_centroids_, block_size_}, /*trainable=*/true, /*roundable=*/true}}};
  if (row_scales_)
    layout.side.push_back({kRowScales, {rows}, /*trainable=*/true, /*roundable=*/false, ValueStorage::log8});
  return layout;
}

QuantizedTensor PqQuantizer::quantize(const float* weight, int64_t rows, int64_t cols,
                                      std::span<const float> row_importance) const {
  check(rows, cols, "");
  const ScaledRows scaled =
      row_scales_ ? ScaledRows(cpu_kernels(), view_of(weight, {rows, cols}), row_importance) : ScaledRows();
  const auto alone = make_local_communicator();
  StageKMeans kmeans({{.name = "",
                       .weight = row_scales_ ? scaled.values() : weight,
                       .rows = rows,
                       .cols = cols,
                       .block_size = block_size_,
                       .n_centroids = n_centroids_,
                       .row_importance = row_scales_ ? scaled.importance() : row_importance}},
                     {}, *alone);
  while (kmeans.step()) continue;
  PqTable table = std::move(kmeans.finish().front().table);
  std::vector<float> scales;
  if (row_scales_) scales = fitted_row_scales(weight, table);
  if (table.n_centroids == n_centroids_) return tensor_of_table(shared_from_this(), std::move(table), scales);
  return tensor_of_table(std::make_shared<PqQuantizer>(block_size_, table.n_centroids, row_scales_), std::move(table),
                         scales);
}

void PqQuantizer::decode(const QuantizedTensor& tensor, float* weight) const {
  cpu::pq_decode(weight, tensor.side(kCentroids).values.data(), tensor.codes.data(), tensor.rows, tensor.cols,
                 block_size_);
  if (!row_scales_) return;
  const Tensor rows = view_of(weight, {tensor.rows, tensor.cols});
  cpu_kernels().scale_rows(rows, rows, view_of(tensor.side(kRowScales).values.data(), {tensor.rows}), 0);
}

QuantizedTensor tensor_of_table(std::shared_ptr<const Quantizer> quantizer, PqTable table,
                                std::vector<float> row_scales) {
  const auto shape = quantizer->kmeans();
  QN_ASSERT(shape && shape->block_size == table.block_size && shape->n_centroids == table.n_centroids &&
            shape->row_scales == !row_scales.empty());
  QuantizedTensor tensor{
      .quantizer = std::move(quantizer),
      .rows = table.rows,
      .cols = table.cols,
      .codes = std::move(table.codes),
      .values = {{PqQuantizer::kCentroids, {table.n_centroids, table.block_size}, std::move(table.centroids)}}};
  if (shape->row_scales) tensor.values.push_back({PqQuantizer::kRowScales, {table.rows}, std::move(row_scales)});
  return tensor;
}

PqTable table_of_tensor(const QuantizedTensor& tensor) {
  const KMeansShape shape = tensor.quantizer->kmeans().value();
  return {tensor.rows,
          tensor.cols,
          shape.block_size,
          shape.n_centroids,
          tensor.side(PqQuantizer::kCentroids).values,
          tensor.codes,
          count_codes(tensor.codes, shape.n_centroids)};
}

}  // namespace qn
