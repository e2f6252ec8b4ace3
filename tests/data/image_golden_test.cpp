// Against what Pillow and torchvision make of the same pictures.
#include "core/hdf5_file.h"
#include "data/image_file.h"
#include "data/image_test_util.h"
#include "data/image_transform.h"
#include "support/golden.h"

namespace qn::test {
namespace {

using testing::HasSubstr;

Image read_picture(const Hdf5File& file, const std::string& dataset) {
  const Shape shape = file.shape(dataset);
  Image image(shape[0], shape[1], shape[2]);
  image.pixels = file.read<uint8_t>(dataset);
  return image;
}

void expect_equal(const Image& actual, const Image& expected, const std::string& name) {
  EXPECT_EQ(actual.height, expected.height) << name;
  EXPECT_EQ(actual.width, expected.width) << name;
  EXPECT_EQ(actual.channels, expected.channels) << name;
  EXPECT_EQ(actual.pixels, expected.pixels) << name;
}

TEST(ImageGolden, FilesAreDecodedAsByPillow) {
  QN_GOLDEN(path, "images.h5");
  const Hdf5File golden(path, Hdf5File::Mode::read);
  for (const std::string& name : golden.members("files")) {
    const std::string group = "files/" + name;
    const std::vector<uint8_t> file = golden.read<uint8_t>(group + "/file");
    const auto bytes = std::as_bytes(std::span(file));
    expect_equal(decode_image(bytes, 3, name), read_picture(golden, group + "/rgb"), name);
    expect_equal(decode_image(bytes, 1, name), read_picture(golden, group + "/grey"), name);
  }
}

TEST(ImageGolden, DamagedFilesAreRefused) {
  QN_GOLDEN(path, "images.h5");
  const Hdf5File golden(path, Hdf5File::Mode::read);
  for (const std::string& name : golden.members("files")) {
    std::vector<uint8_t> file = golden.read<uint8_t>("files/" + name + "/file");
    const auto message = [&](size_t size) {
      return error_of([&] { decode_image(std::as_bytes(std::span(file)).first(size), 3, name); });
    };
    ASSERT_EQ(message(file.size()), "");
    for (size_t size = 0; size < file.size(); size += 1 + size / 8) EXPECT_THAT(message(size), HasSubstr(name)) << size;
    // What becomes of other damage is up to the libraries, but it ends, and in nothing but qn::Error.
    for (size_t at = 0; at < file.size(); at += 3) {
      file[at] ^= 0x55;
      message(file.size());
      file[at] ^= 0x55;
    }
  }
}

TEST(ImageFile, ClaimedSizesTakeNoMemory) {
  QN_GOLDEN(path, "images.h5");
  const Hdf5File golden(path, Hdf5File::Mode::read);
  std::vector<uint8_t> jpeg = golden.read<uint8_t>("files/baseline_420.jpg/file");
  const auto frame = std::search(jpeg.begin(), jpeg.end(), std::begin("\xff\xc0"), std::begin("\xff\xc0") + 2,
                                 [](uint8_t a, char b) { return a == static_cast<uint8_t>(b); });
  ASSERT_LT(frame + 9, jpeg.end());
  const auto claim = [&](int height, int width) {
    frame[5] = static_cast<uint8_t>(height >> 8), frame[6] = static_cast<uint8_t>(height);
    frame[7] = static_cast<uint8_t>(width >> 8), frame[8] = static_cast<uint8_t>(width);
    return error_of([&] { decode_image(std::as_bytes(std::span(jpeg)), 3, "x"); });
  };
  EXPECT_THAT(claim(65500, 65500), HasSubstr("65500 x 65500 pixels are too many"));
  EXPECT_THAT(claim(11000, 11000), HasSubstr("x claims 11000 x 11000 pixels, for which its"));
}

TEST(ImageFile, OtherFilesAreNamed) {
  EXPECT_THAT(error_of([] { decode_image(std::as_bytes(std::span("some words", 10)), 3, "x.jpg"); }),
              HasSubstr("x.jpg is neither a JPEG nor a PNG file: it is a text file"));
  EXPECT_THAT(error_of([] { read_image("/nowhere/x.jpg", 3); }), HasSubstr("/nowhere/x.jpg"));
  EXPECT_TRUE(is_image_name("a/b.JPEG"));
  EXPECT_FALSE(is_image_name("a.gif"));
}

TEST(ImageGolden, ResizingIsPillows) {
  QN_GOLDEN(path, "images.h5");
  const Hdf5File golden(path, Hdf5File::Mode::read);
  for (const std::string& name : golden.members("resize")) {
    const std::string group = "resize/" + name;
    const Image expected = read_picture(golden, group + "/output");
    const auto filter = value_named<ResizeFilter>(golden.string_attribute(group, "filter"), group);
    expect_equal(resize_image(read_picture(golden, group + "/input").view(), expected.height, expected.width, filter),
                 expected, group);
  }
}

TEST(ImageGolden, MiddleOfAPicture) {
  QN_GOLDEN(path, "images.h5");
  const Hdf5File golden(path, Hdf5File::Mode::read);
  for (const std::string& name : golden.members("center")) {
    const std::string group = "center/" + name;
    const Image input = read_picture(golden, group + "/input");
    ImageTransform transform{.size = 28, .crop = 0.875};
    expect_equal(center_square(input.view(), transform), read_picture(golden, group + "/crop_first"), group);
    transform.order = CropOrder::resize_first;
    transform.filter = ResizeFilter::bilinear;
    expect_equal(center_square(input.view(), transform), read_picture(golden, group + "/resize_first"), group);
  }
}

TEST(ImageResize, ByHand) {
  // Half the size by the triangle filter, which reaches one output pixel to either side: weights 1/8, 3/8, 3/8, 1/8 of
  // 4 neighbours; at the ends of what is left of them.
  Image image(1, 6, 1);
  image.pixels = {0, 80, 160, 240, 80, 0};
  const Image half = resize_image(image.view(), 1, 3, ResizeFilter::bilinear);
  // (3 * 0 + 3 * 80 + 160) / 7, (80 + 3 * 160 + 3 * 240 + 80) / 8, (240 + 3 * 80 + 3 * 0) / 7
  EXPECT_THAT(half.pixels, testing::ElementsAre(57, 170, 69));
}

TEST(ImageTransform, LevelsBecomeInputs) {
  const Image image = numbered_image(2, 2, 3);
  std::vector<float> values(12);
  LevelScale({.mean = {127}, .std = {128}}, 3).apply(image.view(), values.data());
  for (size_t i = 0; i < 12; ++i) EXPECT_EQ(values[i], (static_cast<float>(image.pixels[i]) - 127.F) / 128.F);
  EXPECT_THAT(error_of([] { LevelScale({.mean = {1, 2, 3}, .std = {1}}, 1); }), HasSubstr("`mean` has 3 numbers"));
}

TEST(ImageTransform, BadValuesAreReportedTogether) {
  const std::string text = "size: 0\ncrop: 1.5\nmean: [1, 2]\nstd: [0]\n";
  const std::string message = error_of([&] { read_config<ImageTransform>(config_tree_from_text(text, "x")); });
  for (const char* key : {"size", "crop", "mean", "std"}) EXPECT_THAT(message, HasSubstr(key));
  EXPECT_EQ(read_config<ImageTransform>(config_tree_from_text(dump_config(ImageTransform{}), "x")), ImageTransform{});
}

TEST(ImageGolden, RealPhotographs) {
  QN_DATA_OR_SKIP(folder, "imagenet-sample");
  const Hdf5File golden(folder / "lite0_images16.h5", Hdf5File::Mode::read);
  const std::vector<std::string> files = golden.read_strings("files");
  const std::vector<uint8_t> pixels = golden.read<uint8_t>("images");
  const size_t size = 224 * 224 * 3;
  const ImageTransform transform{.size = 224, .crop = 1, .mean = {127}, .std = {128}};
  for (size_t i = 0; i < files.size(); ++i) {
    const std::span<const uint8_t> expected = std::span(pixels).subspan(i * size, size);
    const Image image = read_image(folder / "images" / files[i], 3);
    EXPECT_TRUE(std::equal(image.pixels.begin(), image.pixels.end(), expected.begin(), expected.end())) << files[i];
    const std::vector<float> values = load_image(folder / "images" / files[i], 3, transform);
    for (size_t p = 0; p < size; p += 97)
      ASSERT_EQ(values[p], (static_cast<float>(expected[p]) - 127.F) / 128.F) << files[i];
  }
}

}  // namespace
}  // namespace qn::test
