#include "compress/pq_weight.h"

#include <algorithm>

#include "ops/ops.h"

namespace qn {
namespace {

/// Rounds through the store's type on the way in and out.
void write_values(const Tensor& tensor, const std::vector<float>& values) {
  QN_ASSERT(static_cast<int64_t>(values.size()) == tensor.elements());
  if (tensor.dtype == DType::f64)
    std::copy(values.begin(), values.end(), tensor.as<double>());
  else
    std::copy(values.begin(), values.end(), tensor.as<float>());
}

}  // namespace

PqRepresentation::PqRepresentation(Parameter* centroids, PqTable table, CentroidGradient gradient)
    : centroids_(centroids), table_(std::move(table)), gradient_(gradient) {}

Var PqRepresentation::value(Tape& tape) {
  const int64_t* counts = gradient_ == CentroidGradient::mean ? counts_.of(tape.k, table_.counts) : nullptr;
  return pq_weight(tape, centroids_->var(tape), codes_.of(tape.k, table_.codes), counts, {table_.rows, table_.cols});
}

PqTable PqRepresentation::current_table(const ParameterStore& store) const {
  PqTable table = table_;
  const HostView centroids(store.kernels(), centroids_->value);
  const Tensor& v = centroids.view();
  if (v.dtype == DType::f64)
    table.centroids.assign(v.span<double>().begin(), v.span<double>().end());
  else
    table.centroids.assign(v.span<float>().begin(), v.span<float>().end());
  return table;
}

std::string centroid_name(const std::string& weight_name) {
  static const std::string kSuffix = ".weight";
  QN_ASSERT(weight_name.ends_with(kSuffix), "{}", weight_name);
  return weight_name.substr(0, weight_name.size() - kSuffix.size()) + ".centroids";
}

void RepresentationSwap::replace(Weight& weight, PqTable table) {
  if (table.counts.empty()) {  // from a file: codes may be anything
    for (const uint16_t code : table.codes)
      QN_CHECK(code < table.n_centroids, "{}: code {} is beyond its {} centroids: the file is damaged", weight.name(),
               code, table.n_centroids);
    table.counts = count_codes(table.codes, table.n_centroids);
  }
  check_table(table, weight.name());
  QN_CHECK(table.rows == weight.rows() && table.cols == weight.cols(), "{} is {} x {}, its codes are for {} x {}",
           weight.name(), weight.rows(), weight.cols(), table.rows, table.cols);
  QN_ASSERT(weight.dense() != nullptr, "{} is represented by codes already", weight.name());
  ParameterStore& store = model_.parameters();
  store.remove(weight.dense());
  Parameter* centroids = store.add(centroid_name(weight.name()), {table.n_centroids, table.block_size}, {});
  pending_.push_back({centroids, std::move(table.centroids)});
  table.centroids.clear();
  weight.set_representation(std::make_unique<PqRepresentation>(centroids, std::move(table), gradient_), nullptr);
}

void RepresentationSwap::finish() {
  ParameterStore& store = model_.parameters();
  store.allocate(store.dtype());
  for (const Pending& p : pending_)
    write_on_host(store.kernels(), p.parameter->value, [&](const Tensor& host) { write_values(host, p.values); });
  pending_.clear();
}

const PqRepresentation* pq_representation(const Weight& weight) { return dynamic_cast<const PqRepresentation*>(&weight.representation()); }

}  // namespace qn
