#include "core/hdf5_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <thread>

#include "core/file_io.h"
#include "support/golden.h"
#include "support/temp_dir.h"

namespace qn {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::ThrowsMessage;

class Hdf5 : public testing::Test {
 protected:
  Hdf5File create() { return Hdf5File(path_, Hdf5File::Mode::create); }
  Hdf5File open() { return Hdf5File(path_, Hdf5File::Mode::read); }

  test::TempDir folder_;
  std::filesystem::path path_ = folder_ / "file.h5";
};

template <typename T>
class Hdf5Types : public Hdf5 {};
using ElementTypes = testing::Types<float, double, int32_t, int64_t, uint8_t>;
TYPED_TEST_SUITE(Hdf5Types, ElementTypes);

TYPED_TEST(Hdf5Types, RoundTripsInEveryShape) {
  std::vector<TypeParam> values = {std::numeric_limits<TypeParam>::lowest(),
                                   std::numeric_limits<TypeParam>::max(),
                                   std::numeric_limits<TypeParam>::min(),
                                   0,
                                   1,
                                   100};
  const std::vector<Shape> shapes = {{}, {6}, {2, 3}, {1, 6, 1}, {3, 1, 2, 1}, {0}, {2, 0, 3}};
  {
    Hdf5File file = this->create();
    for (const Shape& shape : shapes) file.write_tensor("a/" + shape.to_string(), view_of(values.data(), shape));
    file.close();
  }
  const Hdf5File file = this->open();
  for (const Shape& shape : shapes) {
    const std::string name = "a/" + shape.to_string();
    const std::vector<TypeParam> expected(values.begin(), values.begin() + shape.elements());
    EXPECT_EQ(file.shape(name), shape);
    EXPECT_EQ(file.read<TypeParam>(name), expected);
    const OwnedTensor tensor = file.read_tensor(name);
    EXPECT_EQ(tensor.view().dtype, DTypeOf<TypeParam>::value);
    EXPECT_EQ(tensor.view().shape, shape);
    EXPECT_THAT(tensor.view().span<TypeParam>(), testing::ElementsAreArray(expected));
  }
}

TEST_F(Hdf5, ExtentIsWhereTheElementsLie) {
  std::vector<int32_t> values = {1, -2, 3};
  Hdf5File file(path_, Hdf5File::Mode::create, 1024);
  file.write_tensor("x/y", view_of(values.data(), {3}));
  file.write_tensor("none", view_of(values.data(), {0}));
  const Hdf5File::Extent extent = file.extent("x/y");
  EXPECT_EQ(file.extent("none").bytes, 0u);
  file.close();
  ASSERT_EQ(extent.bytes, sizeof(int32_t) * 3);
  const std::vector<std::byte> bytes = read_file_bytes(path_, extent.offset, extent.bytes);
  EXPECT_EQ(std::memcmp(bytes.data(), values.data(), bytes.size()), 0);
  for (const std::byte b : read_file_bytes(path_, 0, 1024)) EXPECT_EQ(b, std::byte{0});
  overwrite_file_bytes(path_, 0, std::vector<std::byte>(1024, std::byte{0x55}));
  EXPECT_THAT(open().read<int32_t>("x/y"), ElementsAre(1, -2, 3)) << "the user block is not HDF5's";
}

TEST_F(Hdf5, ConvertsWithoutLossOnly) {
  std::vector<int64_t> integers = {-1, int64_t{1} << 40};
  std::vector<double> reals = {0.5, 1e300};
  std::vector<int64_t> small = {0, 255};
  Hdf5File file = create();
  file.write_tensor("integers", view_of(integers.data(), {2}));
  file.write_tensor("reals", view_of(reals.data(), {2}));
  file.write_tensor("small", view_of(small.data(), {2}));
  EXPECT_THAT(file.read<uint8_t>("small"), ElementsAre(0, 255));
  EXPECT_THAT(file.read<float>("small"), ElementsAre(0, 255));
  EXPECT_THAT(file.read<double>("integers"), ElementsAre(-1.0, 0x1.0p40));
  EXPECT_THAT([&] { file.read<int32_t>("integers"); }, ThrowsMessage<Error>(HasSubstr("'integers'")));
  EXPECT_THROW(file.read<uint8_t>("integers"), Error);
  EXPECT_THAT([&] { file.read<int64_t>("reals"); }, ThrowsMessage<Error>(HasSubstr("holds floating-point numbers")));
  EXPECT_THROW(file.read<float>("reals"), Error);
}

TEST_F(Hdf5, AttributesRoundTrip) {
  const std::string text = "caf\xc3\xa9, two\nlines";
  {
    Hdf5File file = create();
    file.create_group("g/h");
    for (const char* object : {"", "/", "g/h"}) {
      file.write_attribute(object, "int", int64_t{-5});
      file.write_attribute(object, "int", std::numeric_limits<int64_t>::min());  // replaces
      file.write_attribute(object, "real", -0.0);
      file.write_attribute(object, "text", text);
      file.write_attribute(object, "empty", std::string());
    }
    file.write_attribute("g", "long", std::string(200000, 'q'));
    for (int i = 0; i < 100; ++i) file.write_attribute("g", "many" + std::to_string(i), int64_t{i});
  }
  const Hdf5File file = open();
  for (const char* object : {"", "/", "g/h"}) {
    EXPECT_EQ(file.int_attribute(object, "int"), std::numeric_limits<int64_t>::min());
    EXPECT_TRUE(std::signbit(file.float_attribute(object, "real")));
    EXPECT_EQ(file.float_attribute(object, "int"), -0x1.0p63) << "integers are read as numbers";
    EXPECT_EQ(file.string_attribute(object, "text"), text);
    EXPECT_EQ(file.string_attribute(object, "empty"), "");
    EXPECT_THAT(file.attributes(object), ElementsAre("empty", "int", "real", "text"));
  }
  EXPECT_EQ(file.string_attribute("g", "long"), std::string(200000, 'q'));
  EXPECT_EQ(file.int_attribute("g", "many73"), 73);
  EXPECT_EQ(file.attributes("g").size(), 101u);
  EXPECT_TRUE(file.has_attribute("g", "many0"));
  EXPECT_FALSE(file.has_attribute("g", "many"));
  EXPECT_THROW(file.int_attribute("g/h", "real"), Error) << "a fraction would be lost";
  EXPECT_THROW(file.int_attribute("g/h", "text"), Error);
  EXPECT_THROW(file.string_attribute("g/h", "int"), Error);
  EXPECT_THAT([&] { file.int_attribute("g/h", "absent"); }, ThrowsMessage<Error>(HasSubstr("g/h@absent")));
}

TEST_F(Hdf5, GroupsAndNames) {
  float value = 1;
  Hdf5File file = create();
  file.write_tensor("b/x", view_of(&value, {1}));
  file.write_tensor("b/a/deep/y", view_of(&value, {1}));
  file.create_group("b/a");  // exists
  EXPECT_THAT(file.members(""), ElementsAre("b"));
  EXPECT_THAT(file.members("b"), ElementsAre("a", "x"));
  EXPECT_TRUE(file.exists("") && file.exists("/") && file.exists("b/a/deep") && file.exists("/b/x"));
  EXPECT_FALSE(file.exists("c") || file.exists("b/x/y") || file.exists("c/d/e"));
  EXPECT_TRUE(file.is_group("b/a"));
  EXPECT_FALSE(file.is_group("b/x"));
  EXPECT_THAT([&] { file.write_tensor("b/x", view_of(&value, {1})); }, ThrowsMessage<Error>(HasSubstr("'b/x'")));
  EXPECT_THROW(file.create_group("b/x"), Error);
  EXPECT_THROW(file.write_tensor("b/x/z", view_of(&value, {1})), Error);
  EXPECT_THROW(file.members("b/x"), Error);
  EXPECT_THROW(file.read<float>("b"), Error);
  EXPECT_THAT([&] { file.read<float>("b/a/deep/yy"); },
              ThrowsMessage<Error>(AllOf(HasSubstr(path_.string()), HasSubstr("'b/a/deep/yy'"), HasSubstr("'y'"))));
}

TEST_F(Hdf5, BadFilesAreReported) {
  EXPECT_THAT([&] { open(); }, ThrowsMessage<Error>(AllOf(HasSubstr(path_.string()), HasSubstr("No such file"))));
  std::ofstream(path_) << "not HDF5";
  EXPECT_THAT([&] { open(); }, ThrowsMessage<Error>(AllOf(HasSubstr(path_.string()), HasSubstr("signature"))));
  EXPECT_THAT([&] { Hdf5File(folder_ / "no/file.h5", Hdf5File::Mode::create); },
              ThrowsMessage<Error>(HasSubstr("No such file or directory")));
}

TEST_F(Hdf5, ErrorsAreNotPrintedInAnyThread) {
  testing::internal::CaptureStderr();
  std::thread([&] { EXPECT_THROW(open(), Error); }).join();
  EXPECT_THROW(open(), Error);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), IsEmpty());
}

