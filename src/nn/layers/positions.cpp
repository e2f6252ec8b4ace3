#include "nn/layers/positions.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "nn/layers/token_embedding.h"
#include "ops/host_access.h"

namespace qn {

Positions::Positions(const Scope& scope, int64_t width, int64_t max_positions, bool learned,
                     std::optional<double> deviation)
    : width_(width), max_positions_(max_positions) {
  if (learned)
    table_ = scope.weight("embed_positions.weight", groups::kPositions, WeightKind::embedding,
                          {max_positions + kPadId + 1, width},
                          init::normal(deviation.value_or(1.0 / std::sqrt(static_cast<double>(width))), kPadId));
}

Var Positions::forward(Tape& tape, const Var& x, std::span<const int32_t> tokens, int64_t cols) {
  std::vector<int32_t> index(tokens.size());
  int32_t largest = kPadId;
  for (size_t i = 0, count = 0; i < tokens.size(); ++i) {
    if (i % static_cast<size_t>(cols) == 0) count = 0;
    index[i] = tokens[i] == kPadId ? kPadId : kPadId + static_cast<int32_t>(++count);
    largest = std::max(largest, index[i]);
  }
  return add(tape, x, index, largest);
}

Var Positions::forward(Tape& tape, const Var& x, const Sequences& sequences) {
  std::vector<int32_t> index(static_cast<size_t>(x.value.rows()), kPadId);
  for (size_t i = 0; i < sequences.begins.size(); ++i)
    std::iota(index.begin() + sequences.begins[i], index.begin() + sequences.begins[i] + sequences.lengths[i],
              kPadId + 1);
  return add(tape, x, index, kPadId + static_cast<int32_t>(sequences.longest));
}

Var Positions::at(Tape& tape, const Var& x, std::span<const int32_t> positions) {
  std::vector<int32_t> index(positions.begin(), positions.end());
  for (int32_t& i : index) i += kPadId + 1;
  return add(tape, x, index, *std::max_element(index.begin(), index.end()));
}

Var Positions::add(Tape& tape, const Var& x, std::span<const int32_t> index, int32_t largest) {
  if (table_ == nullptr) return add_positions(tape, x, {sinusoids(tape, largest + 1), nullptr}, index, kPadId);
  QN_CHECK(
      largest < table_->rows(),
      "a sequence of {} tokens is longer than the {} learned positions: use shorter blocks (data.tokens_per_sample) "
      "or a model with more positions (model.max_positions)",
      largest - kPadId, max_positions_);
  if (!tape.recording()) {  // from codes, where the table is kept so
    const Var rows = table_->lookup(tape, index, 1.0, kPadId);
    tape.k.axpy(rows.value, x.value, 1.0, 1);
    return rows;
  }
  return add_positions(tape, x, table_->table(tape), index, kPadId);
}

void Positions::set_sinusoids(std::span<const float> table) {
  rows_.assign(table.begin(), table.end());
  fixed_ = {};
}

void Positions::grow(int64_t rows) {
  // Single precision throughout, like the reference: exp, product and sine.
  const int64_t half = width_ / 2;
  const float step = static_cast<float>(std::log(10000.0) / static_cast<double>(half - 1));
  const auto begin = static_cast<int64_t>(rows_.size()) / width_;
  rows_.resize(static_cast<size_t>(rows * width_), 0.0f);
  for (int64_t p = begin; p < rows; ++p) {
    if (p == kPadId) continue;
    float* row = rows_.data() + p * width_;
    for (int64_t k = 0; k < half; ++k) {
      const float angle = static_cast<float>(p) * std::exp(static_cast<float>(k) * -step);
      row[k] = std::sin(angle);
      row[half + k] = std::cos(angle);
    }
  }
}

Tensor Positions::sinusoids(const Tape& tape, int64_t rows) {
  constexpr int64_t kGrowth = 128;
  const DType dtype = tape.parameter_dtype();
  // Training makes the whole table at once, so that recorded passes find it where it was.
  const int64_t whole = tape.recording() ? max_positions_ + kPadId + 1 : (rows + kGrowth - 1) / kGrowth * kGrowth;
  if (dtype == DType::f32 && tape.k.memory == &host_memory()) {
    if (std::ssize(rows_) < rows * width_) grow(std::max(rows, whole));
    return view_of(rows_.data(), {std::ssize(rows_) / width_, width_});
  }
  if (fixed_.defined() && fixed_memory_ == tape.k.memory && fixed_.view().dtype == dtype &&
      fixed_.view().shape[0] >= rows)
    return fixed_.view();
  if (std::ssize(rows_) < rows * width_) grow(std::max(rows, whole));
  fixed_ = OwnedTensor({static_cast<int64_t>(rows_.size()) / width_, width_}, dtype, *tape.k.memory);
  fixed_memory_ = tape.k.memory;
  write_on_host(tape.k, fixed_.view(), [&](const Tensor& host) {
    if (dtype == DType::f64)
      std::copy(rows_.begin(), rows_.end(), host.as<double>());
    else
      std::copy(rows_.begin(), rows_.end(), host.as<float>());
  });
  return fixed_.view();
}

}  // namespace qn
