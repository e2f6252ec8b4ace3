#include "core/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>

#include "core/error.h"
#include "support/temp_dir.h"

namespace qn::test {
namespace {

using testing::HasSubstr;

/// A file from a header as text and `data_bytes` zero bytes.
std::filesystem::path raw_file(const TempDir& dir, const std::string& header, size_t data_bytes,
                               std::optional<uint64_t> announced = {}) {
  const std::filesystem::path path = dir / "raw.safetensors";
  const uint64_t length = announced.value_or(header.size());
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(&length), sizeof length);
  out << header << std::string(data_bytes, '\0');
  return path;
}

std::string error_of(const std::filesystem::path& path) {
  try {
    const SafetensorsReader reader(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Safetensors, RoundTrip) {
  const TempDir dir;
  const std::vector<float> weight = {1, 2, 3, 4, 5, 6};
  const std::vector<uint16_t> half = {0x3C00, 0xC000};
  const std::vector<uint8_t> codes = {1, 2, 3};
  const std::vector<int64_t> counts = {-7, 1LL << 40};
  const std::vector<int8_t> small = {-128, 127};
  SafetensorsWriter writer;
  writer.add("codes", StoredType::u8, {3}, codes);
  writer.add("fc1.weight", StoredType::f32, {2, 3}, weight);
  writer.add("centroids", StoredType::f16, {2, 1}, half);
  writer.add("small", StoredType::i8, {2}, small);
  writer.add("counts", StoredType::i64, {2}, counts);
  writer.add("nothing", StoredType::f32, {0, 4}, std::vector<float>{});
  writer.add("scalar", StoredType::f32, {}, std::vector<float>{2.5f});
  writer.set_metadata("config", "lr: 1\n\"quoted\" ünïcode");
  writer.write(dir / "model.safetensors");

  const SafetensorsReader reader(dir / "model.safetensors");
  EXPECT_EQ(reader.tensors().size(), 7u);
  EXPECT_EQ(reader.values<float>("fc1.weight", StoredType::f32), weight);
  EXPECT_EQ(reader.values<uint16_t>("centroids", StoredType::f16), half);
  EXPECT_EQ(reader.values<uint8_t>("codes", StoredType::u8), codes);
  EXPECT_EQ(reader.values<int64_t>("counts", StoredType::i64), counts);
  EXPECT_EQ(reader.values<int8_t>("small", StoredType::i8), small);
  EXPECT_TRUE(reader.values<float>("nothing", StoredType::f32).empty());
  EXPECT_EQ(reader.values<float>("scalar", StoredType::f32), std::vector<float>{2.5f});
  EXPECT_EQ(reader.at("fc1.weight").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(reader.metadata_at("config"), "lr: 1\n\"quoted\" ünïcode");
  EXPECT_EQ(reader.file_size(), writer.file_size());
  EXPECT_EQ(reader.file_size(), std::filesystem::file_size(dir / "model.safetensors"));
  EXPECT_EQ(reader.header_bytes(), writer.header_bytes());
  EXPECT_EQ(reader.header_bytes() % 8, 0u);
  for (const StoredTensor& tensor : reader.tensors())
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.bytes.data()) % size_of(tensor.type), 0u) << tensor.name;
}

TEST(Safetensors, EqualContentGivesEqualBytes) {
  const TempDir dir;
  const auto write = [&](const std::string& file, bool reversed) {
    SafetensorsWriter writer;
    const std::vector<std::string> names = {"b", "a"};
    for (size_t i = 0; i < 2; ++i) {
      const std::string& name = names[reversed ? 1 - i : i];
      writer.add(name, StoredType::u8, {1}, std::vector<uint8_t>{static_cast<uint8_t>(name[0])});
    }
    writer.write(dir / file);
    return read_file_bytes(dir / file);
  };
  EXPECT_EQ(write("x", false), write("y", true));
}

TEST(Safetensors, ExactBytes) {
  const TempDir dir;
  SafetensorsWriter writer;
  writer.add("w", StoredType::u16, {2}, std::vector<uint16_t>{0x0102, 0x0304});
  writer.write(dir / "w");
  const std::vector<std::byte> bytes = read_file_bytes(dir / "w");
  const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const std::string header = R"({"w":{"dtype":"U16","shape":[2],"data_offsets":[0,4]}})";
  const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  EXPECT_EQ(text,
            std::string(1, static_cast<char>(padded.size())) + std::string(7, '\0') + padded + "\x02\x01\x04\x03");
}

TEST(Safetensors, LookupErrorsSayWhatIsThere) {
  const TempDir dir;
  SafetensorsWriter writer;
  writer.add("decoder.fc1.codes", StoredType::u8, {1}, std::vector<uint8_t>{1});
  EXPECT_THROW(writer.add("decoder.fc1.codes", StoredType::u8, {1}, std::vector<uint8_t>{1}), Error);
  EXPECT_THROW(writer.add("__metadata__", StoredType::u8, {1}, std::vector<uint8_t>{1}), Error);
  EXPECT_THROW(writer.add("x", StoredType::u8, {2}, std::vector<uint8_t>{1}), InternalError);
  EXPECT_THROW(writer.write(dir / "no/such/folder/file"), Error);
  writer.write(dir / "f");
  const SafetensorsReader reader(dir / "f");
  try {
    reader.at("decoder.fc1.code");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("decoder.fc1.codes"));
  }
  EXPECT_THROW(reader.values<float>("decoder.fc1.codes", StoredType::f32), Error);
  EXPECT_THROW(reader.metadata_at("config"), Error);
}

struct Hostile {
  const char* name;
  std::string header;
  size_t data_bytes;
  const char* message;
};

class HostileSafetensors : public testing::TestWithParam<Hostile> {};

TEST_P(HostileSafetensors, IsRefusedWithAReason) {
  const TempDir dir;
  const Hostile& hostile = GetParam();
  const std::string message = error_of(raw_file(dir, hostile.header, hostile.data_bytes));
  EXPECT_THAT(message, HasSubstr(hostile.message));
  EXPECT_THAT(message, HasSubstr("raw.safetensors"));
}

INSTANTIATE_TEST_SUITE_P(
    Files, HostileSafetensors,
    testing::Values(
        Hostile{"not_json", "{\"w\":", 0, "not valid JSON"}, Hostile{"list", "[1,2]", 0, "not a JSON object"},
        Hostile{"bad_utf8", "{\"\xff\xfe\":1}", 0, "not valid JSON"},
        Hostile{"beyond_end", R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4, "outside"},
        Hostile{"reversed", R"({"w":{"dtype":"F32","shape":[0],"data_offsets":[4,0]}})", 4, "end before they begin"},
        Hostile{"huge_offset",
                R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[18446744073709551615,18446744073709551615]}})", 4,
                "not a size"},
        Hostile{"negative_offset", R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})", 4, "not a size"},
        Hostile{"fraction", R"({"w":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4, "not a size"},
        Hostile{"wrong_shape", R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "does not fill"},
        Hostile{"overflowing_shape", R"({"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0,
                "does not fill"},
        Hostile{"unknown_type", R"({"w":{"dtype":"F8","shape":[4],"data_offsets":[0,4]}})", 4, "unknown dtype"},
        Hostile{"type_is_number", R"({"w":{"dtype":3,"shape":[4],"data_offsets":[0,4]}})", 4, "unknown dtype"},
        Hostile{"missing_field", R"({"w":{"dtype":"U8","shape":[4]}})", 4, "must have exactly"},
        Hostile{"entry_is_text", R"({"w":"U8"})", 0, "must have exactly"},
        Hostile{"three_offsets", R"({"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4,4]}})", 4, "[begin, end]"},
        Hostile{
            "repeated_name",
            R"({"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
            4, "twice"},
        Hostile{"repeated_key", R"({"w":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4, "twice"},
        Hostile{
            "overlap",
            R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
            4, "overlaps"},
        Hostile{
            "hole",
            R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})",
            4, "hole"},
        Hostile{"trailing", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 4, "belong to nothing"},
        Hostile{"metadata_number", R"({"__metadata__":{"a":1}})", 0, "not a text"},
        Hostile{"metadata_text", R"({"__metadata__":"a"})", 0, "must map"},
        Hostile{"deep", std::string(100000, '[') + std::string(100000, ']'), 0, "not a JSON object"}),
    [](const auto& test) { return test.param.name; });

