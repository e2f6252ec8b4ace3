// Every quantizer keeps the contract: layouts, sizes and options say what quantize() gives and files hold.
#include "quant/quantizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "quant/bit_packing.h"
#include "quant/int_quantizer.h"
#include "quant/pq_quantizer.h"

namespace qn::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

struct Case {
  const char* name;
  const char* type;
  QuantizerOptions options;
  const char* text;
  double relative_error;  ///< at most, for uniform values
};

std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

class Quantizers : public testing::TestWithParam<Case> {
 protected:
  static constexpr int64_t kRows = 40, kCols = 24;

  std::vector<float> weight() const {
    const RandomStream stream({.seed = 1, .purpose = Purpose::test});
    std::vector<float> values(static_cast<size_t>(kRows * kCols));
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(2.0 * stream.uniform(i) - 1.0);
    return values;
  }
  std::shared_ptr<const Quantizer> quantizer() const { return make_quantizer(GetParam().type, GetParam().options); }
};

TEST_P(Quantizers, OptionsMakeTheSameQuantizer) {
  const auto first = quantizer();
  EXPECT_EQ(first->type(), GetParam().type);
  EXPECT_EQ(first->options(), GetParam().options);
  EXPECT_EQ(first->text(), GetParam().text);
  EXPECT_TRUE(same_quantizer(*first, *make_quantizer(first->type(), first->options())));
}

TEST_P(Quantizers, TensorsAreAsTheLayoutSaysAndDecodeNearTheWeight) {
  const std::vector<float> w = weight();
  const QuantizedTensor tensor = quantizer()->quantize(w.data(), kRows, kCols);
  EXPECT_TRUE(same_quantizer(*tensor.quantizer, *quantizer()));
  check_tensor(tensor, "w");
  std::vector<float> decoded(w.size());
  tensor.quantizer->decode(tensor, decoded.data());
  double error = 0.0, norm = 0.0;
  for (size_t i = 0; i < w.size(); ++i) {
    error += std::pow(static_cast<double>(decoded[i]) - static_cast<double>(w[i]), 2);
    norm += std::pow(static_cast<double>(w[i]), 2);
  }
  EXPECT_LT(std::sqrt(error / norm), GetParam().relative_error);
  EXPECT_GT(error, 0.0);
}

TEST_P(Quantizers, BytesAreThoseOfWhatIsStored) {
  const std::vector<float> w = weight();
  const QuantizedTensor tensor = quantizer()->quantize(w.data(), kRows, kCols);
  const QuantizedLayout layout = tensor.quantizer->layout(kRows, kCols);
  const std::vector<uint8_t> packed = pack_codes(tensor.codes, layout.bits());
  int64_t stored = 1;
  for (const int64_t extent : layout.stored_shape()) stored *= extent;
  EXPECT_EQ(stored, std::ssize(packed));
  for (const ValueStorage storage : {ValueStorage::f32, ValueStorage::f16, ValueStorage::int8}) {
    const QuantizedBytes bytes = tensor.quantizer->bytes(kRows, kCols, storage);
    EXPECT_EQ(bytes.codes, packed.size());
    uint64_t side = 0;
    for (size_t i = 0; i < tensor.values.size(); ++i)
      side += stored_bytes(std::ssize(tensor.values[i].values), layout.side[i].stored(storage));
    EXPECT_EQ(bytes.side, side);
    EXPECT_EQ(bytes.total(), packed.size() + side);
  }
}

TEST_P(Quantizers, DamagedTensorsAreRefusedByName) {
  const std::vector<float> w = weight();
  const QuantizedTensor good = quantizer()->quantize(w.data(), kRows, kCols);
  QuantizedTensor bad = good;
  bad.codes.pop_back();
  EXPECT_THAT([&] { check_tensor(bad, "w"); }, ThrowsMessage<Error>(HasSubstr("'w'")));
  bad = good;
  bad.codes[3] = static_cast<uint16_t>(good.quantizer->layout(kRows, kCols).levels);
  EXPECT_THAT([&] { check_tensor(bad, "w"); }, ThrowsMessage<Error>(HasSubstr("at place 3")));
  bad = good;
  bad.values.front().values.push_back(0.0f);
  EXPECT_THAT([&] { check_tensor(bad, "w"); }, ThrowsMessage<Error>(HasSubstr(good.values.front().name)));
  bad = good;
  bad.values.clear();
  EXPECT_THROW(check_tensor(bad, "w"), Error);
}

