// Batches of a network's inputs, made of prepared images by worker threads ahead of time.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "core/tensor.h"
#include "data/image_augment.h"
#include "data/image_dataset.h"
#include "data/image_transform.h"

namespace qn {

struct ImageBatchOptions {
  ImageTransform transform = {};
  ImageAugmentation augmentation = {};  ///< the default is evaluation
  uint64_t seed = 0;                    ///< of the augmentation
  int workers = 0;                      ///< threads beside the one that calls; 0: all is done when it is asked for
};

/// What a batch holds depends on its items, the epoch and the seed: neither on other batches nor on threads.
class ImageBatches {
 public:
  /// Throws UsageError where transform.mean or std are for another number of channels.
  ImageBatches(std::shared_ptr<const ImageDataset> data, const ImageBatchOptions& options);
  ~ImageBatches();
  ImageBatches(const ImageBatches&) = delete;
  ImageBatches& operator=(const ImageBatches&) = delete;

  /// Has workers make a batch that get() will be asked for. Batches are made in this order. Without workers it does
  /// nothing.
  void expect(std::span<const int64_t> items, int64_t epoch);

  /// f32 [items, size, size, channels] in the host's memory, which stays until the next get(). Batches that were
  /// expected before this one and not asked for are forgotten. Throws qn::Error when an image is damaged.
  Tensor get(std::span<const int64_t> items, int64_t epoch);

  const ImageDataset& data() const { return *data_; }

 private:
  struct Batch {
    std::vector<int64_t> items;
    int64_t epoch = 0;
    std::vector<float> values;
    size_t begun = 0, done = 0;  ///< items
    std::exception_ptr error;
    bool open() const { return begun < items.size(); }
  };
  using Lock = std::unique_lock<std::mutex>;

  std::shared_ptr<Batch> new_batch(std::span<const int64_t> items, int64_t epoch);
  std::shared_ptr<Batch> find(std::span<const int64_t> items, int64_t epoch);
  /// Makes the next image of a batch, without the lock.
  void make_one(Batch& batch, Lock& lock);
  void make(Batch& batch, size_t place) const;
  void work();

  std::shared_ptr<const ImageDataset> data_;
  ImageBatchOptions options_;
  LevelScale scale_;
  size_t elements_;  ///< of an input

  std::mutex mutex_;
  std::condition_variable more_, finished_;
  std::deque<std::shared_ptr<Batch>> expected_;
  std::vector<std::vector<float>> spare_;  ///< memory of batches that are over
  std::shared_ptr<Batch> current_;
  bool stop_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace qn
