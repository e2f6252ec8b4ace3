#include "tasks/line_batches.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "tasks/classes.h"
#include "tasks/masked_lm.h"

namespace qn {
namespace {

constexpr int64_t kBatchTokens = 1024;  // what a layer computes of so many stays in the processor's cache

/// Numbers of items, short ones first: batches of similar lengths are the same work for all threads.
std::vector<size_t> by_length(const std::vector<LineBatches::Item>& items) {
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return items[a].tokens.size() < items[b].tokens.size(); });
  return order;
}

}  // namespace

/// All batches are one pass of a tape, so weights are decoded once; a batch has the memory of the one before.
std::vector<std::vector<double>> LineBatches::rows(const std::vector<Item>& items, const Kernels& kernels, DType dtype,
                                                   const Compute& compute) {
  if (arena_memory_ != kernels.memory) arena_ = std::make_unique<Arena>(*kernels.memory);
  arena_memory_ = kernels.memory;
  arena_->reset();
  Tape tape(kernels, *arena_, dtype, {});
  JoinedSentences shortest;  // after it the values of all weights lie below the mark
  shortest.add(std::array{kBosId, kEosId});
  compute(tape, view_of(shortest));
  const Arena::Mark weights = arena_->mark();
  std::vector<std::vector<double>> rows(items.size());
  const std::vector<size_t> order = by_length(items);
  for (size_t begin = 0; begin < order.size();) {
    JoinedSentences batch;
    size_t end = begin;
    for (; end < order.size(); ++end) {
      const Item& next = items[order[end]];
      if (end > begin && std::ssize(batch.tokens) + std::ssize(next.tokens) > kBatchTokens) break;
      batch.add(next.tokens, next.second);
    }
    const std::vector<double> values = host_doubles(tape, compute(tape, view_of(batch)).value);
    const auto columns = static_cast<std::ptrdiff_t>(values.size() / (end - begin));
    for (size_t i = begin; i < end; ++i) {
      const auto row = values.begin() + static_cast<std::ptrdiff_t>(i - begin) * columns;
      rows[order[i]].assign(row, row + columns);
    }
    arena_->rewind(weights);
    begin = end;
  }
  return rows;
}

}  // namespace qn
