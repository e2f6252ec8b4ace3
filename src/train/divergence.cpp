#include "train/divergence.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "core/finite.h"
#include "train/checkpoint_file.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRemedy =
    "a lower schedule.lr, a longer schedule.warmup_updates, or clipping (optimizer.clip_norm, smaller if it is on)";

/// Where validation has been good, which says more than that all values are finite.
std::string best_of(std::span<const fs::path> checkpoints, int64_t newest) {
  const auto found = std::find_if(checkpoints.begin(), checkpoints.end(),
                                  [](const fs::path& path) { return path.filename() == "checkpoint_best.h5"; });
  if (found == checkpoints.end()) return {};
  const fs::path& best = *found;
  try {
    const int64_t update = load_state(best).integer("update");
    if (update < newest) return fmt::format("; {} (update {}) was the best in validation", best.string(), update);
  } catch (const Error&) {
    // damaged
  }
  return {};
}

}  // namespace

void check_finite(const StateDict& state) {
  for (const auto& [name, tensor] : state.tensors) {
    const std::string found = describe_non_finite(tensor.view());
    QN_CHECK(found.empty(), "{} is not finite after update {} ({}): the run has diverged, and this state is not saved",
             name, state.integer("update"), found);
  }
}

std::string locate_divergence(const Diverged& diverged, int64_t count, const std::function<MicroBatch(int64_t)>& fetch,
                              UpdateRunner& updates, Communicator& comm) {
  // The number comes first, so that the earliest micro-batch can be told.
  const std::string own = updates.replay(diverged.update(), count, fetch);
  const std::vector<std::string> all = comm.all_gather(own);
  int64_t first = std::numeric_limits<int64_t>::max();
  std::string text;
  for (size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank].empty()) continue;
    const size_t end = all[rank].find(':');
    const int64_t number = std::stoll(all[rank].substr(0, end));
    if (number >= first) continue;
    first = number;
    text = fmt::format("micro-batch {} of update {}{}{}", number, diverged.update() + 1,
                       comm.size() > 1 ? fmt::format(" on rank {}", rank) : "", all[rank].substr(end));
  }
  if (!text.empty()) return text;
  return fmt::format("every micro-batch of update {} by itself is finite, so their sum is not", diverged.update() + 1);
}

std::string divergence_advice(std::span<const fs::path> checkpoints, int64_t update) {
  bool first = true;
  for (const fs::path& path : checkpoints) {
    try {
      const StateDict state = load_state(path);
      if (state.integer("update") <= update) {
        check_finite(state);
        const int64_t newest = state.integer("update");
        const std::string what = fmt::format("the newest checkpoint from before is {} (update {}, all of it finite{})",
                                             path.string(), newest, best_of(checkpoints, newest));
        if (first) return fmt::format("{}: the same command goes on from there; give it {}", what, kRemedy);
        return fmt::format("{}: start from it with --set checkpoint.init_from={} in another checkpoint.dir, and {}",
                           what, path.string(), kRemedy);
      }
    } catch (const Error&) {
      // damaged, or diverged as well
    }
    first = false;
  }
  return fmt::format(
      "there is no checkpoint from before: start anew with {} (checkpoint.save_every_updates keeps states to go back "
      "to)",
      kRemedy);
}

}  // namespace qn
