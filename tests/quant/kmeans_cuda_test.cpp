// k-means on a GPU against k-means on the CPU: the same bits everywhere, whoever began.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "ops/cuda/backend.h"
#include "ops/host_access.h"
#include "quant/kmeans.h"
#include "quant_data.h"
#include "same_bits.h"
#include "support/test_comm.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

class KMeansCuda : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << cuda_problem();
  }
};

/// Host values, and the same on the device from element `shift` of its memory on.
class OnDevice {
 public:
  explicit OnDevice(const std::vector<float>& values, int64_t shift = 0)
      : memory_({std::ssize(values) + shift}, DType::f32, *cuda_kernels().memory),
        data_(memory_.view().as<float>() + shift) {
    cuda_kernels().upload(data_, values.data(), values.size() * sizeof(float));
  }
  const float* data() const { return data_; }

 private:
  OwnedTensor memory_;
  float* data_;
};

struct WeightCase {
  const char* name;
  int64_t rows, blocks_per_row, dim, n_centroids;
  double offset = 0.0;    ///< makes float32 distances useless, so that double has to decide
  bool weighted = false;  ///< with row importances
  int64_t shift = 0;      ///< of the weight in the device's memory, in elements
  bool integers = false;  ///< small ones: most distances are equal to others
};

void PrintTo(const WeightCase& c, std::ostream* out) { *out << c.name; }

/// A weight with centroids of which some are repeated, within a group of those that a kernel looks at together and
/// across.
struct Data {
  explicit Data(const WeightCase& p) : shape(p) {
    weight = random_weight(p.rows * p.blocks_per_row * p.dim, std::string("weight of ") + p.name);
    centroids = random_weight(p.n_centroids * p.dim, std::string("centroids of ") + p.name);
    for (std::vector<float>* values : {&weight, &centroids})
      for (float& x : *values) x = p.integers ? std::round(x) : x + static_cast<float>(p.offset);
    for (int64_t k = 0; k + 3 < p.n_centroids; k += 7)
      std::copy_n(centroids.begin() + (k + 3) * p.dim, p.dim, centroids.begin() + k * p.dim);
    for (int64_t k = 0; k + 32 < p.n_centroids; k += 11)
      std::copy_n(centroids.begin() + (k + 32) * p.dim, p.dim, centroids.begin() + k * p.dim);
    rows = random_weight(p.rows, "rows");
    for (float& w : rows) w *= w;
  }

  /// The part [begin, end) of the sub-vectors of `data`, which has the weight's values.
  WeightShare share(const float* data, int64_t begin, int64_t end) const {
    WeightShare s;
    s.vectors = {.data = data,
                 .count = shape.rows * shape.blocks_per_row,
                 .dim = shape.dim,
                 .blocks_per_row = shape.blocks_per_row,
                 .row_importance = shape.weighted ? rows.data() : nullptr};
    s.n_centroids = shape.n_centroids;
    s.begin = begin;
    s.end = end;
    return s;
  }
  double max_abs() const { return std::max(largest_magnitude(weight), largest_magnitude(centroids)); }
  double max_importance() const { return shape.weighted ? largest_magnitude(rows) : 1.0; }

  WeightCase shape;
  std::vector<float> weight, centroids, rows;
};

