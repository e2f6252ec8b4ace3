// The main function of every test program. Under launch/run -n N all ranks run all tests: rank 0 prints as usual, the
// others only report failures, and the program fails on every rank when it fails on one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <exception>
#include <memory>
#include <string>

#include "core/log.h"
#include "support/test_comm.h"

namespace qn::test {
namespace {

std::unique_ptr<Communicator> communicator;

/// Replaces the printer of ranks above 0.
class FailurePrinter : public testing::EmptyTestEventListener {
  void OnTestStart(const testing::TestInfo& test) override {
    // Kept here because asking GoogleTest for the current test while it reports a failure deadlocks.
    test_ = std::string(test.test_suite_name()) + "." + test.name();
  }
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "[rank %d] %s: %s:%d: %s\n", comm().rank(), test_.c_str(),
                 result.file_name() != nullptr ? result.file_name() : "", result.line_number(), result.message());
  }

  std::string test_ = "set-up";
};

/// A fatal failure leaves the test early while other ranks may wait for this one inside it: end all, never hang.
class FatalFailureEndsTheJob : public testing::EmptyTestEventListener {
  void OnTestEnd(const testing::TestInfo& test) override {
    if (!test.result()->HasFatalFailure()) return;
    std::fprintf(stderr, "[rank %d] %s.%s left early: ending all ranks\n", comm().rank(), test.test_suite_name(),
                 test.name());
    std::fflush(nullptr);
    comm().abort(1);
  }
};

void listen_to_ranks() {
  testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
  if (comm().size() == 1) return;
  if (!comm().is_root()) {
    delete listeners.Release(listeners.default_result_printer());
    delete listeners.Release(listeners.default_xml_generator());
    listeners.Append(new FailurePrinter);
  }
  listeners.Append(new FatalFailureEndsTheJob);
}

int run() {
  const int failed = RUN_ALL_TESTS() != 0 ? 1 : 0;
  const int64_t failed_ranks = comm().all_reduce_sum_value(int64_t{failed});
  const testing::UnitTest& tests = *testing::UnitTest::GetInstance();
  const bool all_skipped = tests.test_to_run_count() > 0 && tests.skipped_test_count() == tests.test_to_run_count();
  if (comm().is_root()) {
    if (failed == 0 && failed_ranks > 0) std::printf("failed on %d other ranks\n", static_cast<int>(failed_ranks));
    if (failed_ranks == 0 && all_skipped) std::printf("QN_ALL_TESTS_SKIPPED\n");
  }
  return failed_ranks > 0 ? 1 : 0;
}

}  // namespace

Communicator& comm() { return *communicator; }

}  // namespace qn::test

int main(int argc, char** argv) try {
  testing::InitGoogleMock(&argc, argv);
  qn::test::communicator = qn::make_communicator();
  qn::init_logging(qn::test::comm().rank(), qn::test::comm().size(), "warn");
  qn::test::listen_to_ranks();
  const int status = qn::test::run();
  qn::test::communicator.reset();
  return status;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
