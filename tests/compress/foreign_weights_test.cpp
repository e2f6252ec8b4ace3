// Files of other programs: quantized, packed, and exported again.
#include "compress/foreign_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "compress/export_plain.h"
#include "core/random.h"
#include "core/stored_values.h"
#include "support/golden.h"
#include "support/temp_dir.h"
#include "support/test_comm.h"

namespace qn::test {
namespace {

using std::filesystem::path;
using testing::AllOf;
using testing::Each;
using testing::HasSubstr;
using testing::ThrowsMessage;

std::vector<float> random_values(const std::string& name, int64_t count) {
  const RandomStream stream({.seed = 5, .purpose = Purpose::test, .id = hash_name(name.c_str())});
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(stream.normal(i));
  return values;
}

/// Another program's file. Every rank writes the same into a folder of its own.
class Foreign {
 public:
  void add(const std::string& name, StoredType type, const std::vector<int64_t>& shape, std::vector<float> values = {},
           const std::string& same_as = {}) {
    int64_t count = 1;
    for (const int64_t extent : shape) count *= extent;
    if (values.empty()) values = random_values(same_as.empty() ? name : same_as, count);
    writer_.add(name, type, shape, stored_bytes_of(values, type, name));
  }
  void add_integers(const std::string& name, const std::vector<int64_t>& values) {
    writer_.add(name, StoredType::i64, {1, std::ssize(values)}, values);
  }
  path write(const std::string& name) {
    writer_.set_metadata("format", "pt");
    writer_.write(dir_ / name);
    return dir_ / name;
  }
  path operator/(const std::string& name) const { return dir_ / name; }

 private:
  TempDir dir_;
  SafetensorsWriter writer_;
};

/// All that the format has to keep apart.
void add_everything(Foreign& f) {
  f.add("embed_tokens", StoredType::bf16, {70, 16});  // no ".weight", and the next one has the name it would get
  f.add("embed_tokens.weight", StoredType::f32, {40, 8});
  f.add("h.0.fc.weight", StoredType::f16, {48, 32});
  f.add("h.0.fc.bias", StoredType::f16, {48});
  f.add("h.0.fc.scale", StoredType::f32, {48});  // and the one its scales would get
  f.add("conv.weight", StoredType::f32, {24, 4, 3, 3});
  f.add("conv1d.weight", StoredType::bf16, {24, 4, 5});
  f.add("five", StoredType::f32, {8, 2, 2, 2, 2});
  f.add("lm_head.weight", StoredType::f16, {48, 32}, {}, "h.0.fc.weight");  // tied: the same values
  f.add("scalar", StoredType::f32, {}, {2.5f});
  f.add("empty", StoredType::f32, {0, 4});
  f.add_integers("position_ids", {0, 1, 2, 1LL << 40});
}

constexpr const char* kRules = R"yaml(
n_centroids:
  Linear: {key: fuzzy_name, value: {"*": 12}}
  Embedding: {key: embedding_dim, value: {"16": 20, "*": 10}}
  Conv2d: {key: kernel_size, value: {"(3, 3)": 16}}
block_sizes:
  Linear: {key: in_features, value: {"20": 4, "*": 8}}
  Embedding: {key: fuzzy_name, value: {embed: 4}}
  Conv2d: {key: out_channels, value: {"24": 9}}
layers_to_quantize: ['conv(1d)?', 'embed_tokens$']
scalar: {bits: 5, range: channel_affine, layers: ['lm_head', five]}
)yaml";

void pack(const TensorFiles& files, const ForeignRules& rules, const path& out, const ForeignOptions& options = {}) {
  ForeignWeights weights(files, rules, options);
  const uint64_t predicted = weights.predicted_sizes().total_bytes();
  weights.quantize(out, comm(), cpu_kernels());
  if (!comm().is_root()) return;
  EXPECT_EQ(std::filesystem::file_size(out), predicted);
  EXPECT_EQ(packed_sizes(SafetensorsReader(out)).total_bytes(), predicted);
}

double relative_error(const StoredTensor& original, const StoredTensor& decoded) {
  const std::vector<float> a = floats_of(original), b = floats_of(decoded);
  double error = 0.0, norm = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    error += std::pow(static_cast<double>(b[i]) - a[i], 2);
    norm += std::pow(static_cast<double>(a[i]), 2);
  }
  return std::sqrt(error / norm);
}

