// What the watchdog (comm/watchdog.h) may do to a transport such as NCCL.
#pragma once

#include <functional>
#include <string>

namespace qn {

/// Lets the watchdog look after a transport for as long as this object lives. Both functions are called from the
/// watchdog's thread: `problem` about once a second (what is wrong, completing "rank 1 ..."; empty: nothing), `abort`
/// before the process ends, which it does a few seconds later even if `abort` hangs.
class TransportGuard {
 public:
  TransportGuard(std::function<std::string()> problem, std::function<void()> abort);
  ~TransportGuard();
  TransportGuard(const TransportGuard&) = delete;
  TransportGuard& operator=(const TransportGuard&) = delete;

 private:
  friend std::string transport_problem();
  friend void abort_transports();
  std::function<std::string()> problem_;
  std::function<void()> abort_;
};

/// The first problem that one of the process's transports has; empty: none.
std::string transport_problem();
void abort_transports();

}  // namespace qn
