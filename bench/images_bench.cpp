// How many images a second ImageBatches makes of a prepared split, by what is done to them.
#include <chrono>
#include <ctime>

#include "bench/program.h"
#include "core/error.h"
#include "data/image_batches.h"

namespace {

using namespace qn;
using namespace qn::bench;

struct Options {
  CommonOptions common;
  std::string data, split = "train";
  int64_t size = 224, batch = 32, images = 2000;
  int workers = 0;

  void add_to(CLI::App& app) {
    common.add_to(app);
    app.add_option("data", data, "Folder made by `quantnoise prepare --images`")->required();
    app.add_option("--split", split, "Its split")->capture_default_str();
    app.add_option("--size", size, "Height and width of inputs")->capture_default_str()->check(CLI::Range(1, 4096));
    app.add_option("--batch", batch, "Images of a batch")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--images", images, "Measure about so many")->capture_default_str()->check(CLI::PositiveNumber);
    app.add_option("--workers", workers, "Threads beside the one that waits")->capture_default_str();
  }
};

/// Every batch is expected while the one before is used.
Json measure(const Options& options, std::shared_ptr<const ImageDataset> data, const ImageAugmentation& augmentation) {
  ImageBatches batches(data,
                       {.transform = {.size = options.size}, .augmentation = augmentation, .workers = options.workers});
  const int64_t count = std::max<int64_t>(1, options.images / options.batch);
  const auto items_of = [&](int64_t b) {
    std::vector<int64_t> items(static_cast<size_t>(options.batch));
    for (int64_t i = 0; i < options.batch; ++i) items[static_cast<size_t>(i)] = (b * options.batch + i) % data->size();
    return items;
  };
  const auto start = std::chrono::steady_clock::now();
  const std::clock_t cpu = std::clock();
  batches.expect(items_of(0), 1);
  for (int64_t b = 0; b < count; ++b) {
    if (b + 1 < count) batches.expect(items_of(b + 1), 1);
    batches.get(items_of(b), 1);
  }
  const auto made = static_cast<double>(count * options.batch);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return {{"images_per_second", made / seconds},
          {"processor_ms_per_image", 1e3 * static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC / made}};
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Measures how fast batches are made of prepared images.");
  Options options;
  options.add_to(app);
  return run_program(app, options.common, argc, argv, [&](Communicator& comm) {
    if (!comm.is_root()) return;
    const auto data = std::make_shared<const ImageDataset>(ImageDataset::open(options.data, options.split));
    const ImageAugmentation part{.crop = TrainingCrop::random_resized, .flip = 0.5};
    ImageAugmentation changes = part, colours = part;
    changes.randaugment_ops = 2;
    colours.brightness = colours.contrast = colours.saturation = 0.4;
    colours.hue = 0.1;
    Json report{{"images", data->size()}, {"workers", options.workers}};
    report["evaluation"] = measure(options, data, {});
    report["random_part"] = measure(options, data, part);
    report["randaugment"] = measure(options, data, changes);
    report["colour_jitter"] = measure(options, data, colours);
    print_report(report, options.common.json);
  });
}
