// Collectives over the ranks of a job. Typed spans only: no caller passes a count, a type or a byte size.
// Implementations: local (one process), MPI. All ranks must make the same calls in the same order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace qn {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const char* name() const = 0;  ///< "local", "mpi"

  /// Element-wise sums over all ranks, in place; every rank ends with the same bits.
  virtual void all_reduce_sum(std::span<float> values) = 0;
  virtual void all_reduce_sum(std::span<double> values) = 0;
  virtual void all_reduce_sum(std::span<int64_t> values) = 0;
  /// Starts a sum that may go on while this thread computes: the values must not be touched before
  /// finish_all_reduces(). All ranks must start the same sums in the same order, and no other collective in between.
  virtual void start_all_reduce_sum(std::span<float> values) { all_reduce_sum(values); }
  virtual void start_all_reduce_sum(std::span<double> values) { all_reduce_sum(values); }
  /// Lets started sums go on, for transports that need the caller's thread for it.
  virtual void poll() {}
  virtual void finish_all_reduces() {}
  /// Element-wise maxima over all ranks, in place.
  virtual void all_reduce_max(std::span<double> values) = 0;

  /// Copies rank 0's bytes to every rank, in place; any size (also above 2 GiB).
  virtual void broadcast(std::span<std::byte> bytes) = 0;
  virtual void barrier() = 0;
  /// Every rank's string, in rank order, on every rank.
  virtual std::vector<std::string> all_gather(const std::string& text) = 0;

  /// Ends the job on all ranks at once: for errors that only one rank sees. Does not return under MPI.
  virtual void abort(int exit_code) = 0;

  template <typename T>
  T all_reduce_sum_value(T value) {
    all_reduce_sum(std::span<T>(&value, 1));
    return value;
  }
  /// Rank 0's text on every rank.
  std::string broadcast_text(const std::string& text);
  bool is_root() const { return rank() == 0; }
};

/// The communicator of one process.
std::unique_ptr<Communicator> make_local_communicator();

/// MPI when the process was started by mpirun or srun (with PMI), local otherwise. Owns MPI_Init and MPI_Finalize:
/// create one per process and keep it until the end of main.
std::unique_ptr<Communicator> make_communicator();

/// Sums a long vector in buckets of `bucket_bytes`, in place: the best size belongs to the transport, so it is an
/// option.
void all_reduce_in_buckets(Communicator& comm, std::span<float> values, size_t bucket_bytes);
void all_reduce_in_buckets(Communicator& comm, std::span<double> values, size_t bucket_bytes);

}  // namespace qn
