// Modules whose weights stay codes: they compute what the decoded ones compute, and give their codes back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compress/coded_representation.h"
#include "compress/packed_model.h"
#include "compress/representation.h"
#include "small_net.h"
#include "support/temp_dir.h"

namespace qn::test {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

/// A file of a net whose weights all have this quantizer.
void write_net(const std::filesystem::path& path, const std::string& quantizer, ValueStorage side) {
  SmallNet net;
  RepresentationSwap swap(net, CentroidGradient::sum);
  for (const auto& w : net.weights().all()) swap.replace(*w, quantized(*w, *quantizer_from_text(quantizer, "")));
  swap.finish();
  write_packed(path, net, {}, {.side = side, .dense = ValueStorage::f32});
}

const char* const kQuantizers[] = {"pq block_size=8 n_centroids=256", "pq block_size=4 n_centroids=20",
                                   "pq block_size=1 n_centroids=16",  "pq block_size=2 n_centroids=64 row_scales=rms",
                                   "int bits=2 range=tensor",         "int bits=4 range=channel",
                                   "int bits=5 range=channel_affine", "int bits=8 range=histogram"};

TEST(CodedWeights, ComputeWhatDecodedOnesDo) {
  const TempDir dir;
  for (const char* quantizer : kQuantizers)
    for (const ValueStorage side : {ValueStorage::f32, ValueStorage::f16, ValueStorage::int8}) {
      SCOPED_TRACE(std::string(quantizer) + ' ' + name_of(side));
      const auto path = dir / "net.safetensors";
      write_net(path, quantizer, side);
      SmallNet decoded, coded;
      load_packed(decoded, SafetensorsReader(path), path.string(), CentroidGradient::sum);
      load_packed(coded, path);
      const std::vector<float> expected = logits(decoded), actual = logits(coded);
      for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(actual[i], expected[i], 2e-4f) << i;
      for (const auto& w : coded.weights().all()) {
        ASSERT_NE(dynamic_cast<CodedRepresentation*>(&w->representation()), nullptr) << w->name();
        EXPECT_EQ(w->dense(), nullptr);
        const auto mine = quantized_tensor(*w, coded.parameters()),
                   other = quantized_tensor(*decoded.weights().find(w->name()), decoded.parameters());
        EXPECT_EQ(mine->codes, other->codes);
        ASSERT_EQ(mine->values.size(), other->values.size());
        for (size_t i = 0; i < mine->values.size(); ++i) {
          EXPECT_EQ(mine->values[i].name, other->values[i].name);
          EXPECT_EQ(mine->values[i].values, other->values[i].values);
        }
      }
      EXPECT_THAT(describe_coded(coded), HasSubstr("3 weights stay codes"));
      EXPECT_EQ(describe_coded(decoded), "");
    }
}

/// Not laid out before, a module never has memory for its dense matrices.
TEST(CodedWeights, NeedNoDenseMemory) {
  const TempDir dir;
  const auto path = dir / "net.safetensors";
  write_net(path, kQuantizers[0], ValueStorage::f16);
  SmallNet net;
  load_packed(net, SafetensorsReader(path), path.string(), cpu_kernels());
  EXPECT_EQ(net.parameters().elements(), SmallNet::kHidden) << "one bias";
  EXPECT_LT(net.parameters().values().elements(), 2 * SmallNet::kHidden);
}

TEST(CodedWeights, TransposedInDoubleAndInBfloat16) {
  const TempDir dir;
  const auto path = dir / "net.safetensors";
  write_net(path, kQuantizers[1], ValueStorage::f16);
  SmallNet decoded, coded;
  load_packed(decoded, SafetensorsReader(path), path.string(), CentroidGradient::sum);
  load_packed(coded, path);
  std::vector<float> x(3 * SmallNet::kHidden);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7) - 3.0f;
  const auto product = [&](SmallNet& net) {
    Arena arena;
    Tape tape(cpu_kernels(), arena, DType::f32, {});
    const Tensor y =
        net.weight("fc1").linear_transposed(tape, {view_of(x.data(), {3, SmallNet::kHidden}), nullptr}).value;
    return std::vector<float>(y.span<float>().begin(), y.span<float>().end());
  };
  const std::vector<float> expected = product(decoded), actual = product(coded);
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(actual[i], expected[i], 1e-4f);
  Arena arena;
  Tape tape(cpu_kernels(), arena, DType::bf16, {});
  const std::vector<int32_t> ids{3, 1, 17};
  const Tensor y = coded.forward(tape, ids).value;
  const std::vector<float> wide = logits(decoded);
  for (size_t i = 0; i < wide.size(); ++i)
    EXPECT_NEAR(static_cast<float>(y.as<bfloat16>()[i]), wide[i], 0.5f + 0.02f * std::abs(wide[i]));
}

TEST(CodedWeights, CodesBeyondTheirLevelsAreRefused) {
  const TempDir dir;
  const auto path = dir / "net.safetensors";
  write_net(path, kQuantizers[1], ValueStorage::f32);  // 20 levels in 5 bits
  SafetensorsWriter writer;
  const SafetensorsReader file(path);
  for (const auto& [key, value] : file.metadata())
    if (key != kChecksums) writer.set_metadata(key, value);
  writer.set_metadata("version", "2");
  for (const StoredTensor& t : file.tensors()) {
    std::vector<std::byte> bytes(t.bytes.begin(), t.bytes.end());
    if (t.name == "net.fc1.codes") bytes.back() = std::byte{0xff};
    writer.add(t.name, t.type, t.shape, bytes);
  }
  writer.write(dir / "bad.safetensors");
  SmallNet net;
  EXPECT_THAT([&] { load_packed(net, dir / "bad.safetensors"); },
              ThrowsMessage<Error>(testing::AllOf(HasSubstr("net.fc1.weight"), HasSubstr("beyond its 20 levels"))));
}

}  // namespace
}  // namespace qn::test
