// The tape: coarse differentiable ops push their backward; gradients land in slots. A parameter's slot is its slice of
// the flat gradient, so there are no temporary parameter gradients. Tensors, keep bits and indices come from the step
// arena, which is in the backend's memory; backward steps and gradient slots are the host's business and live in an
// arena of the tape's own.
#pragma once

#include <cstdint>
#include <new>
#include <span>
#include <type_traits>
#include <vector>

#include "core/arena.h"
#include "core/random.h"
#include "core/tensor.h"
#include "ops/kernels.h"

namespace qn {

/// Where the gradient of a value collects. `touched` turns true at the first contribution; until then the memory holds
/// garbage and must be overwritten. Its type may differ from the value's: gradients of parameters collect in the
/// parameters' type. Before there is memory, `grad` already has the type.
struct GradientSlot {
  Tensor grad;
  bool touched = false;
};

/// A value of the graph. Without a slot (slot == nullptr) no gradient is wanted.
struct Var {
  Tensor value;
  GradientSlot* slot = nullptr;
};

/// Sums over the ranks of a job, for statistics of whole batches.
class SumOverRanks {
 public:
  virtual ~SumOverRanks() = default;
  /// The tensor (f64, in the backend's memory) becomes the sum of all ranks'. Every rank calls it as often as the
  /// others, with the same sizes.
  virtual void sum(const Tensor& values) const = 0;
};

/// What is random, and how ops behave, in one forward pass.
struct PassOptions {
  bool training = false;   ///< dropout and noise on
  bool recording = false;  ///< gradients wanted
  /// Batch normalisation goes by the batch at hand outside of training, too, and collects its statistics.
  bool batch_statistics = false;
  uint64_t seed = 1;
  uint32_t update = 0;       ///< completed updates
  uint32_t micro_batch = 0;  ///< global index within the update
  /// In the backend's memory: gradients are those of *loss_scale * loss; null: 1.
  const double* loss_scale = nullptr;
  /// Parts of a batch whose size depends on the data (bands of a vocabulary) are filled up to a multiple of so many
  /// rows with rows that count for nothing, so that few different shapes exist.
  int64_t row_multiple = 1;
  /// Batch normalisation takes its statistics over the micro-batches of all ranks; null: over its own only.
  const SumOverRanks* ranks = nullptr;
};

class Tape {
 public:
  /// `dtype` is the type of activations, whatever the parameters' masters are stored in; see ops/kernels.h.
  Tape(const Kernels& kernels, Arena& step_arena, DType dtype, const PassOptions& pass)
      : k(kernels), arena(step_arena), dtype_(dtype), pass_(pass) {}

  const Kernels& k;
  Arena& arena;

  DType dtype() const { return dtype_; }                            ///< of activations
  DType parameter_dtype() const { return parameter_type(dtype_); }  ///< of parameters and statistics
  const PassOptions& pass() const { return pass_; }
  bool recording() const { return pass_.recording; }
  bool training() const { return pass_.training; }
  /// Whether batch normalisation goes by the batch at hand.
  bool batch_statistics() const { return pass_.training || pass_.batch_statistics; }
  RandomKey key(Purpose purpose, uint64_t id) const {
    return {pass_.seed, purpose, id, pass_.update, pass_.micro_batch};
  }

  /// An uninitialised tensor of activations.
  Tensor tensor(Shape shape) { return arena.tensor(shape, dtype_); }
  /// An uninitialised tensor in the parameters' type: statistics, results that are read out.
  Tensor parameter_tensor(Shape shape) { return arena.tensor(shape, parameter_dtype()); }
  /// A fresh result; it gets a gradient slot of the same type when recording.
  Var result(Shape shape) { return result_with_gradient(shape, dtype_); }
  /// The same for a computed weight, whose gradient collects in the parameters' type.
  Var weight_result(Shape shape) { return result_with_gradient(shape, parameter_dtype()); }
  /// Copies host indices to where kernels can read them, until the step arena is reset.
  const int32_t* upload(std::span<const int32_t> indices);

  /// Destination of a contribution to the gradient of `v`: memory and beta (0 for the first contribution).
  struct Slot {
    Tensor grad;
    int beta;
  };
  Slot slot(const Var& v);
  /// Makes memory that holds another gradient, which nobody reads as such any more, that of `v`, which has none yet.
  void take_over(const Var& v, const Tensor& memory, bool touched);
  /// As slot(), but zero-filled at first touch, for kernels that only ever add.
  Tensor accumulation_slot(const Var& v);
  static bool has_grad(const Var& v) { return v.slot != nullptr && v.slot->touched; }

  /// Registers a backward step. `f` is never destroyed: it may capture views and numbers only.
  template <typename F>
  void on_backward(F f) {
    static_assert(std::is_trivially_destructible_v<F>);
    if (!recording()) return;
    void* place = host_arena_.allocate(sizeof(F));
    steps_.push_back({new (place) F(f), [](void* p) { (*static_cast<F*>(p))(); }, slots_.size()});
  }

  /// Number of registered steps.
  size_t steps() const { return steps_.size(); }
  /// Runs the registered steps, last first; calls after_step(index) after each.
  template <typename F>
  void backward(F&& after_step) {
    for (size_t i = steps_.size(); i-- > 0;) {
      steps_[i].run(steps_[i].object);
      release_results(i);
      after_step(i);
    }
  }
  void backward() {
    backward([](size_t) {});
  }
  /// Forgets all steps and slots so that the object (and its memory) can serve the next micro-batch.
  void restart(const PassOptions& pass);
  /// Changes with every pass: lets weights cache their value within one.
  uint64_t pass_id() const { return pass_id_; }
  /// Says that the step arena has got something that the rest of the pass uses, too, and that must stay.
  void note_kept_value() { ++kept_values_; }
  int64_t kept_values() const { return kept_values_; }  ///< how often that was said

 private:
  struct Step {
    void* object;
    void (*run)(void*);
    size_t slots;  ///< of slots_ there were when the step was registered: its results' are the last ones
  };
  /// Memory of a gradient, and how many slots have it.
  struct Block {
    std::byte* data;
    size_t bytes;
    int holders;
  };
  Var result_with_gradient(Shape shape, DType grad);
  Tensor gradient_memory(Shape shape, DType dtype);
  Block* block_of(const Tensor& memory);
  void release_results(size_t step);

  DType dtype_;
  PassOptions pass_;
  static constexpr size_t kHostBlock = size_t{64} << 10;
  Arena host_arena_{host_memory(), kHostBlock};  // steps and gradient slots
  std::vector<Step> steps_;
  std::vector<GradientSlot*> slots_;  // of results, in the order of the forward pass
  std::vector<Block> blocks_;         // made by slot(); those without holders are given to the next that fits
  uint64_t pass_id_ = next_pass_id();
  int64_t kept_values_ = 0;
  static uint64_t next_pass_id();
};

}  // namespace qn