std::vector<WeightCase> shapes() {
  return {{"usual", 500, 32, 8, 256},
          {"aligned_four", 150, 40, 4, 256},
          {"sixteen", 130, 33, 16, 256},
          {"one_centroid", 40, 16, 8, 1},
          {"five_centroids", 90, 16, 1, 5},
          {"more_than_a_tile", 100, 41, 8, 300},
          {"many_tiles", 100, 41, 4, 2000},
          {"as_many_as_codes", 8, 20, 4, 65536},
          {"twelve", 60, 20, 12, 40},
          {"nine", 60, 20, 9, 16},
          {"large_blocks", 40, 7, 32, 50},
          {"three_sub_vectors", 3, 1, 8, 2},
          {"close", 60, 40, 8, 64, 3000.0},
          {"close_small", 60, 40, 4, 64, 3000.0},
          {"close_large", 20, 10, 20, 33, 3000.0},
          {"integers", 120, 35, 4, 100, 0.0, false, 0, true},
          {"integers_rows", 120, 35, 8, 100, 0.0, true, 0, true},
          {"rows", 130, 33, 8, 64, 0.0, true},
          {"rows_one", 50, 20, 1, 9, 0.0, true},
          {"rows_four", 60, 40, 4, 300, 0.0, true},
          {"rows_sixteen", 50, 20, 16, 20, 0.0, true},
          {"rows_close", 30, 40, 6, 30, 3000.0, true},
          {"rows_large", 30, 9, 24, 40, 0.0, true},
          {"not_aligned", 70, 20, 8, 64, 0.0, false, 1}};
}

/// Several weights at once; `part` of `parts` of each.
struct Backends {
  Backends(const std::vector<Data>& data, int64_t part, int64_t parts) {
    std::vector<WeightShare> host, device;
    for (const Data& d : data) {
      const int64_t count = d.shape.rows * d.shape.blocks_per_row;
      weights.emplace_back(d.weight, d.shape.shift);
      host.push_back(d.share(d.weight.data(), count * part / parts, count * (part + 1) / parts));
      device.push_back(d.share(weights.back().data(), host.back().begin, host.back().end));
    }
    cpu = make_kmeans_backend(cpu_kernels(), host);
    cuda = make_kmeans_backend(cuda_kernels(), device);
    for (size_t i = 0; i < data.size(); ++i)
      for (KMeansBackend* backend : {cpu.get(), cuda.get()})
        backend->set_bounds(i, data[i].max_abs(), data[i].max_importance());
  }
  std::vector<OnDevice> weights;
  std::unique_ptr<KMeansBackend> cpu, cuda;
};

class KMeansCudaShape : public KMeansCuda, public testing::WithParamInterface<WeightCase> {};

