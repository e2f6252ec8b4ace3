// Images to classes, by a network that learns from prepared images.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/image_batches.h"
#include "models/image_model.h"
#include "tasks/run_task.h"
#include "tasks/sampled_updates.h"
#include "tasks/teachers.h"

namespace qn {

class ImageClassification : public RunTask {
 public:
  static std::unique_ptr<RunTask> from_config(const RunConfig& config);
  static std::unique_ptr<RunTask> preview(const RunConfig& config, int64_t vocabulary);
  static std::unique_ptr<RunTask> from_checkpoint(const RunConfig& config, const StateDict& state);
  static std::unique_ptr<RunTask> from_packed(const SafetensorsReader& file, const std::string& path);

  Module& module() override { return *model_; }
  SampleWords sample_words() const override { return {.one = "image", .many = "images", .briefly = "img"}; }
  void open_training() override;
  void check_targets() const override;
  std::string describe_data(int64_t micro_batches) const override;
  int64_t next_update(int64_t micro_batches) override;
  void put_back_update() override { updates_->put_back(); }
  bool step_back() override { return updates_->step_back(); }
  int64_t updates_per_epoch(int64_t micro_batches) const override { return updates_->per_epoch(micro_batches); }
  MicroBatch micro_batch(int64_t index, const RandomKey& key) override;
  MicroBatch example(int64_t i, int64_t count) override;
  int64_t epoch() const override { return updates_->epoch(); }
  bool end_of_epoch() const override { return updates_->end_of_epoch(); }

  /// The share of images whose class is the most likely one decides ("top1"); then "top5", where there are more than
  /// five classes, and "loss" in bits per image.
  Evaluation evaluate_module(Module& module, const Kernels& kernels, Communicator& comm, DType dtype) override;
  EvalReport score_data(const EvalConfig& config, const Kernels& kernels, Communicator& comm, DType dtype) override;
  std::vector<Prediction> predict_images(std::span<const std::string> paths, const Kernels& kernels,
                                         DType dtype) override;

  void learn_from(const std::vector<std::string>& files, double weight, const Kernels& kernels) override;
  PackedMetadata packed_metadata() const override;
  void save(StateDict& state) const override;
  void load(const StateDict& state) override;
  void check_weights(const StateDict& state) const override;
  void adapt_weights(StateDict& state) const override;
  void adapt_whole_weights(StateDict& state) const override;

  const std::vector<std::string>& labels() const { return what_.labels; }

 private:
  /// What a model's file says of it.
  struct Blueprint {
    ModelConfig model;
    TaskConfig task;
    ImageTransform transform;
    int64_t channels = 3;
    std::vector<std::string> labels;
  };
  explicit ImageClassification(Blueprint blueprint);
  std::unique_ptr<ImageBatches> batches_of(std::shared_ptr<const ImageDataset> data, bool training) const;
  void check_data(const ImageDataset& data) const;
  void check_labelled(const ImageDataset& data, const char* remedy) const;
  void classify_unlabelled(Tape& tape, const Tensor& logits);
  void expect(const std::vector<std::vector<int64_t>>& groups, int64_t epoch);
  double spread(double smoothing) const;
  std::string architecture(ModelConfig model) const;
  MicroBatch micro_batch_of(std::span<const int64_t> items, ImageBatches& batches, int64_t epoch);
  void check_teacher(const RunTask& teacher, const char* key, const std::string& path) const;
  Evaluation score(ImageModel& model, ImageModel* teacher, ImageBatches& batches, int64_t batch_size,
                   const Kernels& kernels, Communicator& comm, DType dtype) const;

  Blueprint what_;
  std::unique_ptr<ImageModel> model_;
  std::optional<ImageDataConfig> config_;  // where the task comes from a configuration
  uint64_t seed_ = 1;
  std::shared_ptr<const ImageDataset> train_data_, valid_data_;
  std::unique_ptr<ImageBatches> train_, valid_, examples_;
  std::optional<SampledUpdates> updates_;
  Teachers teachers_;
  std::vector<int64_t> asked_;                // micro-batches of the update at hand that this rank has had so far
  std::vector<std::vector<int64_t>> coming_;  // the next update's, which workers have been told
  Tensor images_;                             // of the micro-batch at hand
  std::vector<int32_t> targets_;
};

}  // namespace qn
