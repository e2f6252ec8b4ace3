#include "comm/transport_guard.h"

#include <mutex>
#include <utility>
#include <vector>

namespace qn {
namespace {

std::mutex mutex;
std::vector<const TransportGuard*> guards;

}  // namespace

TransportGuard::TransportGuard(std::function<std::string()> problem, std::function<void()> abort)
    : problem_(std::move(problem)), abort_(std::move(abort)) {
  const std::lock_guard lock(mutex);
  guards.push_back(this);
}

TransportGuard::~TransportGuard() {
  const std::lock_guard lock(mutex);
  std::erase(guards, this);
}

std::string transport_problem() {
  const std::lock_guard lock(mutex);
  for (const TransportGuard* guard : guards)
    if (std::string text = guard->problem_(); !text.empty()) return text;
  return {};
}

void abort_transports() {
  const std::lock_guard lock(mutex);
  for (const TransportGuard* guard : guards) guard->abort_();
}

}  // namespace qn
