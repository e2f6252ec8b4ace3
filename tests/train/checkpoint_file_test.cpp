#include "train/checkpoint_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <limits>
#include <thread>

#include "core/file_io.h"
#include "core/hdf5_file.h"
#include "core/text.h"
#include "support/temp_dir.h"

namespace qn {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::ThrowsMessage;

template <typename T>
OwnedTensor owned(std::vector<T> values, Shape shape) {
  return copy_of(view_of(values.data(), shape));
}

/// Every type, odd shapes, and values that a conversion would change.
StateDict sample_state() {
  StateDict state;
  const std::vector<uint32_t> odd_floats = {0x7fc00001, 0xffc12345, 0x7f800001, 0x80000000, 0x00000001, 0x7f800000};
  std::vector<float> floats(6);
  std::memcpy(floats.data(), odd_floats.data(), 24);
  state.tensors["model/layers.0.fc1.weight"] = owned(floats, {2, 3});
  state.tensors["model/layers.0.fc1.bias"] =
      owned<double>({-0.0, 1e-320, std::bit_cast<double>(0x7ff8000000abcdefULL)}, {3});
  state.tensors["optimizer/steps"] = owned<int64_t>({std::numeric_limits<int64_t>::min(), -1, 0, 1}, {2, 1, 2, 1});
  state.tensors["codes"] = owned<uint8_t>({0, 1, 128, 255}, {4});
  state.tensors["i32"] = owned<int32_t>({std::numeric_limits<int32_t>::max(), -7}, {2});
  state.tensors["scalar"] = owned<float>({2.5f}, {});
  state.tensors["empty"] = OwnedTensor({0}, DType::f32);
  state.tensors["empty rows"] = OwnedTensor({3, 0, 2}, DType::i64);
  state.tensors["large"] = OwnedTensor({300, 17}, DType::f32);
  for (size_t i = 0; i < 5100; ++i) state.tensors["large"].view().as<float>()[i] = static_cast<float>(i) * 0.37f;
  state.texts["config"] = "model:\n  name: \"\xc3\xa9\"\n" + std::string(100000, 'x');
  state.texts["bytes"] = std::string("a\0b\0", 4);
  state.texts["nothing"] = "";
  state.ints = {{"update", 12345678901234}, {"sampler/epoch", -3}};
  for (int i = 0; i < 40; ++i) state.ints["counter" + std::to_string(i)] = i;
  state.floats = {{"loss_scale", 128.0}, {"nan", std::bit_cast<double>(0xfff8000000000123ULL)}, {"tiny", 5e-324}};
  return state;
}

/// All bits of a state in one text, so that comparing two states compares types, shapes, signs of zero and NaN
/// payloads.
std::string fingerprint(const StateDict& state) {
  std::string text;
  for (const auto& [name, tensor] : state.tensors) {
    const Tensor& view = tensor.view();
    text += name + " " + name_of(view.dtype) + view.shape.to_string();
    text.append(static_cast<const char*>(view.data), view.bytes()) += "\n";
  }
  for (const auto& [name, value] : state.texts) text += name + "=" + value + "\n";
  for (const auto& [name, value] : state.ints) text += name + "=" + std::to_string(value) + "\n";
  for (const auto& [name, value] : state.floats) text += name + "=" + hex64(std::bit_cast<uint64_t>(value)) + "\n";
  return text;
}

StateDict numbered_state(int64_t number) {
  StateDict state;
  state.ints["number"] = number;
  state.tensors["x"] = owned<float>({1, 2, 3}, {3});
  return state;
}

void write_bytes(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  std::filesystem::remove(path);  // some file systems sync files that are truncated and rewritten: slow
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

size_t files_in(const std::filesystem::path& folder) {
  return static_cast<size_t>(
      std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator()));
}

class CheckpointFile : public testing::Test {
 protected:
  test::TempDir folder_;
  std::filesystem::path path_ = folder_ / "checkpoint.h5";
};

TEST_F(CheckpointFile, RoundTripIsBitExact) {
  const StateDict state = sample_state();
  save_state(path_, state);
  EXPECT_EQ(fingerprint(load_state(path_)), fingerprint(state));
  EXPECT_EQ(files_in(folder_.path()), 1u) << "a temporary file is left";
}

TEST_F(CheckpointFile, EmptyStateRoundTrips) {
  save_state(path_, {});
  EXPECT_EQ(fingerprint(load_state(path_)), "");
}

TEST_F(CheckpointFile, EqualStatesGiveEqualFiles) {
  save_state(path_, sample_state());
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // HDF5 time stamps count seconds
  save_state(folder_ / "again.h5", sample_state());
  EXPECT_EQ(read_file_bytes(path_), read_file_bytes(folder_ / "again.h5"));
}

TEST_F(CheckpointFile, ReplacesAnOlderFile) {
  save_state(path_, numbered_state(1));
  save_state(path_, numbered_state(2));
  EXPECT_EQ(load_state(path_).integer("number"), 2);
}

TEST_F(CheckpointFile, RefusesNamesThatHdf5WouldMerge) {
  for (const char* name : {"", "/a", "a/", "a//b", "a/./b", ".", "a\nb"}) {
    StateDict state;
    state.tensors[name] = OwnedTensor({1}, DType::f32);
    EXPECT_THROW(save_state(path_, state), InternalError) << name;
    StateDict numbers;
    numbers.ints[name] = 1;
    EXPECT_THROW(save_state(path_, numbers), InternalError) << name;
  }
  EXPECT_EQ(files_in(folder_.path()), 0u);
}

TEST_F(CheckpointFile, LookUpsNameTheNearestEntry) {
  const StateDict state = numbered_state(1);
  EXPECT_THAT([&] { state.integer("numbr"); },
              ThrowsMessage<Error>(AllOf(HasSubstr("'numbr'"), HasSubstr("'number'"))));
  EXPECT_THROW(state.tensor("y"), Error);
  EXPECT_THROW(state.text("y"), Error);
  EXPECT_THROW(state.real("y"), Error);
}

TEST_F(CheckpointFile, TruncationIsDetectedAtEveryLength) {
  save_state(path_, sample_state());
  const std::vector<std::byte> whole = read_file_bytes(path_);
  const std::filesystem::path cut = folder_ / "cut.h5";
  for (size_t length = 0; length < whole.size(); length += length < 3000 ? 101 : 1499) {
    write_bytes(cut, std::span(whole).first(length));
    EXPECT_THROW(load_state(cut), DamagedCheckpoint) << length << " of " << whole.size() << " bytes";
  }
  write_bytes(cut, std::span(whole).first(whole.size() - 1));
  EXPECT_THAT([&] { load_state(cut); }, ThrowsMessage<DamagedCheckpoint>(HasSubstr(cut.string())));
}

/// Whether loading `bytes` as a file reports damage; anything else (success, a crash of the HDF5 library) is wrong.
testing::AssertionResult is_detected(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  write_bytes(path, bytes);
  try {
    load_state(path);
  } catch (const DamagedCheckpoint&) {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure() << "the damage was not noticed";
}

TEST_F(CheckpointFile, FlippedBitInAnyByteIsDetected) {
  StateDict state = numbered_state(1);
  state.texts["config"] = "seed: 1";
  state.floats["loss_scale"] = 128;
  save_state(path_, state);
  std::vector<std::byte> bytes = read_file_bytes(path_);
  for (size_t at = 0; at < bytes.size(); ++at) {
    const std::byte flip{static_cast<uint8_t>(1u << (at * 5 % 8))};
    bytes[at] ^= flip;
    EXPECT_TRUE(is_detected(folder_ / "flipped.h5", bytes)) << "byte " << at << " of " << bytes.size();
    bytes[at] ^= flip;
  }
}

TEST_F(CheckpointFile, FlippedBitsOfLargeFilesAreDetected) {
  save_state(path_, sample_state());
  std::vector<std::byte> bytes = read_file_bytes(path_);
  for (size_t at = 0; at < bytes.size(); at += 197) {
    bytes[at] ^= std::byte{0x10};
    EXPECT_TRUE(is_detected(folder_ / "flipped.h5", bytes)) << "byte " << at << " of " << bytes.size();
    bytes[at] ^= std::byte{0x10};
  }
}

TEST_F(CheckpointFile, LostBlocksAreDetected) {
  save_state(path_, sample_state());
  const std::vector<std::byte> whole = read_file_bytes(path_);
  for (size_t at = 0; at < whole.size(); at += 512) {  // what a disk that lost a write returns
    std::vector<std::byte> bytes = whole;
    const auto begin = bytes.begin() + static_cast<ptrdiff_t>(at);
    std::fill_n(begin, std::min<size_t>(512, bytes.size() - at), std::byte{0});
    if (bytes == whole) continue;
    EXPECT_TRUE(is_detected(folder_ / "lost.h5", bytes)) << "block at " << at;
  }
}

TEST_F(CheckpointFile, AppendedBytesAreDetected) {
  save_state(path_, numbered_state(1));
  std::vector<std::byte> bytes = read_file_bytes(path_);
  bytes.push_back(std::byte{0});
  EXPECT_TRUE(is_detected(path_, bytes));
}

TEST_F(CheckpointFile, DamagedDatasetIsNamed) {
  StateDict state;
  state.tensors["model/weight"] = owned<float>({1234.5f, 6.0f}, {2});
  state.tensors["model/bias"] = owned<float>({7.0f}, {1});
  save_state(path_, state);
  std::vector<std::byte> bytes = read_file_bytes(path_);
  const float value = 1234.5f;
  const auto* pattern = reinterpret_cast<const std::byte*>(&value);
  const auto found = std::search(bytes.begin(), bytes.end(), pattern, pattern + 4);
  ASSERT_NE(found, bytes.end());
  *found ^= std::byte{1};
  write_bytes(path_, bytes);
  EXPECT_THAT([&] { load_state(path_); },
              ThrowsMessage<DamagedCheckpoint>(AllOf(HasSubstr(path_.string()), HasSubstr("tensors/model/weight"))));
}

TEST_F(CheckpointFile, OtherFilesAreReported) {
  write_bytes(path_, std::as_bytes(std::span("some text").first(9)));
  EXPECT_THAT([&] { load_state(path_); },
              ThrowsMessage<DamagedCheckpoint>(
                  AllOf(HasSubstr("no checkpoint: it is a text file"), Not(HasSubstr("damaged")))));
  write_bytes(path_, std::as_bytes(std::span("\x10\0\0\0\0\0\0\0{\"__metadata__\": {}}")));
  EXPECT_THAT([&] { load_state(path_); }, ThrowsMessage<DamagedCheckpoint>(HasSubstr("it is a safetensors file")));
  write_bytes(path_, {});
  EXPECT_THAT([&] { load_state(path_); }, ThrowsMessage<DamagedCheckpoint>(HasSubstr("damaged: it is an empty file")));
  EXPECT_THAT([&] { load_state(folder_.path()); }, ThrowsMessage<DamagedCheckpoint>(HasSubstr("it is a folder")));
  Hdf5File(path_, Hdf5File::Mode::create).close();
  EXPECT_THROW(load_state(path_), DamagedCheckpoint);
  EXPECT_THAT([&] { load_state(folder_ / "none.h5"); },
              ThrowsMessage<Error>(AllOf(HasSubstr("none.h5"), HasSubstr("No such file"))));
}

TEST_F(CheckpointFile, NewerVersionsAreNotSkippedAsDamaged) {
  save_state(path_, numbered_state(1));
  std::vector<std::byte> bytes = read_file_bytes(path_);
  std::string block(reinterpret_cast<const char*>(bytes.data()), 512);
  block.replace(block.find("   1\n"), 4, "   2");
  const size_t checksum = block.find("checksum ") + 9;
  block.replace(checksum, 16, 16, '0');
  block.replace(checksum, 16, hex64(hash_bytes(block.data(), block.size())));
  std::memcpy(bytes.data(), block.data(), block.size());
  write_bytes(path_, bytes);
  EXPECT_THAT([&] { newest_valid(std::vector{path_}); }, ThrowsMessage<Error>(HasSubstr("use a newer quantnoise")));
}

TEST_F(CheckpointFile, FailedWriteKeepsTheOldFile) {
  save_state(path_, numbered_state(1));
  rlimit previous{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &previous), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  for (const rlim_t bytes : {0, 100, 2500, 8192, 20000, 60000, 120000}) {
    rlimit limited = previous;
    limited.rlim_cur = bytes;  // writes beyond it fail as on a full disk
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limited), 0);
    EXPECT_THAT([&] { save_state(path_, sample_state()); },
                ThrowsMessage<Error>(AllOf(HasSubstr(path_.string()), HasSubstr(": File too large"))));
  }
  setrlimit(RLIMIT_FSIZE, &previous);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(load_state(path_).integer("number"), 1);
  EXPECT_EQ(files_in(folder_.path()), 1u) << "a temporary file is left";
  save_state(path_, numbered_state(2));
  EXPECT_EQ(load_state(path_).integer("number"), 2);
}

