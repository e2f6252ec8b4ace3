#include "ops/cuda/graphs.h"

#include <array>

#include "ops/cuda/check.h"
#include "ops/cuda/context.h"

namespace qn::cuda {
namespace {

void begin() {
  Context& context = Context::current();
  // Relaxed: other threads (the watchdog, a writer of checkpoints) go on using the device.
  QN_CUDA_CHECK(cudaStreamBeginCapture(context.stream(), cudaStreamCaptureModeRelaxed));
  context.set_recording(true);
}

void* end() {
  Context& context = Context::current();
  context.set_recording(false);
  cudaGraph_t graph = nullptr;
  QN_CUDA_CHECK(cudaStreamEndCapture(context.stream(), &graph));
  cudaGraphExec_t executable = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
  QN_CUDA_CHECK(cudaGraphDestroy(graph));
  QN_CUDA_CHECK(status);
  return executable;
}

void abandon() {
  Context& context = Context::current();
  context.set_recording(false);
  cudaGraph_t graph = nullptr;
  if (cudaStreamEndCapture(context.stream(), &graph) == cudaSuccess) cudaGraphDestroy(graph);
  cudaGetLastError();  // what it says of the recording must not be taken for an error of the next call
}

void launch_graph(void* graph, uint32_t update, uint32_t micro_batch) {
  Context& context = Context::current();
  const std::array<uint32_t, 2> numbers{update, micro_batch};
  context.upload(context.pass_numbers(), numbers.data(), sizeof numbers);
  QN_CUDA_CHECK(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), context.stream()));
}

/// Never throws: it runs in destructors.
void release(void* graph) { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)); }

}  // namespace

const GraphSupport& graph_support() {
  static const GraphSupport support{begin, end, abandon, launch_graph, release};
  return support;
}

}  // namespace qn::cuda
