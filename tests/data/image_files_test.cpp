// Pictures in folders and lists.
#include "core/hdf5_file.h"
#include "data/image_dataset.h"
#include "data/image_file.h"
#include "data/image_test_util.h"
#include "data/prepare_images.h"
#include "support/golden.h"
#include "support/temp_dir.h"

namespace qn::test {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class ImageFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    QN_GOLDEN(path, "images.h5");
    const Hdf5File golden(path, Hdf5File::Mode::read);
    for (const char* name : {"rgb.png", "grey.jpg"}) {
      const std::vector<uint8_t> bytes = golden.read<uint8_t>(std::string("files/") + name + "/file");
      files_.emplace_back(bytes.begin(), bytes.end());
    }
  }
  /// A picture in the file of this name: 34 x 21 pixels, in colour or grey.
  void put(const fs::path& name, size_t kind = 0) {
    fs::create_directories((dir_ / "in" / name).parent_path());
    write_text(dir_ / "in" / name, files_[kind]);
  }
  void put_text(const fs::path& name, const std::string& text) {
    fs::create_directories(dir_ / "in");
    write_text(dir_ / "in" / name, text);
  }
  PrepareImagesSummary prepare(const ImageFilesOptions& options, bool skip_damaged = false) {
    return prepare_images(open_image_files(options), {.destdir = dir_ / "out", .skip_damaged = skip_damaged});
  }
  ImageDataset split(const std::string& name) { return ImageDataset::open(dir_ / "out", name); }
  std::vector<int32_t> labels(const ImageDataset& data) {
    std::vector<int32_t> result;
    for (int64_t i = 0; i < data.size(); ++i) result.push_back(data.label(i));
    return result;
  }
  fs::path in(const std::string& name = "") { return name.empty() ? dir_ / "in" : dir_ / "in" / name; }

  TempDir dir_;
  std::vector<std::string> files_;
};

TEST_F(ImageFilesTest, FoldersAreClasses) {
  for (const char* name : {"t/dog/b.png", "t/dog/deep/a.PNG", "t/ant/x.jpeg", "t/ant/.hidden.png", "t/ant/notes.txt"})
    put(name, std::string(name).ends_with("jpeg") ? 1 : 0);
  fs::create_directories(in("t/empty"));
  put("v/dog/only.png");
  const LogCapture log;
  prepare({.inputs = {{"train", in("t")}, {"valid", in("v")}}});
  EXPECT_THAT(log.text(), HasSubstr("1 files are not called .jpg, .jpeg or .png and were passed over; the first is"));
  const ImageDataset train = split("train");
  EXPECT_THAT(train.classes(), ElementsAre("ant", "dog"));
  EXPECT_THAT(labels(train), ElementsAre(0, 1, 1));
  EXPECT_EQ(train.storage(), ImageStorage::files);
  EXPECT_EQ(train.height(0), 21);
  EXPECT_EQ(train.width(0), 34);
  Image scratch;
  EXPECT_EQ(train.pixels(1, scratch).channels, 3);
  EXPECT_EQ(scratch.pixels, read_image(in("t/dog/b.png"), 3).pixels);
  EXPECT_THAT(labels(split("valid")), ElementsAre(1));
}

TEST_F(ImageFilesTest, PixelsInPlaceOfFiles) {
  put("t/a/x.png");
  prepare({.inputs = {{"train", in("t")}}, .channels = 1, .resize = 10});
  const ImageDataset train = split("train");
  EXPECT_EQ(train.storage(), ImageStorage::pixels);
  EXPECT_EQ(train.height(0), 10);
  EXPECT_EQ(train.width(0), 16);  // 34 * 10 / 21
  Image scratch;
  const ImageView image = train.pixels(0, scratch);
  const Image expected = resize_image(read_image(in("t/a/x.png"), 1).view(), 10, 16, ResizeFilter::bicubic);
  EXPECT_TRUE(std::equal(expected.pixels.begin(), expected.pixels.end(), image.data));
  prepare({.inputs = {{"train", in("t")}}, .channels = 1, .resize = 100});
  EXPECT_EQ(split("train").height(0), 21);  // nothing is made larger
}

TEST_F(ImageFilesTest, ListsHaveNumbersOrNames) {
  put("p/a.png");
  put("p/b, c.png");
  put_text("numbers.csv",
           "\xef\xbb\xbf"
           "file,class_id,name\r\na.png,3,\"a \"\"cat\"\"\"\r\n\"b, c.png\",0,dog\r\na.png,3,\"a \"\"cat\"\"\"\r\n");
  prepare({.inputs = {{"test", in("numbers.csv")}}, .root = in("p")});
  EXPECT_THAT(split("test").classes(), ElementsAre("dog", "1", "2", "a \"cat\""));
  EXPECT_THAT(labels(split("test")), ElementsAre(3, 0, 3));
  fs::remove_all(dir_ / "out");

  prepare({.inputs = {{"test", in("numbers.csv")}}, .root = in("p"), .classes = "6"});
  EXPECT_THAT(split("test").classes(), ElementsAre("dog", "1", "2", "a \"cat\"", "4", "5"));
  fs::remove_all(dir_ / "out");
  EXPECT_THAT(error_of([&] {
                prepare({.inputs = {{"test", in("numbers.csv")}}, .root = in("p"), .classes = "3"});
              }),
              HasSubstr("--classes 3: there are 4 classes in"));
  EXPECT_THAT(error_of([&] { prepare({.inputs = {{"test", in("numbers.csv")}}}); }), HasSubstr("say with --root"));

  put_text("names.tsv", "what\tlabel\np/a.png\tzebra\np/b, c.png\tape\np/a.png\t\n");
  prepare({.inputs = {{"test", in("names.tsv")}}, .columns = "file=what"});
  EXPECT_THAT(split("test").classes(), ElementsAre("ape", "zebra"));
  EXPECT_THAT(labels(split("test")), ElementsAre(1, 0, -1));
  fs::remove_all(dir_ / "out");

  put_text("classes.txt", "zebra\nlion\nape\n");
  prepare({.inputs = {{"test", in("names.tsv")}}, .columns = "file=what", .classes = in("classes.txt")});
  EXPECT_THAT(labels(split("test")), ElementsAre(0, 2, -1));
}

