// Streams, events and graphs of the emulated device.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

#include "device.h"

namespace qn::emulation {

using Work = std::function<void()>;

/// Queues work on a stream; while the stream is being captured, it becomes part of the graph instead. Work runs when
/// something waits for it.
void enqueue(cudaStream_t stream, Work work);
/// Runs everything queued on a stream, or on all of them.
void finish(cudaStream_t stream);
void finish_all();
bool capturing(cudaStream_t stream);
/// How often the host has waited for the device so far.
int64_t host_waits();
/// Work that is queued and not done, on all streams.
int64_t work_under_way();

}  // namespace qn::emulation
