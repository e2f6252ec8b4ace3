#include "data/batching.h"

#include <algorithm>

#include "core/error.h"
#include "core/log.h"
#include "core/text.h"
#include "data/numpy_random.h"

namespace qn {

std::span<const int64_t> BatchList::operator[](int64_t batch) const {
  QN_ASSERT(batch >= 0 && batch < size(), "batch {} of {}", batch, size());
  const auto i = static_cast<size_t>(batch);
  const int64_t begin = i == 0 ? 0 : ends_[i - 1];
  return std::span(items_).subspan(static_cast<size_t>(begin), static_cast<size_t>(ends_[i] - begin));
}

void BatchList::push_back(std::span<const int64_t> batch) {
  items_.insert(items_.end(), batch.begin(), batch.end());
  ends_.push_back(items());
}

void BatchList::pop_back() {
  ends_.pop_back();
  items_.resize(ends_.empty() ? 0 : static_cast<size_t>(ends_.back()));
}

uint64_t BatchList::fingerprint() const {
  const uint64_t hashes[] = {hash_bytes(items_.data(), items_.size() * sizeof(int64_t)),
                             hash_bytes(ends_.data(), ends_.size() * sizeof(int64_t))};
  return hash_bytes(hashes, sizeof(hashes));
}

std::vector<int64_t> order_by_length(std::span<const int32_t> lengths, uint64_t seed) {
  const std::vector<int64_t> rank = numpy_permutation(seed, static_cast<int64_t>(lengths.size()));
  // Placing every item at its permuted position first leaves only a stable sort by length.
  std::vector<int64_t> order(rank.size());
  for (size_t i = 0; i < rank.size(); ++i) order[static_cast<size_t>(rank[i])] = static_cast<int64_t>(i);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return lengths[static_cast<size_t>(a)] < lengths[static_cast<size_t>(b)];
  });
  return order;
}

int64_t drop_longer_than(std::vector<int64_t>& items, std::span<const int32_t> lengths, int64_t limit) {
  return static_cast<int64_t>(
      std::erase_if(items, [&](int64_t item) { return lengths[static_cast<size_t>(item)] > limit; }));
}

BatchList pack_batches(std::span<const int64_t> items, std::span<const int32_t> lengths, const BatchLimits& limits) {
  const int64_t multiple = limits.required_multiple;
  QN_CHECK(multiple >= 1, "required_multiple must be 1 or more, is {}", multiple);
  BatchList batches;
  const auto emit = [&](int64_t begin, int64_t end) {
    if (begin < end) batches.push_back(items.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)));
  };
  // The running batch is [start, committed), a tail [committed, position] waits until it makes a full multiple.
  int64_t start = 0, committed = 0;
  int64_t batch_longest = 0, tail_longest = 0;
  for (int64_t position = 0; position < std::ssize(items); ++position) {
    const int64_t length = lengths[static_cast<size_t>(items[static_cast<size_t>(position)])];
    QN_CHECK(limits.max_tokens <= 0 || length <= limits.max_tokens,
             "an item of {} tokens does not fit into a batch of max_tokens={}; raise max_tokens or cut shorter blocks",
             length, limits.max_tokens);
    tail_longest = std::max(tail_longest, length);
    int64_t longest = std::max(batch_longest, tail_longest);
    const int64_t count = position + 1 - start;
    const bool overflow = (limits.max_items > 0 && count > limits.max_items) ||
                          (limits.max_tokens > 0 && count * longest > limits.max_tokens);
    if (overflow) {
      emit(start, committed);
      start = committed;
      if (limits.max_tokens > 0 && tail_longest * (position + 1 - committed) > limits.max_tokens) {
        // Not even the tail fits: it becomes a batch of its own, the current item starts afresh.
        emit(committed, position);
        start = position;
        tail_longest = length;
      }
      longest = tail_longest;
    }
    if (overflow || count < multiple || count % multiple == 0) {
      committed = position + 1;
      batch_longest = longest;
      tail_longest = 0;
    }
  }
  emit(start, committed);
  emit(committed, std::ssize(items));
  if (limits.drop_last && batches.size() > 0 && std::ssize(batches[batches.size() - 1]) % multiple != 0) {
    batches.pop_back();
  }
  return batches;
}

BatchList freeze_batches(std::string_view name, std::span<const int32_t> lengths, const FreezeOptions& options) {
  const BatchLimits& limits = options.limits;
  QN_CHECK(limits.max_tokens > 0 || limits.max_items > 0,
           "{}: without a limit all data would be one batch; set the largest number of tokens or of items per batch",
           name);
  // fairseq draws this permutation under seed + (number of the epoch it starts at).
  std::vector<int64_t> items = order_by_length(lengths, options.seed + 1);
  const bool by_model =
      options.max_positions > 0 && (limits.max_tokens <= 0 || options.max_positions <= limits.max_tokens);
  const int64_t limit = by_model ? options.max_positions : limits.max_tokens;
  const int64_t dropped = limit > 0 ? drop_longer_than(items, lengths, limit) : 0;
  if (dropped > 0) {
    const std::string message =
        fmt::format("{}: {} of {} items are longer than {} tokens, {}", name, group_digits(dropped),
                    group_digits(std::ssize(lengths)), limit,
                    by_model ? "the number of positions of the model" : "the largest number of tokens per batch");
    QN_CHECK(
        options.over_long == OverLong::warn_and_drop,
        "{}; their tokens would be missing from the result. Raise that limit, cut blocks with break mode 'none', or "
        "allow over-long items to be skipped",
        message);
    spdlog::warn("{}; they are left out. Raise that limit or cut blocks with break mode 'none' to use them", message);
  }
  QN_CHECK(!items.empty(), "{}: no items to make batches of; {}", name,
           dropped > 0 ? "all are too long" : "the data is empty");
  return pack_batches(items, lengths, limits);
}

}  // namespace qn
