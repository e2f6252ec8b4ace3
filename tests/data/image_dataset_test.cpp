#include "data/image_dataset.h"

#include "core/file_io.h"
#include "data/image_test_util.h"
#include "data/prepare_images.h"
#include "support/golden.h"
#include "support/temp_dir.h"

namespace qn::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<uint8_t> levels(const ImageDataset& data, int64_t item) {
  Image scratch;
  const ImageView image = data.pixels(item, scratch);
  return {image.data, image.data + image.height * image.row_bytes};
}

/// Two images of different sizes, of classes "cat" and none.
void write_two(const std::filesystem::path& folder, const std::string& split) {
  const Image a = numbered_image(2, 3, 3), b = numbered_image(4, 1, 3, 100);
  write_image_split(folder, split, {ImageStorage::pixels, 3, {"dog", "cat"}}, [&](ImageSplitWriter& writer) {
    writer.add(std::as_bytes(std::span(a.pixels)), a.height, a.width, 1);
    writer.add(std::as_bytes(std::span(b.pixels)), b.height, b.width, -1);
  });
}

TEST(ImageDataset, GivesBackWhatWasWritten) {
  const TempDir dir;
  write_two(dir.path(), "train");
  const ImageDataset data = ImageDataset::open(dir.path(), "train");
  EXPECT_EQ(data.size(), 2);
  EXPECT_EQ(data.channels(), 3);
  EXPECT_THAT(data.classes(), ElementsAre("dog", "cat"));
  EXPECT_EQ(data.label(0), 1);
  EXPECT_EQ(data.label(1), -1);
  EXPECT_EQ(data.height(1), 4);
  EXPECT_EQ(data.width(1), 1);
  EXPECT_EQ(levels(data, 0), numbered_image(2, 3, 3).pixels);
  EXPECT_EQ(levels(data, 1), numbered_image(4, 1, 3, 100).pixels);
  EXPECT_THAT(data.class_sizes(), ElementsAre(0, 1));
  EXPECT_EQ(data.unlabelled(), 1);
  EXPECT_THAT(image_splits_in(dir.path()), ElementsAre("train"));
}

TEST(ImageDataset, HasTheLayoutThatFormatsMdDescribes) {
  const TempDir dir;
  write_two(dir.path(), "train");
  const std::string file = read_text(dir / "train.images");
  const size_t index = 56 + 18 + 12, names = index + 2 * 32;
  ASSERT_EQ(file.size(), names + 8);
  EXPECT_EQ(file.substr(0, 8), "QNIMAGES");
  EXPECT_EQ(file.substr(names), "dog\ncat\n");
  const auto u32 = [&](size_t at) {
    uint32_t value;
    std::memcpy(&value, file.data() + at, 4);
    return value;
  };
  EXPECT_EQ(u32(8), 1U);   // version
  EXPECT_EQ(u32(12), 0U);  // pixels
  EXPECT_EQ(u32(16), 3U);  // channels
  EXPECT_EQ(u32(20), 2U);  // classes
  EXPECT_EQ(u32(24), 2U);  // images
  EXPECT_EQ(u32(32), index);
  EXPECT_EQ(u32(40), 8U);  // bytes of names
  EXPECT_EQ(u32(index), 56U);
  EXPECT_EQ(u32(index + 32), 56U + 18);
  EXPECT_EQ(u32(index + 16), 18U);  // bytes, height, width, label
  EXPECT_EQ(u32(index + 20), 2U);
  EXPECT_EQ(u32(index + 24), 3U);
  EXPECT_EQ(u32(index + 28), 1U);
}

TEST(ImageDataset, NoticesEveryChangedByteAndEveryLength) {
  const TempDir dir;
  write_two(dir.path(), "train");
  const std::string good = read_text(dir / "train.images");
  const auto use = [&] {
    const ImageDataset data = ImageDataset::open(dir.path(), "train");
    for (int64_t i = 0; i < data.size(); ++i) levels(data, i);
  };
  EXPECT_EQ(error_of(use), "");
  for (size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    write_text(dir / "train.images", bad);
    EXPECT_THAT(error_of(use), HasSubstr((dir / "train.images").string())) << at;
  }
  for (size_t size = 0; size < good.size(); ++size) {
    write_text(dir / "train.images", good.substr(0, size));
    EXPECT_NE(error_of(use), "") << size;
  }
}

