#include "comm/mpi_communicator.h"

#include <mpi.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <limits>
#include <numeric>

#include "core/activity.h"
#include "core/error.h"

namespace qn {
namespace {

// MPI counts are int; every chunk stays well below 2^31 bytes because some transports count bytes in int, too.
constexpr size_t kChunkBytes = size_t{1} << 30;

void mpi_check(int status, const char* call) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(status, text, &length);
  fail("{} failed: {}", call, std::string(text, static_cast<size_t>(length)));
}
#define QN_MPI_CHECK(call) mpi_check(call, #call)

/// A positive number from the environment, or 0.
int environment_int(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? 0 : std::atoi(text);
}

/// How many processes the launcher says it started; 0 when it does not say.
int launched_processes() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    if (const int size = environment_int(name); size > 0) return size;
  }
  return 0;
}

template <typename T>
struct MpiType;
template <>
struct MpiType<float> {
  static MPI_Datatype get() { return MPI_FLOAT; }
};
template <>
struct MpiType<double> {
  static MPI_Datatype get() { return MPI_DOUBLE; }
};
template <>
struct MpiType<int64_t> {
  static MPI_Datatype get() { return MPI_INT64_T; }
};

/// Calls `function` with consecutive parts of `values` that MPI can count.
template <typename T, typename Function>
void in_chunks(std::span<T> values, Function function) {
  constexpr size_t chunk = kChunkBytes / sizeof(T);
  for (size_t begin = 0; begin < values.size(); begin += chunk) {
    const std::span<T> part = values.subspan(begin, std::min(chunk, values.size() - begin));
    function(part.data(), static_cast<int>(part.size()));
  }
}

class MpiCommunicator : public Communicator {
 public:
  MpiCommunicator() {
    int initialized = 0;
    QN_MPI_CHECK(MPI_Initialized(&initialized));
    QN_CHECK(initialized == 0, "MPI is already running: create one communicator per process");
    int provided = 0;
    QN_MPI_CHECK(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided));
    QN_MPI_CHECK(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    QN_MPI_CHECK(MPI_Comm_rank(MPI_COMM_WORLD, &rank_));
    QN_MPI_CHECK(MPI_Comm_size(MPI_COMM_WORLD, &size_));
    QN_CHECK(provided >= MPI_THREAD_FUNNELED, "this MPI library does not support threads (MPI_THREAD_FUNNELED)");
    // Without a common PMI, srun starts N jobs of one rank each, and all of them would write the same files.
    QN_CHECK(size_ >= launched_processes(),
             "the launcher started {} processes, MPI sees {}: start the job with mpirun, or with srun --mpi=pmix",
             launched_processes(), size_);
  }

  ~MpiCommunicator() override {
    // During an exception the other ranks are elsewhere: MPI_Finalize would wait for them, and a process that leaves
    // without it makes the launcher end them.
    if (std::uncaught_exceptions() == 0) MPI_Finalize();
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const char* name() const override { return "mpi"; }

  void all_reduce_sum(std::span<float> values) override { all_reduce(values, MPI_SUM); }
  void all_reduce_sum(std::span<double> values) override { all_reduce(values, MPI_SUM); }
  void all_reduce_sum(std::span<int64_t> values) override { all_reduce(values, MPI_SUM); }
  void all_reduce_max(std::span<double> values) override { all_reduce(values, MPI_MAX); }

  void start_all_reduce_sum(std::span<float> values) override { start_all_reduce(values); }
  void start_all_reduce_sum(std::span<double> values) override { start_all_reduce(values); }
  void poll() override {
    if (pending_.empty()) return;
    int done = 0;
    QN_MPI_CHECK(MPI_Testall(static_cast<int>(pending_.size()), pending_.data(), &done, MPI_STATUSES_IGNORE));
    if (done != 0) pending_.clear();
  }
  void finish_all_reduces() override {
    const WaitingScope waiting("all-reduce");
    QN_MPI_CHECK(MPI_Waitall(static_cast<int>(pending_.size()), pending_.data(), MPI_STATUSES_IGNORE));
    pending_.clear();
  }

  void broadcast(std::span<std::byte> bytes) override {
    const CollectiveScope collective("broadcast");
    in_chunks(bytes,
              [](std::byte* data, int count) { QN_MPI_CHECK(MPI_Bcast(data, count, MPI_BYTE, 0, MPI_COMM_WORLD)); });
  }

  void barrier() override {
    const CollectiveScope collective("barrier");
    QN_MPI_CHECK(MPI_Barrier(MPI_COMM_WORLD));
  }

  std::vector<std::string> all_gather(const std::string& text) override {
    const CollectiveScope collective("all-gather");
    const auto ranks = static_cast<size_t>(size_);
    std::vector<int64_t> lengths(ranks);
    const auto mine = static_cast<int64_t>(text.size());
    QN_MPI_CHECK(MPI_Allgather(&mine, 1, MPI_INT64_T, lengths.data(), 1, MPI_INT64_T, MPI_COMM_WORLD));
    const int64_t total = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
    QN_CHECK(total <= std::numeric_limits<int>::max(), "texts of {} bytes in total are too long to gather", total);
    std::vector<int> counts(lengths.begin(), lengths.end()), offsets(ranks);
    std::exclusive_scan(counts.begin(), counts.end(), offsets.begin(), 0);
    std::string all(static_cast<size_t>(total), '\0');
    QN_MPI_CHECK(MPI_Allgatherv(text.data(), counts[static_cast<size_t>(rank_)], MPI_CHAR, all.data(), counts.data(),
                                offsets.data(), MPI_CHAR, MPI_COMM_WORLD));
    std::vector<std::string> texts;
    for (size_t r = 0; r < ranks; ++r) {
      texts.push_back(all.substr(static_cast<size_t>(offsets[r]), static_cast<size_t>(counts[r])));
    }
    return texts;
  }

  void abort(int exit_code) override { MPI_Abort(MPI_COMM_WORLD, exit_code); }

 private:
  // Open MPI's all-reduce algorithms either add the same pairs on all ranks (a + b and b + a are the same bits) or
  // compute each element on one rank and pass it on, so all ranks end with the same bits.
  template <typename T>
  void all_reduce(std::span<T> values, MPI_Op operation) {
    const CollectiveScope collective("all-reduce");
    in_chunks(values, [operation](T* data, int count) {
      QN_MPI_CHECK(MPI_Allreduce(MPI_IN_PLACE, data, count, MpiType<T>::get(), operation, MPI_COMM_WORLD));
    });
  }

  template <typename T>
  void start_all_reduce(std::span<T> values) {
    const CollectiveScope collective("all-reduce");
    in_chunks(values, [this](T* data, int count) {
      MPI_Request request;
      QN_MPI_CHECK(MPI_Iallreduce(MPI_IN_PLACE, data, count, MpiType<T>::get(), MPI_SUM, MPI_COMM_WORLD, &request));
      pending_.push_back(request);
    });
  }

  std::vector<MPI_Request> pending_;
  int rank_ = 0, size_ = 1;
};

}  // namespace

bool started_by_mpi_launcher() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return environment_int("SLURM_STEP_NUM_TASKS") > 1;
}

std::unique_ptr<Communicator> make_mpi_communicator() { return std::make_unique<MpiCommunicator>(); }

}  // namespace qn
