// BLEU against sacreBLEU 2.5 (tokenisation 13a), whose numbers and words these are.
#include "tasks/bleu.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qn::test {
namespace {

using testing::ElementsAre;
using Lines = std::vector<std::string>;

TEST(Tokenize13a, PunctuationStandsAloneButBetweenDigits) {
  EXPECT_THAT(tokenize_13a("Hello, world!"), ElementsAre("Hello", ",", "world", "!"));
  EXPECT_THAT(tokenize_13a("It costs $3,000.50 (or 1-2 more)..."),
              ElementsAre("It", "costs", "$", "3,000.50", "(", "or", "1", "-", "2", "more", ")", ".", ".", "."));
  EXPECT_THAT(tokenize_13a("a.b,c 5.x x.5 e-mail 10-year"),
              ElementsAre("a", ".", "b", ",", "c", "5", ".", "x", "x", ".", "5", "e-mail", "10", "-", "year"));
  EXPECT_THAT(tokenize_13a("[a]{b}~c/d:e;f"),
              ElementsAre("[", "a", "]", "{", "b", "}", "~", "c", "/", "d", ":", "e", ";", "f"));
  EXPECT_THAT(tokenize_13a("..,, 1.,2"), ElementsAre(".", ".", ",", ",", "1", ".", ",", "2"));
  EXPECT_THAT(tokenize_13a(""), ElementsAre());
}

TEST(Tokenize13a, EntitiesAndUnicode) {
  EXPECT_THAT(tokenize_13a("&quot;Tom &amp; Jerry&quot; &lt;tag&gt; don't"),
              ElementsAre("\"", "Tom", "&", "Jerry", "\"", "<", "tag", ">", "don't"));
  EXPECT_THAT(tokenize_13a("caf\u00e9. \u00fcber,alles\u00a0na\u00efve\u3000x"),
              ElementsAre("caf\u00e9", ".", "\u00fcber", ",", "alles", "na\u00efve", "x"));
  EXPECT_THAT(tokenize_13a("<skipped>x -y- 3-"), ElementsAre("x", "-y-", "3", "-"));
}

const Lines kTranslations{"the cat sat on the mat", "He said: \"It costs 1,000 dollars.\"",
                          "a completely different sentence", "caf\u00e9 am See, gestern-abend"};
const Lines kReferences{"the cat is on the mat", "He said, \"It costs 1,000 dollars!\"",
                        "nothing in common at all here", "caf\u00e9 am See, gestern abend"};

Bleu bleu_of(const Lines& translations, const Lines& references) {
  Bleu bleu;
  for (size_t i = 0; i < translations.size(); ++i) bleu.add(translations[i], references[i]);
  return bleu;
}

TEST(Bleu, IsThatOfTheCorpus) {
  const Bleu all = bleu_of(kTranslations, kReferences);
  EXPECT_NEAR(all.score(), 36.60372600527195, 1e-10);
  EXPECT_THAT(all.precisions(), testing::Pointwise(testing::DoubleNear(1e-10),
                                                   {68.0, 52.38095238095238, 35.294117647058826, 23.076923076923077}));
  EXPECT_NEAR(all.brevity_penalty(), 0.8869204367171574, 1e-12);
  EXPECT_EQ(all.translation_words(), 25);
  EXPECT_EQ(all.reference_words(), 28);
  const Bleu two = bleu_of({kTranslations[0], kTranslations[1]}, {kReferences[0], kReferences[1]});
  EXPECT_NEAR(two.score(), 41.944354523254866, 1e-10);
  EXPECT_EQ(two.brevity_penalty(), 1.0);
}

TEST(Bleu, OfLittleText) {
  EXPECT_EQ(bleu_of({"a b"}, {"a b c d"}).score(), 0.0);  // no run of four words
  EXPECT_EQ(bleu_of({"x y z w"}, {"a b c d"}).score(), 0.0);
  EXPECT_EQ(bleu_of({""}, {"a"}).score(), 0.0);
  EXPECT_NEAR(bleu_of({"a b c d e"}, {"a b c d"}).score(), 66.87403049764218, 1e-10);
  EXPECT_NEAR(bleu_of({"a b c d"}, {"a b c d"}).score(), 100.0, 1e-10);
}

}  // namespace
}  // namespace qn::test