TEST(ImageDataset, ChecksumIsOfTheContent) {
  const TempDir dir;
  write_two(dir.path(), "a");
  write_two(dir.path(), "b");
  EXPECT_EQ(ImageDataset::open(dir.path(), "a").checksum(), ImageDataset::open(dir.path(), "b").checksum());
  const Image other = numbered_image(2, 3, 3, 1);
  write_image_split(dir.path(), "c", {ImageStorage::pixels, 3, {"dog", "cat"}},
                    [&](ImageSplitWriter& writer) { writer.add(std::as_bytes(std::span(other.pixels)), 2, 3, 1); });
  EXPECT_NE(ImageDataset::open(dir.path(), "a").checksum(), ImageDataset::open(dir.path(), "c").checksum());
}

TEST(ImageDataset, SaysWhichSplitsThereAre) {
  const TempDir dir;
  EXPECT_THAT(error_of([&] { ImageDataset::open(dir.path(), "train"); }), HasSubstr("holds no prepared images"));
  write_two(dir.path(), "test");
  EXPECT_THAT(error_of([&] { ImageDataset::open(dir.path(), "train"); }),
              HasSubstr("has no split 'train' of images; it has: test"));
  write_text(dir / "train.images", "words");
  EXPECT_THAT(error_of([&] { ImageDataset::open(dir.path(), "train"); }), HasSubstr("it is a text file"));
}

TEST(PrepareMnist, GivesBothSplits) {
  const TempDir dir;
  write_small_mnist(dir / "in", 5, 2);
  const auto summary = prepare_images(open_mnist(dir / "in"), {.destdir = dir / "out"});
  ASSERT_EQ(summary.splits.size(), 2U);
  const ImageDataset train = ImageDataset::open(dir / "out", "train"), test = ImageDataset::open(dir / "out", "test");
  EXPECT_EQ(train.size(), 5);
  EXPECT_EQ(test.size(), 2);
  EXPECT_EQ(train.channels(), 1);
  EXPECT_THAT(train.classes(), ElementsAre("0", "1", "2"));
  EXPECT_EQ(train.label(4), 1);
  EXPECT_EQ(levels(train, 3), (std::vector<uint8_t>{30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41}));
}

TEST(PrepareMnist, HoldsOutTheSameImagesAlways) {
  const TempDir dir;
  write_small_mnist(dir / "in", 20, 2);
  for (const char* out : {"a", "b"}) prepare_images(open_mnist(dir / "in"), {.destdir = dir / out, .hold_out = 5});
  const ImageDataset train = ImageDataset::open(dir / "a", "train"), valid = ImageDataset::open(dir / "a", "valid");
  EXPECT_EQ(train.size(), 15);
  EXPECT_EQ(valid.size(), 5);
  EXPECT_EQ(valid.checksum(), ImageDataset::open(dir / "b", "valid").checksum());
  std::vector<uint8_t> firsts;
  for (const ImageDataset* data : {&train, &valid})
    for (int64_t i = 0; i < data->size(); ++i) firsts.push_back(levels(*data, i)[0]);
  std::sort(firsts.begin(), firsts.end());
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ(firsts[i], 10 * i);
  EXPECT_THAT(error_of([&] { prepare_images(open_mnist(dir / "in"), {.destdir = dir / "c", .hold_out = 20}); }),
              HasSubstr("leaves none of 20 training images"));
}

