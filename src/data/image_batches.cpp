#include "data/image_batches.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace qn {

ImageBatches::ImageBatches(std::shared_ptr<const ImageDataset> data, const ImageBatchOptions& options)
    : data_(std::move(data)),
      options_(options),
      scale_(options.transform, data_->channels()),
      elements_(static_cast<size_t>(options.transform.size * options.transform.size * data_->channels())) {
  for (int i = 0; i < options.workers; ++i) workers_.emplace_back([this] { work(); });
}

ImageBatches::~ImageBatches() {
  {
    const Lock lock(mutex_);
    stop_ = true;
  }
  more_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

std::shared_ptr<ImageBatches::Batch> ImageBatches::new_batch(std::span<const int64_t> items, int64_t epoch) {
  auto batch = std::make_shared<Batch>();
  batch->items.assign(items.begin(), items.end());
  batch->epoch = epoch;
  if (!spare_.empty()) {
    batch->values = std::move(spare_.back());
    spare_.pop_back();
  }
  batch->values.resize(items.size() * elements_);
  return batch;
}

void ImageBatches::expect(std::span<const int64_t> items, int64_t epoch) {
  if (workers_.empty()) return;
  {
    const Lock lock(mutex_);
    expected_.push_back(new_batch(items, epoch));
  }
  more_.notify_all();
}

std::shared_ptr<ImageBatches::Batch> ImageBatches::find(std::span<const int64_t> items, int64_t epoch) {
  const auto found = std::find_if(expected_.begin(), expected_.end(), [&](const auto& batch) {
    return batch->epoch == epoch && std::equal(items.begin(), items.end(), batch->items.begin(), batch->items.end());
  });
  if (found == expected_.end()) return nullptr;
  expected_.erase(expected_.begin(), found);
  return expected_.front();
}

Tensor ImageBatches::get(std::span<const int64_t> items, int64_t epoch) {
  Lock lock(mutex_);
  if (current_ != nullptr && current_.use_count() == 1) spare_.push_back(std::move(current_->values));
  current_ = find(items, epoch);
  if (current_ == nullptr) {
    current_ = new_batch(items, epoch);
    expected_.push_front(current_);
    more_.notify_all();
  }
  Batch& batch = *current_;
  while (batch.open()) make_one(batch, lock);
  finished_.wait(lock, [&] { return batch.done == batch.items.size(); });
  std::erase(expected_, current_);
  if (batch.error) std::rethrow_exception(batch.error);
  const int64_t size = options_.transform.size;
  return view_of(batch.values.data(), {std::ssize(batch.items), size, size, data_->channels()});
}

void ImageBatches::make_one(Batch& batch, Lock& lock) {
  const size_t place = batch.begun++;
  lock.unlock();
  std::exception_ptr error;
  try {
    make(batch, place);
  } catch (...) {
    error = std::current_exception();
  }
  lock.lock();
  if (error && !batch.error) batch.error = error;
  if (++batch.done == batch.items.size()) finished_.notify_all();
}

void ImageBatches::make(Batch& batch, size_t place) const {
  const int64_t item = batch.items[place];
  Image scratch;
  const ImageView image = data_->pixels(item, scratch);
  const Image square = augmented_square(image, options_.transform, options_.augmentation,
                                        augmentation_key(options_.seed, batch.epoch, item));
  scale_.apply(square.view(), batch.values.data() + place * elements_);
}

void ImageBatches::work() {
  Lock lock(mutex_);
  while (true) {
    std::shared_ptr<Batch> batch;
    more_.wait(lock, [&] {
      const auto found = std::find_if(expected_.begin(), expected_.end(), [](const auto& b) { return b->open(); });
      if (found != expected_.end()) batch = *found;
      return stop_ || batch != nullptr;
    });
    if (stop_) return;
    make_one(*batch, lock);
  }
}

}  // namespace qn
