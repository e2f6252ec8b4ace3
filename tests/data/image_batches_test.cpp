#include "data/image_batches.h"

#include "data/image_test_util.h"
#include "support/temp_dir.h"

namespace qn::test {
namespace {

using testing::HasSubstr;

/// 12 images of 9 x 7 pixels.
class ImageBatchesTest : public testing::Test {
 protected:
  ImageBatchesTest() {
    write_image_split(dir_.path(), "train", {ImageStorage::pixels, 3, {}}, [](ImageSplitWriter& writer) {
      for (int i = 0; i < 12; ++i) {
        const Image image = numbered_image(9, 7, 3, 11 * i);
        writer.add(std::as_bytes(std::span(image.pixels)), 9, 7, -1);
      }
    });
    options_.transform = {.size = 6, .crop = 1, .mean = {100, 110, 120}, .std = {50}};
    options_.augmentation = {.crop = TrainingCrop::random_resized, .flip = 0.5};
    options_.seed = 3;
    open();
  }
  void open() { data_ = std::make_shared<const ImageDataset>(ImageDataset::open(dir_.path(), "train")); }

  std::vector<float> get(ImageBatches& batches, const std::vector<int64_t>& items, int64_t epoch) {
    const Tensor tensor = batches.get(items, epoch);
    EXPECT_EQ(tensor.shape, (Shape{std::ssize(items), 6, 6, 3}));
    return {tensor.span<float>().begin(), tensor.span<float>().end()};
  }
  std::vector<float> row(const std::vector<float>& batch, size_t i) {
    return {batch.begin() + static_cast<ptrdiff_t>(i * 108), batch.begin() + static_cast<ptrdiff_t>((i + 1) * 108)};
  }

  TempDir dir_;
  std::shared_ptr<const ImageDataset> data_;
  ImageBatchOptions options_;
};

TEST_F(ImageBatchesTest, EvaluationIsTheTransform) {
  options_.augmentation = {};
  ImageBatches batches(data_, options_);
  const std::vector<float> batch = get(batches, {5, 2}, 1);
  Image scratch;
  for (const auto& [item, place] : {std::pair{5, 0}, std::pair{2, 1}}) {
    const Image square = center_square(data_->pixels(item, scratch), options_.transform);
    for (size_t i = 0; i < 108; ++i)
      EXPECT_FLOAT_EQ(batch[static_cast<size_t>(place) * 108 + i],
                      (static_cast<float>(square.pixels[i]) - (100.F + 10.F * static_cast<float>(i % 3))) / 50.F);
  }
}

TEST_F(ImageBatchesTest, AnItemDependsOnSeedAndEpochOnly) {
  ImageBatches batches(data_, options_);
  const std::vector<float> all = get(batches, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, 1);
  const std::vector<float> some = get(batches, {7, 3}, 1);
  EXPECT_EQ(row(some, 0), row(all, 7));
  EXPECT_EQ(row(some, 1), row(all, 3));
  EXPECT_NE(get(batches, {7, 3}, 2), some);
  options_.seed = 4;
  ImageBatches others(data_, options_);
  EXPECT_NE(get(others, {7, 3}, 1), some);
}

TEST_F(ImageBatchesTest, WorkersChangeNothing) {
  ImageBatches alone(data_, options_);
  options_.workers = 3;
  ImageBatches helped(data_, options_);
  for (int64_t epoch = 1; epoch <= 3; ++epoch) {
    const std::vector<std::vector<int64_t>> kBatches = {{0, 1, 2, 3, 4}, {5, 6}, {7, 8, 9, 10, 11}, {4, 4}};
    for (const auto& items : kBatches) helped.expect(items, epoch);
    for (size_t b = 0; b < kBatches.size(); ++b) {
      if (b == 1) continue;  // one that is never asked for
      EXPECT_EQ(get(helped, kBatches[b], epoch), get(alone, kBatches[b], epoch));
    }
    EXPECT_EQ(get(helped, {1, 11, 6}, epoch), get(alone, {1, 11, 6}, epoch));  // one that was not expected
  }
}

TEST_F(ImageBatchesTest, DamagedImagesAreNamedWhoeverFindsThem) {
  std::string bytes = read_text(dir_ / "train.images");
  bytes[56 + 4 * 189 + 20] ^= 1;
  write_text(dir_ / "train.images", bytes);
  open();
  for (const int workers : {0, 2}) {
    options_.workers = workers;
    ImageBatches batches(data_, options_);
    const std::vector<int64_t> bad = {3, 4}, good = {3, 5};
    batches.expect(bad, 1);
    EXPECT_THAT(error_of([&] { batches.get(bad, 1); }), HasSubstr("the checksum of image 4 does not hold"));
    EXPECT_EQ(error_of([&] { batches.get(good, 1); }), "");
  }
}

TEST_F(ImageBatchesTest, RefusesMeansOfOtherChannels) {
  write_image_split(dir_.path(), "grey", {ImageStorage::pixels, 1, {}},
                    [](ImageSplitWriter& writer) { writer.add(std::as_bytes(std::span("x", 1)), 1, 1, -1); });
  const auto grey = std::make_shared<const ImageDataset>(ImageDataset::open(dir_.path(), "grey"));
  EXPECT_THAT(error_of([&] { ImageBatches(grey, options_); }), HasSubstr("`mean` has 3 numbers"));
}

}  // namespace
}  // namespace qn::test
