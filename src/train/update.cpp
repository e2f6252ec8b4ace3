#include "train/update.h"

#include <cmath>

#include "core/profiler.h"
#include "ops/host_access.h"

namespace qn {

UpdateRunner::UpdateRunner(LanguageModel& model, const Kernels& kernels, Communicator& comm,
                           const UpdateOptions& options)
    : model_(model),
      kernels_(kernels),
      comm_(comm),
      options_(options),
      arena_(*kernels.memory),
      tape_(kernels, arena_, options.dtype, {}),
      reducer_(model.parameters(), comm, options.bucket_bytes, options.overlap, options.device) {
  QN_ASSERT(tape_.parameter_dtype() == model.parameters().dtype());
}

void UpdateRunner::accumulate(int64_t update, int64_t count, const std::function<MicroBatch(int64_t)>& fetch,
                              UpdateResult& sum) {
  ParameterStore& store = model_.parameters();
  store.begin_gradients();
  for (int64_t i = comm_.rank(); i < count; i += comm_.size()) {
    const MicroBatch micro = fetch(i);
    tape_.restart({.training = true,
                   .recording = true,
                   .seed = options_.seed,
                   .update = static_cast<uint32_t>(update),
                   .micro_batch = static_cast<uint32_t>(i)});
    {
      const ProfileScope phase(Phase::forward, i);
      const HostView losses(kernels_, model_.losses(tape_, micro.batch));
      for (const double loss : losses.span<double>()) sum.loss += loss;
      sum.tokens += micro.tokens;
    }
    {
      const ProfileScope phase(Phase::backward, i);
      if (i + comm_.size() < count) {
        tape_.backward();
      } else {
        reducer_.begin(tape_);
        tape_.backward([&](size_t index) { reducer_.step_done(index); });
      }
    }
    arena_.reset();
  }
}

void UpdateRunner::reduce(UpdateResult& sum) {
  if (comm_.size() == 1) return reducer_.finish();
  const ProfileScope phase(Phase::all_reduce);
  reducer_.finish();
  sum.loss = comm_.all_reduce_sum_value(sum.loss);
  sum.tokens = comm_.all_reduce_sum_value(sum.tokens);
  if (!options_.skip_missing) return;
  std::vector<double> touched;
  for (const auto& p : model_.parameters().all()) touched.push_back(p->home.touched ? 1.0 : 0.0);
  comm_.all_reduce_max(touched);
  for (size_t i = 0; i < touched.size(); ++i) model_.parameters().all()[i]->home.touched = touched[i] > 0.0;
}

UpdateResult UpdateRunner::run(int64_t update, int64_t count, const std::function<MicroBatch(int64_t)>& fetch,
                               Optimizer& optimizer, double lr) {
  UpdateResult result;
  accumulate(update, count, fetch, result);
  reduce(result);
  QN_CHECK(result.tokens > 0, "update {} has no target tokens: the data holds nothing but padding", update + 1);
  const ProfileScope phase(Phase::optimizer);
  ParameterStore& store = model_.parameters();
  const double mean = 1.0 / static_cast<double>(result.tokens);
  result.grad_norm = std::sqrt(kernels_.sum_of_squares(store.grads())) * mean;
  QN_CHECK(std::isfinite(result.grad_norm) && std::isfinite(result.loss),
           "the gradient of update {} is not finite (loss {}, norm {}): resume from the last checkpoint with a lower "
           "schedule.lr, a longer schedule.warmup_updates or a smaller optimizer.clip_norm",
           update + 1, result.loss, result.grad_norm);
  double scale = mean;
  if (options_.clip_norm > 0.0) {
    // fairseq's rule in fp32: multiply by min(1, c / (norm + 1e-6)) (reference 7.3)
    const double factor = options_.clip_norm / (result.grad_norm + 1e-6);
    result.clipped = factor < 1.0;
    scale *= std::min(1.0, factor);
  }
  optimizer.step(store, kernels_, lr, scale);
  return result;
}

}  // namespace qn
