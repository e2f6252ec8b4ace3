// Totals that add up to the last nanosecond, a bounded trace that parses, and nothing allocated while recording.
#include "core/profiler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/profile_report.h"

namespace {
int64_t allocations = 0;
}

// Not inlined: GCC would take malloc() and free() inside them for mismatched pairs.
[[gnu::noinline]] void* operator new(size_t bytes) {
  ++allocations;
  if (void* p = std::malloc(bytes)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(bytes);
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace qn::test {
namespace {

using Json = nlohmann::json;

int64_t clock_ns = 0;
int64_t test_clock() { return clock_ns; }
constexpr const char* kOps[] = {"one", "two"};

void op(Profiler& profiler, int32_t number, int64_t ns, const Work& work = {}) {
  const int64_t start = profiler.now();
  clock_ns += ns;
  profiler.record_op(number, start, work);
}

/// 10 ns of start-up, then an update with everything; 1110 ns together.
void small_run(Profiler& profiler) {
  clock_ns += 10;
  const ProfileScope update(Phase::update, 7);
  clock_ns += 100;
  {
    const ProfileScope forward(Phase::forward);
    op(profiler, 0, 200, {.flops = 600.0});
    clock_ns += 50;
    const ProfileScope nested(Phase::checkpoint);
    clock_ns += 250;
  }
  const ProfileScope backward(Phase::backward);
  op(profiler, 0, 300, {.flops = 600.0});
  op(profiler, 1, 200, {.bytes = 400.0});
}

TEST(Profiler, TotalsAddUp) {
  clock_ns = 5000;
  Profiler profiler(100, test_clock);
  profiler.name_ops(kOps);
  small_run(profiler);
  clock_ns += 30;
  const auto phases = profiler.phases();
  const auto phase = [&](Phase p) { return phases[static_cast<size_t>(p)]; };
  EXPECT_EQ(phase(Phase::other).ns, 40);
  EXPECT_EQ(phase(Phase::update).ns, 100);
  EXPECT_EQ(phase(Phase::update).count, 1);
  EXPECT_EQ(phase(Phase::forward).ns, 250);
  EXPECT_EQ(phase(Phase::forward).ops_ns, 200);
  EXPECT_EQ(phase(Phase::checkpoint).ns, 250);
  EXPECT_EQ(phase(Phase::backward).ns, 500);
  EXPECT_EQ(phase(Phase::backward).ops_ns, 500);
  int64_t sum = 0;
  for (const PhaseTotal& p : phases) sum += p.ns;
  EXPECT_EQ(sum, clock_ns - 5000);
  EXPECT_EQ(profiler.ops()[0].elsewhere.ns, 200);
  EXPECT_EQ(profiler.ops()[0].backward.ns, 300);
  EXPECT_EQ(profiler.ops()[0].backward.calls, 1);
  EXPECT_EQ(profiler.ops()[1].backward.work.bytes, 400.0);
  EXPECT_EQ(profiler.ops()[1].elsewhere.calls, 0);
}

TEST(Profiler, TraceIsJsonWithNestedEvents) {
  clock_ns = 0;
  Profiler profiler(100, test_clock);
  profiler.name_ops(kOps);
  small_run(profiler);
  const Json trace = Json::parse(profile_trace(profiler, 3));
  EXPECT_EQ(trace["otherData"]["kept"], "all 7 events");
  EXPECT_DOUBLE_EQ(trace["totals"]["ms"].get<double>(), 1110e-6);
  EXPECT_EQ(trace["totals"]["phases"].size(), kPhases);
  EXPECT_EQ(trace["totals"]["ops"]["one"]["backward"]["flops"], 600);
  std::map<std::string, Json> by_name;
  for (const Json& event : trace["traceEvents"]) {
    EXPECT_EQ(event["pid"], 3);
    if (event["ph"] == "X") by_name[event["name"]] = event;
  }
  EXPECT_EQ(by_name.size(), 6U);
  EXPECT_EQ(by_name["update"]["args"]["number"], 7);
  EXPECT_DOUBLE_EQ(by_name["update"]["ts"].get<double>(), 0.01);
  EXPECT_DOUBLE_EQ(by_name["update"]["dur"].get<double>(), 1.1);
  EXPECT_EQ(by_name["one"]["args"]["flops"], 600);
  EXPECT_EQ(by_name["two"]["args"]["bytes"], 400);
  const double inner = by_name["checkpoint"]["ts"].get<double>() + by_name["checkpoint"]["dur"].get<double>();
  EXPECT_LE(inner, by_name["forward"]["ts"].get<double>() + by_name["forward"]["dur"].get<double>() + 1e-9);
}

TEST(Profiler, TableNamesPhasesOpsAndRates) {
  clock_ns = 0;
  Profiler profiler(100, test_clock);
  profiler.name_ops(kOps);
  small_run(profiler);
  const std::string table = profile_table(profiler);
  for (const char* text : {"forward", "backward", "checkpoint", "one, backward", "3.0 GFLOP/s", "2.0 GB/s", "45.0 %"})
    EXPECT_NE(table.find(text), std::string::npos) << text << " is missing in\n" << table;
  EXPECT_EQ(table.find("k-means"), std::string::npos) << "phases that did not occur are left out";
}

TEST(Profiler, KeepsTheNewestEventsAndAllTotals) {
  clock_ns = 0;
  Profiler profiler(8, test_clock);
  profiler.name_ops(kOps);
  for (int i = 0; i < 50; ++i) {
    const ProfileScope update(Phase::update, i);
    op(profiler, 0, 10);
  }
  const auto events = profiler.events();
  ASSERT_EQ(events.size(), 8U);
  EXPECT_EQ(events.back().value, 49.0);
  EXPECT_EQ(events.front().start_ns, 460);
  EXPECT_EQ(profiler.recorded_events(), 100);
  EXPECT_EQ(profiler.ops()[0].elsewhere.calls, 50);
  EXPECT_EQ(profiler.ops()[0].elsewhere.ns, 500);
  const Json trace = Json::parse(profile_trace(profiler, 0));
  EXPECT_EQ(trace["traceEvents"].size(), 9U);
  EXPECT_THAT(trace["otherData"]["kept"].get<std::string>(), testing::StartsWith("the newest 8 of 100 events"));
}

TEST(Profiler, RecordingAllocatesNothing) {
  Profiler profiler(64);
  profiler.name_ops(kOps);
  const int64_t before = allocations;
  for (int i = 0; i < 200; ++i) small_run(profiler);
  EXPECT_EQ(allocations, before);
}

TEST(Profiler, BelongsToItsThread) {
  EXPECT_EQ(Profiler::active(), nullptr);
  { const ProfileScope ignored(Phase::forward); }
  Profiler profiler(8);
  EXPECT_EQ(Profiler::active(), &profiler);
  std::thread([] {
    EXPECT_EQ(Profiler::active(), nullptr);
    const ProfileScope ignored(Phase::forward);
  }).join();
  EXPECT_EQ(profiler.recorded_events(), 0);
}

TEST(ProfilePath, NamesTheRankWhereThereAreSeveral) {
  EXPECT_EQ(profile_path("a.b/p.json", 0, 1), "a.b/p.json");
  EXPECT_EQ(profile_path("a.b/p.json", 0, 2), "a.b/p.rank0.json");
  EXPECT_EQ(profile_path("a.b/profile", 12, 16), "a.b/profile.rank12");
}

}  // namespace
}  // namespace qn::test
