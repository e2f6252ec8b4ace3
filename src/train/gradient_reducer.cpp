#include "train/gradient_reducer.h"

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/profiler.h"
#include "ops/host_access.h"

namespace qn {

GradientReducer::GradientReducer(ParameterStore& store, Communicator& comm, size_t bucket_bytes, bool overlap,
                                 DeviceCommunicator* device)
    : store_(store),
      comm_(comm),
      device_(device),
      bucket_bytes_(bucket_bytes),
      overlap_(overlap && comm.size() > 1 && (device != nullptr || on_host(store.kernels()))) {
  QN_CHECK(bucket_bytes_ >= sizeof(double), "a bucket of {} bytes is smaller than one element of {} bytes",
           bucket_bytes_, sizeof(double));
}

/// Cuts the flat gradient into buckets; again whenever an iPQ stage has changed the parameters.
void GradientReducer::lay_out() {
  const Tensor& grads = store_.grads();
  if (elements_ == grads.elements()) return;
  elements_ = grads.elements();
  buckets_.clear();
  const auto size = static_cast<int64_t>(bucket_bytes_ / size_of(grads.dtype));
  const auto& all = store_.all();
  size_t first = 0;
  for (int64_t begin = 0; begin < elements_; begin += size) {
    const int64_t end = std::min(elements_, begin + size);
    while (first + 1 < all.size() && all[first + 1]->offset <= begin) ++first;
    size_t last = first;
    while (last + 1 < all.size() && all[last + 1]->offset < end) ++last;
    buckets_.push_back({begin, end, first, last - first + 1, 0});
  }
}

void GradientReducer::begin(const Tape& tape) {
  if (!overlap_) return;
  lay_out();
  const auto& all = store_.all();
  for (Bucket& bucket : buckets_) {
    bucket.ready_step = std::numeric_limits<size_t>::max();
    for (size_t i = 0; i < bucket.parameters; ++i) {
      const Parameter& p = *all[bucket.first_parameter + i];
      if (p.used_in(tape)) bucket.ready_step = std::min(bucket.ready_step, p.first_step());
    }
  }
  waiting_ = buckets_.size();
  started_ = true;
}

void GradientReducer::step_done(size_t index) {
  if (!started_) return;
  if (waiting_ > 0 && buckets_[waiting_ - 1].ready_step >= index) {
    const ProfileScope phase(Phase::all_reduce);
    while (waiting_ > 0 && buckets_[waiting_ - 1].ready_step >= index) start_next();
  }
  if (device_ == nullptr) comm_.poll();
}

void GradientReducer::start_next() {
  const Bucket& bucket = buckets_[--waiting_];
  const Tensor grads = store_.grads().reshaped({elements_, 1});
  for (size_t i = 0; i < bucket.parameters; ++i) {
    const Parameter& p = *store_.all()[bucket.first_parameter + i];
    if (p.slot.touched) continue;
    // Only this bucket's part: a neighbour that holds the rest may be on its way already.
    const int64_t begin = std::max(bucket.begin, p.offset), end = std::min(bucket.end, p.offset + p.shape.elements());
    if (begin < end) store_.kernels().fill(grads.row_slice(begin, end - begin), 0.0);
  }
  start_sum(grads.row_slice(bucket.begin, bucket.end - bucket.begin));
}

void GradientReducer::start_sum(const Tensor& grads) {
  if (device_ != nullptr)
    device_->start_all_reduce_sum(grads);
  else if (grads.dtype == DType::f64)
    comm_.start_all_reduce_sum(grads.span<double>());
  else
    comm_.start_all_reduce_sum(grads.span<float>());
}

void GradientReducer::finish() {
  if (comm_.size() == 1) return store_.finish_gradients();
  if (!overlap_ && device_ == nullptr) return sum_on_host();
  if (!started_) {  // no micro-batch of this update is ours, or nothing is to be started early
    lay_out();
    waiting_ = buckets_.size();
  }
  while (waiting_ > 0) start_next();
  device_ != nullptr ? device_->join() : comm_.finish_all_reduces();
  started_ = false;
}

void GradientReducer::sum_on_host() {
  store_.finish_gradients();
  edit_on_host(store_.kernels(), store_.grads(), [&](const Tensor& grads) {
    if (grads.dtype == DType::f64)
      all_reduce_in_buckets(comm_, grads.span<double>(), bucket_bytes_);
    else
      all_reduce_in_buckets(comm_, grads.span<float>(), bucket_bytes_);
  });
}

}  // namespace qn