/// Exports in F32 and compares: names, shapes, metadata; values bit for bit, or with the reported error. Returns the
/// names that were quantized.
std::set<std::string> compare_export(const TensorFiles& files, const path& packed, const path& plain) {
  const SafetensorsReader reader(packed);
  const uint64_t bytes = export_plain(reader, packed.string(), plain, ExportType::f32);
  EXPECT_EQ(bytes, std::filesystem::file_size(plain));
  const SafetensorsReader exported(plain);
  EXPECT_EQ(exported.metadata(), files.metadata());
  EXPECT_EQ(exported.tensors().size(), files.tensors().size());
  const PackedOrigin origin = packed_origin(reader, packed.string()).value();
  std::map<std::string, double> errors;
  const std::map<std::string, double> reported = relative_errors(reader, packed.string(), files);
  for (const auto& [name, weight] : origin.weights)
    for (const std::string& own : weight.names) errors[own] = reported.at(weight.names.front());
  std::set<std::string> quantized;
  for (const auto& [name, original] : files.tensors()) {
    const StoredTensor& now = exported.at(name);
    EXPECT_EQ(now.shape, original->shape) << name;
    EXPECT_EQ(now.type, is_weight_type(original->type) ? StoredType::f32 : original->type) << name;
    if (errors.contains(name)) {
      quantized.insert(name);
      EXPECT_GT(errors.at(name), 1e-4) << name;
      EXPECT_LT(errors.at(name), 0.9) << name;
      EXPECT_NEAR(relative_error(*original, now), errors.at(name), 1e-9) << name;
    } else if (is_weight_type(original->type)) {
      EXPECT_EQ(floats_of(now), floats_of(*original)) << name;
    } else {
      EXPECT_TRUE(std::ranges::equal(now.bytes, original->bytes)) << name;
    }
  }
  return quantized;
}

TEST(ForeignWeights, EverythingComesBack) {
  Foreign f;
  add_everything(f);
  const TensorFiles files(f.write("model.safetensors"));
  const path packed = f / "packed.safetensors";
  pack(files, parse_foreign_rules(kRules, "rules"), packed);
  if (!comm().is_root()) return;
  EXPECT_EQ(compare_export(files, packed, f / "plain.safetensors"),
            (std::set<std::string>{"conv.weight", "conv1d.weight", "embed_tokens", "embed_tokens.weight", "five",
                                   "h.0.fc.weight", "lm_head.weight"}));
  const SafetensorsReader reader(packed);
  const PackedWeights weights = packed_weights(reader, nullptr);
  EXPECT_EQ(weights.at("conv.weight").quantizer->text(), "pq d=9 K=16");
  EXPECT_EQ(weights.at("conv1d.weight").quantizer->text(), "pq d=4 K=12");
  EXPECT_EQ(weights.at("embed_tokens_.weight").quantizer->text(), "pq d=4 K=20");
  EXPECT_EQ(weights.at("h.0.fc_.weight").quantizer->text(), "int5 channel_affine");
  EXPECT_EQ(load_foreign(reader, packed.string())->weights().all().size(), weights.size());
  export_plain(reader, packed.string(), f / "original.safetensors", ExportType::original);
  export_plain(reader, packed.string(), f / "bf16.safetensors", ExportType::bf16);
  const SafetensorsReader original(f / "original.safetensors"), bf16(f / "bf16.safetensors");
  for (const auto& [name, tensor] : files.tensors()) {
    EXPECT_EQ(original.at(name).type, tensor->type) << name;
    EXPECT_EQ(bf16.at(name).type, is_weight_type(tensor->type) ? StoredType::bf16 : tensor->type) << name;
  }
}

TEST(ForeignWeights, RanksWriteTheFileOfOne) {
  Foreign f;
  add_everything(f);
  const TensorFiles files(f.write("model.safetensors"));
  const ForeignRules rules = parse_foreign_rules(kRules, "rules");
  pack(files, rules, f / "ranks.safetensors");
  const auto alone = make_local_communicator();
  ForeignWeights(files, rules, {}).quantize(f / "alone.safetensors", *alone, cpu_kernels());
  if (!comm().is_root()) return;
  EXPECT_EQ(read_file_bytes(f / "ranks.safetensors"), read_file_bytes(f / "alone.safetensors"));
}

TEST(ForeignWeights, WithoutRules) {
  Foreign f;
  f.add("eight", StoredType::f32, {128, 32});
  f.add("four", StoredType::f32, {128, 36});
  f.add("odd", StoredType::f32, {128, 33});
  f.add("small", StoredType::f32, {127, 32});
  const TensorFiles files(f.write("model.safetensors"));
  const QuantizationPlan by_default = ForeignWeights(files, {}, {}).plan();
  ASSERT_EQ(by_default.weights.size(), 2U);
  EXPECT_EQ(by_default.find("eight.weight")->quantizer->text(), "pq d=8 K=128");  // a quarter of the blocks
  EXPECT_EQ(by_default.find("four.weight")->quantizer->text(), "pq d=4 K=256");
  const ForeignRules scalar{.product = std::nullopt, .scalar = ScalarRules{{.bits = 3, .method = RangeMethod::tensor}}};
  const QuantizationPlan all = ForeignWeights(files, scalar, {}).plan();
  EXPECT_EQ(all.weights.size(), files.tensors().size());
  for (const WeightPlan& w : all.weights) EXPECT_EQ(w.quantizer->text(), "int3 tensor");
}

