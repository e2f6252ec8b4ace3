#include "data/prepare_images.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <exception>
#include <numeric>
#include <set>

#include "core/error.h"
#include "core/folder_lock.h"
#include "core/random.h"
#include "core/text.h"
#include "data/prepared_folder.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

constexpr const char* kHeldOut = "valid";
constexpr int64_t kChunk = 64;      // images in memory at a time
constexpr size_t kMostErrors = 10;  // that are worth reading

/// A split to be: some images of a source.
struct Plan {
  std::string name;
  const ImageSource* source;
  std::vector<int64_t> items;
};

std::vector<Plan> plan_splits(const ImageSources& sources, int64_t hold_out) {
  std::vector<Plan> plans;
  for (const ImageSource& source : sources.splits) {
    Plan plan{source.split, &source, std::vector<int64_t>(source.labels.size())};
    std::iota(plan.items.begin(), plan.items.end(), 0);
    plans.push_back(std::move(plan));
  }
  if (hold_out == 0) return plans;
  const auto train = std::find_if(plans.begin(), plans.end(), [](const Plan& p) { return p.name == "train"; });
  QN_CHECK_USAGE(train != plans.end(), "--hold-out takes images of the training data: give some");
  for (const Plan& plan : plans)
    QN_CHECK_USAGE(plan.name != kHeldOut, "--hold-out makes the split '{}', which is given: leave one of the two out",
                   kHeldOut);
  QN_CHECK_USAGE(hold_out < std::ssize(train->items), "--hold-out {} leaves none of {} training images",
                 group_digits(hold_out), group_digits(std::ssize(train->items)));
  const RandomStream stream({.seed = 1, .purpose = Purpose::data, .id = hash_name("hold-out")});
  Plan valid{kHeldOut, train->source, stream.sample_without_replacement(std::ssize(train->items), hold_out)};
  std::sort(valid.items.begin(), valid.items.end());
  std::vector<int64_t> rest;
  std::set_difference(train->items.begin(), train->items.end(), valid.items.begin(), valid.items.end(),
                      std::back_inserter(rest));
  train->items = std::move(rest);
  plans.push_back(std::move(valid));
  return plans;
}

/// Splits that stay in the folder must fit those that it gets.
void check_rest(const fs::path& folder, const std::vector<Plan>& plans, const ImageSplitKind& kind) {
  std::set<std::string> written;
  for (const Plan& plan : plans) written.insert(plan.name);
  for (const std::string& name : image_splits_in(folder)) {
    if (written.contains(name)) continue;
    const fs::path file = image_split_file(folder, name);
    const char* remedy = "prepare its images as well, remove it, or choose another folder";
    std::string why;
    try {
      const ImageDataset rest(file);
      if (rest.channels() != kind.channels)
        why = fmt::format("has {} channel(s), not {}", rest.channels(), kind.channels);
      else if (!rest.classes().empty() && !kind.classes.empty() && rest.classes() != kind.classes)
        why = fmt::format("has other classes ({} of them, not these {})", rest.classes().size(), kind.classes.size());
    } catch (const Error& error) {
      why = error.what();
    }
    QN_CHECK(why.empty(), "{} stays in the folder but {}: {}", file.string(), why, remedy);
  }
}

struct Read {
  StoredImage image;
  std::string error;
  std::exception_ptr failure;  ///< not of the image
};

/// One after the other, read on several threads.
void read_images(const Plan& plan, const std::function<void(int64_t item, const Read&)>& take) {
  std::vector<Read> chunk;
  const int64_t size = std::ssize(plan.items);
  for (int64_t begin = 0; begin < size; begin += kChunk) {
    const int64_t count = std::min(kChunk, size - begin);
    chunk.assign(static_cast<size_t>(count), {});
#pragma omp parallel for schedule(dynamic, 1) if (plan.source->decodes)
    for (int64_t i = 0; i < count; ++i) {
      Read& read = chunk[static_cast<size_t>(i)];
      try {
        read.image = plan.source->read(plan.items[static_cast<size_t>(begin + i)]);
      } catch (const Error& error) {
        read.error = error.what();
      } catch (...) {
        read.failure = std::current_exception();
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      const Read& read = chunk[static_cast<size_t>(i)];
      if (read.failure) std::rethrow_exception(read.failure);
      take(plan.items[static_cast<size_t>(begin + i)], read);
    }
  }
}

ImageSplitSummary write_split(const Plan& plan, const ImageSplitKind& kind, const PrepareImagesOptions& options) {
  ImageSplitSummary summary;
  summary.name = plan.name;
  summary.origin = plan.source->origin;
  write_image_split(options.destdir, plan.name, kind, [&](ImageSplitWriter& writer) {
    read_images(plan, [&](int64_t item, const Read& read) {
      if (!read.error.empty()) {
        summary.skipped.push_back(read.error);
        return;
      }
      const int32_t label = plan.source->labels[static_cast<size_t>(item)];
      writer.add(read.image.bytes, read.image.height, read.image.width, label);
      ++summary.images;
      summary.unlabelled += label < 0;
    });
    const size_t shown = std::min(summary.skipped.size(), kMostErrors);
    QN_CHECK(options.skip_damaged || summary.skipped.empty(),
             "{} of {} images of {} cannot be read:\n  {}{}\nRepair or remove them, or leave them out with "
             "--skip-damaged",
             summary.skipped.size(), plan.items.size(), plan.name,
             fmt::join(summary.skipped.begin(), summary.skipped.begin() + static_cast<ptrdiff_t>(shown), "\n  "),
             shown < summary.skipped.size() ? fmt::format("\n  and {} more", summary.skipped.size() - shown) : "");
    QN_CHECK(summary.images > 0, "{} has no images that can be read", summary.origin);
  });
  summary.bytes = fs::file_size(image_split_file(options.destdir, plan.name));
  return summary;
}

}  // namespace

PrepareImagesSummary prepare_images(const ImageSources& sources, const PrepareImagesOptions& options) {
  QN_CHECK_USAGE(!options.destdir.empty(), "name the directory to write the prepared data to");
  const std::vector<Plan> plans = plan_splits(sources, options.hold_out);
  std::vector<fs::path> inputs, outputs;
  for (const ImageSource& source : sources.splits)
    inputs.insert(inputs.end(), source.files.begin(), source.files.end());
  for (const Plan& plan : plans) outputs.push_back(image_split_file(options.destdir, plan.name));
  check_outputs(inputs, outputs, {});
  make_folder(options.destdir);
  const FolderLock lock(options.destdir, "the folder");
  remove_leftovers(options.destdir);
  check_rest(options.destdir, plans, sources.kind);
  PrepareImagesSummary summary;
  for (const Plan& plan : plans) summary.splits.push_back(write_split(plan, sources.kind, options));
  return summary;
}

}  // namespace qn
