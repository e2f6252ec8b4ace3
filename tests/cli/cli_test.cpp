// The program as a user meets it: what commands do and print.
#include <array>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli_program.h"
#include "compress/representation.h"
#include "core/cpu_features.h"
#include "core/hdf5_file.h"
#include "support/golden.h"
#include "support/tolerance.h"
#include "tasks/model_file.h"

namespace qn::test {
namespace {

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

TEST_F(CliTest, DryRunChecksTheFinetuningOfAllStages) {
  const std::string config = config_file("ipq", tiny_ipq_config(dir_.path(), "ipq", "unused"));
  const Result refused = run({"quantize", "-c", config, "--dry-run", "--set", "ipq.updates_per_stage=null", "--set",
                              "ipq.stage_updates=[1, 1, 1, 1, 1, 1, 1]"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_NE(refused.err.find("ipq.stage_updates has 7 entries"), std::string::npos) << refused.err;
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

TEST_F(CliTest, WritesWithNothingButTheFile) {
  const std::string checkpoint = dense(), packed = (dir_ / "m.safetensors").string();
  const std::string config = config_file("ipq", tiny_ipq_config(dir_.path(), "ipq", checkpoint));
  const auto planned =
      nlohmann::json::parse(run({"quantize", "-c", config, "--dry-run", "--json", "--set", "ipq.vocabulary=true"}).out);
  const Result quantized = run({"quantize", "-c", config, "-o", packed, "--set", "ipq.vocabulary=true"});
  ASSERT_EQ(quantized.code, 0) << quantized.err;
  EXPECT_EQ(planned["predicted_bytes"], std::filesystem::file_size(packed));
  const auto vocabulary = planned["sizes"]["vocabulary_bytes"].get<uint64_t>();
  EXPECT_NE(quantized.err.find(fmt::format("{} bytes of it are the vocabulary", vocabulary)), std::string::npos)
      << quantized.err;
  EXPECT_NE(run({"inspect", packed}).out.find("carries its vocabulary: 72 words"), std::string::npos);
  const std::string data = (dir_ / "data").string(), prompts = (dir_ / "prompts").string();
  std::ofstream(prompts) << "w1 w2\n\nw3\n";
  const std::vector<std::string> generate{"generate", packed, "--text", prompts, "--samples", "2", "--max-length", "9"};
  const auto with = [](std::vector<std::string> all, const std::vector<std::string>& more) {
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  std::filesystem::rename(dir_ / "data", dir_ / "elsewhere");
  const Result written = run(generate), by_one = run(with(generate, {"--batch", "1"}));
  ASSERT_EQ(written.code, 0) << written.err;
  EXPECT_EQ(std::count(written.out.begin(), written.out.end(), '\n'), 6);
  EXPECT_EQ(written.out, by_one.out);
  std::istringstream lines(run(with(generate, {"--json"})).out);
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  const auto json = nlohmann::json::parse(line);
  EXPECT_EQ(json["text"], written.out.substr(0, written.out.find('\n')));
  EXPECT_EQ(json["tokens"], json["token_scores"].size());
  EXPECT_LT(json["score"], 0.0);
  EXPECT_EQ(run({"generate", packed, "--text", prompts, "--beam", "3", "--best", "2", "--max-length", "9"}).code, 0);
  const Result refused = run({"generate", packed, "--text", prompts, "--best", "2"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_NE(refused.err.find("--best is for a search"), std::string::npos) << refused.err;
  EXPECT_EQ(run({"predict", packed, "--text", prompts}).code, 2);
  const Result away = run({"generate", checkpoint, "--text", prompts});
  EXPECT_EQ(away.code, 2);
  EXPECT_NE(away.err.find("that this checkpoint was trained on is not there"), std::string::npos) << away.err;
  std::filesystem::rename(dir_ / "elsewhere", dir_ / "data");
  EXPECT_EQ(run({"generate", checkpoint, "--text", prompts}).code, 0);

  // Out of the file and in again.
  const std::string bare = (dir_ / "bare.safetensors").string(), again = (dir_ / "again.safetensors").string();
  ASSERT_EQ(run({"export", packed, "--packed", "--no-vocabulary", "-o", bare}).code, 0);
  EXPECT_LT(std::filesystem::file_size(bare), std::filesystem::file_size(packed) - vocabulary);
  EXPECT_EQ(run({"generate", bare, "--text", prompts}).code, 2);
  EXPECT_EQ(run(with({"generate", bare, "--data", data}, {generate.begin() + 2, generate.end()})).out, written.out);
  ASSERT_EQ(run({"export", bare, "--packed", "--vocabulary", data, "-o", again}).code, 0);
  EXPECT_EQ(text_of(again), text_of(packed));
  const std::string plain = (dir_ / "plain.safetensors").string();
  ASSERT_EQ(run({"export", packed, "-o", plain}).code, 0);
  expect_exported(packed, plain);
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

}  // namespace
}  // namespace qn::test
