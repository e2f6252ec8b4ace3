// TensorBoard's event files: what metrics.jsonl says, in the form that TensorBoard reads. TFRecord framing
// (TensorFlow's tsl/lib/io/record_writer.h) around protobuf messages of type tensorflow.Event, of which a few fields
// are needed.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/file_io.h"

namespace qn {

/// CRC-32C (Castagnoli) of the bytes, rotated and offset as TFRecord wants it.
uint32_t masked_crc32c(std::string_view bytes);
/// A record of a TFRecord file: length (u64), its checksum, the bytes, their checksum.
std::string tf_record(std::string_view bytes);

struct Scalar {
  std::string tag;
  double value = 0.0;
};
/// tensorflow.Event messages: the first of a file; one that begins a session, so that readers forget what they know of
/// `step` and later ones; and values at a step. `time` is unix_time().
std::string version_event(double time);
std::string session_event(double time, int64_t step);
std::string scalar_event(double time, int64_t step, std::span<const Scalar> scalars);

/// The event files that runs of this program have left in a folder.
std::vector<std::filesystem::path> event_files(const std::filesystem::path& folder);

/// A run's event file. It holds what metrics.jsonl does and is made anew from it whenever the run goes on, so no step
/// is in it twice. For rank 0.
class EventLog {
 public:
  /// Writes what `history`, the lines of metrics.jsonl so far, says to a new file, and removes older ones. Throws
  /// qn::Error naming the file when it cannot be made.
  EventLog(const std::filesystem::path& folder, std::string_view history);
  /// One more line of metrics.jsonl. A disk that is full for a while costs nothing: what cannot be written is held
  /// back, up to some megabytes.
  void add(std::string_view line);
  const std::filesystem::path& path() const { return path_; }

 private:
  void write();

  std::filesystem::path path_;
  std::optional<AppendedFile> file_;
  std::string held_back_;
  std::chrono::steady_clock::time_point next_try_{};
  bool told_ = false;
};

}  // namespace qn
