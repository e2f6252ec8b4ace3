// Safetensors files that an index joins, read as one.
#include "core/tensor_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/bfloat16.h"
#include "core/error.h"
#include "core/file_io.h"
#include "core/half.h"
#include "core/stored_values.h"
#include "support/capture.h"
#include "support/temp_dir.h"

namespace qn::test {
namespace {

/// A file of another kind is named as what it is, with a way out, instead of by the header that its bytes would
/// announce.
TEST(TensorFiles, OtherKindsOfFilesAreNamed) {
  using namespace std::string_literals;
  const TempDir dir;
  const auto error = [&](const std::string& content) {
    std::ofstream(dir / "weights", std::ios::binary) << content << std::string(64, '\0');
    return error_of([&] { TensorFiles files(dir / "weights"); });
  };
  using testing::AllOf;
  using testing::HasSubstr;
  EXPECT_THAT(error("PK\x03\x04\x14\0\0\0"s), AllOf(HasSubstr("a zip archive"), HasSubstr("safetensors.torch")));
  EXPECT_THAT(error("\x80\x02\x8a\x0a"s), AllOf(HasSubstr("a pickle"), HasSubstr("safetensors.torch")));
  EXPECT_THAT(error("\x89HDF\r\n\x1a\n"s), HasSubstr("an HDF5 file"));
  EXPECT_THAT(error("\x1f\x8b\x08\0\0\0\0\0"s), AllOf(HasSubstr("gzip"), HasSubstr("unpack it first")));
  EXPECT_THAT(error("quantnoise-checkpoint    1\n"),
              AllOf(HasSubstr("a quantnoise checkpoint"), HasSubstr("quantize")));
  EXPECT_THAT(error("\xf0\xf1\xf2\xf3\xf4\xf5\xf6\xf7"), HasSubstr("a binary file of no known kind"));
  EXPECT_THAT(error("\x40\0\0\0\0\0\0\1{\"a\""s), HasSubstr("no safetensors file"));
  EXPECT_THAT(error("\0\0\1\0\0\0\0\0{\"a\""s), AllOf(HasSubstr("cut off"), HasSubstr("a header of 65536 bytes")));
  std::ofstream(dir / "text") << "version https://git-lfs.github.com/spec/v1\noid sha256:1\n";
  EXPECT_THAT(error_of([&] { TensorFiles files(dir / "text"); }), HasSubstr("git lfs pull"));
  std::ofstream(dir / "pytorch_model.bin", std::ios::binary) << "PK\x03\x04\x14\0\0\0"s;
  EXPECT_THAT(
      error_of([&] { TensorFiles files(dir.path()); }),
      AllOf(HasSubstr("neither"), HasSubstr("pytorch_model.bin, which is a zip archive"), HasSubstr("save_file")));
}

using nlohmann::json;
using std::filesystem::path;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

using Values = std::map<std::string, std::vector<float>>;

void write_shard(const path& file, const Values& tensors, const std::string& note) {
  SafetensorsWriter writer;
  for (const auto& [name, values] : tensors) writer.add(name, StoredType::f32, {std::ssize(values)}, values);
  writer.set_metadata("format", "pt");
  writer.set_metadata("note", note);
  writer.write(file);
}

/// A folder of two shards and their index.
class Shards {
 public:
  Shards() {
    write_shard(dir_ / "one.safetensors", {{"a", {1, 2}}, {"b", {3}}}, "first");
    write_shard(dir_ / "two.safetensors", {{"c", {4, 5, 6}}}, "second");
  }
  path index(const json& weight_map) const {
    atomic_write_text(dir_ / "model.safetensors.index.json", json{{"weight_map", weight_map}}.dump());
    return dir_ / "model.safetensors.index.json";
  }
  path folder() const { return dir_.path(); }