TEST_F(CheckpointFile, MissingFolderIsReported) {
  EXPECT_THAT([&] { save_state(folder_ / "no/such/folder.h5", {}); },
              ThrowsMessage<Error>(AllOf(HasSubstr("no/such/folder.h5"), HasSubstr("No such file or directory"))));
}

TEST_F(CheckpointFile, CrashBeforeTheRenameKeepsTheOldFile) {
  save_state(path_, numbered_state(1));
  // A child process dies inside atomic_write, after the complete new content is in the temporary file.
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    try {
      atomic_write(path_, [](const std::filesystem::path& temporary) {
        save_state(temporary, numbered_state(2));
        raise(SIGKILL);
      });
    } catch (...) {
    }
    _exit(1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(load_state(path_).integer("number"), 1);
  EXPECT_EQ(files_in(folder_.path()), 2u);
  EXPECT_EQ(remove_leftover_temporaries(folder_.path()), 1u);
  EXPECT_EQ(load_state(path_).integer("number"), 1);
}

TEST_F(CheckpointFile, KilledWritersNeverDamageTheFile) {
  save_state(path_, numbered_state(0));
  for (int attempt = 0; attempt < 20; ++attempt) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      try {
        StateDict state = sample_state();
        for (int64_t i = 1;; ++i) {
          state.ints["number"] = i;
          save_state(path_, state);
        }
      } catch (...) {
        _exit(1);
      }
    }
    std::this_thread::sleep_for(std::chrono::microseconds(1700 * attempt + 500));
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status)) << "the child failed by itself";
    EXPECT_NO_THROW(load_state(path_)) << "attempt " << attempt;
  }
}