TEST_F(ImageFilesTest, NothingNeedsLabels) {
  put("p/a.png");
  put("p/b.png");
  put_text("list.csv", "file\np/b.png\n");
  prepare({.inputs = {{"train", in("p")}, {"test", in("list.csv")}}});
  EXPECT_EQ(split("train").unlabelled(), 2);
  EXPECT_TRUE(split("train").classes().empty());
  EXPECT_EQ(split("test").size(), 1);
}

TEST_F(ImageFilesTest, SaysWhatIsWrong) {
  const auto message = [&](const std::string& name, const std::string& columns = "") {
    return error_of([&] { prepare({.inputs = {{"train", in(name)}}, .columns = columns}); });
  };
  EXPECT_THAT(message("absent"), HasSubstr("there is no such folder of pictures, nor such a list"));
  put("p/a.png");
  EXPECT_THAT(message("p/a.png"), HasSubstr("is a picture; name a folder"));
  put("mixed/a.png");
  put("mixed/c/a.png");
  EXPECT_THAT(message("mixed"), HasSubstr("holds pictures (a.png, ...) beside folders of pictures"));
  put_text("q/x.txt", "");
  fs::create_directories(in("q"));
  EXPECT_THAT(message("q"), HasSubstr("holds no JPEG or PNG files"));
  put_text("l.csv", "picture,label\np/a.png,1\n");
  EXPECT_THAT(message("l.csv"),
              HasSubstr("has no column 'file', 'filename', 'path', 'image'; its header has: picture"));
  EXPECT_THAT(message("l.csv", "file=photo"), HasSubstr("has no column 'photo'"));
  EXPECT_THAT(message("l.csv", "image"), HasSubstr("--columns: 'image' is not of the form"));
  put_text("l.csv", "file,label\np/a.png\n");
  EXPECT_THAT(message("l.csv"), HasSubstr("l.csv:2: 1 fields, but the header has 2"));
  put_text("l.csv", "file,label\n\"p/a.png,1\n");
  EXPECT_THAT(message("l.csv"), HasSubstr("l.csv:2: a quote does not end"));
  put_text("l.csv", "file,label,name\np/a.png,1,x\np/a.png,1,y\n");
  EXPECT_THAT(message("l.csv"), HasSubstr("l.csv:3: label 1 is called 'y' here and 'x' before"));
  put_text("l.csv", "file,label\n");
  EXPECT_THAT(message("l.csv"), HasSubstr("lists no pictures"));
  put("v/other/a.png");
  put("t/cat/a.png");
  EXPECT_THAT(error_of([&] {
                prepare({.inputs = {{"train", in("t")}, {"valid", in("v")}}});
              }),
              HasSubstr("the class 'other' of"));
}

TEST_F(ImageFilesTest, DamagedPicturesAreAllNamedOrLeftOut) {
  put("t/cat/a.png");
  put("t/cat/b.png");
  write_text(in("t/cat/b.png"), files_[0].substr(0, 500));
  write_text(in("t/cat/c.jpg"), "no picture");
  put("t/dog/d.jpg", 1);
  const ImageFilesOptions options{.inputs = {{"train", in("t")}}};
  const std::string message = error_of([&] { prepare(options); });
  EXPECT_THAT(message, HasSubstr("2 of 4 images of train cannot be read"));
  EXPECT_THAT(message, HasSubstr("b.png is damaged: it ends too soon"));
  EXPECT_THAT(message, HasSubstr("c.jpg is neither a JPEG nor a PNG file"));
  EXPECT_FALSE(fs::exists(dir_ / "out" / "train.images"));
  const PrepareImagesSummary summary = prepare(options, true);
  EXPECT_EQ(summary.splits[0].images, 2);
  EXPECT_EQ(summary.splits[0].skipped.size(), 2U);
  EXPECT_THAT(labels(split("train")), ElementsAre(0, 1));
}

TEST_F(ImageFilesTest, ThreadsChangeNothing) {
  for (int i = 0; i < 300; ++i) put(fmt::format("t/c{}/{}.png", i % 7, i), static_cast<size_t>(i % 2));
  prepare({.inputs = {{"train", in("t")}}, .resize = 8});
  const uint64_t first = split("train").checksum();
  prepare({.inputs = {{"train", in("t")}}, .resize = 8});
  EXPECT_EQ(split("train").checksum(), first);
  EXPECT_EQ(split("train").size(), 300);
}

TEST_F(ImageFilesTest, OtherClassesInTheFolderAreRefused) {
  put("t/cat/a.png");
  prepare({.inputs = {{"valid", in("t")}}});
  put("t/ant/a.png");
  EXPECT_THAT(error_of([&] {
                prepare({.inputs = {{"train", in("t")}}});
              }),
              HasSubstr("valid.images stays in the folder but has other classes (1 of them, not these 2)"));
}

}  // namespace
}  // namespace qn::test
