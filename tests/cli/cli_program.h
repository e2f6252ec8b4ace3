// The program in a folder with a prepared miniature corpus, started, watched and waited for.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>

#include "train/tiny_run.h"

namespace qn::test {

using std::filesystem::path;

struct Result {
  int code = -1;
  std::string out, err;
};

inline std::string text_of(const path& file) {
  std::ifstream in(file);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

inline std::vector<pid_t> children_of(pid_t parent) {
  std::istringstream children(text_of(fmt::format("/proc/{}/task/{}/children", parent, parent)));
  return {std::istream_iterator<pid_t>(children), {}};
}

class CliTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* binary = std::getenv("QN_BINARY");
    if (binary == nullptr || !std::filesystem::exists(binary)) GTEST_SKIP() << "QN_BINARY does not name the program";
    binary_ = binary;
    prepare_tiny_corpus(dir_.path());
  }

  /// Starts the program with its output in files; returns the process id.
  pid_t start(const std::vector<std::string>& arguments) {
    std::vector<std::string> command{binary_};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return start_command(command);
  }

  /// The same on several ranks; the process is that of the launcher.
  pid_t start_ranks(int ranks, const std::vector<std::string>& arguments) {
    std::vector<std::string> command{QN_SOURCE_DIR "/launch/run", "-n", std::to_string(ranks), binary_};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return start_command(command);
  }

  pid_t start_command(std::vector<std::string> kept) {
    std::vector<char*> argv;
    for (std::string& a : kept) argv.push_back(a.data());
    argv.push_back(nullptr);
    const std::string out = (dir_ / "stdout").string(), err = (dir_ / "stderr").string();
    for (const std::string& file : {out, err}) std::filesystem::remove(file);
    const pid_t child = fork();
    if (child == 0) {
      if (std::freopen(out.c_str(), "w", stdout) == nullptr || std::freopen(err.c_str(), "w", stderr) == nullptr)
        _exit(99);
      for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) unsetenv(name);
      execv(argv[0], argv.data());
      _exit(98);
    }
    return child;
  }

  /// Until the program has said so, or some seconds have passed.
  void wait_for(const std::string& text) {
    for (int i = 0; i < 800 && text_of(dir_ / "stderr").find(text) == std::string::npos; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(25));
  }

  /// Until the program holds signals back: before that, while it is loaded, they end it as any program.
  void wait_until_held(pid_t child) {
    const auto held = [&] {
      const std::string status = text_of(fmt::format("/proc/{}/status", child));
      const size_t at = status.find("SigBlk:");
      return at != std::string::npos && (std::stoull(status.substr(at + 7), nullptr, 16) >> (SIGTERM - 1) & 1) != 0;
    };
    for (int i = 0; i < 2000 && !held(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }

  Result finish(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), text_of(dir_ / "stdout"),
            text_of(dir_ / "stderr")};
  }

  Result run(const std::vector<std::string>& arguments) { return finish(start(arguments)); }

  /// Writes a configuration file and returns its path.
  std::string config_file(const std::string& name, const RunConfig& config) {
    const path file = dir_ / (name + ".yaml");
    std::ofstream(file) << dump_config(config);
    return file.string();
  }

  std::string dense() {
    const Result trained = run({"train", "-c", config_file("dense", tiny_config(dir_.path(), "dense"))});
    EXPECT_EQ(trained.code, 0) << trained.err;
    return (dir_ / "dense" / "checkpoint_last.h5").string();
  }

  TempDir dir_;
  std::string binary_;
};

}  // namespace qn::test
