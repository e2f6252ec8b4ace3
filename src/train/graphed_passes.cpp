#include "train/graphed_passes.h"

namespace qn {
namespace {

// A graph of a large model takes some MiB of the device. Passes come in a few shapes; if there are ever more, all start
// anew.
constexpr size_t kMaxGraphs = 64, kMaxSeen = 4096;
// Where so many more passes had to be computed than could be launched, going through them first costs more than graphs
// save: with LayerDrop, a network of many layers hardly ever comes in the same shape twice.
constexpr int64_t kPatience = 128;

std::vector<bool> touched_gradients(const ParameterStore& store) {
  std::vector<bool> touched;
  for (const auto& p : store.all()) touched.push_back(p->slot.touched);
  return touched;
}

void set_touched_gradients(const ParameterStore& store, const std::vector<bool>& touched) {
  for (size_t i = 0; i < touched.size(); ++i) store.all()[i]->slot.touched = touched[i];
}

}  // namespace

GraphedPasses::GraphedPasses(const Kernels& kernels, Arena& arena, DType dtype, ParameterStore& store)
    : kernels_(kernels),
      arena_(arena),
      store_(store),
      dry_(kernels),
      dry_tape_(dry_.kernels(), arena, dtype, {}),
      tape_(kernels, arena, dtype, {}) {
  QN_ASSERT(kernels.graphs != nullptr);
}

GraphedPasses::~GraphedPasses() { release_graphs(); }

void GraphedPasses::release_graphs() {
  for (const auto& [signature, graph] : graphs_) kernels_.graphs->release(graph);
  graphs_.clear();
}

void GraphedPasses::compute(const PassOptions& options, const std::function<void(Tape&)>& pass) {
  arena_.reset();
  tape_.restart(options);
  pass(tape_);
}

void* GraphedPasses::record(const PassOptions& options, const std::function<void(Tape&)>& pass) {
  kernels_.graphs->begin();
  try {
    compute(options, pass);
  } catch (...) {
    // The stream must leave the recording. What failed first is the error to tell of: an abandoned recording has
    // others.
    kernels_.graphs->abandon();
    throw;
  }
  return kernels_.graphs->end();
}

void GraphedPasses::compute_only(const PassOptions& options, const std::function<void(Tape&)>& pass) {
  compute(options, pass);
  ++counts_.computed;
  arena_.reset();
}

void GraphedPasses::run(const PassOptions& options, const std::function<void(Tape&)>& pass) {
  if (counts_.computed - counts_.launched >= kPatience) {
    release_graphs();
    return compute_only(options, pass);
  }
  const std::vector<bool> touched = touched_gradients(store_);
  arena_.reset();
  dry_tape_.restart(options);
  dry_.begin();
  pass(dry_tape_);
  const uint64_t signature = dry_.signature();
  if (seen_.size() >= kMaxSeen) seen_.clear();
  if (!graphs_.contains(signature) && seen_.insert(signature).second) {
    set_touched_gradients(store_, touched);
    return compute_only(options, pass);
  }
  if (!graphs_.contains(signature)) {
    if (graphs_.size() >= kMaxGraphs) release_graphs();
    set_touched_gradients(store_, touched);
    graphs_[signature] = record(options, pass);
    ++counts_.recorded;
  }
  kernels_.graphs->launch(graphs_.at(signature), options.update, options.micro_batch);
  ++counts_.launched;
  arena_.reset();
}

}  // namespace qn
