#include "data/image_augment.h"

#include <set>

#include "core/hdf5_file.h"
#include "core/text.h"
#include "data/image_ops.h"
#include "data/image_test_util.h"
#include "support/golden.h"

namespace qn::test {
namespace {

using testing::HasSubstr;

constexpr std::array<uint8_t, 3> kFill = {10, 128, 200};

Image changed(Image image, const std::string& op, double value) {
  const auto warp = [&](const AffineMap& map) { return warped(image, map, kFill); };
  if (op == "shear_x") return warp({1, value, 0, 0, 1, 0});
  if (op == "shear_y") return warp({1, 0, 0, value, 1, 0});
  if (op == "translate_x") return warp({1, 0, -value, 0, 1, 0});
  if (op == "translate_y") return warp({1, 0, 0, 0, 1, -value});
  if (op == "rotate") return warp(rotation(value, image.height, image.width));
  if (op == "brightness") adjust_brightness(image, value);
  if (op == "contrast") adjust_contrast(image, value);
  if (op == "saturation") adjust_saturation(image, value);
  if (op == "sharpness") adjust_sharpness(image, value);
  if (op == "hue") shift_hue(image, value);
  if (op == "posterize") posterize(image, static_cast<int>(value));
  if (op == "solarize") solarize(image, value);
  if (op == "stretch") stretch_levels(image);
  if (op == "equalize") equalize_levels(image);
  return image;
}

TEST(ImageGolden, ChangesOfColourAndShape) {
  QN_GOLDEN(path, "images.h5");
  const Hdf5File golden(path, Hdf5File::Mode::read);
  for (const char* input : {"colour", "grey", "flat"}) {
    const std::string source = std::string("ops/") + input, cases = source + "_cases";
    const Shape shape = golden.shape(source);
    Image image(shape[0], shape[1], shape[2]);
    image.pixels = golden.read<uint8_t>(source);
    for (const std::string& name : golden.members(cases)) {
      const std::string group = cases + "/" + name, op = golden.string_attribute(group, "op");
      const Image actual = changed(image, op, golden.float_attribute(group, "value"));
      const std::vector<uint8_t> expected = golden.read<uint8_t>(group + "/output");
      ASSERT_EQ(actual.pixels.size(), expected.size());
      // torchvision goes through an angle, so positions may lie on either side of a whole level.
      const bool rounded = op == "rotate" || op == "shear_x" || op == "shear_y";
      for (size_t i = 0; i < expected.size(); ++i)
        ASSERT_NEAR(actual.pixels[i], expected[i], rounded ? 1 : 0) << group << " element " << i;
    }
  }
}

class AugmentationTest : public testing::Test {
 protected:
  Image square(const ImageAugmentation& augmentation, uint64_t seed = 1) const {
    return augmented_square(image_.view(), transform_, augmentation, augmentation_key(seed, 1, 5));
  }
  Image image_ = numbered_image(24, 30, 3);
  ImageTransform transform_{.size = 12, .crop = 1};
};

TEST_F(AugmentationTest, TheDefaultIsEvaluation) {
  EXPECT_EQ(square({}).pixels, center_square(image_.view(), transform_).pixels);
}

TEST_F(AugmentationTest, FlipsAsOftenAsAsked) {
  const Image middle = center_square(image_.view(), transform_);
  Image mirrored = middle;
  for (int64_t y = 0; y < 12; ++y)
    for (int64_t x = 0; x < 12; ++x) std::copy_n(middle.view().row(y) + (11 - x) * 3, 3, mirrored.row(y) + x * 3);
  int flipped = 0;
  for (uint64_t seed = 0; seed < 1000; ++seed) {
    const Image result = square({.flip = 0.3}, seed);
    ASSERT_TRUE(result.pixels == middle.pixels || result.pixels == mirrored.pixels);
    flipped += result.pixels == mirrored.pixels;
  }
  EXPECT_NEAR(flipped, 300, 60);
}

TEST_F(AugmentationTest, PaddedCropsAreEveryShiftOfTheSquare) {
  const Image middle = center_square(image_.view(), transform_);
  std::set<std::pair<int64_t, int64_t>> seen;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const Image result = square({.crop = TrainingCrop::padded, .padding = 1}, seed);
    for (int64_t down = -1; down <= 1; ++down) {
      for (int64_t right = -1; right <= 1; ++right) {
        Image expected(12, 12, 3);
        for (int64_t y = 0; y < 12; ++y)
          for (int64_t x = 0; x < 12; ++x)
            if (y - down >= 0 && y - down < 12 && x - right >= 0 && x - right < 12)
              std::copy_n(middle.view().row(y - down) + (x - right) * 3, 3, expected.row(y) + x * 3);
        if (expected.pixels == result.pixels) seen.insert({down, right});
      }
    }
  }
  EXPECT_EQ(seen.size(), 9U);
  // Nothing is left of a picture that is moved away.
  for (uint64_t seed = 0; seed < 50; ++seed) square({.crop = TrainingCrop::padded, .padding = 40}, seed);
}

TEST_F(AugmentationTest, RandomPartsHaveAllAreasThatAreAsked) {
  // A picture whose levels are its coordinates tells which part was taken.
  Image plane(60, 60, 3);
  for (int64_t y = 0; y < 60; ++y)
    for (int64_t x = 0; x < 60; ++x) {
      plane.row(y)[3 * x] = static_cast<uint8_t>(4 * y);
      plane.row(y)[3 * x + 1] = static_cast<uint8_t>(4 * x);
    }
  const ImageTransform transform{.size = 30, .crop = 1, .filter = ResizeFilter::bilinear};
  double least = 1, most = 0, narrowest = 9, widest = 0;
  for (uint64_t seed = 0; seed < 500; ++seed) {
    const Image part =
        augmented_square(plane.view(), transform, {.crop = TrainingCrop::random_resized, .min_area = 0.25},
                         augmentation_key(seed, 1, 0));
    const uint8_t *first = part.view().row(0), *last = part.view().row(29) + 29 * 3;
    const double height = (last[0] - first[0]) / 4.0 * 30 / 29, width = (last[1] - first[1]) / 4.0 * 30 / 29;
    least = std::min(least, height * width / 3600);
    most = std::max(most, height * width / 3600);
    narrowest = std::min(narrowest, width / height);
    widest = std::max(widest, width / height);
  }
  EXPECT_NEAR(least, 0.25, 0.06);
  EXPECT_NEAR(most, 1, 0.08);
  EXPECT_NEAR(narrowest, 0.75, 0.08);
  EXPECT_NEAR(widest, 4.0 / 3, 0.12);
}

TEST_F(AugmentationTest, PicturesOfAnyShapeHaveRandomParts) {
  for (const auto& [height, width] : {std::pair{1, 1}, {1, 300}, {300, 1}, {2, 3}}) {
    const Image image = numbered_image(height, width, 1);
    for (uint64_t seed = 0; seed < 20; ++seed)
      EXPECT_EQ(augmented_square(image.view(), transform_, {.crop = TrainingCrop::random_resized},
                                 augmentation_key(seed, 1, 0))
                    .pixels.size(),
                144U);
  }
}

TEST_F(AugmentationTest, ColoursAndShapesChangeByTheKeyOnly) {
  for (const ImageAugmentation& augmentation :
       {ImageAugmentation{.randaugment_ops = 2},
        ImageAugmentation{.brightness = 0.4, .contrast = 0.4, .saturation = 0.4, .hue = 0.1}}) {
    std::set<uint64_t> results;
    for (uint64_t seed = 0; seed < 50; ++seed) {
      const Image result = square(augmentation, seed);
      results.insert(hash_bytes(result.pixels.data(), result.pixels.size()));
      EXPECT_EQ(square(augmentation, seed).pixels, result.pixels);
    }
    EXPECT_GT(results.size(), 30U);
  }
  const std::vector<uint8_t> plain = square({}).pixels;
  EXPECT_EQ(square({.randaugment_ops = 0, .randaugment_magnitude = 30}).pixels, plain);
}

TEST(ImageAugmentation, BadValuesAreReportedTogether) {
  const std::string message = error_of([&] {
    read_config<ImageAugmentation>(config_tree_from_text(
        "min_area: 0\npadding: -1\nflip: 2\nrandaugment_ops: -1\nrandaugment_magnitude: 31\nhue: 0.6\ncontrast: -1\n",
        "x"));
  });
  for (const char* key : {"min_area", "padding", "flip", "randaugment_ops", "randaugment_magnitude", "hue", "contrast"})
    EXPECT_THAT(message, HasSubstr(key));
  EXPECT_THAT(error_of([&] { read_config<ImageAugmentation>(config_tree_from_text("crop: centre\n", "x")); }),
              HasSubstr("did you mean 'center'"));
}

}  // namespace
}  // namespace qn::test