TEST_F(CheckpointFile, FallsBackToTheNewestThatIsIntact) {
  std::vector<std::filesystem::path> newest_first;
  for (const int64_t number : {3, 2, 1}) {
    newest_first.push_back(folder_ / fmt::format("checkpoint_{}.h5", number));
    save_state(newest_first.back(), numbered_state(number));
  }
  EXPECT_EQ(newest_valid(newest_first)->path, newest_first[0]);
  std::filesystem::resize_file(newest_first[0], 700);
  EXPECT_EQ(newest_valid(newest_first)->state.integer("number"), 2);
  std::filesystem::resize_file(newest_first[1], 0);
  EXPECT_EQ(newest_valid(newest_first)->path, newest_first[2]);
  std::filesystem::resize_file(newest_first[2], 3);
  EXPECT_THAT([&] { newest_valid(newest_first); }, ThrowsMessage<Error>(HasSubstr("all 3 checkpoints are damaged")));
  EXPECT_FALSE(newest_valid({}).has_value());
}

TEST_F(CheckpointFile, IsReadWholeWhileItIsReplaced) {
  StateDict states[2] = {sample_state(), sample_state()};
  for (int i = 0; i < 5100; ++i) states[1].tensors["large"].view().as<float>()[i] += 1.0f;
  const std::string fingerprints[2] = {fingerprint(states[0]), fingerprint(states[1])};
  save_state(path_, states[0]);
  std::atomic<bool> done = false;
  std::thread writer([&] {
    for (int i = 0; !done; ++i) {
      save_state(path_, states[i % 2]);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  });
  for (int i = 0; i < 200; ++i)
    EXPECT_THAT(fingerprint(load_state(path_)), testing::AnyOf(fingerprints[0], fingerprints[1]));
  done = true;
  writer.join();
}

TEST_F(CheckpointFile, PartsAreReadWithoutTheRest) {
  StateDict state = sample_state();
  save_state(path_, state);
  EXPECT_EQ(read_sealed(path_, "texts/bytes"), state.text("bytes"));
  EXPECT_EQ(read_sealed(path_, "texts/other"), "");
  const std::string before = seal_checksum(path_);
  state.floats["tiny"] = 1e-320;
  save_state(path_, state);
  EXPECT_NE(seal_checksum(path_), before);
  std::filesystem::resize_file(path_, 3000);
  EXPECT_THROW(read_sealed(path_, "texts/bytes"), DamagedCheckpoint);
}

}  // namespace
}  // namespace qn