TEST_F(Hdf5, ReadsWhatOtherProgramsWrite) {
  // Types that the project does not write itself: variable-length and space-padded strings, other integers, booleans,
  // big-endian numbers, halves.
  const hid_t file = H5Fcreate(path_.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hsize_t two = 2;
  const hid_t pair = H5Screate_simple(1, &two, nullptr), one = H5Screate(H5S_SCALAR), null = H5Screate(H5S_NULL);
  const auto dataset = [&](const char* name, hid_t stored, hid_t memory, const void* values, hid_t space) {
    const hid_t id = H5Dcreate2(file, name, stored, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    if (values != nullptr) H5Dwrite(id, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
    H5Dclose(id);
  };
  const auto attribute = [&](const char* name, hid_t type, const void* value, hid_t space) {
    const hid_t id = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Awrite(id, type, value);
    H5Aclose(id);
  };
  const std::vector<int64_t> values = {-3, 7}, large = {1, -1};
  dataset("i16", H5T_STD_I16BE, H5T_NATIVE_INT64, values.data(), pair);
  dataset("u64", H5T_STD_U64LE, H5T_NATIVE_INT64, std::vector<int64_t>{1, 7}.data(), pair);
  dataset("u64 large", H5T_STD_U64LE, H5T_NATIVE_UINT64, large.data(), pair);
  dataset("f64 big endian", H5T_IEEE_F64BE, H5T_NATIVE_DOUBLE, std::vector<double>{0.1, -2}.data(), pair);
  dataset("null", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, nullptr, null);
  const hid_t boolean = H5Tenum_create(H5T_NATIVE_INT8);
  const int8_t no = 0, yes = 1;
  H5Tenum_insert(boolean, "FALSE", &no);
  H5Tenum_insert(boolean, "TRUE", &yes);
  dataset("bool", boolean, boolean, std::vector<int8_t>{1, 0}.data(), pair);
  attribute("flag", boolean, &yes, one);
  attribute("list", H5T_NATIVE_INT64, values.data(), pair);
  const hid_t variable = H5Tcopy(H5T_C_S1), padded = H5Tcopy(H5T_C_S1);
  H5Tset_size(variable, H5T_VARIABLE);
  H5Tset_size(padded, 5);
  H5Tset_strpad(padded, H5T_STR_SPACEPAD);
  const char* text = "variable";
  attribute("variable", variable, &text, one);
  attribute("padded", padded, "ab   ", one);
  dataset("texts", padded, padded, "ab   cdefg", pair);
  for (const hid_t type : {boolean, variable, padded}) H5Tclose(type);
  for (const hid_t space : {pair, one, null}) H5Sclose(space);
  H5Fclose(file);

  const Hdf5File reader = open();
  EXPECT_THAT(reader.read<int64_t>("i16"), ElementsAre(-3, 7));
  EXPECT_EQ(reader.read_tensor("i16").view().dtype, DType::i64);
  EXPECT_THAT(reader.read_tensor("u64").view().span<int64_t>(), ElementsAre(1, 7));
  EXPECT_THROW(reader.read_tensor("u64 large"), Error) << "2^64 - 1 does not fit";
  EXPECT_THAT(reader.read<double>("f64 big endian"), ElementsAre(0.1, -2));
  EXPECT_THAT(reader.read<float>("null"), IsEmpty());
  EXPECT_THAT(reader.read<uint8_t>("bool"), ElementsAre(1, 0));
  EXPECT_EQ(reader.int_attribute("", "flag"), 1);
  EXPECT_THAT(reader.int_list_attribute("", "list"), ElementsAre(-3, 7));
  EXPECT_THROW(reader.int_attribute("", "list"), Error);
  EXPECT_EQ(reader.string_attribute("", "variable"), "variable");
  EXPECT_EQ(reader.string_attribute("", "padded"), "ab");
  EXPECT_THAT(reader.read_strings("texts"), ElementsAre("ab", "cdefg"));
  EXPECT_THROW(reader.read_strings("i16"), Error);
  EXPECT_THROW(reader.read<float>("texts"), Error);
}

TEST_F(Hdf5, ReadsReferenceVectors) {
  QN_GOLDEN(golden, "quant_noise.h5");
  const Hdf5File file(golden, Hdf5File::Mode::read);
  EXPECT_THAT(file.string_attribute("", "description"), HasSubstr("noise"));
  EXPECT_EQ(file.string_attribute("linear", "kind"), "linear");
  const Shape weight = file.shape("linear/weight"), mask = file.shape("linear/block_mask");
  EXPECT_EQ(file.int_attribute("linear", "block_size"), weight[1] / mask[1]);
  EXPECT_EQ(file.float_attribute("linear", "scale"), 1.0 / (1.0 - file.float_attribute("linear", "p")));
  const std::vector<int64_t> cutoffs = file.int_list_attribute("lm_step/model", "cutoffs");
  ASSERT_EQ(std::ssize(cutoffs), file.int_attribute("lm_step/model", "n_bands"));
  EXPECT_EQ(cutoffs.back(), file.int_attribute("lm_step/model", "vocab"));
  const std::vector<std::string> names = file.read_strings("lm_step/model/param_names");
  ASSERT_EQ(static_cast<int64_t>(names.size()), file.int_attribute("lm_step/model", "n_params"));
  EXPECT_TRUE(names[0].ends_with(".weight")) << names[0];
  int64_t elements = 0;
  for (const std::string& name : names) elements += file.shape("lm_step/model/params/" + name).elements();
  EXPECT_EQ(elements, file.int_attribute("lm_step/model", "n_elements"));
}

}  // namespace
}  // namespace qn
