// The scalar quantizer against the reference vectors of scalar.h5: tensors, and range searches on given histograms.
#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "core/hdf5_file.h"
#include "ops/uniform_grid.h"
#include "quant/scalar_quantizer.h"
#include "support/golden.h"
#include "support/tolerance.h"

namespace qn::test {
namespace {

using Floats = std::vector<float>;

template <typename T>
std::vector<T> transposed(const std::vector<T>& x, int64_t rows, int64_t cols) {
  std::vector<T> result;
  for (int64_t c = 0; c < cols; ++c)
    for (int64_t r = 0; r < rows; ++r) result.push_back(x[static_cast<size_t>(r * cols + c)]);
  return result;
}

/// One quantization of the file: group tensors/NAME/METHOD.
struct Golden {
  Floats x;
  int64_t rows, cols;
  ScalarOptions options;
  int64_t search_levels = 0;  ///< of the histogram method
  Floats scale, quantized;
  std::vector<int64_t> zero_point;
  std::vector<uint8_t> codes, fragile;
};

RangeMethod method_of(const Hdf5File& file, const std::string& group) {
  if (file.has_attribute(group, "search_bins")) return RangeMethod::histogram;
  if (!file.has_attribute(group, "symmetric")) return RangeMethod::tensor;
  return file.int_attribute(group, "symmetric") != 0 ? RangeMethod::channel : RangeMethod::channel_affine;
}

/// Channels along the last axis become rows.
Golden read_golden(const Hdf5File& file, const std::string& tensor, const std::string& group) {
  const Shape shape = file.shape(tensor + "/x");
  Golden g{.x = file.read<float>(tensor + "/x"),
           .rows = shape[0],
           .cols = shape[1],
           .options = {static_cast<int>(file.int_attribute(group, "bits")), method_of(file, group)},
           .scale = file.read<float>(group + "/scale"),
           .quantized = file.read<float>(group + "/quantized"),
           .zero_point = file.read<int64_t>(group + "/zero_point"),
           .codes = file.read<uint8_t>(group + "/code"),
           .fragile = file.read<uint8_t>(group + "/fragile")};
  if (file.has_attribute(group, "search_bins")) g.search_levels = file.int_attribute(group, "search_bins");
  if (file.has_attribute(group, "channel_axis") && file.int_attribute(group, "channel_axis") == -1) {
    for (Floats* values : {&g.x, &g.quantized}) *values = transposed(*values, g.rows, g.cols);
    for (auto* values : {&g.codes, &g.fragile}) *values = transposed(*values, g.rows, g.cols);
    std::swap(g.rows, g.cols);
  }
  return g;
}

/// The grid; with another number of search levels than codes by the parts of the search.
ScalarGrid fitted(const Golden& g) {
  if (g.search_levels == 0 || g.search_levels == 1 << g.options.bits)
    return fit_grid(g.x.data(), g.rows, g.cols, g.options);
  const auto [low, high] = std::minmax_element(g.x.begin(), g.x.end());
  const BinRange kept = search_bins(histogram_of(g.x.data(), std::ssize(g.x), *low, *high), g.search_levels);
  const float width = (*high - *low) / kSearchBins;
  const auto grid = grid_of_range(*low + width * static_cast<float>(kept.first),
                                  *low + width * static_cast<float>(kept.last + 1), g.options.bits, false);
  return {g.options.bits, {grid.scale}, {grid.zero_point}};
}

void expect_same(const Golden& g) {
  const ScalarGrid grid = fitted(g);
  EXPECT_TRUE(close(grid.scale, g.scale, kScaleTolerance));
  EXPECT_EQ(std::vector<int64_t>(grid.zero_point.begin(), grid.zero_point.end()), g.zero_point);
  const ScalarTable table = encode(g.x.data(), g.rows, g.cols, grid);
  Floats decoded(g.x.size());
  decode(table, decoded.data());
  for (size_t i = 0; i < g.x.size(); ++i) {
    const int allowed = g.fragile[i] != 0 ? 1 : 0;
    ASSERT_LE(std::abs(table.codes[i] - g.codes[i]), allowed) << "code " << i;
    if (table.codes[i] != g.codes[i]) decoded[i] = g.quantized[i];
  }
  EXPECT_TRUE(close(decoded, g.quantized, kScaleTolerance));
}

TEST(ScalarGolden, Tensors) {
  QN_GOLDEN(path, "scalar.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  int cases = 0;
  for (const std::string& name : file.members("tensors"))
    for (const std::string& method : file.members("tensors/" + name)) {
      const std::string tensor = "tensors/" + name, group = tensor + "/" + method;
      // "x" has no bits; with "information only" a version of torch is recorded that is not the reference's meaning.
      if (!file.has_attribute(group, "bits") || file.has_attribute(group, "note")) continue;
      SCOPED_TRACE(group);
      expect_same(read_golden(file, tensor, group));
      ++cases;
    }
  EXPECT_GT(cases, 0);
}

TEST(ScalarGolden, HistogramsAndRangesOfTensors) {
  QN_GOLDEN(path, "scalar.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  int cases = 0;
  for (const std::string& name : file.members("tensors"))
    for (const std::string& method : file.members("tensors/" + name)) {
      const std::string group = "tensors/" + name + "/" + method;
      if (!file.has_attribute(group, "search_bins")) continue;
      SCOPED_TRACE(group);
      const Floats x = file.read<float>("tensors/" + name + "/x");
      const auto [low, high] = std::minmax_element(x.begin(), x.end());
      const std::vector<int64_t> counts = histogram_of(x.data(), std::ssize(x), *low, *high);
      if (file.exists(group + "/histogram")) {
        const auto expected = file.read<int32_t>(group + "/histogram");
        EXPECT_EQ(counts, std::vector<int64_t>(expected.begin(), expected.end()));
      }
      EXPECT_EQ(search_bins(counts, file.int_attribute(group, "search_bins")),
                (BinRange{file.int_attribute(group, "start_bin"), file.int_attribute(group, "end_bin")}));
      ++cases;
    }
  EXPECT_GT(cases, 0);
}

TEST(ScalarGolden, RangeSearch) {
  QN_GOLDEN(path, "scalar.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const std::vector<std::string> names = file.members("range_search");
  EXPECT_FALSE(names.empty());
  for (const std::string& name : names) {
    const std::string group = "range_search/" + name;
    SCOPED_TRACE(name);
    const auto number = [&](const char* attribute) { return file.float_attribute(group, attribute); };
    const auto counts = file.read<int32_t>(group + "/histogram");
    const BinRange kept =
        search_bins(std::vector<int64_t>(counts.begin(), counts.end()), file.int_attribute(group, "search_bins"));
    EXPECT_EQ(kept, (BinRange{file.int_attribute(group, "start_bin"), file.int_attribute(group, "end_bin")}));
    const auto bits = static_cast<int>(file.int_attribute(group, "bits"));
    const auto grid = grid_of_range(static_cast<float>(number("lo")), static_cast<float>(number("hi")), bits, false);
    EXPECT_TRUE(close(static_cast<double>(grid.scale), number("scale"), kScaleTolerance));
    EXPECT_EQ(static_cast<int64_t>(grid.zero_point), file.int_attribute(group, "zero_point"));
  }
}

}  // namespace
}  // namespace qn::test
