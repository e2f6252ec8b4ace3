// From block lengths to batches, as fairseq does it (fairseq semantics 6.3 and 6.4), except that nothing is dropped:
// every item is in exactly one batch.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qn {

/// Batches as lists of item numbers, stored flat.
class BatchList {
 public:
  int64_t size() const { return static_cast<int64_t>(ends_.size()); }
  /// Number of items in all batches.
  int64_t items() const { return static_cast<int64_t>(items_.size()); }
  std::span<const int64_t> operator[](int64_t batch) const;
  void push_back(std::span<const int64_t> batch);
  void pop_back();
  /// XXH3 of the list: tells whether data or batching options changed between two runs.
  uint64_t fingerprint() const;

 private:
  std::vector<int64_t> items_, ends_;
};

/// Limits of one batch. Zero or less means no limit.
struct BatchLimits {
  int64_t max_tokens = 0;         ///< number of items times the longest length: padding counts
  int64_t max_items = 0;          ///< items per batch (fairseq: --batch-size, max_sentences)
  int64_t required_multiple = 8;  ///< batches of this many items or more hold a multiple of it, where the limits allow
  bool drop_last = false;         ///< for comparison with fairseq, which loses a last batch that is no such multiple
};

/// All items by rising length; equal lengths in the order of np.random.permutation under `seed`.
std::vector<int64_t> order_by_length(std::span<const int32_t> lengths, uint64_t seed);

/// Removes the items longer than `limit` from `items`, keeping the order. Returns how many there were.
int64_t drop_longer_than(std::vector<int64_t>& items, std::span<const int32_t> lengths, int64_t limit);

/// Greedy packing of `items` in their order. No item may be longer than max_tokens (throws qn::Error).
BatchList pack_batches(std::span<const int64_t> items, std::span<const int32_t> lengths, const BatchLimits& limits);

/// What to do with items that are longer than the model's positions or than max_tokens.
enum class OverLong { warn_and_drop, error };

struct FreezeOptions {
  BatchLimits limits;
  int64_t max_positions = 0;  ///< longest item that the model takes; zero or less: no limit
  uint64_t seed = 1;
  OverLong over_long = OverLong::warn_and_drop;
};

/// The batches of a whole run: items sorted by length (ties as in a fairseq run that starts at epoch 1 with this seed),
/// over-long ones treated as asked, the rest packed. Depends on neither ranks nor epochs. Training reshuffles this list
/// every epoch (EpochSampler); validation goes through it as it is, rank r taking batches r, r + ranks, ... `name`
/// (train, valid) is for messages. Throws qn::Error when no item is left or no limit is set.
BatchList freeze_batches(std::string_view name, std::span<const int32_t> lengths, const FreezeOptions& options);

}  // namespace qn