TEST(Safetensors, RefusesWrongHeaderLengths) {
  const TempDir dir;
  EXPECT_THAT(error_of(raw_file(dir, "{}", 0, 3)), HasSubstr("cut off"));
  EXPECT_THAT(error_of(raw_file(dir, "{}", 0, ~uint64_t{0})), HasSubstr("cut off"));
  EXPECT_THAT(error_of(raw_file(dir, "{}", 0, uint64_t{1} << 62)), HasSubstr("cut off"));
  EXPECT_THAT(error_of(raw_file(dir, "", 0, 0)), HasSubstr("not valid JSON"));
  EXPECT_EQ(error_of(raw_file(dir, "{}", 0)), "");
  std::ofstream(dir / "short") << "abc";
  EXPECT_THAT(error_of(dir / "short"), HasSubstr("too short"));
  std::ofstream(dir / "empty").close();
  EXPECT_THAT(error_of(dir / "empty"), HasSubstr("too short"));
  EXPECT_THAT(error_of(dir / "absent"), HasSubstr("absent"));
}

TEST(Safetensors, EveryTruncationIsRefused) {
  const TempDir dir;
  SafetensorsWriter writer;
  writer.add("w", StoredType::f32, {5}, std::vector<float>{1, 2, 3, 4, 5});
  writer.write(dir / "w");
  const std::vector<std::byte> bytes = read_file_bytes(dir / "w");
  for (size_t size = 0; size < bytes.size(); ++size) {
    std::ofstream out(dir / "cut", std::ios::binary | std::ios::trunc);
    out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(size));
    out.close();
    EXPECT_THROW(SafetensorsReader(dir / "cut"), Error) << size;
  }
}

