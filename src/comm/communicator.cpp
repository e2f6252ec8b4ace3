#include "comm/communicator.h"

#include <algorithm>

#include "comm/mpi_communicator.h"
#include "core/error.h"

namespace qn {
namespace {

template <typename T>
void reduce_buckets(Communicator& comm, std::span<T> values, size_t bucket_bytes) {
  QN_CHECK(bucket_bytes >= sizeof(T), "a bucket of {} bytes is smaller than one element of {} bytes", bucket_bytes,
           sizeof(T));
  const size_t bucket = bucket_bytes / sizeof(T);
  for (size_t begin = 0; begin < values.size(); begin += bucket) {
    comm.all_reduce_sum(values.subspan(begin, std::min(bucket, values.size() - begin)));
  }
}

}  // namespace

std::string Communicator::broadcast_text(const std::string& text) {
  uint64_t size = text.size();
  broadcast(std::as_writable_bytes(std::span(&size, 1)));
  std::string result = is_root() ? text : std::string(size, '\0');
  broadcast(std::as_writable_bytes(std::span(result)));
  return result;
}

std::unique_ptr<Communicator> make_communicator() {
  return started_by_mpi_launcher() ? make_mpi_communicator() : make_local_communicator();
}

void all_reduce_in_buckets(Communicator& comm, std::span<float> values, size_t bucket_bytes) {
  reduce_buckets(comm, values, bucket_bytes);
}

void all_reduce_in_buckets(Communicator& comm, std::span<double> values, size_t bucket_bytes) {
  reduce_buckets(comm, values, bucket_bytes);
}

}  // namespace qn
