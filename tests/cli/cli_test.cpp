// The program as a user meets it: commands, messages for bad input, and runs killed at any moment.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "compress/representation.h"
#include "core/cpu_features.h"
#include "core/file_io.h"
#include "core/hdf5_file.h"
#include "support/golden.h"
#include "support/tolerance.h"
#include "tasks/model_file.h"
#include "train/checkpoint_file.h"
#include "train/tiny_run.h"

namespace qn::test {
namespace {

using std::filesystem::path;

struct Result {
  int code = -1;
  std::string out, err;
};

std::string text_of(const path& file) {
  std::ifstream in(file);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

std::vector<pid_t> children_of(pid_t parent) {
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

/// A packed language model as a plain file has decoded matrices under their names, and floats only.
void expect_exported(const path& packed, const path& plain) {
  const ModelFile model = load_model_file(packed);
  const SafetensorsReader file(plain);
  size_t quantized = 0;
  for (const auto& weight : model.module().weights().all()) {
    const StoredTensor& tensor = file.at(weight->name());
    EXPECT_EQ(tensor.shape, weight->shape().to_vector());
    const auto codes = quantized_tensor(*weight, model.module().parameters());
    if (!codes) continue;
    ++quantized;
    std::vector<float> decoded(static_cast<size_t>(tensor.elements()));
    codes->quantizer->decode(*codes, decoded.data());
    EXPECT_EQ(file.values<float>(weight->name(), StoredType::f32), decoded) << weight->name();
  }
  EXPECT_GT(quantized, 0U);
  for (const StoredTensor& tensor : file.tensors()) EXPECT_EQ(tensor.type, StoredType::f32) << tensor.name;
}

TEST_F(CliTest, WholeJob) {
  const std::string checkpoint = dense();
  const std::string config = config_file("ipq", tiny_ipq_config(dir_.path(), "ipq", checkpoint));
  const Result plan = run({"quantize", "-c", config, "--dry-run", "--json"});
  ASSERT_EQ(plan.code, 0) << plan.err;
  const auto predicted = nlohmann::json::parse(plan.out);
  const Result quantized =
      run({"quantize", "-c", config, "--from", checkpoint, "-o", (dir_ / "m.safetensors").string()});
  ASSERT_EQ(quantized.code, 0) << quantized.err;
  EXPECT_EQ(predicted["predicted_bytes"], std::filesystem::file_size(dir_ / "m.safetensors"));
  const Result inspected = run({"inspect", (dir_ / "m.safetensors").string(), "--json"});
  ASSERT_EQ(inspected.code, 0) << inspected.err;
  EXPECT_EQ(nlohmann::json::parse(inspected.out)["bytes"], std::filesystem::file_size(dir_ / "m.safetensors"));
  const Result exported =
      run({"export", (dir_ / "m.safetensors").string(), "-o", (dir_ / "plain.safetensors").string()});
  ASSERT_EQ(exported.code, 0) << exported.err;
  expect_exported(dir_ / "m.safetensors", dir_ / "plain.safetensors");
  EXPECT_EQ(run({"export", checkpoint, "-o", (dir_ / "no.safetensors").string()}).code, 1);
  const Result evaluated = run({"eval", (dir_ / "m.safetensors").string(), "--data", (dir_ / "data").string(),
                                "--context-window", "8", "--json"});
  ASSERT_EQ(evaluated.code, 0) << evaluated.err;
  const auto scores = nlohmann::json::parse(evaluated.out);
  EXPECT_EQ(scores["tokens"], 40 * 13);
  EXPECT_GT(scores["perplexity"].get<double>(), 1.0);
  EXPECT_EQ(scores["kind"], "packed");
  const Result by_word = run({"eval", (dir_ / "m.safetensors").string(), "--data", (dir_ / "data").string(),
                              "--break-mode", "complete", "--bpe-marker", "7", "--json"});
  ASSERT_EQ(by_word.code, 0) << by_word.err;
  EXPECT_LT(nlohmann::json::parse(by_word.out)["words"], scores["tokens"]);
  EXPECT_EQ(run({"inspect", checkpoint}).code, 0);
  for (const std::string& subject :
       {config, checkpoint, (dir_ / "dense").string(), (dir_ / "m.safetensors").string()}) {
    const Result explained = run({"explain", subject, "--json"});
    ASSERT_EQ(explained.code, 0) << explained.err;
    const auto json = nlohmann::json::parse(explained.out);
    ASSERT_FALSE(json["weights"].empty()) << subject;
    EXPECT_EQ(json["weights"][0]["noise"]["form"], "zero_blocks") << subject;
    EXPECT_EQ(json["weights"][0]["now"], subject.ends_with(".safetensors") ? "codes" : "dense");
    EXPECT_EQ(json["weights"][0]["stage"].is_number(), subject == config || subject.ends_with(".safetensors"));
    EXPECT_NE(run({"explain", subject}).out.find("zero_blocks p=0.2 d=4"), std::string::npos) << subject;
  }
  EXPECT_EQ(run({"eval", checkpoint, "--data", (dir_ / "data").string()}).code, 0);
}

TEST_F(CliTest, PrunesWhatWasTrained) {
  const std::string checkpoint = dense(), data = (dir_ / "data").string();
  const std::string config = config_file("ipq", tiny_ipq_config(dir_.path(), "ipq", checkpoint));
  const std::vector<std::string> quantize{"quantize", "-c", config, "--layers-to-keep", "1"};
  const auto with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> all = quantize;
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const auto perplexity = [&](const std::vector<std::string>& more) {
    std::vector<std::string> all{"eval", "--data", data, "--json"};
    all.insert(all.end(), more.begin(), more.end());
    const Result result = run(all);
    EXPECT_EQ(result.code, 0) << result.err;
    return nlohmann::json::parse(result.out);
  };
  const auto planned = nlohmann::json::parse(run(with({"--dry-run", "--json"})).out);
  const std::string packed = (dir_ / "m.safetensors").string(), full = (dir_ / "full.safetensors").string();
  const Result made = run(with({"-o", packed}));
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_NE(made.err.find("layers kept: 1"), std::string::npos) << made.err;
  EXPECT_EQ(planned["predicted_bytes"], std::filesystem::file_size(packed));
  EXPECT_EQ(perplexity({checkpoint, "--layers-to-keep", "1"})["parameters"], planned["parameters"]);
  EXPECT_EQ(run(with({"--check"})).code, 0);
  const std::string other = config_file("ipq_full", tiny_ipq_config(dir_.path(), "ipq_full", checkpoint));
  ASSERT_EQ(run({"quantize", "-c", other, "-o", full}).code, 0);
  const std::string small = (dir_ / "small.safetensors").string(), plain = (dir_ / "plain.safetensors").string();
  const Result exported = run({"export", full, "--layers-to-keep", "0", "--packed", "-o", small});
  ASSERT_EQ(exported.code, 0) << exported.err;
  EXPECT_EQ(run({"inspect", "--check", small}).code, 0);
  const auto pruned = perplexity({full, "--layers-to-keep", "0"}), read = perplexity({small});
  EXPECT_EQ(pruned["perplexity"], read["perplexity"]);
  EXPECT_EQ(pruned["layers_to_keep"], "0");
  EXPECT_EQ(pruned["bytes"], read["bytes"]);
  EXPECT_EQ(pruned["ratio"], read["ratio"]);
  EXPECT_EQ(run({"export", full, "--layers-to-keep", "0", "-o", plain}).code, 0);
  EXPECT_FALSE(SafetensorsReader(plain).contains("decoder.layers.1.fc1.weight"));
  EXPECT_EQ(run({"export", full, "--packed", "-o", small}).code, 2);
  for (const std::string& file : {checkpoint, full}) {
    const Result wrong = run({"eval", file, "--data", data, "--layers-to-keep", "0,2"});
    EXPECT_EQ(wrong.code, 2) << wrong.err;
    EXPECT_NE(wrong.err.find("there is no layer 2, the model has layers 0 to 1"), std::string::npos) << wrong.err;
  }
  const Result from_nothing =
      run({"train", "-c", config_file("scratch", tiny_config(dir_.path(), "scratch")), "--layers-to-keep", "0"});
  EXPECT_EQ(from_nothing.code, 2);
  EXPECT_NE(from_nothing.err.find("checkpoint.init_from"), std::string::npos) << from_nothing.err;
}

TEST_F(CliTest, WeightsOfAnotherProgram) {
  QN_GOLDEN(original, "hf_models/gpt2_lm.safetensors");
  const std::string packed = (dir_ / "packed.safetensors").string(), plain = (dir_ / "plain.safetensors").string();
  const std::vector<std::string> quantize{"quantize", "--weights", original.string(), "--json", "-o"};
  const auto with = [](std::vector<std::string> arguments, const std::vector<std::string>& more) {
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  };
  const Result quantized = run(with(quantize, {packed}));
  ASSERT_EQ(quantized.code, 0) << quantized.err;
  const auto report = nlohmann::json::parse(quantized.out);
  EXPECT_EQ(report["bytes"], std::filesystem::file_size(packed));
  EXPECT_EQ(report["original_bytes"], std::filesystem::file_size(original));
  ASSERT_FALSE(report["relative_errors"].empty());
  EXPECT_EQ(finish(start_ranks(2, with(quantize, {(dir_ / "ranks.safetensors").string()}))).code, 0);
  EXPECT_EQ(read_file_bytes(dir_ / "ranks.safetensors"), read_file_bytes(packed));
  const Result planned = run(with(quantize, {"unused", "--bits", "4", "--range", "tensor", "--dry-run"}));
  ASSERT_EQ(planned.code, 0) << planned.err;
  EXPECT_NE(planned.out.find("int4 tensor"), std::string::npos) << planned.out;
  const std::string rules = QN_SOURCE_DIR "/examples/quantize_any_safetensors/rules.yaml";
  const Result example = run(with(quantize, {(dir_ / "example.safetensors").string(), "--rules", rules}));
  ASSERT_EQ(example.code, 0) << example.err;
  for (const char* storage : {"pq d=8", "int8 channel"}) EXPECT_NE(example.out.find(storage), std::string::npos);
  EXPECT_EQ(run({"export", packed, "-o", plain, "--dtype", "original"}).code, 0);
  EXPECT_EQ(SafetensorsReader(plain).tensors().size(), SafetensorsReader(original).tensors().size());
  const Result inspected = run({"inspect", packed, "--json"}), explained = run({"explain", packed, "--json"});
  ASSERT_EQ(inspected.code + explained.code, 0) << inspected.err << explained.err;
  EXPECT_EQ(nlohmann::json::parse(inspected.out)["bytes"], report["bytes"]);
  EXPECT_EQ(nlohmann::json::parse(explained.out)["weights"].size(), report["relative_errors"].size());
  EXPECT_NE(run({"inspect", packed}).out.find("F32 [32, 128]"), std::string::npos);
  EXPECT_NE(run({"eval", packed, "--data", "none"}).err.find("quantnoise export"), std::string::npos);
  EXPECT_EQ(run(with(quantize, {packed, "--config", "c.yaml"})).code, 2);
  EXPECT_EQ(run(with(quantize, {packed, "--range", "tensor"})).code, 2);
  EXPECT_EQ(run({"quantize", "--rules", "r.yaml"}).code, 2);
}

TEST_F(CliTest, ComputesInTheGivenPrecision) {
  const std::string checkpoint = dense();
  const auto perplexity = [&](const std::string& precision) {
    const Result result =
        run({"eval", checkpoint, "--data", (dir_ / "data").string(), "--json", "--precision", precision});
    EXPECT_EQ(result.code, 0) << result.err;
    const size_t warning = result.err.find("computing in fp32 instead of bf16");
    EXPECT_EQ(warning != std::string::npos, precision == "bf16" && !cpu_multiplies_bf16()) << result.err;
    EXPECT_EQ(result.err.find("computing in fp32 instead of bf16", warning + 1), std::string::npos) << "said twice";
    return nlohmann::json::parse(result.out)["perplexity"].get<double>();
  };
  const double single = perplexity("fp32"), forced = perplexity("bf16_always");
  EXPECT_NE(forced, single);
  EXPECT_TRUE(close(forced, single, kBfloat16LossTolerance));
  EXPECT_EQ(perplexity("bf16"), cpu_multiplies_bf16() ? forced : single);
  EXPECT_EQ(run({"eval", checkpoint, "--data", (dir_ / "data").string(), "--precision", "fp8"}).code, 2);
}

TEST_F(CliTest, ProfilesAndReportsMemory) {
  const std::string config = config_file("run", tiny_config(dir_.path(), "run"));
  const std::string data = (dir_ / "data").string(), checkpoint = (dir_ / "run" / "checkpoint_last.h5").string();
  const auto trace = [&](const std::string& name) { return nlohmann::json::parse(text_of(dir_ / name)); };
  const Result trained = run({"train", "-c", config, "--profile", (dir_ / "train.json").string()});
  ASSERT_EQ(trained.code, 0) << trained.err;
  for (const char* text : {"profile of rank 0", "matmul, backward", "GFLOP/s", "optimizer", "peak memory"})
    EXPECT_NE(trained.err.find(text), std::string::npos) << text << " is missing in\n" << trained.err;
  EXPECT_EQ(trace("train.json")["totals"]["phases"]["update"]["count"], 12);
  EXPECT_GT(trace("train.json")["traceEvents"].size(), 100U);
  const Result evaluated =
      run({"eval", checkpoint, "--data", data, "--json", "--profile", (dir_ / "eval.json").string()});
  ASSERT_EQ(evaluated.code, 0) << evaluated.err;
  EXPECT_TRUE(nlohmann::json::parse(evaluated.out).is_object());
  EXPECT_NE(evaluated.err.find("peak memory"), std::string::npos) << evaluated.err;
  EXPECT_EQ(trace("eval.json")["totals"]["phases"]["validation"]["count"], 1);
  // Quantizing takes longest to repeat: a profile that cannot be written must not cost the model.
  const std::string too_long = (dir_ / std::string(250, 'p')).string();
  const std::string ipq = config_file("ipq", tiny_ipq_config(dir_.path(), "ipq", checkpoint));
  const Result quantized = run({"quantize", "-c", ipq, "--profile", too_long});
  EXPECT_EQ(quantized.code, 0) << quantized.err;
  EXPECT_NE(quantized.err.find("the profile is lost, the run is not"), std::string::npos) << quantized.err;
  EXPECT_NE(quantized.err.find("k-means"), std::string::npos) << quantized.err;
  EXPECT_TRUE(std::filesystem::exists(dir_ / "ipq" / "model.safetensors"));
  const Result early = run({"train", "-c", config, "--profile", (dir_ / "none" / "p.json").string()});
  EXPECT_EQ(early.code, 2);
  EXPECT_NE(early.err.find("there is no folder"), std::string::npos) << early.err;
}

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
  const std::vector<pid_t> mpirun = children_of(launcher);
  ASSERT_EQ(mpirun.size(), 1U) << text_of(dir_ / "stderr");
  const std::vector<pid_t> ranks = children_of(mpirun[0]);
  EXPECT_EQ(ranks.size(), 2U) << text_of(dir_ / "stderr");
  kill(ranks.size() == 2 ? ranks[1] : launcher, ranks.size() == 2 ? SIGSTOP : SIGKILL);
  const Result result = finish(launcher);
  EXPECT_EQ(result.code, 4) << result.err;
  EXPECT_NE(result.err.find("has not answered for 2 s"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("watchdog: rank 1 ("), std::string::npos) << result.err;
}

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
  expect_error({"train", "-c", config, "-s", "quant_noise.block_size=7"}, "block_size 7 does not divide");
  expect_error({"quantize", "-c", config, "--from", checkpoint, "-s", "ipq.stages=[decoder.layerz]"}, "decoder.layerz");
  expect_error({"eval", (dir_ / "train.txt").string(), "--data", (dir_ / "data").string()}, "neither a checkpoint");
  expect_error({"eval", checkpoint, "--data", (dir_ / "data").string(), "--split", "nothing"}, "nothing");
  expect_error({"eval", checkpoint, "--data", (dir_ / "data").string(), "--context-window", "24"}, "--context-window");
  std::filesystem::resize_file(checkpoint, std::filesystem::file_size(checkpoint) - 100);
  expect_error({"eval", checkpoint, "--data", (dir_ / "data").string()}, "damaged");
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
  for (const char* name : {"checkpoint_last.h5", "checkpoint7.h5", "run.json", "metrics.jsonl", "quantnoise.lock"})
    quantize((dir_ / "ipq" / name).string(), "the run keeps a file of this name");
  ASSERT_EQ(mkfifo((dir_ / "pipe").c_str(), 0666), 0);
  std::filesystem::create_symlink("pipe", dir_ / "link");
  for (const char* name : {"pipe", "link"}) quantize((dir_ / name).string(), "this is a pipe; name a regular file");
  expect({"train", "-c", config, "--profile", (dir_ / "pipe").string()}, "this is a pipe; name a regular file");
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

TEST_F(CliTest, AModelWithNanIsNoSuccess) {
  RunConfig config = tiny_config(dir_.path(), "run");
  config.schedule.name = Schedule::fixed;
  config.schedule.lr = 1e20;
  config.schedule.warmup_updates = 0;
  config.optimizer.name = OptimizerKind::adam;
  config.train.max_updates = 1;
  const Result trained = run({"train", "-c", config_file("run", config)});
  EXPECT_EQ(trained.code, 1) << trained.err;
  EXPECT_NE(trained.err.find("validation is not finite"), std::string::npos) << trained.err;
  const std::string checkpoint = dense();
  StateDict state = load_state(checkpoint);
  const auto eval = [&] {
    const std::string file = (dir_ / "changed.h5").string();
    save_state(file, state);
    return run({"eval", file, "--data", (dir_ / "data").string(), "--json"});
  };
  Tensor table = state.tensors.at("parameters/decoder.layers.0.fc2.bias").view();
  table.as<float>()[3] = std::numeric_limits<float>::quiet_NaN();
  const Result loaded = eval();
  EXPECT_EQ(loaded.code, 1);
  EXPECT_NE(loaded.err.find("decoder.layers.0.fc2.bias is not finite"), std::string::npos) << loaded.err;
  for (int64_t i = 0; i < table.elements(); ++i) table.as<float>()[i] = 0.0f;
  Tensor weight = state.tensors.at("parameters/decoder.layers.1.fc2.weight").view();
  for (int64_t i = 0; i < weight.elements(); ++i) weight.as<float>()[i] = i % 2 == 0 ? 3e38f : -3e38f;
  const Result overflown = eval();
  EXPECT_EQ(overflown.code, 1);
  EXPECT_NE(overflown.err.find("the result is not finite"), std::string::npos) << overflown.err;
  EXPECT_TRUE(nlohmann::json::parse(overflown.out)["perplexity"].is_null()) << overflown.out;
}

TEST_F(CliTest, DamagedFilesAreNamed) {
  const std::string checkpoint = dense(), packed = (dir_ / "m.safetensors").string();
  RunConfig config = tiny_ipq_config(dir_.path(), "ipq", checkpoint);
  config.ipq.updates_per_stage = 0;
  ASSERT_EQ(run({"quantize", "-c", config_file("ipq", config), "--from", checkpoint, "-o", packed}).code, 0);
  for (const std::string& file : {checkpoint, packed}) {
    const Result intact = run({"inspect", "--check", file});
    EXPECT_EQ(intact.code, 0) << intact.err;
    EXPECT_NE(intact.out.find(": ok"), std::string::npos) << intact.out;
    const size_t last = std::filesystem::file_size(file) - 1;
    std::vector<std::byte> byte = read_file_bytes(file, last, 1);
    byte[0] ^= std::byte{1};
    overwrite_file_bytes(file, last, byte);
    const Result damaged = run({"inspect", "--check", file});
    EXPECT_EQ(damaged.code, 1);
    EXPECT_NE(damaged.err.find("damaged"), std::string::npos) << damaged.err;
    const Result evaluated = run({"eval", file, "--data", (dir_ / "data").string()});
    EXPECT_EQ(evaluated.code, 1) << evaluated.out;
    EXPECT_NE(evaluated.err.find("damaged"), std::string::npos) << evaluated.err;
  }
  const Result wrong = run({"quantize", "-c", config_file("ipq", config), "--from", packed, "-s", "checkpoint.dir=x"});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_NE(wrong.err.find("no checkpoint: it is a safetensors file"), std::string::npos) << wrong.err;
}

TEST_F(CliTest, AnotherDictionaryIsRefused) {
  const std::string checkpoint = dense();
  std::ofstream(dir_ / "other.txt") << "quite another text\nwith other words\n";
  const std::string other = (dir_ / "other").string();
  ASSERT_EQ(
      run({"prepare", "--train", (dir_ / "other.txt").string(), "--test", (dir_ / "other.txt").string(), "-o", other})
          .code,
      0);
  const Result result = run({"eval", checkpoint, "--data", other});
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.err.find("not the dictionary of this model"), std::string::npos) << result.err;
}

}  // namespace
}  // namespace qn::test
