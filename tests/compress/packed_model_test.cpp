// Packed files of any module: what is written is what was predicted, and computes what the module in memory does.
#include "compress/packed_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compress/ipq.h"
#include "compress/storable.h"
#include "core/half.h"
#include "quant/bit_packing.h"
#include "small_net.h"
#include "support/capture.h"
#include "support/temp_dir.h"

namespace qn::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

QuantizationPlan mixed_plan(const SmallNet& net, bool cut_ties) {
  QuantizationPlan plan = dense_plan(infos_of(net.weights()));
  plan.stages = 1;
  for (WeightPlan& w : plan.weights) {
    w.stage = 0;
    w.quantizer = w.name == "net.fc1.weight"   ? scalar(3, "channel_affine")
                  : w.name == "net.fc2.weight" ? pq(4, 20)
                                               : pq(2, 32);
  }
  if (cut_ties) plan_cut_ties(plan, net.weights());
  return plan;
}

/// What comes straight from codes: the same but for the order of sums.
void expect_near(const std::vector<float>& actual, const std::vector<float>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 2e-4f) << i;
}

/// The module after the plan's only stage.
StateDict run_stage(SmallNet& net, const QuantizationPlan& plan, RowImportance importance = {}) {
  const auto alone = make_local_communicator();
  IpqMachine machine({}, net, *alone, 1, plan, std::move(importance));
  EXPECT_EQ(machine.run_stage()->weights, 3);
  StateDict state;
  machine.save(state);
  save_module(net, state);
  return state;
}

TEST(PackedModel, MixedQuantizersAsPredictedAndBack) {
  const TempDir dir;
  for (const bool cut_ties : {false, true})
    for (const ValueStorage side : {ValueStorage::f16, ValueStorage::int8}) {
      SCOPED_TRACE(fmt::format("ties cut: {}, {}", cut_ties, name_of(side)));
      SmallNet net;
      net.range().value.view().as<float>()[1] = 2.25f;
      QuantizationPlan plan = mixed_plan(net, cut_ties);
      plan.storage.side = side;
      const PackedMetadata metadata{{"plan", plan_to_text(plan)}, {"parameters", "1440"}};
      const SizeReport predicted = predict_packed_sizes(net, plan, metadata);
      run_stage(net, plan);
      round_to_storage(net, plan.storage);
      const auto path = dir / "net.safetensors";
      const uint64_t bytes = write_packed(path, net, metadata, plan.storage);
      EXPECT_EQ(bytes, std::filesystem::file_size(path));
      EXPECT_EQ(predicted.total_bytes(), bytes);
      const SafetensorsReader file(path);
      EXPECT_EQ(packed_sizes(file).total_bytes(), bytes);
      EXPECT_EQ(packed_sizes(file).header_bytes(), predicted.header_bytes());
      EXPECT_EQ(file.metadata_at("plan"), metadata.at("plan"));
      SmallNet loaded, trainable;
      load_packed(loaded, path);
      expect_near(logits(loaded), logits(net));
      load_packed(trainable, file, path.string(), CentroidGradient::sum);
      EXPECT_EQ(logits(trainable), logits(net));
      EXPECT_EQ(loaded.range().value.view().as<float>()[1], 2.25f);
      EXPECT_EQ(loaded.weights().find("net.output.weight") != nullptr, cut_ties);
    }
}

TEST(PackedModel, RowScalesAsPredictedAndBack) {
  const TempDir dir;
  SmallNet net;
  QuantizationPlan plan = mixed_plan(net, false);
  for (WeightPlan& w : plan.weights)
    w.quantizer = quantizer_from_text("pq block_size=4 n_centroids=16 row_scales=rms", "");
  const PackedMetadata metadata{{"plan", plan_to_text(plan)}};
  const SizeReport predicted = predict_packed_sizes(net, plan, metadata);
  const StateDict state = run_stage(net, plan);
  round_to_storage(net, plan.storage);
  const auto path = dir / "net.safetensors";
  EXPECT_EQ(write_packed(path, net, metadata, plan.storage), predicted.total_bytes());
  const SafetensorsReader file(path);
  EXPECT_EQ(packed_sizes(file).total_bytes(), std::filesystem::file_size(path));
  EXPECT_EQ(file.at("net.fc1.row_scales").bytes.size(), 32u);
  EXPECT_EQ(file.metadata_at("version"), "5");
  SmallNet loaded, trainable;
  load_packed(trainable, file, path.string(), CentroidGradient::sum);
  EXPECT_EQ(logits(trainable), logits(net));
  round_to_storage(trainable, plan.storage);
  EXPECT_EQ(logits(trainable), logits(net)) << "storing twice changes something";
  load_packed(loaded, path);
  expect_near(logits(loaded), logits(net));
  round_to_storage(loaded, plan.storage);
  EXPECT_EQ(logits(loaded), logits(net)) << "storing codes twice changes something";
  // A checkpoint gives the module back as well.
  SmallNet resumed;
  restore_quantized(resumed, plan_from_text(plan_to_text(plan), "x"), CentroidGradient::sum, state);
  load_module(resumed, state);
  round_to_storage(resumed, plan.storage);
  EXPECT_EQ(logits(resumed), logits(net));
}