 private:
  TempDir dir_;
};

const json kComplete{{"a", "one.safetensors"}, {"b", "one.safetensors"}, {"c", "two.safetensors"}};

TEST(TensorFiles, ShardsAreReadAsOne) {
  const Shards shards;
  const path index = shards.index(kComplete);
  for (const path& named : {index, shards.folder()}) {
    const TensorFiles files(named);
    EXPECT_EQ(files.path(), index);
    ASSERT_EQ(files.tensors().size(), kComplete.size());
    EXPECT_EQ(floats_of(*files.tensors().at("a")), (std::vector<float>{1, 2}));
    EXPECT_EQ(floats_of(*files.tensors().at("c")), (std::vector<float>{4, 5, 6}));
    EXPECT_EQ(files.metadata().at("note"), "first");
    EXPECT_EQ(files.bytes(), std::filesystem::file_size(shards.folder() / "one.safetensors") +
                                 std::filesystem::file_size(shards.folder() / "two.safetensors"));
  }
}

TEST(TensorFiles, AFolderWithoutIndexNeedsOneModel) {
  const TempDir dir;
  EXPECT_THAT([&] { TensorFiles(dir.path()); }, ThrowsMessage<Error>(HasSubstr("name a file")));
  write_shard(dir / "model.safetensors", {{"a", {1}}}, "");
  EXPECT_EQ(TensorFiles(dir.path()).tensors().size(), 1U);
  atomic_write_text(dir / "x.index.json", "{}");
  atomic_write_text(dir / "y.index.json", "{}");
  EXPECT_THAT([&] { TensorFiles(dir.path()); }, ThrowsMessage<Error>(HasSubstr("2 index files")));
}

TEST(TensorFiles, WhatDoesNotFitTheIndexIsNamed) {
  const Shards shards;
  const auto expect = [&](const path& index, const auto& message) {
    EXPECT_THAT([&] { TensorFiles{index}; }, ThrowsMessage<Error>(AllOf(HasSubstr(index.string()), message)));
  };
  const auto with = [](const std::string& tensor, const json& shard) {
    json changed = kComplete;
    changed[tensor] = shard;
    return changed;
  };
  expect(shards.index(with("c", "three.safetensors")),
         AllOf(HasSubstr("shard three.safetensors"), HasSubstr("'c'"), HasSubstr("is missing")));
  expect(shards.index(with("d", "two.safetensors")), HasSubstr("'d' is not in shard two.safetensors"));
  expect(shards.index(with("a", "two.safetensors")), HasSubstr("'a' is in shard one.safetensors, the index says two"));
  expect(shards.index(with("a", "../one.safetensors")), HasSubstr("beside the index"));
  expect(shards.index(with("a", 3)), HasSubstr("no index"));
  json incomplete = kComplete;
  incomplete.erase("b");
  expect(shards.index(incomplete), HasSubstr("holds tensor 'b', which the index does not list"));
  write_shard(shards.folder() / "two.safetensors", {{"a", {1, 2}}, {"c", {4}}}, "");
  expect(shards.index(kComplete), HasSubstr("'a' is in one.safetensors and in two.safetensors"));
  atomic_write_text(shards.folder() / "twice.json", R"({"weight_map": {"a": "x", "a": "y"}})");
  expect(shards.folder() / "twice.json", HasSubstr("'a' appears twice"));
}

TEST(StoredValues, RoundOnceAndComeBack) {
  const std::vector<float> values{0.0f, -0.0f, 1.0f, 1.0f + 0x1p-11f, -65504.0f, 3e-8f, INFINITY};
  for (const StoredType type : {StoredType::f32, StoredType::f16, StoredType::bf16}) {
    const std::vector<std::byte> bytes = stored_bytes_of(values, type, "x");
    std::vector<std::byte> shifted{std::byte{0}};  // of no alignment
    shifted.insert(shifted.end(), bytes.begin(), bytes.end());
    const StoredTensor tensor{"x", type, {std::ssize(values)}, std::span(shifted).subspan(1)};
    const std::vector<float> back = floats_of(tensor);
    ASSERT_EQ(back.size(), values.size());
    EXPECT_EQ(stored_bytes_of(back, type, "x"), bytes);
    for (size_t i = 0; i < values.size(); ++i) {
      const float due = type == StoredType::f32   ? values[i]
                        : type == StoredType::f16 ? half_to_float(float_to_half(values[i]))
                                                  : static_cast<float>(bfloat16(values[i]));
      EXPECT_EQ(std::bit_cast<uint32_t>(back[i]), std::bit_cast<uint32_t>(due)) << name_of(type) << ' ' << i;
    }
  }
  EXPECT_THAT(
      [] {
        stored_bytes_of(std::vector<float>{1.0f, 70000.0f}, StoredType::f16, "big");
      },
      ThrowsMessage<Error>(AllOf(HasSubstr("'big' holds 70000"), HasSubstr("BF16"))));
  EXPECT_FALSE(is_weight_type(StoredType::f64));
}

}  // namespace
}  // namespace qn::test
