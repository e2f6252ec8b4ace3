// What is said before the work: by --check, and by the run itself.
#include <sys/stat.h>

#include "cli_program.h"

namespace qn::test {
namespace {

/// Everything in a folder, with sizes and times.
std::string listing(const path& folder) {
  std::string text;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.path().filename() == "stdout" || entry.path().filename() == "stderr") continue;
    text += fmt::format("{} {} {}\n", entry.path().string(), entry.is_directory() ? 0 : entry.file_size(),
                        entry.last_write_time().time_since_epoch().count());
  }
  return text;
}

TEST_F(CliTest, CheckSaysEverythingAndWritesNothing) {
  const std::string checkpoint = dense();
  const std::string config = config_file("run", tiny_config(dir_.path(), "run"));
  const std::string ipq = config_file("ipq", tiny_ipq_config(dir_.path(), "ipq", checkpoint));
  const std::string before = listing(dir_.path());
  const Result good = run({"train", "-c", config, "--check"});
  EXPECT_EQ(good.code, 0) << good.err;
  for (const char* text : {"parameters", "gradients", "s per update (an estimate", "12 updates: about", "disk: about",
                           "the run would start"})
    EXPECT_NE(good.out.find(text), std::string::npos) << text << good.out;
  const Result quantized = run({"quantize", "-c", ipq, "--check"});
  EXPECT_EQ(quantized.code, 0) << quantized.err;
  EXPECT_NE(quantized.out.find("packed file: "), std::string::npos) << quantized.out;
  const Result resumed = run({"train", "-c", (dir_ / "dense.yaml").string(), "--check"});
  EXPECT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_NE(resumed.out.find("0 updates left of 12"), std::string::npos) << resumed.out;
  const Result ranks = finish(start_ranks(2, {"train", "-c", config, "--check"}));
  EXPECT_EQ(ranks.code, 0) << ranks.err;
  EXPECT_NE(ranks.out.find("the run would start"), std::string::npos) << ranks.out;

  const Result many = run({"quantize", "-c", ipq, "--check", "-s", "data.valid=none", "-s", "quant_noise.block_size=7",
                           "--from", (dir_ / "none.h5").string(), "-o", (dir_ / "no" / "m.safetensors").string()});
  EXPECT_EQ(many.code, 2) << many.err;
  for (const char* text : {"has no split 'none'", "block_size 7 does not divide", "there is no file",
                           "there is no folder", "the run would not start: 4 problems"})
    EXPECT_NE(many.err.find(text), std::string::npos) << text << '\n' << many.err;
  const Result damaged = run({"train", "-c", config, "--check", "-s", "train.max_updates=0"});
  EXPECT_EQ(damaged.code, 2) << damaged.err;
  EXPECT_NE(damaged.err.find("never end"), std::string::npos) << damaged.err;
  EXPECT_EQ(listing(dir_.path()), before);
}

/// Seconds per update that `--check` expects.
double seconds_per_update(const Result& check) {
  const std::string before = "time: about ";
  const size_t at = check.out.find(before);
  return at == std::string::npos ? -1.0 : std::stod(check.out.substr(at + before.size()));
}

TEST_F(CliTest, CheckSeesTheRunThatWouldGoOn) {
  const std::string checkpoint = dense();
  const std::string ipq = config_file("ipq", tiny_ipq_config(dir_.path(), "ipq", checkpoint));
  const auto packed_line = [](const Result& result) {
    const size_t at = result.out.find("packed file: ");
    return at == std::string::npos ? result.out + result.err : result.out.substr(at, result.out.find('\n', at) - at);
  };
  const std::string before = packed_line(run({"quantize", "-c", ipq, "--check"}));
  ASSERT_EQ(run({"quantize", "-c", ipq}).code, 0);
  const Result finished = run({"quantize", "-c", ipq, "--check"});
  EXPECT_EQ(finished.code, 0) << finished.err;
  EXPECT_NE(finished.out.find("the run is finished"), std::string::npos) << finished.out;
  EXPECT_EQ(packed_line(finished), before);

  // Weights that are codes already are no source.
  const std::string quantized = (dir_ / "ipq" / "checkpoint_last.h5").string();
  for (const bool check : {false, true}) {
    std::vector<std::string> command{"quantize", "-c", ipq, "--from", quantized, "-s", "checkpoint.dir=x"};
    if (check) command.push_back("--check");
    const Result again = run(command);
    EXPECT_EQ(again.code, 1);
    EXPECT_NE(again.err.find("is a checkpoint of a quantization run"), std::string::npos) << again.err;
  }

  // A damaged newest checkpoint: the run, --check and explain take the best one.
  std::filesystem::resize_file(checkpoint, 600);
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"train", "-c", (dir_ / "dense.yaml").string(), "--check"},
        {"explain", (dir_ / "dense").string()}}) {
    const Result result = run(command);
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_NE(result.err.find("checkpoint_last.h5 is damaged"), std::string::npos) << result.err;
  }
}