/// A file as version 1 had it: no table of quantized weights.
void write_version_1(const std::filesystem::path& path, SmallNet& net) {
  SafetensorsWriter writer;
  writer.set_metadata("format", "quantnoise-packed");
  writer.set_metadata("version", "1");
  for (const auto& w : net.weights().all()) {
    const QuantizedTensor tensor = quantized_tensor(*w, net.parameters()).value();
    const KMeansShape shape = tensor.quantizer->kmeans().value();
    const int bits = bits_per_code(shape.n_centroids);
    std::vector<int64_t> code_shape{packed_bytes(std::ssize(tensor.codes), bits)};
    if (bits == 8) code_shape = {tensor.cols / shape.block_size, tensor.rows};
    const std::string base = w->name().substr(0, w->name().size() - 6);
    writer.add(base + "codes", StoredType::u8, code_shape, pack_codes(tensor.codes, bits));
    std::vector<uint16_t> halves;
    for (const float v : tensor.values[0].values) halves.push_back(float_to_half(v));
    writer.add(base + "centroids", StoredType::f16, {shape.n_centroids, shape.block_size}, halves);
  }
  const auto bias = net.parameters().find("net.fc1.bias")->value.span<float>();
  writer.add("net.fc1.bias", StoredType::f32, {std::ssize(bias)}, std::vector<float>(bias.begin(), bias.end()));
  writer.add("net.fc1.input.range", StoredType::f32, {2}, std::vector<float>{0.5f, 0.5f});
  writer.write(path);
}

TEST(PackedModel, FilesOfVersion1Load) {
  const TempDir dir;
  SmallNet net;
  QuantizationPlan plan = mixed_plan(net, false);
  plan.weights[1].quantizer = pq(1, 128);
  plan.weights[2].quantizer = pq(2, 32);
  plan.storage = {.side = ValueStorage::f16, .dense = ValueStorage::f32};
  run_stage(net, plan);
  round_to_storage(net, plan.storage);
  const auto path = dir / "old.safetensors";
  write_version_1(path, net);
  const SafetensorsReader file(path);
  EXPECT_EQ(packed_sizes(file).total_bytes(), std::filesystem::file_size(path));
  SmallNet loaded;
  load_packed(loaded, file, path.string(), CentroidGradient::sum);
  EXPECT_EQ(logits(loaded), logits(net));
}

void write_with(const std::filesystem::path& path, const std::string& key, const std::string& value) {
  SafetensorsWriter writer;
  writer.set_metadata("format", "quantnoise-packed");
  writer.set_metadata("version", "2");
  writer.set_metadata("quantized", R"({"quantizers": [], "weights": {}})");
  writer.set_metadata(key, value);
  writer.write(path);
}

