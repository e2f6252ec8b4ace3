// The functions of NCCL that the communicator calls, between the emulated devices of MPI ranks. A call says
// ncclInProgress and queues its work only when the state has been asked for a few times: who does not ask is too late.
// Messages travel through a communicator of their own: work that runs late must not meet another collective.
#include <mpi.h>
#include <nccl.h>

#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

#include "streams.h"

using namespace qn::emulation;

struct ncclComm {
  MPI_Comm mpi = MPI_COMM_NULL;  ///< none for a process without ranks
  Work pending;                  ///< what the last call is to do
  int asked = 0, queued = 0;
  std::thread::id thread = std::this_thread::get_id();
};

namespace {

constexpr int kPolls = 3;  // questions that a call takes

ncclResult_t begin(ncclComm_t comm, Work work) {
  if (comm == nullptr) return ncclInvalidArgument;
  if (comm->pending) return ncclInvalidUsage;  // the call before is still in progress
  comm->pending = std::move(work);
  comm->asked = 0;
  return ncclInProgress;
}

/// Queues `work` on the stream. A device may do it at any time: here every second time at once, else as late as
/// allowed.
void queue(ncclComm_t comm, cudaStream_t stream, Work work) {
  if (comm->mpi != MPI_COMM_NULL) enqueue(stream, std::move(work));
  if (++comm->queued % 2 == 0) finish(stream);
}

}  // namespace

extern "C" {

/// As QN_EMULATED_NCCL_VERSION says it.
ncclResult_t ncclGetVersion(int* version) {
  const char* other = std::getenv("QN_EMULATED_NCCL_VERSION");
  *version = other != nullptr ? std::atoi(other) : NCCL_VERSION_CODE;
  return ncclSuccess;
}
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::memset(id, 0x5a, sizeof *id);
  return ncclSuccess;
}
ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t* config) {
  int mpi = 0, size = 1, own = 0;
  MPI_Initialized(&mpi);
  if (mpi != 0) {
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Comm_rank(MPI_COMM_WORLD, &own);
  }
  if (id.internal[7] != 0x5a || config->blocking != 0 || size != ranks || own != rank) return ncclInvalidArgument;
  *comm = new ncclComm;
  return begin(*comm, [made = *comm, mpi] {
    if (mpi != 0) MPI_Comm_dup(MPI_COMM_WORLD, &made->mpi);
  });
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  if (comm == nullptr) return ncclInvalidArgument;
  // The watchdog asks as well, from a thread that may not call MPI.
  const bool computing_thread = std::this_thread::get_id() == comm->thread;
  if (comm->pending && computing_thread && ++comm->asked >= kPolls) std::exchange(comm->pending, nullptr)();
  *state = comm->pending ? ncclInProgress : ncclSuccess;
  return ncclSuccess;
}
ncclResult_t ncclAllReduce(const void* from, void* to, size_t count, ncclDataType_t type, ncclRedOp_t operation,
                           ncclComm_t comm, cudaStream_t stream) {
  if (from != to || operation != ncclSum || (type != ncclFloat32 && type != ncclFloat64)) return ncclInvalidArgument;
  const MPI_Datatype mpi_type = type == ncclFloat64 ? MPI_DOUBLE : MPI_FLOAT;
  const auto sum = [=] { MPI_Allreduce(MPI_IN_PLACE, to, static_cast<int>(count), mpi_type, MPI_SUM, comm->mpi); };
  return begin(comm, [=] { queue(comm, stream, sum); });
}
ncclResult_t ncclBroadcast(const void* from, void* to, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
  if (from != to || type != ncclUint8 || root != 0) return ncclInvalidArgument;
  const auto copy = [=] { MPI_Bcast(to, static_cast<int>(count), MPI_BYTE, 0, comm->mpi); };
  return begin(comm, [=] { queue(comm, stream, copy); });
}
ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  return begin(comm, [] { finish_all(); });
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  if (comm->mpi != MPI_COMM_NULL) MPI_Comm_free(&comm->mpi);
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  delete comm;  // MPI may not be called: this may be the watchdog's thread
  return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t status) { return status == ncclSuccess ? "no error" : "emulated error"; }
const char* ncclGetLastError(ncclComm_t) { return ""; }
}