TEST(ForeignWeights, CentroidsAsAsked) {
  Foreign f;
  f.add("w", StoredType::f32, {256, 32});
  std::vector<float> large = random_values("large", 256 * 32);
  large[77] = 1e5f;
  f.add("large", StoredType::f32, {256, 32}, large);
  const TensorFiles files(f.write("model.safetensors"));
  EXPECT_THAT([&] { ForeignWeights(files, {}, {}); },
              ThrowsMessage<Error>(AllOf(HasSubstr("'large'"), HasSubstr("at element 77"), HasSubstr("fp32"))));
  for (const ValueStorage centroids : {ValueStorage::f32, ValueStorage::int8}) {
    const path packed = f / fmt::format("{}.safetensors", name_of(centroids));
    pack(files, {}, packed, {.centroids = centroids});
    if (!comm().is_root()) continue;
    EXPECT_EQ(SafetensorsReader(packed).at("w.centroids").type,
              centroids == ValueStorage::f32 ? StoredType::f32 : StoredType::i8);
  }
}

TEST(ForeignWeights, BadInputIsNamed) {
  Foreign f;
  f.add("good", StoredType::f32, {64, 64});
  std::vector<float> bad = random_values("bad", 64 * 36);
  bad[100] = std::numeric_limits<float>::quiet_NaN();
  f.add("bad", StoredType::bf16, {64, 36}, bad);
  f.add_integers("ids", {1, 2});
  const path file = f.write("model.safetensors");
  const TensorFiles files(file);
  const auto expect = [&](const std::string& rules, const auto& message) {
    EXPECT_THAT([&] { ForeignWeights(files, parse_foreign_rules(rules, "r.yaml"), {}); }, ThrowsMessage<Error>(message))
        << rules;
  };
  const std::string eight = "block_sizes: {Linear: {key: fuzzy_name, value: {'*': 8}}}\n";
  expect("scalar: {}",
         AllOf(HasSubstr("'bad'"), HasSubstr("nan"), HasSubstr("at element 100"), HasSubstr(file.string())));
  expect(eight + "layers_to_quantize: [goods]", AllOf(HasSubstr("r.yaml:2"), HasSubstr("nearest names are: good")));
  expect("scalar: {layers: [goods]}", AllOf(HasSubstr("r.yaml:1"), HasSubstr("nearest names are: good")));
  expect("scalar: {layers: [ids]}", HasSubstr("matches no weight"));
  expect(eight + "layers_to_quantize: [bad]", AllOf(HasSubstr("'bad' has 36 columns"), HasSubstr("4, 6, 9")));
  expect(eight, HasSubstr("layers_to_quantize is missing"));
  expect("", HasSubstr("must have the section"));
  expect("scalar: {bit: 4}", AllOf(HasSubstr("r.yaml:1"), HasSubstr("did you mean 'bits'")));
  expect("scalar: {bits: 9}", HasSubstr("from 2 to 8"));
  expect("scalar: {range: chanel}", HasSubstr("did you mean 'channel'"));
  expect("scalar: {layers: good}", HasSubstr("list of patterns"));
  expect("scalar: [4]", HasSubstr("must be a map"));
  EXPECT_NO_THROW(ForeignWeights(files, parse_foreign_rules("scalar: {layers: [good]}", "r.yaml"), {}));
}

TEST(ForeignWeights, PackedFilesAreNotPackedAgain) {
  Foreign f;
  f.add("w", StoredType::f32, {64, 64});
  const TensorFiles files(f.write("model.safetensors"));
  pack(files, {}, f / "packed.safetensors");
  if (!comm().is_root()) return;
  const TensorFiles packed(f / "packed.safetensors");
  EXPECT_THAT([&] { ForeignWeights(packed, {}, {}); }, ThrowsMessage<Error>(HasSubstr("quantnoise export")));
  const path plain = f / "model.safetensors";
  EXPECT_THAT([&] { export_plain(SafetensorsReader(plain), plain.string(), f / "x", ExportType::f32); },
              ThrowsMessage<Error>(HasSubstr("no packed model")));
}

TEST(ForeignWeights, FilesOfHuggingFace) {
  QN_GOLDEN(folder, "hf_models");
  const ForeignRules rules = parse_foreign_rules(
      "n_centroids: {Linear: {key: fuzzy_name, value: {'*': 24}}, Embedding: {key: fuzzy_name, value: {'*': 24}}}\n"
      "block_sizes: {Linear: {key: fuzzy_name, value: {'*': 4}}, Embedding: {key: fuzzy_name, value: {'*': 8}}}\n"
      "layers_to_quantize: ['.*(h|layer)\\.\\d+\\.', '.*(wte|word_embeddings)']\n"
      "scalar: {bits: 4, layers: ['.*(wpe|position_embeddings)']}\n",
      "rules");
  const TempDir dir;
  size_t seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".safetensors") continue;
    SCOPED_TRACE(entry.path().string());
    const TensorFiles files(entry.path());
    const path packed = dir / entry.path().filename().string();
    pack(files, rules, packed);
    ++seen;
    if (!comm().is_root()) continue;
    const std::set<std::string> quantized = compare_export(files, packed, dir / "plain.safetensors");
    EXPECT_GT(quantized.size(), 4U);
    EXPECT_LT(quantized.size(), files.tensors().size());
  }
  EXPECT_GT(seen, 0U);
}

}  // namespace
}  // namespace qn::test