TEST(PackedModel, ValuesThatNoFileCanHoldAreNamedBeforeThereIsAFile) {
  const TempDir dir;
  const auto path = dir / "net.safetensors";
  const auto expect = [&](const std::string& name, float value, PackedStorage storage, const std::string& message) {
    SmallNet net;
    const QuantizationPlan plan = mixed_plan(net, false);
    run_stage(net, plan);
    Parameter* p = net.parameters().find(name);
    ASSERT_NE(p, nullptr) << name;
    p->value.as<float>()[1] = value;
    const auto matches = ThrowsMessage<Error>(testing::AllOf(HasSubstr(name), HasSubstr(message)));
    EXPECT_THAT([&] { round_to_storage(net, storage); }, matches);
    EXPECT_EQ(p->value.as<float>()[0], p->value.as<float>()[0]);
    EXPECT_THAT([&] { write_packed(path, net, {}, storage); }, matches);
    EXPECT_FALSE(std::filesystem::exists(path));
  };
  const float infinity = std::numeric_limits<float>::infinity();
  for (const std::string name : {"net.fc1.bias", "net.fc2.centroids"})
    for (const ValueStorage storage : {ValueStorage::f16, ValueStorage::f32, ValueStorage::int8}) {
      const PackedStorage both{.side = storage, .dense = storage};
      expect(name, NAN, both, "not finite (nan at element 1");
      expect(name, -infinity, both, "not finite (-inf at element 1");
    }
  const PackedStorage halves{.side = ValueStorage::f16, .dense = ValueStorage::f16};
  expect("net.fc1.bias", 70000.0f, halves, "70000 at element 1 is beyond 65504");
  expect("net.fc1.bias", 70000.0f, halves, "ipq.dense: fp32");
  expect("net.fc2.centroids", -1e30f, halves, "ipq.centroids: int8");
  const float most = std::numeric_limits<float>::max();
  expect("net.fc2.centroids", most, {.side = ValueStorage::int8, .dense = ValueStorage::f32}, "beyond what bytes");
}

/// One weight and its bias, which is called as one of attention's.
class OneProjection : public Module {
 public:
  explicit OneProjection(const std::string& name) {
    projection_ =
        Linear::build(root().in("self_attn"), name, groups::kAttention, 8, 8, init::normal(1.0), init::normal(1.0));
    allocate(DType::f32, cpu_kernels());
    parameters().initialize(1);
    for (float& value : parameters().find("self_attn." + name + ".bias")->value.span<float>()) value = 1e-12f;
  }

 private:
  Linear projection_;
};

/// A value that softmax takes away may become zero; others are told.
TEST(PackedModel, BiasesOfKeysAreZeroWithoutAWarning) {
  const auto warnings = [](const std::string& name) {
    const OneProjection module(name);
    const LogCapture log;
    check_storable(module, PackedStorage{.side = ValueStorage::f16, .dense = ValueStorage::f16});
    return log.text();
  };
  EXPECT_EQ(warnings("k_proj"), "");
  EXPECT_THAT(warnings("v_proj"), testing::AllOf(HasSubstr("self_attn.v_proj.bias"), HasSubstr("makes zeros")));
}

/// The file with other metadata, as another program would write it.
void rewrite(const std::filesystem::path& from, const std::filesystem::path& to, const PackedMetadata& changes) {
  const SafetensorsReader file(from);
  SafetensorsWriter writer;
  for (const auto& [key, value] : file.metadata())
    if (key != kChecksums) writer.set_metadata(key, value);
  for (const auto& [key, value] : changes) writer.set_metadata(key, value);
  for (const StoredTensor& t : file.tensors()) writer.add(t.name, t.type, t.shape, t.bytes);
  writer.write(to);
}

TEST(PackedModel, FilesOfVersion2Load) {
  const TempDir dir;
  SmallNet net;
  const QuantizationPlan plan = mixed_plan(net, false);
  run_stage(net, plan);
  round_to_storage(net, plan.storage);
  write_packed(dir / "new.safetensors", net, {}, plan.storage);
  rewrite(dir / "new.safetensors", dir / "old.safetensors", {{"version", "2"}});
  SmallNet loaded;
  load_packed(loaded, dir / "old.safetensors");
  expect_near(logits(loaded), logits(net));
  EXPECT_FALSE(SafetensorsReader(dir / "old.safetensors").has_checksums());
}

TEST(PackedModel, MetadataIsReadStrictly) {
  const TempDir dir;
  const auto path = dir / "x.safetensors";
  for (const char* text : {"", "-3", "+3", "0", "1e3", "12 ", "0x10", "99999999999999999999", "three"}) {
    SafetensorsWriter writer;
    writer.set_metadata("vocabulary", text);
    writer.write(path);
    EXPECT_THAT([&] { metadata_integer(SafetensorsReader(path), "vocabulary", 4, 1000); },
                ThrowsMessage<Error>(AllOf(HasSubstr("x.safetensors"), HasSubstr("'vocabulary'"))))
        << text;
  }
}

TEST(PackedModel, FitsOrIsRefusedBeforeThereIsMemory) {
  const TempDir dir;
  SmallNet net;
  const QuantizationPlan plan = mixed_plan(net, false);
  run_stage(net, plan);
  write_packed(dir / "net.safetensors", net, {}, plan.storage);
  const SafetensorsReader file(dir / "net.safetensors");
  check_fits(SmallNet(), file);
  Module other;
  other.root().weight("net.fc1.weight", "", WeightKind::linear, {64, 16}, {});
  EXPECT_THAT([&] { check_fits(other, file); },
              ThrowsMessage<Error>(AllOf(HasSubstr("net.fc1.weight"), HasSubstr("[32, 16]"), HasSubstr("[64, 16]"))));
}

