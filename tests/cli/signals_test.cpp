// Runs that are killed or asked to stop at any moment.
#include <array>

#include "cli_program.h"
#include "core/file_io.h"
#include "core/hdf5_file.h"

namespace qn::test {
namespace {

TEST_F(CliTest, KilledRunsEndInTheSameFile) {
  RunConfig config = tiny_config(dir_.path(), "killed");
  config.checkpoint.save_every_updates = 1;
  config.train.validate_every_updates = 0;
  const std::string file = config_file("killed", config);
  const std::string reference = dense();
  const auto run_with_kills = [&](const std::vector<std::string>& arguments) {
    int kills = 0;
    for (int64_t wait = 60;; wait += 25) {
      const pid_t child = start(arguments);
      std::this_thread::sleep_for(std::chrono::milliseconds(wait));
      kill(child, SIGKILL);
      const Result result = finish(child);
      if (result.code == 0) return kills;
      EXPECT_EQ(result.code, -SIGKILL) << result.err;
      if (result.code != -SIGKILL) return kills;
      ++kills;
    }
  };
  EXPECT_GT(run_with_kills({"train", "-c", file}), 0);
  const auto parameters = [](const path& checkpoint) {
    const Hdf5File h5(checkpoint, Hdf5File::Mode::read);
    return h5.read<float>("tensors/parameters/decoder.layers.1.fc2.weight");
  };
  EXPECT_EQ(parameters(dir_ / "killed" / "checkpoint_last.h5"), parameters(reference));

  RunConfig ipq = tiny_ipq_config(dir_.path(), "ipq", reference);
  const Result straight = run({"quantize", "-c", config_file("ipq", ipq)});
  ASSERT_EQ(straight.code, 0) << straight.err;
  ipq.checkpoint.dir = (dir_ / "ipq_killed").string();
  ipq.checkpoint.save_every_updates = 1;
  ipq.ipq.save_every_kmeans_iterations = 1;
  EXPECT_GT(run_with_kills({"quantize", "-c", config_file("ipq_killed", ipq)}), 0);
  EXPECT_EQ(read_file_bytes(dir_ / "ipq_killed" / "model.safetensors"),
            read_file_bytes(dir_ / "ipq" / "model.safetensors"));
}

TEST_F(CliTest, SignalSavesAndStops) {
  RunConfig config = tiny_config(dir_.path(), "signal");
  config.train.max_updates = 100000;
  config.train.validate_every_updates = 0;
  const std::string file = config_file("signal", config);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGHUP}) {
    const pid_t child = start({"train", "-c", file, "--fresh"});
    wait_for("updates |");
    std::filesystem::remove(dir_ / "signal" / "checkpoint_last.h5");
    kill(child, signal);
    const Result result = finish(child);
    EXPECT_EQ(result.code, 3) << signal << result.err;
    EXPECT_NE(result.err.find("saving, then ending. A second Ctrl-C"), std::string::npos) << result.err;
    EXPECT_NE(result.err.find("run the same command to go on"), std::string::npos) << result.err;
    EXPECT_TRUE(std::filesystem::exists(dir_ / "signal" / "checkpoint_last.h5"));
  }
}

TEST_F(CliTest, RanksAreAskedThroughTheLauncher) {
  RunConfig config = tiny_config(dir_.path(), "ranks");
  config.train.max_updates = 1000000;
  config.train.validate_every_updates = 0;
  const std::string file = config_file("ranks", config);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) {
    std::signal(SIGINT, SIG_IGN);  // as shells start background jobs
    const pid_t launcher = start_ranks(2, {"train", "-c", file});
    std::signal(SIGINT, SIG_DFL);
    wait_for("updates |");
    kill(launcher, signal);
    const Result result = finish(launcher);
    EXPECT_EQ(result.code, 3) << signal << result.err;
    EXPECT_NE(result.err.find("run the same command to go on"), std::string::npos) << result.err;
  }
}

/// Reading from a pipe that nobody writes to lasts for ever.
TEST_F(CliTest, CommandsWithNothingToSaveEndAtOnce) {
  const std::string pipe = (dir_ / "pipe.yaml").string(), out = "--out=" + (dir_ / "out").string();
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const auto& [command, option] : {std::pair<std::string, std::string>{"prepare", out}, {"explain", "--json"}})
    for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) {
      const pid_t child =
          command == "prepare" ? start({command, "--train", pipe, option}) : start({command, pipe, option});
      wait_until_held(child);
      kill(child, signal);
      const Result result = finish(child);
      EXPECT_EQ(result.code, 128 + signal) << command << result.err;
      EXPECT_NE(result.err.find(": ended"), std::string::npos) << command << result.err;
    }
  const pid_t launcher = start_ranks(2, {"prepare", "--train", pipe, out});
  std::this_thread::sleep_for(std::chrono::seconds(1));
  kill(launcher, SIGTERM);
  EXPECT_EQ(finish(launcher).code, 128 + SIGTERM);
}

TEST_F(CliTest, ASecondInterruptDoesNotWaitForTheSave) {
  const std::string pipe = (dir_ / "config.yaml").string();
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const pid_t child = start({"train", "-c", pipe});
  wait_until_held(child);
  for (const int signal : {SIGINT, SIGINT, SIGTERM, SIGUSR1}) kill(child, signal);  // all at once are one
  wait_for("A second Ctrl-C");
  std::this_thread::sleep_for(std::chrono::milliseconds(1200));
  for (const int signal : {SIGTERM, SIGUSR1}) kill(child, signal);  // may be a launcher's
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(waitpid(child, nullptr, WNOHANG), 0);
  kill(child, SIGINT);
  const Result result = finish(child);
  EXPECT_EQ(result.code, 128 + SIGINT) << result.err;
  EXPECT_NE(result.err.find("what was not saved yet is lost"), std::string::npos) << result.err;
}

TEST_F(CliTest, AStoppedRankEndsTheJobByItsName) {
  RunConfig config = tiny_config(dir_.path(), "stopped");
  config.train.max_updates = 1000000;
  config.train.validate_every_updates = 0;
  config.comm.watchdog_seconds = 2.0;
  const pid_t launcher = start_ranks(2, {"train", "-c", config_file("stopped", config)});
  wait_for("updates |");
  std::vector<pid_t> mpirun = children_of(launcher);  // beside whoever looks after it
  std::erase_if(mpirun, [](pid_t child) { return text_of(fmt::format("/proc/{}/comm", child)) != "mpirun\n"; });
  const std::vector<pid_t> ranks = mpirun.empty() ? mpirun : children_of(mpirun[0]);
  EXPECT_EQ(ranks.size(), 2U) << text_of(dir_ / "stderr");
  kill(ranks.size() == 2 ? ranks[1] : launcher, ranks.size() == 2 ? SIGSTOP : SIGKILL);
  const Result result = finish(launcher);
  EXPECT_EQ(result.code, 4) << result.err;
  EXPECT_NE(result.err.find("has not answered for 2 s"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("watchdog: rank 1 ("), std::string::npos) << result.err;
}

}  // namespace
}  // namespace qn::test
