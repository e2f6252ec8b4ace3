// The commands for pictures, from files to answers.
#include <gmock/gmock.h>

#include "cli_program.h"
#include "core/hdf5_file.h"
#include "support/golden.h"

namespace qn::test {
namespace {

using testing::HasSubstr;
using testing::Not;

class CliImagesTest : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    if (IsSkipped()) return;
    QN_GOLDEN(file, "images.h5");
    const Hdf5File golden(file, Hdf5File::Mode::read);
    picture_ = golden.read<uint8_t>("files/rgb.png/file");
  }
  std::string put(const std::string& name) {
    const path file = dir_ / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary).write(reinterpret_cast<const char*>(picture_.data()), std::ssize(picture_));
    return file.string();
  }
  /// The checkpoint of a network that has seen next to nothing.
  std::string network() {
    for (const char* name : {"t/ant/a.png", "t/dog/b.png", "v/ant/c.png", "v/dog/d.png"}) put(name);
    const auto in = [&](const char* name) { return (dir_ / name).string(); };
    const Result prepared = run({"prepare", "--images", "--train", in("t"), "--valid", in("v"), "--out", in("data")});
    EXPECT_EQ(prepared.code, 0) << prepared.err;
    std::ofstream(dir_ / "net.yaml") << "model: {type: resnet, layers: 20, embed_dim: 8}\n"
                                        "data: {batch_size: 2, transform: {size: 8}}\n"
                                        "quant_noise: {pq: 0.0}\n"
                                        "train: {max_updates: 1}\n";
    const Result trained = run(
        {"train", "-c", in("net.yaml"), "--set", "data.path=" + in("data"), "--set", "checkpoint.dir=" + in("net")});
    EXPECT_EQ(trained.code, 0) << trained.err;
    return in("net/checkpoint_last.h5");
  }

  std::vector<uint8_t> picture_;
};

TEST_F(CliImagesTest, ABadPictureDoesNotKeepOthersFromBeingClassified) {
  const std::string model = network(), good = put("good.png"), other = put("other.png");
  const std::string bad = (dir_ / "bad.png").string(), missing = (dir_ / "missing.png").string();
  std::ofstream(bad) << "no picture";
  const Result all = run({"predict", model, good, bad, missing, other});
  EXPECT_EQ(all.code, 1);
  EXPECT_THAT(all.out, HasSubstr(good + "\t"));
  EXPECT_THAT(all.out, HasSubstr(other + "\t"));
  EXPECT_THAT(all.out, Not(HasSubstr("bad.png")));
  EXPECT_THAT(all.err, HasSubstr("bad.png"));
  EXPECT_THAT(all.err, HasSubstr("missing.png"));
  EXPECT_THAT(all.err, HasSubstr("2 of 4 images could not be classified"));
  EXPECT_EQ(run({"predict", model, good, other}).code, 0);
  EXPECT_EQ(run({"predict", model, missing}).code, 1);
}

}  // namespace
}  // namespace qn::test