TEST(PackedModel, BadFilesAreExplained) {
  const TempDir dir;
  const auto path = dir / "bad.safetensors";
  const auto message = [&](const std::string& key, const std::string& value, const std::string& text) {
    write_with(path, key, value);
    SmallNet net;
    EXPECT_THAT([&] { load_packed(net, SafetensorsReader(path), path.string(), CentroidGradient::sum); },
                ThrowsMessage<Error>(HasSubstr(text)));
  };
  message("format", "other", "no packed model");
  message("version", "7", "use a newer quantnoise");
  message("version", "3", "has no checksums");
  message("quantized", "[", "is no JSON (wrong at byte 2)");
  const auto table = [](const char* type, const char* weight) {
    return fmt::format(R"({{"quantizers": [{{"type": "{}", "options": {{"bits": "4", "range": "tensor"}}}}], )"
                       R"("weights": {{"{}": [0, 32, 16], "net.fc2.weight": [1, 16, 32]}}}})",
                       type, weight);
  };
  message("quantized", table("wavelet", "net.fc1.weight"), "'wavelet'");
  message("quantized", table("int", "net.fc1.weight"), "'net.fc2.weight': its quantizer is 1");
  for (const char* rows : {"32.5", "-1", "1e12", "99999999999", "true", "\"32\""}) {
    std::string wrong = table("int", "net.fc1.weight");
    wrong.replace(wrong.find("32, 16"), 2, rows);
    message("quantized", wrong, "'net.fc1.weight': its number of rows is");
  }
  message("quantized", R"({"quantizers": [], "quantizers": [], "weights": {}})", "says 'quantizers' twice");
  std::string text = table("int", "net.fc1.weight");
  text.replace(text.find("[1"), 2, "[0");
  message("quantized", text, "net.fc1.codes");
  text = table("int", "net.x.weight");
  text.replace(text.find("[1"), 2, "[0");
  message("quantized", text, "net.fc2.codes");
}

TEST(IpqMachine, StateOfMixedStagesRestoresTheModule) {
  SmallNet net;
  const QuantizationPlan plan = mixed_plan(net, true);
  StateDict state = run_stage(net, plan);
  EXPECT_EQ(state.tensor("ipq/codes/net.fc1.weight").dtype, DType::u8);
  const auto restored = [&] {
    SmallNet fresh;
    EXPECT_EQ(restore_quantized(fresh, plan_from_text(plan_to_text(plan), ""), CentroidGradient::sum, state), 1);
    load_module(fresh, state);
    EXPECT_EQ(fresh.parameters().names(), net.parameters().names());
    return logits(fresh);
  };
  EXPECT_EQ(restored(), logits(net));
  // Older checkpoints hold codes as 32-bit integers.
  const auto bytes = state.tensor("ipq/codes/net.fc2.weight").span<uint8_t>();
  const std::vector<int32_t> wide(bytes.begin(), bytes.end());
  state.tensors["ipq/codes/net.fc2.weight"] = copy_of(view_of(wide.data(), {std::ssize(wide)}));
  EXPECT_EQ(restored(), logits(net));
}

TEST(IpqMachine, AsksForRowImportance) {
  std::vector<std::string> asked;
  SmallNet plain, weighted;
  run_stage(plain, mixed_plan(plain, false));
  run_stage(weighted, mixed_plan(weighted, false), [&](const Weight& w) {
    asked.push_back(w.name());
    std::vector<float> importance;
    if (w.first_token() >= 0)
      for (int64_t row = 0; row < w.rows(); ++row) importance.push_back(row < 3 ? 20.0f : 0.01f);
    return importance;
  });
  EXPECT_THAT(asked, testing::UnorderedElementsAre("net.embed.weight", "net.fc1.weight", "net.fc2.weight"));
  EXPECT_NE(plain.weight("embed").representation().quantized()->codes,
            weighted.weight("embed").representation().quantized()->codes);
  EXPECT_EQ(plain.weight("fc2").representation().quantized()->codes,
            weighted.weight("fc2").representation().quantized()->codes);
}

}  // namespace
}  // namespace qn::test
