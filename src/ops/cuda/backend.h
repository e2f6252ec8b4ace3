// The CUDA backend as the rest of the program sees it. Without a CUDA build the functions are there all the same and
// say so.
#pragma once

#include <string>

#include "ops/device.h"

namespace qn {

/// Devices that this program can compute on; 0 when there is none, or when cuda_problem() has something to say.
int cuda_device_count();
/// Why there is no device, and what to do about it; empty when there is one.
std::string cuda_problem();

/// Lets the calling thread compute on this device (0 .. cuda_device_count() - 1); 0 otherwise. Call it before the
/// thread's first kernel. Throws qn::Error when there is no such device or the program has no code for it.
void select_cuda_device(int device);
/// f32 matrix products round their operands to TF32 (10 bits of mantissa): several times as fast, less exact. Off at
/// first; applies to all threads.
void allow_tf32(bool allow);

/// The stream (a cudaStream_t) that the calling thread's kernels are queued on, for what has to be ordered with them.
void* cuda_stream();
/// Queues a copy within the device's memory as the driver does it: what kernels that move bytes compare with. Throws
/// qn::Error when there is no device.
void cuda_copy(void* to, const void* from, size_t bytes);
/// Float32 multiply-adds that the calling thread's device could do at its highest clock, in GFLOP/s (two each): the
/// limit that reports compare with. Throws qn::Error when there is no device.
double cuda_fma_gflops();
/// Of the calling thread's device. Throws qn::Error when there is no device.
DeviceMemory cuda_memory_use();

/// For people: how products of so many tokens with a matrix of codes are computed there. Throws qn::Error in programs
/// built without CUDA.
std::string cuda_codes_path(const CodeMatrix& weight, int64_t tokens, DType dtype);

/// The CUDA backend. Kernels are queued on a stream of the calling thread; download() and wait() wait for
/// them. Throws qn::Error with cuda_problem() when there is no device.
const Kernels& cuda_kernels();

}  // namespace qn
