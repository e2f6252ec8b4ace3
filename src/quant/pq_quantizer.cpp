#include "quant/pq_quantizer.h"

#include "core/error.h"
#include "ops/cpu/pq_kernels.h"
#include "quant/kmeans.h"

namespace qn {

PqQuantizer::PqQuantizer(int64_t block_size, int64_t n_centroids) : block_size_(block_size), n_centroids_(n_centroids) {
  QN_CHECK(block_size >= 1, "product quantization: blocks of {} columns; at least 1 is needed", block_size);
  QN_CHECK(n_centroids >= 1 && n_centroids <= 65536, "product quantization: {} centroids; 1 to 65536 are possible",
           n_centroids);
}

std::shared_ptr<const Quantizer> PqQuantizer::make(const QuantizerOptions& options) {
  OptionReader reader(kType, options);
  const int64_t block_size = reader.integer("block_size"), n_centroids = reader.integer("n_centroids");
  reader.finish();
  return std::make_shared<PqQuantizer>(block_size, n_centroids);
}

QuantizerOptions PqQuantizer::options() const {
  return {{"block_size", std::to_string(block_size_)}, {"n_centroids", std::to_string(n_centroids_)}};
}

std::string PqQuantizer::text() const { return fmt::format("pq d={} K={}", block_size_, n_centroids_); }

void PqQuantizer::check(int64_t rows, int64_t cols, const std::string& name) const {
  QN_CHECK(rows > 0 && cols > 0 && cols % block_size_ == 0,
           "quantized weight '{}': size {} x {} does not divide into blocks of {} columns", name, rows, cols,
           block_size_);
}

QuantizedLayout PqQuantizer::layout(int64_t rows, int64_t cols) const {
  const int64_t blocks_per_row = cols / block_size_;
  return {.codes = rows * blocks_per_row,
          .levels = n_centroids_,
          .code_shape = {blocks_per_row, rows},
          .side = {{kCentroids, {n_centroids_, block_size_}, /*trainable=*/true, /*roundable=*/true}}};
}

QuantizedTensor PqQuantizer::quantize(const float* weight, int64_t rows, int64_t cols,
                                      std::span<const float> row_importance) const {
  check(rows, cols, "");
  const auto alone = make_local_communicator();
  StageKMeans kmeans({{.name = "",
                       .weight = weight,
                       .rows = rows,
                       .cols = cols,
                       .block_size = block_size_,
                       .n_centroids = n_centroids_,
                       .row_importance = row_importance}},
                     {}, *alone);
  while (kmeans.step()) continue;
  PqTable table = std::move(kmeans.finish().front().table);
  if (table.n_centroids == n_centroids_) return tensor_of_table(shared_from_this(), std::move(table));
  return tensor_of_table(std::make_shared<PqQuantizer>(block_size_, table.n_centroids), std::move(table));
}

void PqQuantizer::decode(const QuantizedTensor& tensor, float* weight) const {
  cpu::pq_decode(weight, tensor.side(kCentroids).values.data(), tensor.codes.data(), tensor.rows, tensor.cols,
                 block_size_);
}

QuantizedTensor tensor_of_table(std::shared_ptr<const Quantizer> quantizer, PqTable table) {
  const auto shape = quantizer->kmeans();
  QN_ASSERT(shape && shape->block_size == table.block_size && shape->n_centroids == table.n_centroids);
  return {.quantizer = std::move(quantizer),
          .rows = table.rows,
          .cols = table.cols,
          .codes = std::move(table.codes),
          .values = {{PqQuantizer::kCentroids, {table.n_centroids, table.block_size}, std::move(table.centroids)}}};
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
