#include "streams.h"

#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <vector>

namespace qn::emulation {
namespace {

struct Stream;

/// A graph is a list: captured streams have one order of work here.
struct Graph {
  std::vector<Work> work;
  bool valid = true;
};

struct Stream {
  std::deque<Work> queue;
  uint64_t queued = 0, done = 0;
  std::unique_ptr<Graph> capture;
};

struct Event {
  Stream* stream = nullptr;
  uint64_t position = 0;
};

Stream legacy_stream;  // nullptr of the runtime's functions
std::set<Stream*> streams{&legacy_stream};
int64_t waits = 0;

Stream& stream_of(cudaStream_t stream) {
  return stream == nullptr ? legacy_stream : *reinterpret_cast<Stream*>(stream);
}

void run_until(Stream& stream, uint64_t position) {
  while (stream.done < position) {
    const Work work = std::move(stream.queue.front());
    stream.queue.pop_front();
    work();
    ++stream.done;
  }
}

/// The host wants to wait: what is being captured is of no use from then on, and the wait is an error.
bool spoil_capture(const Stream& stream) {
  if (stream.capture) stream.capture->valid = false;
  return stream.capture != nullptr;
}

}  // namespace

void enqueue(cudaStream_t stream, Work work) {
  Stream& s = stream_of(stream);
  if (s.capture) return s.capture->work.push_back(std::move(work));
  s.queue.push_back(std::move(work));
  ++s.queued;
}

void finish(cudaStream_t stream) {
  Stream& s = stream_of(stream);
  if (s.capture) refuse("the host waits for a stream that is being captured");
  ++waits;
  run_until(s, s.queued);
}

void finish_all() {
  ++waits;
  for (Stream* s : streams) run_until(*s, s->queued);
}

int64_t host_waits() { return waits; }

int64_t work_under_way() {
  int64_t work = 0;
  for (const Stream* s : streams) work += static_cast<int64_t>(s->queue.size());
  return work;
}

bool capturing(cudaStream_t stream) { return stream_of(stream).capture != nullptr; }

}  // namespace qn::emulation

using namespace qn::emulation;

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  auto* s = new Stream;
  streams.insert(s);
  *stream = reinterpret_cast<cudaStream_t>(s);
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (spoil_capture(stream_of(stream))) return cudaErrorStreamCaptureUnsupported;
  finish(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  finish(stream);
  streams.erase(&stream_of(stream));
  delete &stream_of(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Event e = *reinterpret_cast<const Event*>(event);
  if (e.stream != nullptr) enqueue(stream, [e] { run_until(*e.stream, e.position); });
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  finish_all();
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(new Event);
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete reinterpret_cast<Event*>(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  Stream& s = stream_of(stream);
  *reinterpret_cast<Event*>(event) = {&s, s.queued};
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  ++waits;
  const Event e = *reinterpret_cast<const Event*>(event);
  if (e.stream != nullptr && spoil_capture(*e.stream)) return cudaErrorCapturedEvent;
  if (e.stream != nullptr) run_until(*e.stream, e.position);
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Event e = *reinterpret_cast<const Event*>(event);
  return e.stream == nullptr || e.stream->done >= e.position ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream == nullptr || capturing(stream)) return cudaErrorStreamCaptureInvalidated;
  stream_of(stream).capture = std::make_unique<Graph>();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  std::unique_ptr<Graph> captured = std::move(stream_of(stream).capture);
  const bool valid = captured != nullptr && captured->valid;
  *graph = valid ? reinterpret_cast<cudaGraph_t>(captured.release()) : nullptr;
  return valid ? cudaSuccess : cudaErrorStreamCaptureInvalidated;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<const Graph*>(graph)));
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete reinterpret_cast<Graph*>(graph);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete reinterpret_cast<Graph*>(executable);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  for (const Work& work : reinterpret_cast<const Graph*>(executable)->work) enqueue(stream, work);
  return cudaSuccess;
}
}
