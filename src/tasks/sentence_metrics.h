// What GLUE's tasks are judged by.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/enum_names.h"

namespace qn {

enum class SentenceMetric { automatic, accuracy, f1, acc_and_f1, mcc, pearson, spearman, corr, loss };
template <>
struct EnumNames<SentenceMetric> {
  static constexpr EnumName<SentenceMetric> kAll[] = {{SentenceMetric::automatic, "auto"},
                                                      {SentenceMetric::accuracy, "accuracy"},
                                                      {SentenceMetric::f1, "f1"},
                                                      {SentenceMetric::acc_and_f1, "acc_and_f1"},
                                                      {SentenceMetric::mcc, "mcc"},
                                                      {SentenceMetric::pearson, "pearson"},
                                                      {SentenceMetric::spearman, "spearman"},
                                                      {SentenceMetric::corr, "corr"},
                                                      {SentenceMetric::loss, "loss"}};
};

/// Whether it judges numbers rather than classes (the loss judges both).
bool is_of_regression(SentenceMetric metric);

/// Shares and coefficients of classes 0, 1, ... All are fractions.
struct ClassScores {
  double accuracy = 0.0;
  double f1 = 0.0;   ///< of one class (0 where nothing is or is said to be of it)
  double mcc = 0.0;  ///< Matthews' coefficient for any number of classes (Gorodkin 2004); 0 where one class is all
  double acc_and_f1() const { return (accuracy + f1) / 2; }
};
/// `positive`: the class of f1.
ClassScores class_scores(std::span<const int32_t> predicted, std::span<const int32_t> actual, int64_t classes,
                         int64_t positive = 1);
/// The class that F1 is of, by the names of all: that of the name "1" (GLUE's tasks), or else number 1.
int64_t positive_class(std::span<const std::string> labels);

/// Coefficients of correlation; 0 where one side is constant. Spearman's gives ties their mean rank.
double pearson(std::span<const double> a, std::span<const double> b);
double spearman(std::span<const double> a, std::span<const double> b);

}  // namespace qn
