#include "ops/cuda/backend.h"

#include "ops/cuda/check.h"
#include "ops/cuda/context.h"
#include "ops/cuda/cuda_kernels.h"
#include "ops/cuda/matmul_plans.h"

namespace qn {
namespace {

std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

/// Devices that the driver shows, or why it does not.
struct Found {
  int devices = 0;
  std::string problem;
};

Found find_devices() {
  int devices = 0, driver = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  cudaGetLastError();  // an error here is an answer, not one to report later
  if (status == cudaSuccess && devices > 0) return {devices, {}};
  cudaDriverGetVersion(&driver);
  if (driver == 0) return {0, "there is no NVIDIA driver on this machine: compute on the CPU"};
  if (status == cudaErrorInsufficientDriver)
    return {0, fmt::format("the NVIDIA driver supports CUDA {}, this program was built with {}: update the driver, or "
                           "build with an older toolkit",
                           version_text(driver), version_text(CUDART_VERSION))};
  if (status == cudaErrorNoDevice || status == cudaSuccess)
    return {0, "the NVIDIA driver shows no GPU: look at `nvidia-smi` and the variable CUDA_VISIBLE_DEVICES"};
  return {0, fmt::format("the NVIDIA driver answers: {} ({})", cudaGetErrorString(status), cudaGetErrorName(status))};
}

const Found& found() {
  static const Found result = find_devices();
  return result;
}

/// Asks for one of our kernels: the only sure way to learn whether the program has code for the device.
void check_code_for(int device) {
  cudaDeviceProp properties{};
  QN_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
  QN_CHECK(cuda::has_code_for_device(),
           "this program has no code for GPU {} ({}, compute capability {}.{}): build it with "
           "-DCMAKE_CUDA_ARCHITECTURES={}{}",
           device, properties.name, properties.major, properties.minor, properties.major, properties.minor);
}

}  // namespace

int cuda_device_count() { return found().devices; }
std::string cuda_problem() { return found().problem; }

void select_cuda_device(int device) {
  QN_CHECK(found().problem.empty(), "{}", found().problem);
  QN_CHECK(device >= 0 && device < found().devices, "there is no GPU {}: this machine shows {}, counted from 0", device,
           found().devices);
  QN_CUDA_CHECK(cudaSetDevice(device));
  check_code_for(device);
}

void* cuda_stream() {
  QN_CHECK(found().problem.empty(), "{}", found().problem);
  return cuda::Context::current().stream();
}

void allow_tf32(bool allow) { cuda::MatmulPlans::set_tf32(allow); }

void cuda_copy(void* to, const void* from, size_t bytes) {
  QN_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, static_cast<cudaStream_t>(cuda_stream())));
}

double cuda_fma_gflops() {
  QN_CHECK(found().problem.empty(), "{}", found().problem);
  int device = 0, processors = 0, kilohertz = 0, major = 0, minor = 0;
  QN_CUDA_CHECK(cudaGetDevice(&device));
  QN_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  QN_CUDA_CHECK(cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, device));
  QN_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  QN_CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  // Lanes of a multiprocessor: the programming guide's table of arithmetic throughput.
  const int lanes = major * 10 + minor <= 80 ? 64 : 128;
  return 2.0 * lanes * processors * kilohertz * 1e-6;
}

DeviceMemory cuda_memory_use() {
  QN_CHECK(found().problem.empty(), "{}", found().problem);
  DeviceMemory use;
  QN_CUDA_CHECK(cudaMemGetInfo(&use.free, &use.total));
  use.scratch = cuda::Context::current().scratch().capacity();
  return use;
}

const Kernels& cuda_kernels() {
  static const Kernels* const table = [] {
    QN_CHECK(found().problem.empty(), "{}", found().problem);
    int device = 0;
    QN_CUDA_CHECK(cudaGetDevice(&device));
    check_code_for(device);
    return &cuda::table();
  }();
  return *table;
}

}  // namespace qn