INSTANTIATE_TEST_SUITE_P(
    All, Quantizers,
    testing::Values(Case{"pq8", "pq", {{"block_size", "8"}, {"n_centroids", "30"}}, "pq d=8 K=30", 0.9},
                    Case{"pq8_rms",
                         "pq",
                         {{"block_size", "8"}, {"n_centroids", "30"}, {"row_scales", "rms"}},
                         "pq d=8 K=30 rms",
                         0.9},
                    Case{"pq1", "pq", {{"block_size", "1"}, {"n_centroids", "240"}}, "pq d=1 K=240", 0.02},
                    Case{"int8", "int", {{"bits", "8"}, {"range", "tensor"}}, "int8 tensor", 0.005},
                    Case{"int4", "int", {{"bits", "4"}, {"range", "channel"}}, "int4 channel", 0.08},
                    Case{"int3", "int", {{"bits", "3"}, {"range", "channel_affine"}}, "int3 channel_affine", 0.17},
                    Case{"int2", "int", {{"bits", "2"}, {"range", "histogram"}}, "int2 histogram", 0.6}),
    [](const auto& test) { return test.param.name; });

TEST(PqQuantizer, CapsCentroidsOfSmallWeights) {
  const std::vector<float> w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  const QuantizedTensor tensor =
      make_quantizer("pq", {{"block_size", "2"}, {"n_centroids", "256"}})->quantize(w.data(), 4, 4);
  EXPECT_EQ(tensor.quantizer->text(), "pq d=2 K=2");
  check_tensor(tensor, "w");
}

/// Rows of sizes from 1 to 1000, one of zeros.
std::vector<float> rows_of_many_sizes(int64_t rows, int64_t cols) {
  const RandomStream stream({.seed = 3, .purpose = Purpose::test});
  std::vector<float> values(static_cast<size_t>(rows * cols));
  for (size_t i = 0; i < values.size(); ++i) {
    const auto r = static_cast<double>(static_cast<int64_t>(i) / cols);
    values[i] = static_cast<float>(stream.normal(i) * std::pow(1000.0, r / static_cast<double>(rows)));
  }
  std::fill_n(values.begin() + 5 * cols, cols, 0.0f);
  return values;
}

double relative_error_of_row(const std::vector<float>& w, const std::vector<float>& decoded, int64_t r, int64_t cols) {
  double error = 0.0, norm = 0.0;
  for (int64_t i = r * cols; i < (r + 1) * cols; ++i) {
    const double value = w[static_cast<size_t>(i)], difference = decoded[static_cast<size_t>(i)] - value;
    error += difference * difference;
    norm += value * value;
  }
  return std::sqrt(error / norm);
}

TEST(PqQuantizer, RowScalesServeRowsOfEverySize) {
  constexpr int64_t kRows = 256, kCols = 32;
  const std::vector<float> w = rows_of_many_sizes(kRows, kCols);
  const auto decoded = [&](const std::string& options) {
    const QuantizedTensor tensor =
        quantizer_from_text("pq block_size=4 n_centroids=64" + options, "")->quantize(w.data(), kRows, kCols);
    check_tensor(tensor, "w");
    std::vector<float> values(w.size());
    tensor.quantizer->decode(tensor, values.data());
    return values;
  };
  const std::vector<float> plain = decoded(""), scaled = decoded(" row_scales=rms");
  EXPECT_GT(relative_error_of_row(w, plain, 2, kCols), 0.9);
  for (const int64_t r : {2, 100, 255}) EXPECT_LT(relative_error_of_row(w, scaled, r, kCols), 0.75) << r;
  EXPECT_EQ(std::count(scaled.begin() + 5 * kCols, scaled.begin() + 6 * kCols, 0.0f), kCols);
  EXPECT_THAT([] { quantizer_from_text("pq block_size=4 n_centroids=64 row_scales=max", "here"); },
              ThrowsMessage<Error>(AllOf(HasSubstr("here: "), HasSubstr("must be rms, not 'max'"))));
}

/// Least squares: no other scale of a row is nearer.
TEST(PqQuantizer, RowScalesAreTheBestOnes) {
  constexpr int64_t kRows = 64, kCols = 16;
  const std::vector<float> w = rows_of_many_sizes(kRows, kCols);
  QuantizedTensor tensor =
      quantizer_from_text("pq block_size=4 n_centroids=16 row_scales=rms", "")->quantize(w.data(), kRows, kCols);
  const auto error = [&] {
    std::vector<float> decoded(w.size());
    tensor.quantizer->decode(tensor, decoded.data());
    return relative_error_of_row(w, decoded, 9, kCols);
  };
  const double best = error();
  float& scale = tensor.values[1].values[9];
  for (const float factor : {0.98f, 1.02f / 0.98f}) {
    scale *= factor;
    EXPECT_GT(error(), best) << factor;
  }
}

