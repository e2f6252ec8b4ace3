// Status and message of wrong usage.
#include "cli_program.h"

namespace qn::test {
namespace {

TEST_F(CliTest, BadInputEndsInAClearError) {
  const std::string checkpoint = dense();
  const std::string config = config_file("run", tiny_config(dir_.path(), "run"));
  const auto expect_error = [&](const std::vector<std::string>& arguments, const std::string& message, int code = 1) {
    const Result result = run(arguments);
    EXPECT_EQ(result.code, code) << message << '\n' << result.err;
    EXPECT_NE(result.err.find(message), std::string::npos) << result.err;
    EXPECT_EQ(result.err.find("internal error"), std::string::npos) << result.err;
  };
  expect_error({"train", "-c", config, "-s", "data.path=/nonexistent"}, "there is no folder", 2);
  expect_error({"train", "-c", config, "-s", "quant_noise.block_size=7"}, "block_size 7 does not divide", 2);
  expect_error({"quantize", "-c", config, "--from", checkpoint, "-s", "ipq.stages=[decoder.layerz]"}, "decoder.layerz",
               2);
  expect_error({"eval", (dir_ / "train.txt").string(), "--data", (dir_ / "data").string()}, "neither a checkpoint");
  expect_error({"eval", checkpoint, "--data", (dir_ / "data").string(), "--context-window", "24"}, "--context-window",
               2);
  std::filesystem::resize_file(checkpoint, std::filesystem::file_size(checkpoint) - 100);
  expect_error({"eval", checkpoint, "--data", (dir_ / "data").string()}, "damaged");
}

TEST_F(CliTest, NamingWhatIsNotThereIsWrongUsage) {
  const std::string checkpoint = dense(), data = (dir_ / "data").string();
  const std::string config = config_file("run", tiny_config(dir_.path(), "run"));
  const auto expect_usage = [&](const std::vector<std::string>& arguments, const std::string& message) {
    const Result result = run(arguments);
    EXPECT_EQ(result.code, 2) << message << '\n' << result.err;
    EXPECT_NE(result.err.find(message), std::string::npos) << message << '\n' << result.err;
  };
  expect_usage({"eval", checkpoint, "--data", data, "--split", "nothing"}, "has no split 'nothing'; it has: ");
  expect_usage({"eval", checkpoint, "--data", (dir_ / "none").string()}, "no such dictionary");
  for (const char* command : {"eval", "inspect"}) {
    std::vector<std::string> arguments{command, (dir_ / "none.h5").string()};
    if (arguments[0] == "eval") arguments.insert(arguments.end(), {"--data", data});
    expect_usage(arguments, "there is no file");
  }
  expect_usage({"prepare", "--train", (dir_ / "none.txt").string(), "-o", (dir_ / "new").string()}, "no such file");
  expect_usage({"import", (dir_ / "none").string(), "--as", "gpt2", "-o", (dir_ / "new").string()},
               "there is no such folder or file");
  expect_usage({"export", checkpoint, "--to", "hf", "--dtype", "f16", "-o", (dir_ / "new").string()}, "--to hf writes");
  expect_usage({"export", checkpoint, "--to", "safetensors", "--vocabulary", data, "-o", (dir_ / "new").string()},
               "--vocabulary is for --to hf");
  const auto expect_prepare = [&](std::vector<std::string> options, const std::string& message) {
    options.insert(options.begin(), {"prepare", "--train", config, "-o", (dir_ / "new").string()});
    expect_usage(options, message);
  };
  expect_prepare({"--tokenizer", (dir_ / "none").string()}, "no such folder");
  expect_prepare({"--tokenizer", dir_.path().string()}, "encoder.json and vocab.bpe");
  expect_prepare({"--table", "--pairs", "de-en"}, "either tables");
  expect_prepare({"--regression"}, "are for tables");
  expect_prepare({"--joined-dict"}, "are for pairs");
  expect_prepare({"--pairs", "deen"}, "SOURCE-TARGET");
  expect_prepare({"--table", "--columns", "input3=x"}, "input0=NAME");
  expect_prepare({"--tokenizer", config}, "is a file: name the folder");
  expect_prepare({"--resize", "64"}, "--resize is for images");
  expect_prepare({"--images", "--tokenizer", data}, "--tokenizer is for texts, --images for pictures");
  expect_prepare({"--images", "--filter", "bilinear"}, "--filter is for --resize");
  expect_prepare({"--mnist", data}, "--train does not go with --mnist");
  expect_prepare({"--images", "--mnist", data}, "give one of them");
  expect_usage({"prepare", "--images", "-o", (dir_ / "new").string()}, "nothing to prepare: name folders or lists");
  expect_usage({"prepare", "--images", "--train", (dir_ / "none").string(), "-o", (dir_ / "new").string()},
               "there is no such folder of pictures");
  expect_usage({"prepare", "--mnist", data, "-o", (dir_ / "new").string()}, "needs the four files of MNIST");
  expect_prepare({"--train-tokenizer", "255"}, "--train-tokenizer: must be a whole number, at least 256");
  expect_prepare({"--min-frequency", "3"}, "--min-frequency requires --train-tokenizer");
  expect_prepare({"--train-tokenizer", "300", "--dict", config}, "brings its own dictionary");
  for (const char* limit : {"--nwords", "--threshold", "--padding-factor"}) {
    expect_prepare({limit, "8", "--dict", config}, fmt::format("{} is for a dictionary that is made", limit));
    expect_prepare({limit, "8", "--dict", config, "--pairs", "de-en", "--joined-dict"}, limit);
  }
  // A script's variable that is not set.
  for (const std::vector<std::string>& empty : std::vector<std::vector<std::string>>{{"prepare", "-o", ""},
                                                                                     {"train", "-c", ""},
                                                                                     {"train", "--layers-to-keep", ""},
                                                                                     {"quantize", "--from", ""},
                                                                                     {"inspect", ""}})
    expect_usage(empty, " is empty: give it a value, or leave it out");
  expect_prepare({"--tokenizer", ""}, "--tokenizer is empty");
  expect_prepare({"--table", "--columns", ""}, "--columns is empty");
  for (const bool check : {false, true})
    for (const auto& [set, message] : {std::pair{"data.valid=nothing", "has no split 'nothing'"},
                                       {"model.adaptive.cutoffs=[20,4000]", "cutoff 4000 exceeds the vocabulary"},
                                       {"model.adaptive.factor=1000", "has no dimension left"},
                                       {"checkpoint.dir=/proc/foo", "/proc is of the kernel's own file system"}}) {
      std::vector<std::string> arguments{"train", "-c", config, "-s", set};
      if (check) arguments.push_back("--check");
      expect_usage(arguments, message);
    }
  const Result device = run({"eval", checkpoint, "--data", data, "--device", "cuda"});
  EXPECT_TRUE(device.code == 2 || device.code == 0) << device.err;  // 0 where there is one
}

TEST_F(CliTest, WrongUsageHasAStatusOfItsOwn) {
  const std::string config = config_file("run", tiny_config(dir_.path(), "run"));
  const std::string checkpoint = (dir_ / "none.h5").string();
  const auto expect_usage = [&](const std::vector<std::string>& arguments, const std::string& message) {
    const Result result = run(arguments);
    EXPECT_EQ(result.code, 2) << message << '\n' << result.err;
    EXPECT_NE(result.err.find(message), std::string::npos) << result.err;
  };
  expect_usage({"trian", "-c", config}, "there is no command 'trian'; did you mean 'train'?");
  expect_usage({"frobnicate"}, "there is no command 'frobnicate'\n");
  expect_usage({}, "subcommand is required");
  expect_usage({"eval", checkpoint, "--data", "data", "--contxt-window=3"},
               "there is no option --contxt-window; did you mean '--context-window'?");
  expect_usage({"train", "-c", config, "--nonsense"}, "there is no option --nonsense\n");
  expect_usage({"inspect", checkpoint, "another"}, "'another' is one argument too many");
  expect_usage({"--log-level", "loud", "train", "-c", config},
               "must be one of trace, debug, info, warn, error, off; got 'loud'\n");
  for (const char* seconds : {"nan", "inf", "-1", "0.5", "1x", ""})
    expect_usage({"eval", checkpoint, "--data", "data", "--watchdog-seconds", seconds},
                 fmt::format("--watchdog-seconds: must be 0 or at least 1; got '{}'", seconds));
  for (const char* number : {"010", "0x10", "-010"})
    for (const auto& [command, option] : {std::array{"eval", "--max-tokens"},
                                          {"eval", "--context-window"},
                                          {"prepare", "--nwords"},
                                          {"prepare", "--threshold"},
                                          {"quantize", "--bits"},
                                          {"quantize", "--seed"},
                                          {"explain", "--vocab"}})
      expect_usage({command, option, number},
                   fmt::format("got '{}': write it in decimal digits, without zeros in front", number));
  expect_usage({"quantize", "--bits", "99"}, "--bits: must be a whole number, at least 2, at most ");
  expect_usage({"--log-level", "inof", "train", "-c", config}, "did you mean 'info'?");
  expect_usage({"train", "-c", config, "-s", "optimizer.momentun=1"}, "did you mean 'optimizer.momentum'");
  expect_usage({"train", "-c", config, "-s", "train.precision=fp8"}, "bf16_always");
  expect_usage({"train", "-c", config, "-s", "comm.watchdog_seconds=0.5"}, "must be 0 or at least 1");
  expect_usage({"train", "-c", (dir_ / "none.yaml").string()}, "none.yaml");
  expect_usage({"train", "-c", config, "-s", "train.max_updates=0"}, "would never end");
  expect_usage({"quantize", "-c", config}, "--from");
  for (const auto& [command, option, value, least] : {std::array{"eval", "--max-tokens", "-1", "at least 1"},
                                                      {"eval", "--max-tokens", "1e3", "at least 1"},
                                                      {"eval", "--tokens-per-sample", "0", "at least 1"},
                                                      {"eval", "--context-window", "-5", "at least 0"},
                                                      {"explain", "--vocab", "-1", "at least 1"},
                                                      {"quantize", "--vocab", "0", "at least 1"},
                                                      {"prepare", "--threshold", "-2", "at least 0"},
                                                      {"prepare", "--nwords", "-2", "at least -1"},
                                                      {"prepare", "--padding-factor", "0", "at least 1"}})
    expect_usage({command, option, value},
                 fmt::format("{}: must be a whole number, {}; got '{}'", option, least, value));
  for (const char* threads : {"abc", "1.5", "0", "-1", "2,"}) {
    setenv("OMP_NUM_THREADS", threads, 1);
    expect_usage({"train", "-c", config}, fmt::format("OMP_NUM_THREADS is '{}'", threads));
  }
  unsetenv("OMP_NUM_THREADS");
  for (const auto& [option, text, nearest] : {std::array{"--precision", "bf61", "'bf16'"},
                                              {"--break-mode", "complet", "'complete'"},
                                              {"--device", "gpu", "'cpu'"}}) {
    const Result choice = run({"eval", checkpoint, "--data", "data", option, text});
    EXPECT_EQ(choice.code, 2) << option;
    EXPECT_NE(choice.err.find(fmt::format("{}: must be one of", option)), std::string::npos) << choice.err;
    EXPECT_NE(choice.err.find(fmt::format("did you mean {}?", nearest)), std::string::npos) << choice.err;
  }
}

}  // namespace
}  // namespace qn::test
