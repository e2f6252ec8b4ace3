#include "cli/prepare_images.h"

#include <spdlog/spdlog.h>

#include <set>
#include <utility>
#include <vector>

#include "cli/choice_option.h"
#include "cli/usage.h"
#include "core/error.h"
#include "core/text.h"
#include "data/prepare_images.h"

namespace qn::cli {
namespace {

void report(const PrepareImagesSummary& summary, const ImageSplitKind& kind) {
  spdlog::info("{}, {}", kind.classes.empty() ? "no labels" : fmt::format("{} classes", kind.classes.size()),
               kind.channels == 1 ? "grey" : "RGB");
  for (const ImageSplitSummary& split : summary.splits) {
    spdlog::info("{}: {} images{}, {} ({})", split.name, group_digits(split.images),
                 split.unlabelled == 0 ? ""
                 : split.unlabelled == split.images
                     ? " without labels"
                     : fmt::format(", {} without labels", group_digits(split.unlabelled)),
                 format_bytes(split.bytes), split.origin);
    for (const std::string& image : split.skipped) spdlog::warn("{}: left out: {}", split.name, image);
  }
}

constexpr const char* kGroup = "Images";

/// What --train, --valid and --test name, by split.
std::vector<std::pair<std::string, std::filesystem::path>> inputs_of(const PrepareOptions& texts) {
  std::vector<std::pair<std::string, std::filesystem::path>> inputs;
  if (!texts.train.empty()) inputs.emplace_back("train", texts.train);
  for (const auto& [name, paths] : {std::pair{"valid", &texts.valid}, std::pair{"test", &texts.test}})
    for (size_t i = 0; i < paths->size(); ++i)
      inputs.emplace_back(i == 0 ? name : name + std::to_string(i), (*paths)[i]);
  return inputs;
}

}  // namespace

void PrepareImages::add_to(CLI::App& app) {
  app_ = &app;
  const auto add = [&](const char* name, auto& value, const char* doc) {
    return app.add_option(name, value, doc)->group(kGroup);
  };
  app.add_flag("--images", images_,
               "The inputs (--train, --valid, --test) are pictures, JPEG and PNG: a folder with a folder per class, a "
               "folder of pictures without classes, or a list (CSV with a header: a column file; label, a name, or "
               "class_id, a number from 0, if there are labels; name of that class). Writes SPLIT.images. They are "
               "stored as they are and decoded in training, unless --resize says otherwise")
      ->group(kGroup);
  add("--mnist", mnist_,
      "Folder with the four files of MNIST, or of a data set of its form (train-images-idx3-ubyte, ..., also .gz). "
      "Writes train.images and test.images");
  add("--cifar", cifar_,
      "Folder with the binary version of CIFAR-10 or CIFAR-100 (data_batch_1.bin, ... or train.bin, test.bin). Writes "
      "train.images and test.images");
  add("--resize", resize_,
      "With --images: store pixels instead of files, the shorter side of a picture no longer than this. Larger on the "
      "disk, and training has nothing to decode")
      ->check(whole_number(1, 4096));
  add_choice(app, "--filter", filter_, "With --resize: what pixels are weighed by")->group(kGroup);
  app.add_flag("--grey", grey_, "With --images: one channel, the brightness")->group(kGroup);
  add("--root", root_, "With lists: the folder that names of files are relative to (default: the list's own)");
  add("--classes", classes_,
      "With --images: a text with the name of every class, a line each, in the order of their numbers; or how many "
      "there "
      "are, where some have no pictures (default: those of the first input that has labels, sorted by name)");
  app.add_flag("--skip-damaged", skip_damaged_, "With --images: leave out what cannot be read, and warn")
      ->group(kGroup);
  add("--hold-out", hold_out_, "So many training images, drawn at random, become the split valid; always the same ones")
      ->check(whole_number(1));
}

bool PrepareImages::asked() const {
  const int kinds = images_ + !mnist_.empty() + !cifar_.empty();
  if (kinds == 0)
    for (const CLI::Option* option : app_->get_options())
      QN_CHECK_USAGE(option->count() == 0 || option->get_group() != kGroup,
                     "{} is for images: --images, --mnist or --cifar", option->get_name());
  QN_CHECK_USAGE(kinds <= 1, "--images, --mnist and --cifar are for data of different kinds: give one of them");
  if (kinds == 1) check_options();
  return kinds == 1;
}

void PrepareImages::check_options() const {
  const std::set<std::string> inputs = {"--train", "--valid", "--test"};
  for (const CLI::Option* option : app_->get_options()) {
    const std::string name = option->get_name();
    if (option->count() == 0 || name == "--out" || name == "--hold-out") continue;
    if (images_)
      QN_CHECK_USAGE(inputs.contains(name) || name == "--columns" || option->get_group() == kGroup,
                     "{} is for texts, --images for pictures: leave one of the two out", name);
    else
      QN_CHECK_USAGE(name == "--mnist" || name == "--cifar",
                     "{} does not go with --mnist and --cifar, whose folders say what there is: leave it out", name);
  }
  QN_CHECK_USAGE(!given("--filter") || given("--resize"), "--filter is for --resize: leave it out, or say which size");
}

void PrepareImages::run(const PrepareOptions& texts, const std::string& columns) {
  ImageSources sources;
  if (!mnist_.empty()) {
    sources = open_mnist(mnist_);
  } else if (!cifar_.empty()) {
    sources = open_cifar(cifar_);
  } else {
    const auto inputs = inputs_of(texts);
    QN_CHECK_USAGE(!inputs.empty(), "nothing to prepare: name folders or lists with --train, --valid or --test");
    sources = open_image_files({inputs, root_, columns, classes_, grey_ ? int64_t{1} : int64_t{3}, resize_, filter_});
  }
  report(prepare_images(sources, {texts.destdir, hold_out_, skip_damaged_}), sources.kind);
}

}  // namespace qn::cli
