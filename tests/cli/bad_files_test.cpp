// Model files that are damaged, of another kind, of other data, or of no use.
#include <limits>
#include <nlohmann/json.hpp>

#include "cli_program.h"
#include "compress/packed_model.h"
#include "core/file_io.h"
#include "core/safetensors.h"
#include "train/checkpoint_file.h"

namespace qn::test {
namespace {

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

/// A packed file of a version without checksums.
void write_unsealed(const path& from, const path& to, const std::string& key, const std::string& was,
                    const std::string& is) {
  const SafetensorsReader file(from);
  SafetensorsWriter writer;
  for (const StoredTensor& t : file.tensors()) writer.add(t.name, t.type, t.shape, t.bytes);
  for (auto [name, value] : file.metadata()) {
    if (name == kChecksums) continue;
    if (name == "version") value = "2";
    if (const size_t at = value.find(was); name == key && at != std::string::npos) value.replace(at, was.size(), is);
    writer.set_metadata(name, value);
  }
  writer.write(to);
}

TEST_F(CliTest, WhatAFileAsksForIsNotTheUsersMistake) {
  const std::string checkpoint = dense(), packed = (dir_ / "m.safetensors").string(), data = (dir_ / "data").string();
  RunConfig config = tiny_ipq_config(dir_.path(), "ipq", checkpoint);
  config.ipq.updates_per_stage = 0;
  ASSERT_EQ(run({"quantize", "-c", config_file("ipq", config), "-o", packed}).code, 0);
  for (const auto& [was, is, message] : {std::array{"heads: 2", "heads: 3", "heads"},
                                         {"heads: 2", "headz: 2", "headz"},
                                         {"embed_dim: 32", "embed_dim: many", "embed_dim"}}) {
    const path old = dir_ / "old.safetensors";
    write_unsealed(packed, old, "model", was, is);
    const Result result = run({"eval", old.string(), "--data", data});
    EXPECT_EQ(result.code, 1) << is << result.err;
    EXPECT_NE(result.err.find(message), std::string::npos) << result.err;
  }
}

TEST_F(CliTest, CheckpointsWithValuesThatAreRefusedByNowAreRead) {
  const std::string checkpoint = dense(), data = (dir_ / "data").string();
  const Result before = run({"eval", checkpoint, "--data", data, "--json"});
  StateDict state = load_state(checkpoint);
  std::string& config = state.texts["config"];
  const auto replace = [&](const std::string& was, const std::string& is) {
    const size_t at = config.find(was);
    ASSERT_NE(at, std::string::npos) << was << '\n' << config;
    config.replace(at, was.size(), is);
  };
  replace("seed: 1", "seed: -3");
  replace("max_tokens: 96", "max_tokens: -1");
  replace("momentum: 0.9", "momentun: 0.9");
  save_state(checkpoint, state);
  const Result after = run({"eval", checkpoint, "--data", data, "--json"});
  EXPECT_EQ(after.code, 0) << after.err;
  EXPECT_EQ(nlohmann::json::parse(after.out)["perplexity"], nlohmann::json::parse(before.out)["perplexity"]);
  EXPECT_EQ(run({"explain", checkpoint}).code, 0);
  const Result more = run({"train", "-c", (dir_ / "dense.yaml").string(), "-s", "train.max_updates=13"});
  EXPECT_EQ(more.code, 0) << more.err;
  replace("heads: 2", "heads: -2");
  save_state(checkpoint, state);
  const Result bad = run({"eval", checkpoint, "--data", data});
  EXPECT_EQ(bad.code, 1);
  EXPECT_NE(bad.err.find("use the quantnoise that wrote it"), std::string::npos) << bad.err;
}

TEST_F(CliTest, FilesThatAreNoCheckpointsAreNotCalledDamaged) {
  const std::string checkpoint = dense(), config = (dir_ / "dense.yaml").string();
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir_ / "dense"))
    if (entry.path().extension() == ".h5") std::ofstream(entry.path(), std::ios::trunc) << "some notes\n", ++files;
  ASSERT_GE(files, 2);
  const Result wrong = run({"train", "-c", config});
  EXPECT_EQ(wrong.code, 1);
  EXPECT_NE(wrong.err.find(fmt::format("none of the {} files with names of checkpoints is one", files)),
            std::string::npos)
      << wrong.err;
  EXPECT_NE(wrong.err.find("is a text file"), std::string::npos) << wrong.err;
  EXPECT_EQ(wrong.err.find("checkpoints are damaged"), std::string::npos) << wrong.err;
}

TEST_F(CliTest, ASourceThatWasMovedAsideIsFound) {
  const std::string checkpoint = dense();
  RunConfig config = tiny_ipq_config(dir_.path(), "dense", checkpoint);
  // As after a kill between the move and the first save.
  const path discarded = dir_ / "dense" / "discarded-20261127-190104";
  std::filesystem::create_directory(discarded);
  for (const char* name : {"checkpoint_last.h5", "checkpoint_best.h5", "checkpoint1.h5"})
    std::filesystem::rename(dir_ / "dense" / name, discarded / name);
  const Result lost = run({"quantize", "-c", config_file("ipq", config)});
  EXPECT_EQ(lost.code, 2);
  EXPECT_NE(lost.err.find("has moved one of this name to " + (discarded / "checkpoint_last.h5").string()),
            std::string::npos)
      << lost.err;
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
