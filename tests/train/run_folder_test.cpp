// A run's folder: whose checkpoints count, copies, and disks that fail for a while.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <fstream>
#include <limits>
#include <thread>

#include "core/file_io.h"
#include "core/folder_lock.h"
#include "core/text.h"
#include "support/capture.h"
#include "support/temp_dir.h"
#include "train/checkpoint_folder.h"
#include "train/late_copies.h"
#include "train/run_record.h"
#include "train/run_state.h"
#include "train/start_checks.h"

namespace qn {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr RetryDelay kSoon{.first = 0.02, .longest = 0.02};

StateDict state_at(int64_t update) {
  StateDict state;
  state.ints["update"] = update;
  const std::vector<float> values(1000, static_cast<float>(update));
  state.tensors["x"] = copy_of(view_of(values.data(), {1000}));
  return state;
}

/// A disk on which every step fails until it is repaired.
class BrokenDisk {
 public:
  explicit BrokenDisk(int error) {
    inject_file_faults([this, error](FileStep, const fs::path&) { return broken_ ? error : 0; });
  }
  ~BrokenDisk() { inject_file_faults({}); }
  void repair() { broken_ = false; }

 private:
  std::atomic<bool> broken_ = true;
};

class RunFolderTest : public testing::Test {
 protected:
  CheckpointConfig config() const {
    CheckpointConfig config;
    config.dir = path_.string();
    return config;
  }
  /// A run that saves at these updates, each one numbered.
  void run(const std::vector<int64_t>& updates, int64_t keep = -1) {
    CheckpointConfig c = config();
    c.keep_updates = keep;
    CheckpointFolder folder(c);
    folder.begin_run();
    for (const int64_t update : updates) folder.save(state_at(update), 1, update, {.interval = true});
  }
  int64_t update_in(const std::string& name) const { return load_state(path_ / name).integer("update"); }
  bool has(const std::string& name) const { return fs::exists(path_ / name); }
  /// Polls until everything is on disk.
  static bool settles(CheckpointFolder& folder) {
    for (int i = 0; i < 500 && !folder.idle(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      folder.poll();
    }
    return folder.idle();
  }

  test::TempDir dir_;
  fs::path path_ = dir_ / "run";
};

TEST_F(RunFolderTest, KeptNamesAreFilesOfTheirOwn) {
  CheckpointFolder folder(config());
  folder.begin_run();
  folder.save(state_at(7), 2, 7, {.epoch_end = true, .interval = true, .best = true});
  folder.wait();
  for (const char* name : {"checkpoint_best.h5", "checkpoint2.h5", "checkpoint_2_7.h5", "checkpoint_last.h5"}) {
    EXPECT_EQ(fs::hard_link_count(path_ / name), 1U) << name;
    EXPECT_EQ(read_file_bytes(path_ / name), read_file_bytes(folder.last())) << name;
  }
  fs::resize_file(folder.last(), 600);
  EXPECT_EQ(folder.newest()->state.integer("update"), 7) << "damage to one of them is damage to one";
}

TEST_F(RunFolderTest, SecondStartIsRefusedBeforeAnythingIsTouched) {
  CheckpointFolder folder(config());
  const fs::path temporary = path_ / "checkpoint_last.h5.tmp-0123456789abcdef";
  std::ofstream(temporary) << "being written";
  EXPECT_THAT(test::error_of([&] { CheckpointFolder second(config()); }), HasSubstr("is in use by process"));
  EXPECT_TRUE(fs::exists(temporary));
}

TEST_F(RunFolderTest, AFreshRunHasTheFolderToItself) {
  run({10, 20, 30});
  std::ofstream(path_ / "metrics.jsonl") << "{\"update\":30}\n";
  std::ofstream(path_ / "model.safetensors") << "packed";
  run({1, 2, 3}, 2);
  EXPECT_FALSE(has("checkpoint_1_1.h5"));
  EXPECT_TRUE(has("checkpoint_1_2.h5") && has("checkpoint_1_3.h5"));
  EXPECT_FALSE(has("checkpoint_1_30.h5") || has("metrics.jsonl") || has("model.safetensors"));
  std::vector<std::string> kept;
  for (const auto& entry : fs::recursive_directory_iterator(path_))
    if (entry.is_regular_file() && entry.path().parent_path() != path_) kept.push_back(entry.path().filename());
  EXPECT_THAT(kept, testing::UnorderedElementsAre("checkpoint_last.h5", "checkpoint_1_10.h5", "checkpoint_1_20.h5",
                                                  "checkpoint_1_30.h5", "metrics.jsonl", "model.safetensors"));
}

TEST_F(RunFolderTest, ARunThatHasBegunDoesNotNeedItsSource) {
  CheckpointConfig c = config();
  c.init_from = (dir_ / "gone.h5").string();
  EXPECT_THAT(test::error_of([&] { check_init_from(c, true, true); }), HasSubstr("there is no file"));
  run({5});
  fs::rename(path_ / "checkpoint_last.h5", path_ / "checkpoint_best.h5");
  EXPECT_NO_THROW(check_init_from(c, true, true));
  fs::remove(path_ / "checkpoint_best.h5");
  EXPECT_NO_THROW(check_init_from(c, true, true)) << "checkpoint_1_5.h5 is there";
  EXPECT_EQ(newest_checkpoint(path_)->state.integer("update"), 5);
  EXPECT_THAT(test::error_of([&] { check_init_from(c, true, false); }), HasSubstr("there is no file"));
}

TEST_F(RunFolderTest, RecordsOfARunThatSavedNothingAreKept) {
  fs::create_directories(path_);
  atomic_write_text(path_ / "metrics.jsonl", "{\"kind\":\"train\",\"update\":1}\n");
  CheckpointFolder(config()).begin_run();
  EXPECT_FALSE(fs::exists(path_ / "metrics.jsonl"));
  bool kept = false;
  for (const auto& entry : fs::recursive_directory_iterator(path_)) kept |= entry.path().filename() == "metrics.jsonl";
  EXPECT_TRUE(kept);
}

TEST_F(RunFolderTest, AFolderInUseCanBeToldWithoutTakingIt) {
  check_unlocked(path_ / "none", "checkpoint.dir");
  {
    const CheckpointFolder folder(config());
    EXPECT_THAT([&] { check_unlocked(path_, "checkpoint.dir"); },
                testing::ThrowsMessage<Error>(HasSubstr("in use by")));
  }
  check_unlocked(path_, "checkpoint.dir");
}

TEST_F(RunFolderTest, ADiscardedRunNeverComesBack) {
  run({10, 20});
  const std::string discarded = recorded_run(path_).value();
  record_run(path_, new_run_id());  // killed before anything was moved
  {
    const test::LogCapture log;
    CheckpointFolder folder(config());
    EXPECT_FALSE(folder.newest().has_value());
    EXPECT_THAT(log.text(), HasSubstr("belong to other runs"));
    folder.begin_run();
    folder.save(state_at(1), 1, 1, {.interval = true});
    folder.save(state_at(2), 1, 2, {});
    folder.wait();
    fs::resize_file(folder.last(), 600);
    EXPECT_EQ(folder.newest()->state.integer("update"), 1);
    StateDict foreign = state_at(99);
    foreign.texts["run"] = discarded;
    save_state(path_ / "checkpoint_9_99.h5", foreign);
    EXPECT_EQ(folder.newest()->state.integer("update"), 1);
    fs::resize_file(path_ / "checkpoint_1_1.h5", 600);
    EXPECT_THAT(test::error_of([&] { folder.newest(); }), HasSubstr("--fresh moves them aside"));
    folder.save(state_at(3), 1, 3, {.interval = true});
  }
  EXPECT_TRUE(has("checkpoint_9_99.h5")) << "not this run's, so not its to delete";
  EXPECT_TRUE(has("checkpoint_1_3.h5")) << "another run's larger number pushed it out";
}

TEST_F(RunFolderTest, ADamagedRecordLosesNoRun) {
  run({10, 20});
  const std::string current = recorded_run(path_).value();
  const std::vector<std::byte> intact = read_file_bytes(run_record(path_));
  for (size_t i = 0; i < intact.size(); ++i) {
    std::vector<std::byte> damaged = intact;
    damaged[i] ^= std::byte{1};
    atomic_write(run_record(path_), damaged);
    EXPECT_EQ(recorded_run(path_), std::nullopt) << "byte " << i;
  }
  const test::LogCapture log;
  CheckpointFolder folder(config());
  const auto found = folder.newest();
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->state.integer("update"), 20);
  EXPECT_THAT(log.text(), HasSubstr("run.json is damaged: the newest checkpoint decides"));
  folder.continue_run(*found);
  EXPECT_EQ(recorded_run(path_), current) << "mended";
  for (const auto& entry : fs::directory_iterator(path_))
    EXPECT_FALSE(entry.is_directory()) << entry.path() << ": nothing is moved aside";
}

TEST_F(RunFolderTest, ARecordOfANewerProgramIsLeftAlone) {
  fs::create_directories(path_);
  const std::string content = R"({"format":"quantnoise-run","version":2,"run":"0123456789abcdef","parts":3)";
  const std::string whole = content + "}";
  atomic_write_text(run_record(path_),
                    content + ",\"checksum\":\"" + hex64(hash_bytes(whole.data(), whole.size())) + "\"}\n");
  EXPECT_THAT(test::error_of([&] { newest_checkpoint(path_); }), HasSubstr("run.json has format version 2"));
}

TEST_F(RunFolderTest, TheChoiceIsTheSameWithoutTheLock) {
  EXPECT_FALSE(newest_checkpoint(path_ / "none").has_value());
  run({10, 20});
  fs::resize_file(path_ / "checkpoint_last.h5", 600);
  const test::LogCapture log;
  const CheckpointFolder folder(config());
  EXPECT_EQ(newest_checkpoint(path_)->path, folder.newest()->path);
  record_run(path_, new_run_id());
  fs::remove(path_ / "checkpoint_last.h5");  // damaged ones may be of any run
  EXPECT_FALSE(newest_checkpoint(path_).has_value());
}

TEST_F(RunFolderTest, FoldersOfOlderProgramsAreOneRun) {
  fs::create_directories(path_);
  save_state(path_ / "checkpoint_1_10.h5", state_at(10));
  save_state(path_ / "checkpoint_last.h5", state_at(20));
  CheckpointFolder folder(config());
  const auto found = folder.newest();
  ASSERT_EQ(found->state.integer("update"), 20);
  folder.continue_run(*found);
  EXPECT_EQ(folder.run(), "");
  folder.save(state_at(30), 1, 30, {.interval = true});
  folder.wait();
  EXPECT_FALSE(has("checkpoint_1_10.h5")) << "keep_updates is 1";
  EXPECT_EQ(folder.newest()->state.integer("update"), 30);
}

TEST_F(RunFolderTest, KeepsTheBestByWhatTheirValidationFound) {
  for (const bool higher : {false, true}) {
    CheckpointConfig c = config();
    c.keep_best = 2;
    CheckpointFolder folder(c);
    folder.begin_run();
    const std::vector<double> values{5.0, 3.0, 10.0, 0.25};
    for (size_t i = 0; i < values.size(); ++i) {
      const auto update = static_cast<int64_t>(i) + 1;
      folder.save(state_at(update), 1, update, {.among_best = Metric{"m", values[i], higher}});
    }
    folder.wait();
    EXPECT_EQ(has("checkpoint_best_1_1.h5"), higher);
    EXPECT_EQ(has("checkpoint_best_1_2.h5"), !higher);
    EXPECT_EQ(has("checkpoint_best_1_3.h5"), higher);
    EXPECT_EQ(has("checkpoint_best_1_4.h5"), !higher);
    fs::remove(path_ / "checkpoint_last.h5");
    EXPECT_EQ(folder.newest()->state.integer("update"), higher ? 3 : 4) << "they are checkpoints as others";
  }
  EXPECT_FALSE(has("checkpoint_best_1_1.h5") && has("checkpoint_best_1_2.h5")) << "--fresh moves them";
}

TEST(RunState, RemembersTheBestValues) {
  RunState state;
  for (const double value : {3.0, 5.0, std::numeric_limits<double>::quiet_NaN()}) state.enter_best({"loss", value}, 2);
  EXPECT_FALSE(state.enter_best({"loss", 5.0}, 2)) << "no better than those before";
  EXPECT_TRUE(state.enter_best({"loss", 4.0}, 2));
  StateDict saved;
  state.save(saved);
  RunState again;
  again.load(saved);
  EXPECT_EQ(again.best_values, (std::vector<double>{3.0, 4.0}));
  EXPECT_FALSE(again.enter_best({"loss", 4.5}, 2));
  EXPECT_FALSE(again.enter_best({"loss", 1.0}, 0));
  StateDict without;
  RunState().save(without);
  EXPECT_FALSE(without.floats.contains("best_values/0"));
}

TEST_F(RunFolderTest, FailedSavesAreToldAtOnceAndTriedAgain) {
  for (const int error : {ENOSPC, EDQUOT, EIO, EROFS, ESTALE, EACCES}) {
    CheckpointFolder folder(config(), kSoon);
    folder.begin_run();
    folder.save(state_at(1), 1, 1, {});
    folder.wait();
    const test::LogCapture log;
    BrokenDisk disk(error);
    folder.save(state_at(2), 1, 2, {});
    folder.wait();
    EXPECT_THAT(log.text(), HasSubstr(std::generic_category().message(error)));
    EXPECT_THAT(log.text(), HasSubstr("checkpoint_last.h5 of update 1"));
    EXPECT_FALSE(folder.idle());
    EXPECT_EQ(update_in("checkpoint_last.h5"), 1);
    disk.repair();
    ASSERT_TRUE(settles(folder)) << error;
    EXPECT_EQ(update_in("checkpoint_last.h5"), 2);
    EXPECT_THAT(log.text(), HasSubstr("saving works again"));
    EXPECT_EQ(remove_leftover_temporaries(path_), 0U);
  }
}

TEST_F(RunFolderTest, TheBestStateIsNotLostWhileSavingFails) {
  CheckpointFolder folder(config(), kSoon);
  folder.begin_run();
  const test::LogCapture log;
  BrokenDisk disk(ENOSPC);
  folder.save(state_at(1), 1, 1, {.interval = true, .best = true});
  folder.save(state_at(2), 1, 2, {});
  folder.wait();
  disk.repair();
  ASSERT_TRUE(settles(folder));
  EXPECT_EQ(update_in("checkpoint_best.h5"), 1);
  EXPECT_EQ(update_in("checkpoint_last.h5"), 2);
  EXPECT_THAT(log.text(), HasSubstr("checkpoint_1_1.h5 is given up"));
}

TEST_F(RunFolderTest, TheUserSaysForHowLong) {
  const test::LogCapture log;
  CheckpointConfig c = config();
  c.stop_after_failed_hours = 0.05 / 3600;
  CheckpointFolder folder(c, kSoon);
  folder.begin_run();
  BrokenDisk disk(EIO);
  folder.save(state_at(1), 1, 1, {});
  folder.wait();
  EXPECT_FALSE(folder.failed_too_long());
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  EXPECT_TRUE(folder.failed_too_long());
  EXPECT_THAT(folder.failure(), HasSubstr("no good checkpoint yet"));
  disk.repair();
  ASSERT_TRUE(settles(folder));
  EXPECT_FALSE(folder.failed_too_long());
}

TEST_F(RunFolderTest, AStateThatIsNotFiniteWhenItIsCompleteIsNotWritten) {
  CheckpointFolder folder(config(), kSoon);
  folder.begin_run();
  folder.save(state_at(1), 1, 1, {});
  for (const float value : {std::numeric_limits<float>::infinity(), 2.0F}) {
    const std::vector<float> source(1000, value);
    const auto state = std::make_shared<StateDict>(state_at(2));
    LateCopies copies;
    const auto complete = copies.start({{state->tensor("x"), view_of(source.data(), {1000})}}, state);
    folder.save(state, 1, 2, {}, complete);
    folder.wait();
    EXPECT_TRUE(folder.idle());
    const bool good = value == 2.0F;
    EXPECT_EQ(update_in("checkpoint_last.h5"), good ? 2 : 1);
    EXPECT_EQ(folder.newest_good().update, good ? 2 : 1);
    if (good) {
      EXPECT_NO_THROW(copies.finish());
    } else {
      EXPECT_THROW(copies.finish(), Error);
    }
    EXPECT_NO_THROW(copies.finish()) << "told once";
  }
}

}  // namespace
}  // namespace qn
