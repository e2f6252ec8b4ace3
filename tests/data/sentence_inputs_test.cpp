// Inputs of sentence classifiers against fairseq's.
#include "data/sentence_inputs.h"

#include <gtest/gtest.h>

#include "core/hdf5_file.h"
#include "support/golden.h"

namespace qn::test {
namespace {

TEST(SentenceInputs, KnowWhereTheSecondSentenceBegins) {
  const std::vector<int32_t> first{7, 8, kEosId}, second{9, kEosId};
  for (const int32_t init : {kBosId, -1})
    for (const int32_t separator : {kEosId, -1}) {
      const SentenceInputs inputs{.init_token = init, .separator_token = separator};
      EXPECT_EQ(inputs.compose(first, second, true).at(inputs.second_begin(first.size(), second.size())), 9);
    }
}

/// What Hugging Face's tokenizers make of such lengths with truncation=True (longest_first).
TEST(SentenceInputs, KeepTheirEnds) {
  const auto words = [](int32_t first, int count) {
    std::vector<int32_t> sentence;
    for (int32_t i = 0; i < count; ++i) sentence.push_back(first + i);
    sentence.push_back(kEosId);
    return sentence;
  };
  const SentenceInputs inputs{.separator_token = -1, .shorten = Shorten::keep_end, .longest = 9};
  using Tokens = std::vector<int32_t>;
  EXPECT_EQ(inputs.compose(words(10, 9), {}, false), (Tokens{0, 10, 11, 12, 13, 14, 15, 16, 2}));
  EXPECT_EQ(inputs.compose(words(10, 7), {}, false), (Tokens{0, 10, 11, 12, 13, 14, 15, 16, 2}));
  EXPECT_EQ(inputs.compose(words(10, 9), words(20, 2), true), (Tokens{0, 10, 11, 12, 13, 2, 20, 21, 2}));
  EXPECT_EQ(inputs.compose(words(10, 1), words(20, 9), true), (Tokens{0, 10, 2, 20, 21, 22, 23, 24, 2}));
  EXPECT_EQ(inputs.compose(words(10, 9), words(20, 9), true), (Tokens{0, 10, 11, 12, 2, 20, 21, 22, 2}));
  EXPECT_EQ(inputs.compose(words(10, 2), words(20, 2), true), (Tokens{0, 10, 11, 2, 20, 21, 2}));
  EXPECT_EQ(inputs.second_begin(10, 3), 6u);
  EXPECT_EQ(inputs.length(10, 10), 9);
  const SentenceInputs roberta{.shorten = Shorten::keep_end, .longest = 9};
  EXPECT_EQ(roberta.compose(words(10, 9), words(20, 9), true), (Tokens{0, 10, 11, 2, 2, 20, 21, 22, 2})) << "odd room";
}

TEST(SentenceInputs, AreFairseqs) {
  QN_GOLDEN(path, "roberta_train.h5");
  const Hdf5File file(path, Hdf5File::Mode::read);
  int cases = 0;
  for (const std::string& name : file.members("input_composition")) {
    const std::string group = "input_composition/" + name;
    if (!file.exists(group + "/composed")) continue;
    const std::string shorten = file.string_attribute(group, "shorten_method");
    if (shorten == "random_crop") continue;  // most often it cuts <s> off, which the head reads: not here
    SCOPED_TRACE(group);
    const SentenceInputs inputs{.init_token = static_cast<int32_t>(file.int_attribute(group, "init_token")),
                                .separator_token = static_cast<int32_t>(file.int_attribute(group, "separator_token")),
                                .shorten = value_named<Shorten>(shorten, "shorten_method"),
                                .longest = file.int_attribute(group, "max_positions")};
    const bool pair = file.exists(group + "/input1");
    const auto read = [&](const std::string& dataset, bool there) {
      return there ? file.read<int32_t>(group + "/" + dataset) : std::vector<int32_t>();
    };
    const auto first = read("input0", true), offsets0 = read("offsets0", true), second = read("input1", pair),
               offsets1 = read("offsets1", pair), composed = read("composed", true),
               offsets = read("composed_offsets", true);
    const auto item = [](const std::vector<int32_t>& tokens, const std::vector<int32_t>& ends, size_t i) {
      return std::vector<int32_t>(tokens.begin() + ends[i], tokens.begin() + ends[i + 1]);
    };
    for (size_t i = 0; i + 1 < offsets.size(); ++i) {
      const std::vector<int32_t> a = item(first, offsets0, i),
                                 b = pair ? item(second, offsets1, i) : std::vector<int32_t>();
      EXPECT_EQ(inputs.compose(a, b, pair), item(composed, offsets, i));
      EXPECT_EQ(inputs.length(static_cast<int32_t>(a.size()), pair ? static_cast<int32_t>(b.size()) : -1),
                offsets[i + 1] - offsets[i]);
    }
    ++cases;
  }
  EXPECT_GT(cases, 4);
}

}  // namespace
}  // namespace qn::test