TEST(ValueStorage, PowersHoldMagnitudesOfManySizes) {
  const RandomStream stream({.seed = 4, .purpose = Purpose::test});
  for (const double octaves : {0.0, 0.5, 1.0, 5.0, 7.875, 15.74, 15.76, 31.0}) {
    std::vector<float> values{1.5f, static_cast<float>(1.5 * std::exp2(-octaves)), -0.0f, 0.0f};
    for (uint64_t i = 0; i < 500; ++i)
      values.push_back(static_cast<float>((i % 3 == 0 ? -1.5 : 1.5) * std::exp2(-octaves * stream.uniform(i))));
    std::vector<float> once = values;
    round_to_storage(once, ValueStorage::log8);
    const double step = static_cast<double>(LogGrid::of(values).step), range = 126.0 * step + 1e-5;
    EXPECT_TRUE(octaves <= range || range > 15.0) << "what is small is lost";
    EXPECT_TRUE(step == 1.0 / 64.0 || octaves > 63.0 * step) << "coarser than it needs to be";
    for (size_t i = 0; i < values.size(); ++i) {
      if (std::abs(values[i]) < 1.5 * std::exp2(-range - 0.5 * step)) {
        EXPECT_EQ(once[i], 0.0f);
      } else if (std::abs(values[i]) > 1.5 * std::exp2(-range)) {
        EXPECT_NEAR(once[i] / values[i], 1.0f, 0.365 * step + 1e-6) << values[i];
      }
    }
    std::vector<float> twice = once;
    round_to_storage(twice, ValueStorage::log8);
    EXPECT_EQ(twice, once) << octaves;
  }
  std::vector<float> dead{1e-8f, -3e-9f};  // channels that training has given up
  for (uint64_t i = 0; i < 100; ++i) dead.push_back(static_cast<float>(1.0 + stream.uniform(i)));
  EXPECT_EQ(LogGrid::of(dead).step, 1.0f / 64.0f);
  std::vector<float> tiny{1.0f, 1e-20f};
  round_to_storage(tiny, ValueStorage::log8);
  EXPECT_EQ(tiny, (std::vector<float>{1.0f, 0.0f}));
  EXPECT_EQ(stored_bytes(10, ValueStorage::log8), 18u);
}

TEST(PqQuantizer, TablesThereAndBack) {
  const std::vector<float> w(64, 0.5f);
  const auto quantizer = std::make_shared<const PqQuantizer>(4, 2);
  const QuantizedTensor tensor = quantizer->quantize(w.data(), 8, 8, {});
  const PqTable table = table_of_tensor(tensor);
  check_table(table, "w");
  EXPECT_EQ(tensor_of_table(quantizer, table).codes, tensor.codes);
}

TEST(IntQuantizer, UnsoundScalesAreRefused) {
  const std::vector<float> w = {1, 2, 3, 4};
  QuantizedTensor tensor = make_quantizer("int", {{"bits", "4"}, {"range", "tensor"}})->quantize(w.data(), 2, 2);
  tensor.values.front().values[0] = -1.0f;
  EXPECT_THAT([&] { check_tensor(tensor, "w"); }, ThrowsMessage<Error>(HasSubstr("'w': scale 0 is -1")));
}

TEST(QuantizerFromText, IsATypeAndItsOptions) {
  EXPECT_EQ(quantizer_from_text(" int range=channel  bits=4", "here")->text(), "int4 channel");
  for (const auto& [text, reason] : {std::pair{"", "type ''"},
                                     {"four", "of type 'four' in this version of quantnoise; it knows pq, int"},
                                     {"int bits", "'bits' in 'int bits' is no option"},
                                     {"int bits=4 bits=5", "gives bits twice"},
                                     {"int bits=4", "needs the option 'range'"}})
    EXPECT_THAT([text = text] { quantizer_from_text(text, "here"); },
                ThrowsMessage<Error>(AllOf(HasSubstr("here: "), HasSubstr(reason))));
}

TEST(MakeQuantizer, SaysWhatIsWrong) {
  const auto message = [](const char* type, const QuantizerOptions& options) {
    return [type, options] { make_quantizer(type, options); };
  };
  EXPECT_THAT(message("wavelet", {}), ThrowsMessage<Error>(HasSubstr("knows pq, int")));
  EXPECT_THAT(message("pq", {{"block_size", "8"}}), ThrowsMessage<Error>(HasSubstr("needs the option 'n_centroids'")));
  EXPECT_THAT(message("pq", {{"block_size", "8x"}, {"n_centroids", "2"}}), ThrowsMessage<Error>(HasSubstr("'8x'")));
  EXPECT_THAT(message("pq", {{"block_size", "8"}, {"n_centroids", "70000"}}),
              ThrowsMessage<Error>(HasSubstr("1 to 65536")));
  EXPECT_THAT(message("int", {{"bits", "9"}, {"range", "tensor"}}), ThrowsMessage<Error>(HasSubstr("2 to 8")));
  EXPECT_THAT(message("int", {{"bits", "4"}, {"range", "row"}}), ThrowsMessage<Error>(HasSubstr("'row'")));
  EXPECT_THAT(message("int", {{"bits", "4"}, {"range", "tensor"}, {"x", "1"}}),
              ThrowsMessage<Error>(HasSubstr("no option 'x'")));
}

}  // namespace
}  // namespace qn::test