TEST_P(KMeansCudaShape, CodesAndSumsAreThoseOfTheCpu) {
  const std::vector<Data> data = {Data(GetParam())};
  const std::vector<size_t> all = {0};
  const std::vector<std::vector<float>> centroids = {data[0].centroids};
  for (int64_t part = 0; part < 3; ++part) {
    SCOPED_TRACE(part);
    const Backends backends(data, part, 3);
    std::vector<double> expected, sums;
    backends.cpu->assign(all, centroids, expected);
    backends.cuda->assign(all, centroids, sums);
    EXPECT_EQ(sums, expected);
    EXPECT_EQ(backends.cuda->codes(0), backends.cpu->codes(0));
    const SquaredErrors errors = backends.cuda->squared_errors(centroids)[0];
    const SquaredErrors expected_errors = backends.cpu->squared_errors(centroids)[0];
    EXPECT_TRUE(close(errors.error, expected_errors.error, kSummationTolerance));
    EXPECT_TRUE(close(errors.original, expected_errors.original, kSummationTolerance));
    EXPECT_EQ(backends.cuda->largest_magnitudes(), backends.cpu->largest_magnitudes());
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, KMeansCudaShape, testing::ValuesIn(shapes()),
                         [](const auto& test) { return test.param.name; });

TEST_F(KMeansCuda, WeightsOfAllKindsGoTogetherInAnyOrder) {
  std::vector<Data> data;
  std::vector<std::vector<float>> centroids;
  for (const WeightCase& shape : shapes()) {
    if (shape.n_centroids > 400) continue;
    data.emplace_back(shape);
    centroids.push_back(data.back().centroids);
  }
  const Backends backends(data, 0, 1);
  std::vector<size_t> order;
  for (size_t i = 0; i < data.size(); ++i) order.push_back(i * 5 % data.size());
  for (const size_t count : {order.size(), size_t{3}}) {
    const std::span<const size_t> some(order.data(), count);
    std::vector<double> expected, sums;
    backends.cpu->assign(some, centroids, expected);
    backends.cuda->assign(some, centroids, sums);
    EXPECT_EQ(sums, expected);
  }
  for (size_t i = 0; i < data.size(); ++i) EXPECT_EQ(backends.cuda->codes(i), backends.cpu->codes(i)) << i;
  const std::vector<int64_t> numbers = {5, 0, 5, 17};
  EXPECT_EQ(backends.cuda->gather(1, numbers), backends.cpu->gather(1, numbers));
}

// The fewer terms a sum has, the finer is its grid: here terms that were rounded otherwise than on the CPU show.
TEST_F(KMeansCuda, TermsAreRoundedAsOnTheCpu) {
  for (const bool weighted : {false, true}) {
    std::vector<Data> data;
    std::vector<std::vector<float>> centroids;
    std::vector<size_t> all;
    for (int i = 0; i < 100; ++i) {
      const std::string name = fmt::format("small {}", i);
      data.emplace_back(WeightCase{
          .name = name.c_str(), .rows = 2, .blocks_per_row = 2, .dim = 8, .n_centroids = 1, .weighted = weighted});
      centroids.push_back(data.back().centroids);
      all.push_back(all.size());
    }
    const Backends backends(data, 0, 1);
    std::vector<double> expected, sums;
    backends.cpu->assign(all, centroids, expected);
    backends.cuda->assign(all, centroids, sums);
    EXPECT_EQ(sums, expected) << weighted;
  }
}

int64_t downloaded = 0;

TEST_F(KMeansCuda, WeightsStayOnTheDevice) {
  Kernels counting = cuda_kernels();
  counting.download = [](void* to_host, const void* from, size_t bytes) {
    downloaded += static_cast<int64_t>(bytes);
    cuda_kernels().download(to_host, from, bytes);
  };
  const std::vector<float> weight = random_weight(400 * 400, "weight");
  const OnDevice device(weight);
  const KMeansProblem problem{.name = "w", .weight = device.data(), .rows = 400, .cols = 400, .n_centroids = 16};
  downloaded = 0;
  StageKMeans kmeans({problem}, {.iterations = 3}, comm(), counting);
  while (kmeans.step()) continue;
  kmeans.finish();
  kmeans.squared_errors();
  // Codes are 2 bytes for 8 elements; the rest is sums and drawn sub-vectors.
  EXPECT_GE(downloaded, 400 * 400 / 8 * 2 / comm().size() - 2048);
  EXPECT_LT(downloaded, std::ssize(weight) * 4 / 10);
}

TEST_F(KMeansCuda, RefusesValuesThatAreNotFinite) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity(), 2e12f}) {
    std::vector<float> weight = random_weight(64 * 64, "weight");
    weight.back() = bad;
    const OnDevice device(weight);
    const KMeansProblem problem{.name = "w", .weight = device.data(), .rows = 64, .cols = 64, .n_centroids = 16};
    EXPECT_THROW(StageKMeans({problem}, {}, comm(), cuda_kernels()), Error);
  }
}

TEST_F(KMeansCuda, ImportancesOfColumnsLeaveItToTheCpu) {
  const std::vector<float> weight = random_weight(64 * 64, "weight");
  std::vector<float> columns = random_weight(64, "columns");
  for (float& h : columns) h *= h;
  const OnDevice device(weight);
  KMeansProblem problem{.name = "w", .weight = weight.data(), .rows = 64, .cols = 64, .n_centroids = 16};
  problem.column_importance = columns;
  StageKMeans on_host({problem}, {.iterations = 4}, comm());
  problem.weight = device.data();
  StageKMeans on_device({problem}, {.iterations = 4}, comm(), cuda_kernels());
  while (on_host.step()) on_device.step();
  on_device.step();
  expect_same_bits(on_device.finish(), on_host.finish());
}