/// What reading and verifying says, to a caller who insists on checksums.
std::string damage_of(const std::filesystem::path& path) {
  try {
    const SafetensorsReader reader(path);
    reader.verify();
    if (!reader.has_checksums()) return "no checksums";
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Safetensors, EveryFlippedBitOfAChecksummedFileIsNoticed) {
  const TempDir dir;
  const std::filesystem::path path = dir / "sums.safetensors";
  SafetensorsWriter writer;
  writer.add("fc1.weight", StoredType::f32, {2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6});
  writer.add("codes", StoredType::u8, {3}, std::vector<uint8_t>{1, 2, 3});
  writer.add("nothing", StoredType::f32, {0}, std::vector<float>{});
  writer.set_metadata("heads", "2");
  writer.set_metadata("quoted", R"("xxh3":"0000)");
  writer.set_checksummed();
  writer.write(path);
  EXPECT_EQ(damage_of(path), "");
  EXPECT_TRUE(SafetensorsReader(path).has_checksums());
  EXPECT_EQ(std::filesystem::file_size(path), writer.file_size());
  std::string content;
  {
    std::ifstream in(path, std::ios::binary);
    content.assign(std::istreambuf_iterator<char>(in), {});
  }
  const size_t header = SafetensorsReader(path).header_bytes();
  for (size_t bit = 0; bit < content.size() * 8; ++bit) {
    content[bit / 8] ^= static_cast<char>(1 << bit % 8);
    std::ofstream(path, std::ios::binary) << content;
    const std::string damage = damage_of(path);
    EXPECT_NE(damage, "") << bit;
    if (bit / 8 >= header) {
      EXPECT_THAT(damage, HasSubstr(bit / 8 < header + 24 ? "fc1.weight" : "codes"));
    }
    content[bit / 8] ^= static_cast<char>(1 << bit % 8);
  }
}

TEST(Safetensors, FilesWithoutChecksumsHaveNothingToVerify) {
  const TempDir dir;
  SafetensorsWriter writer;
  writer.add("codes", StoredType::u8, {3}, std::vector<uint8_t>{1, 2, 3});
  writer.write(dir / "plain.safetensors");
  EXPECT_FALSE(SafetensorsReader(dir / "plain.safetensors").has_checksums());
  EXPECT_NO_THROW(SafetensorsReader(dir / "plain.safetensors").verify());
}

TEST(Safetensors, PlannedTensorsCountButAreNotWritten) {
  const TempDir dir;
  SafetensorsWriter real, planned;
  for (SafetensorsWriter* writer : {&real, &planned}) {
    writer->set_metadata("key", "value");
    writer->add("a", StoredType::u8, {3}, std::vector<uint8_t>{1, 2, 3});
  }
  real.add("b", StoredType::f32, {2, 2}, std::vector<float>(4));
  planned.add_planned("b", StoredType::f32, {2, 2});
  EXPECT_EQ(planned.header_bytes(), real.header_bytes());
  EXPECT_EQ(planned.file_size(), real.file_size());
  EXPECT_THROW(planned.write(dir / "planned"), InternalError);
}

}  // namespace
}  // namespace qn::test
