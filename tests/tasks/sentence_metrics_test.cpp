// Metrics of sentence classification against scikit-learn and SciPy, which fairseq uses.
#include "tasks/sentence_metrics.h"

#include <gtest/gtest.h>

#include "core/hdf5_file.h"
#include "support/golden.h"

namespace qn::test {
namespace {

TEST(SentenceMetrics, AreFairseqs) {
  constexpr double kTolerance = 1e-12;
  QN_GOLDEN(path, "roberta_train.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  const auto expected = [&](const char* name) { return file.float_attribute("metrics", name); };
  const auto said = file.read<int32_t>("metrics/pred_class"), are = file.read<int32_t>("metrics/label_class");
  const ClassScores scores = class_scores(said, are, 2);
  EXPECT_NEAR(scores.accuracy, expected("accuracy"), kTolerance);
  EXPECT_NEAR(scores.f1, expected("f1"), kTolerance);
  EXPECT_NEAR(scores.acc_and_f1(), expected("acc_and_f1"), kTolerance);
  EXPECT_NEAR(scores.mcc, expected("mcc"), kTolerance);
  const auto values = file.read<double>("metrics/pred_value"), truth = file.read<double>("metrics/label_value");
  EXPECT_NEAR(pearson(values, truth), expected("pearson"), kTolerance);
  EXPECT_NEAR(spearman(values, truth), expected("spearman"), kTolerance);
  EXPECT_NEAR((pearson(values, truth) + spearman(values, truth)) / 2, expected("corr"), kTolerance);
}

TEST(SentenceMetrics, F1IsOfTheClassCalledOne) {
  using Labels = std::vector<std::string>;
  EXPECT_EQ(positive_class(Labels{"1", "0"}), 0);  // 1 is the more frequent one, as in MRPC
  EXPECT_EQ(positive_class(Labels{"0", "1"}), 1);
  EXPECT_EQ(positive_class(Labels{"yes", "no"}), 1);
  const std::vector<int32_t> said{0, 0, 0, 1}, are{0, 0, 1, 1};
  EXPECT_DOUBLE_EQ(class_scores(said, are, 2, 0).f1, 4.0 / 5);
  EXPECT_DOUBLE_EQ(class_scores(said, are, 2, 1).f1, 2.0 / 3);
}

TEST(SentenceMetrics, AreFiniteWhereNothingCanBeTold) {
  const std::vector<int32_t> zeros(4, 0), mixed{0, 1, 0, 1};
  EXPECT_EQ(class_scores(zeros, zeros, 2).accuracy, 1.0);
  EXPECT_EQ(class_scores(zeros, zeros, 2).f1, 0.0);
  EXPECT_EQ(class_scores(zeros, mixed, 2).mcc, 0.0);
  EXPECT_EQ(class_scores(mixed, mixed, 2).mcc, 1.0);
  const std::vector<double> flat(3, 1.0), rising{1.0, 2.0, 3.0};
  EXPECT_EQ(pearson(flat, rising), 0.0);
  EXPECT_EQ(spearman(rising, flat), 0.0);
  EXPECT_DOUBLE_EQ(spearman(rising, std::vector<double>{-5.0, 0.0, 100.0}), 1.0);
}

/// Three classes: 2 of 4 right, marginals (2, 1, 1) and (1, 2, 1): (2 * 4 - 5) / sqrt(10 * 10).
TEST(SentenceMetrics, MatthewsOfSeveralClasses) {
  const std::vector<int32_t> said{0, 0, 1, 2}, are{0, 1, 1, 2};
  EXPECT_DOUBLE_EQ(class_scores(said, are, 3).mcc, 0.7);
}

}  // namespace
}  // namespace qn::test
