/* In place of NCCL where a machine has none: programs start, and every use is an error. */
#define FAILS(name) \
  int name(void) { return 2; }
FAILS(ncclAllReduce)
FAILS(ncclBroadcast)
FAILS(ncclCommAbort)
FAILS(ncclCommDestroy)
FAILS(ncclCommFinalize)
FAILS(ncclCommGetAsyncError)
FAILS(ncclCommInitRankConfig)
FAILS(ncclGetUniqueId)
FAILS(ncclGetVersion)
const char* ncclGetErrorString(void) { return "no NCCL here"; }
const char* ncclGetLastError(void) { return "no NCCL here"; }
