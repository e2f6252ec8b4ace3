// Ops that move whole rows: embeddings, positions, selection and assembly of the adaptive bands.
#include <array>

#include "ops/ops.h"

namespace qn {
namespace {

/// x [N, parts * D] as [N * parts, D]: a row for every part of every row.
Tensor split_rows(const Tensor& x, int64_t parts) { return x.reshaped({x.rows() * parts, x.cols() / parts}); }

/// The rows of one part there.
const int32_t* rows_of_part(Tape& tape, int64_t count, int64_t part, int64_t parts) {
  std::vector<int32_t> rows;
  for (int64_t i = 0; i < count; ++i) rows.push_back(static_cast<int32_t>(i * parts + part));
  return tape.upload(rows);
}

}  // namespace

Var embedding(Tape& tape, const Var& table, std::span<const int32_t> ids, double scale, int32_t pad_id) {
  const int32_t* kept = tape.upload(ids);
  const Var y = tape.result({static_cast<int64_t>(ids.size()), table.value.cols()});
  tape.k.gather_rows(y.value, table.value, kept, scale);
  tape.on_backward([&tape, table, y, kept, scale, pad_id] {
    if (!Tape::has_grad(y) || table.slot == nullptr) return;
    QN_ASSERT(y.slot->grad.cols() == table.value.cols(), "rows of {} came back as {}: who reshapes a Var needs an op",
              y.value.shape.to_string(), y.slot->grad.shape.to_string());
    tape.k.scatter_add_rows(tape.accumulation_slot(table), y.slot->grad, kept, scale, pad_id);
  });
  return y;
}

Var select_rows(Tape& tape, const Var& x, std::span<const int32_t> rows) { return embedding(tape, x, rows, 1.0, -1); }

Var assemble_rows(Tape& tape, int64_t count, int64_t dim, std::span<const RowPart> parts, double scale) {
  constexpr size_t kMaxParts = 8;
  QN_ASSERT(parts.size() <= kMaxParts);
  struct Kept {
    Var value;
    const int32_t* rows;
  };
  std::array<Kept, kMaxParts> kept;
  const Var y = tape.result({count, dim});
  for (size_t i = 0; i < parts.size(); ++i) {
    kept[i] = {parts[i].value, tape.upload(parts[i].rows)};
    tape.k.scatter_rows(y.value, kept[i].value.value, kept[i].rows, scale);
  }
  tape.on_backward([&tape, y, kept, scale, n = parts.size()] {
    if (!Tape::has_grad(y)) return;
    for (size_t i = 0; i < n; ++i) {
      if (kept[i].value.slot == nullptr) continue;
      const Tape::Slot slot = tape.slot(kept[i].value);
      QN_ASSERT(slot.beta == 0, "a band's rows have one use only");
      tape.k.gather_rows(slot.grad, y.slot->grad, kept[i].rows, scale);
    }
  });
  return y;
}

Var select_columns(Tape& tape, const Var& x, int64_t part, int64_t parts) {
  const int32_t* rows = rows_of_part(tape, x.value.rows(), part, parts);
  const Var y = tape.result({x.value.rows(), x.value.cols() / parts});
  tape.k.gather_rows(y.value, split_rows(x.value, parts), rows, 1.0);
  tape.on_backward([&tape, x, y, rows, parts] {
    if (!Tape::has_grad(y) || x.slot == nullptr) return;
    tape.k.scatter_add_rows(split_rows(tape.accumulation_slot(x), parts), y.slot->grad, rows, 1.0, -1);
  });
  return y;
}

Var join_columns(Tape& tape, std::span<const Var> parts) {
  constexpr size_t kMaxParts = 4;
  QN_ASSERT(!parts.empty() && parts.size() <= kMaxParts);
  struct Kept {
    Var value;
    const int32_t* rows;
  };
  std::array<Kept, kMaxParts> kept;
  const auto count = std::ssize(parts);
  const Shape shape = parts[0].value.shape;
  const Var y = tape.result({shape[0], shape[1] * count});
  for (size_t i = 0; i < parts.size(); ++i) {
    QN_ASSERT(parts[i].value.shape == shape);
    kept[i] = {parts[i], rows_of_part(tape, shape[0], static_cast<int64_t>(i), count)};
    tape.k.scatter_rows(split_rows(y.value, count), parts[i].value, kept[i].rows, 1.0);
  }
  tape.on_backward([&tape, y, kept, count] {
    if (!Tape::has_grad(y)) return;
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
      if (kept[i].value.slot == nullptr) continue;
      const Tape::Slot slot = tape.slot(kept[i].value);
      QN_ASSERT(slot.beta == 0, "a part has one use only");
      tape.k.gather_rows(slot.grad, split_rows(y.slot->grad, count), kept[i].rows, 1.0);
    }
  });
  return y;
}

Var add_positions(Tape& tape, const Var& x, const Var& table, std::span<const int32_t> positions, int32_t pad_id) {
  const int32_t* kept = tape.upload(positions);
  const Var y = tape.result(x.value.shape);
  tape.k.gather_rows(y.value, table.value, kept, 1.0);
  tape.k.axpy(y.value, x.value, 1.0, 1);
  tape.on_backward([&tape, x, y, table, kept, pad_id] {
    if (!Tape::has_grad(y)) return;
    if (table.slot != nullptr) tape.k.scatter_add_rows(tape.accumulation_slot(table), y.slot->grad, kept, 1.0, pad_id);
    const Tape::Slot dx = tape.slot(x);
    tape.k.axpy(dx.grad, y.slot->grad, 1.0, dx.beta);
  });
  return y;
}

}  // namespace qn