/// A stage with row importances, with a start that leaves clusters empty, and with a weight that has few different
/// blocks.
class Stage {
 public:
  explicit Stage(bool on_device) {
    add("fc1", 96, 128, 8, 64, on_device);
    add("attention", 64, 64, 4, 64, on_device);
    add("convolution", 20, 27, 9, 12, on_device);
    add("starved", 64, 64, 8, 32, on_device);
    problems_.back().initial_centroids.assign(32 * 8, 0.25f);
    add("repeating", 64, 64, 8, 32, on_device, 19);
    add("table", 300, 40, 8, 16, on_device);
    rows_ = random_weight(300, "frequencies");
    for (float& w : rows_) w *= w;
    problems_.back().row_importance = rows_;
    add("important", 64, 64, 16, 16, on_device);
    problems_.back().row_importance = std::span<const float>(rows_).first(64);
  }
  const std::vector<KMeansProblem>& problems() const { return problems_; }

 private:
  void add(const std::string& name, int64_t rows, int64_t cols, int64_t dim, int64_t k, bool on_device,
           int64_t distinct = 0) {
    std::vector<float>& weight = weights_.emplace_back(random_weight(rows * cols, name, 0.05));
    for (size_t i = 0; distinct > 0 && i < weight.size(); ++i)
      weight[i] = weight[i % static_cast<size_t>(distinct * dim)];
    if (on_device) on_device_.emplace_back(weight);
    problems_.push_back({.name = name,
                         .weight = on_device ? on_device_.back().data() : weight.data(),
                         .rows = rows,
                         .cols = cols,
                         .block_size = dim,
                         .n_centroids = k});
  }
  std::vector<std::vector<float>> weights_;
  std::vector<OnDevice> on_device_;
  std::vector<float> rows_;
  std::vector<KMeansProblem> problems_;
};

TEST_F(KMeansCuda, AStageEndsWithTheSameBitsWhereverItBegan) {
  const Stage host(false), device(true);
  const auto local = make_local_communicator();
  const KMeansOptions options{.iterations = 5, .seed = 3, .stage = 1};
  StageKMeans expected(host.problems(), options, *local);
  while (expected.step()) continue;
  const std::vector<WeightResult> results = expected.finish();
  EXPECT_GT(results[3].resolved_empty, 0) << "nothing was split";
  EXPECT_GT(results[4].still_empty, 0) << "no cluster stayed empty";

  StageKMeans on_device(device.problems(), options, comm(), cuda_kernels());
  for (bool more = true; more;) {
    more = on_device.step();
    const KMeansState& state = on_device.state();
    StageKMeans resumed_on_cpu(host.problems(), options, comm());
    StageKMeans resumed_on_device(device.problems(), options, comm(), cuda_kernels());
    resumed_on_cpu.restore(state);
    resumed_on_device.restore(state);
    StageKMeans& other = state.iteration % 2 == 0 ? resumed_on_cpu : resumed_on_device;
    while (other.step()) continue;
    SCOPED_TRACE(state.iteration);
    expect_same_bits(other.finish(), results);
  }
  expect_same_bits(on_device.finish(), results);
  EXPECT_EQ(on_device.state().objective_history, expected.state().objective_history);
  const std::vector<SquaredErrors> errors = on_device.squared_errors(), expected_errors = expected.squared_errors();
  for (size_t i = 0; i < errors.size(); ++i)
    EXPECT_TRUE(close(errors[i].error, expected_errors[i].error, kSummationTolerance)) << i;

  StageKMeans begun_on_cpu(host.problems(), options, comm());
  begun_on_cpu.step();
  StageKMeans resumed(device.problems(), options, comm(), cuda_kernels());
  resumed.restore(begun_on_cpu.state());
  while (resumed.step()) continue;
  expect_same_bits(resumed.finish(), results);
}

}  // namespace
}  // namespace qn::test