TEST(PrepareMnist, RefusesWhatIsDamaged) {
  const TempDir dir;
  const auto message = [&](const std::string& file, const std::string& content) {
    write_small_mnist(dir / "in", 5, 2);
    write_text(dir / "in" / file, content);
    return error_of([&] { open_mnist(dir / "in"); });
  };
  EXPECT_THAT(message("train-images-idx3-ubyte", idx_content({5, 4, 3}, std::vector<uint8_t>(59))),
              HasSubstr("should hold [5 x 4 x 3] bytes but has 59"));
  EXPECT_THAT(message("train-images-idx3-ubyte", idx_content({4294967295, 4294967295, 4294967295}, {1})),
              HasSubstr("but has 1"));
  EXPECT_THAT(message("train-labels-idx1-ubyte", idx_content({4}, {0, 1, 2, 0})), HasSubstr("do not belong together"));
  EXPECT_THAT(message("train-labels-idx1-ubyte", "\x1f\x8b rubbish"), HasSubstr("is no intact gzip file"));
  EXPECT_THAT(message("t10k-labels-idx1-ubyte", ""), HasSubstr("is no idx file of bytes with 1 axes"));
  std::filesystem::remove(dir / "in" / "t10k-labels-idx1-ubyte");
  EXPECT_THAT(error_of([&] { open_mnist(dir / "in"); }), HasSubstr("has no t10k-labels-idx1-ubyte (nor "));
}

TEST(PrepareImages, RefusesToMixWithOtherSplits) {
  const TempDir dir;
  write_two(dir.path(), "valid");
  write_small_mnist(dir / "in", 5, 2);
  EXPECT_THAT(error_of([&] { prepare_images(open_mnist(dir / "in"), {.destdir = dir.path()}); }),
              HasSubstr("valid.images stays in the folder but has 3 channel(s), not 1"));
  EXPECT_THAT(image_splits_in(dir.path()), ElementsAre("valid"));
}

TEST(PrepareCifar, ReordersThePlanes) {
  const TempDir dir;
  std::filesystem::create_directories(dir / "in");
  std::string record(3073, '\0');
  record[0] = 7;
  for (size_t i = 0; i < 3072; ++i) record[1 + i] = static_cast<char>(i / 1024 * 80 + i % 32);
  for (int b = 1; b <= 5; ++b) write_text(dir / "in" / fmt::format("data_batch_{}.bin", b), record + record);
  write_text(dir / "in" / "test_batch.bin", record);
  write_text(dir / "in" / "batches.meta.txt", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n");
  prepare_images(open_cifar(dir / "in"), {.destdir = dir / "out"});
  const ImageDataset train = ImageDataset::open(dir / "out", "train");
  EXPECT_EQ(train.size(), 10);
  EXPECT_EQ(train.classes()[7], "h");
  EXPECT_EQ(train.label(9), 7);
  const std::vector<uint8_t> pixels = levels(train, 0);
  EXPECT_THAT(std::span(pixels).first(6), ElementsAre(0, 80, 160, 1, 81, 161));
  record[0] = 10;
  write_text(dir / "in" / "test_batch.bin", record);
  EXPECT_THAT(error_of([&] { open_cifar(dir / "in"); }), HasSubstr("image 0 has label 10"));
  write_text(dir / "in" / "test_batch.bin", record.substr(1));
  EXPECT_THAT(error_of([&] { open_cifar(dir / "in"); }), HasSubstr("no whole number of images"));
}

TEST(PrepareMnist, RealData) {
  QN_DATA_OR_SKIP(mnist, "mnist");
  const TempDir dir;
  prepare_images(open_mnist(mnist), {.destdir = dir.path()});
  const ImageDataset train = ImageDataset::open(dir.path(), "train"), test = ImageDataset::open(dir.path(), "test");
  EXPECT_EQ(train.size(), 60000);
  EXPECT_EQ(test.size(), 10000);
  // Counts as published.
  EXPECT_THAT(train.class_sizes(), ElementsAre(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949));
  EXPECT_THAT(test.class_sizes(), ElementsAre(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009));
  double sum = 0;
  for (int64_t i = 0; i < train.size(); ++i)
    for (const uint8_t level : levels(train, i)) sum += level;
  EXPECT_NEAR(sum / (60000.0 * 784 * 255), 0.1307, 0.00005);
}

}  // namespace
}  // namespace qn::test
