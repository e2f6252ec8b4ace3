// The functions of the CUDA runtime that the backend calls. A process computes on one emulated device; how many there
// are to choose from says QN_EMULATED_DEVICES (default: 1).
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "streams.h"

using namespace qn::emulation;

namespace {

std::map<const std::byte*, size_t> pinned;  // page-locked memory: copies read it when they run, not when they are asked

bool is_pinned(const void* p) {
  const auto* address = static_cast<const std::byte*>(p);
  const auto after = pinned.upper_bound(address);
  return after != pinned.begin() && address < std::prev(after)->first + std::prev(after)->second;
}

int selected_device = 0;

int devices() {
  const char* number = std::getenv("QN_EMULATED_DEVICES");
  return number == nullptr ? 1 : std::atoi(number);
}

cudaError_t allocate(void** p, size_t bytes) {
  *p = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (*p == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*p, 0xcd, bytes);
  return cudaSuccess;
}

}  // namespace

extern "C" {

cudaError_t cudaMalloc(void** p, size_t bytes) { return allocate(p, bytes); }
cudaError_t cudaFree(void* p) {
  finish_all();
  std::free(p);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** p, size_t bytes) {
  const cudaError_t status = allocate(p, bytes);
  pinned[static_cast<const std::byte*>(*p)] = bytes;
  return status;
}
cudaError_t cudaFreeHost(void* p) {
  finish_all();
  pinned.erase(static_cast<const std::byte*>(p));
  std::free(p);
  return cudaSuccess;
}
cudaError_t cudaMemset(void* p, int value, size_t bytes) {
  enqueue(nullptr, [=] { std::memset(p, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
  enqueue(stream, [=] { std::memset(p, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (kind == cudaMemcpyHostToDevice && !is_pinned(from)) {
    enqueue(stream,
            [=, copy = std::string(static_cast<const char*>(from), bytes)] { std::memcpy(to, copy.data(), bytes); });
  } else {
    enqueue(stream, [=] { std::memcpy(to, from, bytes); });
  }
  // Copies into memory that is not page-locked return when they are done.
  if (kind == cudaMemcpyDeviceToHost && !is_pinned(to)) finish(stream);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
  *free_bytes = *total = size_t{8} << 30;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* n) {
  *n = devices();
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = selected_device;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= devices()) return cudaErrorInvalidDevice;
  selected_device = device;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* id, int size, int device) {
  std::snprintf(id, static_cast<size_t>(size), "0000:%02x:00.0", static_cast<unsigned>(device));
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -1;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  std::memset(properties, 0, sizeof *properties);
  std::strcpy(properties->name, "emulated device");
  properties->multiProcessorCount = 1;
  properties->major = 9;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount            ? 1
           : attribute == cudaDevAttrMaxSharedMemoryPerBlockOptin ? static_cast<int>(kSharedLimit)
                                                                  : 0;
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  std::memset(attributes, 0, sizeof *attributes);
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute attribute, int value) {
  const bool fits = attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value <= static_cast<int>(kSharedLimit);
  return fits ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return "an error of the emulated device"; }
const char* cudaGetErrorName(cudaError_t) { return "emulated"; }
}
