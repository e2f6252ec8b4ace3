// What a trainer can tell about its run before it starts: `--check`.
#include <algorithm>
#include <chrono>
#include <filesystem>

#include "core/text.h"
#include "train/start_checks.h"
#include "train/trainer.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

/// What checkpoints take already: new ones take their place.
uint64_t bytes_of_checkpoints(const fs::path& dir) {
  uint64_t bytes = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(dir, error))
    if (entry.path().extension() == ".h5") bytes += entry.file_size(error);
  return bytes;
}

int64_t kept(int64_t keep, int64_t every, int64_t occasions) {
  if (every == 0) return 0;
  return keep < 0 ? occasions / every : std::min(keep, std::max<int64_t>(occasions / every, 1));
}

}  // namespace

/// Seconds of an update whose ranks have `per_rank` micro-batches each. Weights stay as they are.
double Trainer::time_update(int64_t per_rank) {
  constexpr int64_t kExamples = 8;
  comm_.barrier();
  const auto start = std::chrono::steady_clock::now();
  const auto fetch = [&](int64_t i) { return task_.example(i % kExamples, kExamples); };
  updates_->run(state_.update, per_rank * comm_.size(), fetch, *optimizer_, 0.0);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::string Trainer::check_summary(uint64_t packed_bytes) {
  begin_noise();
  time_update(1);  // memory, plans of kernels
  const double one = time_update(1), three = time_update(3);
  const double pass = std::max(three - one, 0.0) / 2.0;
  int64_t micro_batches = config_.train.micro_batches;
  if (const int64_t all = task_.updates_per_epoch(1); all > 0) micro_batches = std::min(micro_batches, all);
  const int64_t per_rank = (micro_batches + comm_.size() - 1) / comm_.size();
  const double seconds = one + pass * static_cast<double>(per_rank - 1);
  const int64_t all = max_updates(), left = std::max<int64_t>(all - state_.update, 0);
  const int64_t per_epoch = std::max<int64_t>(task_.updates_per_epoch(config_.train.micro_batches), 1);

  auto rss = static_cast<double>(peak_rss_bytes());
  comm_.all_reduce_max({&rss, 1});
  const CheckpointConfig& c = config_.checkpoint;
  const uint64_t averages = ema_ ? ema_->bytes() : 0;
  const uint64_t file = module_.parameters().values().bytes() + optimizer_->bytes() + averages;
  const int64_t files = 4 + c.keep_best + kept(c.keep_epochs, c.save_every_epochs, all / per_epoch) +
                        kept(c.keep_updates, c.save_every_updates, all);  // last, best, and two being written
  uint64_t needed = file * static_cast<uint64_t>(files);

  std::string text =
      fmt::format("model: {} parameters, {} in fp32\n{}; peak of the largest rank while measuring: {}\n",
                  group_digits(original_parameters_), format_bytes(static_cast<uint64_t>(original_parameters_) * 4),
                  memory_text(module_.parameters(), *optimizer_, average(), updates_->arena(), kernels_),
                  format_bytes(static_cast<uint64_t>(rss)));
  if (options_.quantize) text += "memory of k-means comes on top of it\n";
  text += fmt::format("time: about {:.3g} s per update (an estimate, from a few micro-batches of this data)", seconds);
  if (all > 0)
    text += fmt::format(", {} updates{}: about {}", group_digits(left),
                        state_.update > 0 ? fmt::format(" left of {}", group_digits(all)) : "",
                        format_duration(seconds * static_cast<double>(left)));
  text += fmt::format("; {}validation and saving come on top\n", options_.quantize ? "k-means, " : "");
  if (options_.quantize) {
    needed += packed_bytes;
    text += fmt::format("packed file: {} bytes, {}\n", group_digits(static_cast<int64_t>(packed_bytes)),
                        format_bytes(packed_bytes));
  }
  const fs::space_info disk = fs::space(existing_folder(c.dir));
  const bool known = disk.capacity > 0;  // some network file systems do not tell
  const uint64_t free = disk.available + bytes_of_checkpoints(c.dir);
  text += fmt::format("disk: about {} in {} ({} checkpoints of {}); {}\n", format_bytes(needed), c.dir, files,
                      format_bytes(file),
                      known ? format_bytes(free) + " are free for it" : "its file system does not tell what is free");
  QN_CHECK(!known || needed <= free, "{}the disk is too small: checkpoint.dir {} will need about {}, {} are free", text,
           c.dir, format_bytes(needed), format_bytes(free));
  if (!finished()) return text + "the run would start\n";
  return text + (options_.quantize ? "the run is finished: only the packed file would be written\n"
                                   : "the run is finished: nothing would be trained\n");
}

}  // namespace qn