TEST_F(CliTest, CheckKnowsHowManyMicroBatchesAnEpochHas) {
  const std::string config = config_file("run", tiny_config(dir_.path(), "run"));
  const double seconds =
      seconds_per_update(run({"train", "-c", config, "--check", "-s", "train.micro_batches=100000000"}));
  EXPECT_GT(seconds, 0.0);
  EXPECT_LT(seconds, 100.0) << "an epoch has some dozens of micro-batches of a millisecond";
}

TEST_F(CliTest, WhatCanBeKnownIsSaidBeforeTheWork) {
  const std::string checkpoint = dense();
  const std::string config = config_file("run", tiny_config(dir_.path(), "run"));
  const std::string ipq = config_file("ipq", tiny_ipq_config(dir_.path(), "ipq", checkpoint));
  const auto expect = [&](std::vector<std::string> arguments, const std::string& message) {
    const Result result = run(arguments);
    EXPECT_NE(result.code, 0) << message;
    EXPECT_NE(result.err.find(message), std::string::npos) << message << '\n' << result.err;
    EXPECT_FALSE(std::filesystem::exists(dir_ / "ipq" / "metrics.jsonl")) << message;
    EXPECT_FALSE(std::filesystem::exists(dir_ / "run" / "metrics.jsonl")) << message;
  };
  const auto quantize = [&](const std::string& out, const std::string& message) {
    expect({"quantize", "-c", ipq, "-o", out}, message);
  };
  quantize((dir_ / "nodir" / "m.safetensors").string(), "there is no folder");
  quantize(dir_.path().string(), "this is a folder");
  quantize(checkpoint, "this is the file to read from");
  std::filesystem::copy_file(checkpoint, dir_ / "other.h5");
  quantize((dir_ / "other.h5").string(), "this is a quantnoise checkpoint, which would be");
  quantize((dir_ / "data" / "train.bin").string(), "this is binarized text");
  quantize(config, "this is a text file, which would be overwritten");
  for (const char* name :
       {"checkpoint_last.h5", "checkpoint7.h5", "run.json", "metrics.jsonl", "status.json", "quantnoise.lock"})
    quantize((dir_ / "ipq" / name).string(), "a run keeps a file of this name");
  ASSERT_EQ(mkfifo((dir_ / "pipe").c_str(), 0666), 0);
  std::filesystem::create_symlink("pipe", dir_ / "link");
  for (const char* name : {"pipe", "link"}) quantize((dir_ / name).string(), "this is a pipe; name a regular file");
  expect({"train", "-c", config, "--profile", (dir_ / "pipe").string()}, "this is a pipe; name a regular file");
  for (const char* name : {"checkpoint_9.h5", "checkpoint_best.h5", "run.json", "metrics.jsonl"})
    expect({"train", "-c", config, "--profile", (dir_ / name).string()}, "a run keeps a file of this name");
  expect({"train", "-c", config, "--profile", config}, "this is a text file, which would be overwritten");
  expect({"export", checkpoint, "-o", (dir_ / "link").string()}, "this is a pipe; name a regular file");
  EXPECT_TRUE(std::filesystem::is_fifo(dir_ / "pipe") && std::filesystem::is_symlink(dir_ / "link"));
  expect({"quantize", "-c", ipq, "--from", config}, "is no checkpoint: it is a text file");
  expect({"quantize", "-c", ipq, "--from", dir_.path().string()}, "is no file");
  expect({"train", "-c", config, "-s", "checkpoint.dir=" + config + "/run"}, "is a file, not a folder");
  for (const char* name : {"cosine", "polynomial"})
    expect({"train", "-c", config, "-s", std::string("schedule.name=") + name, "-s", "schedule.period_updates=null",
            "-s", "train.max_updates=0", "-s", "train.stop_time_hours=1"},
           "has no end here");
  // With max_epochs the end is known.
  const Result epochs = run({"train", "-c", config, "-s", "schedule.period_updates=null", "-s", "train.max_updates=0",
                             "-s", "train.max_epochs=1"});
  EXPECT_EQ(epochs.code, 0) << epochs.err;
  // The file to read is not overwritten by export either.
  const Result same = run({"export", checkpoint, "-o", checkpoint});
  EXPECT_NE(same.code, 0);
  EXPECT_NE(same.err.find("this is the file to read from"), std::string::npos) << same.err;
}

}  // namespace
}  // namespace qn::test
