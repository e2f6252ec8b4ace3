#include "data/sentence_pairs.h"

#include <set>

#include "data/prepare_table.h"
#include "data_test_util.h"
#include "support/golden.h"
#include "support/temp_dir.h"
#include "tiny_tokenizer.h"

namespace qn::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using Ids = std::vector<int32_t>;

class Table : public testing::Test {
 protected:
  Table() { options_.text.destdir = dir_ / "data"; }
  std::filesystem::path write(const std::string& name, const std::string& content) {
    write_text(dir_ / name, content);
    return dir_ / name;
  }
  void train(const std::string& content) { options_.text.train = write("train.tsv", content); }
  std::string error() {
    const std::string message = error_of([&] { prepare_table(options_); });
    EXPECT_FALSE(std::filesystem::exists(dir_ / "data" / "input0" / "dict.txt")) << message;
    return message;
  }
  SentencePairs open(const std::string& split) { return {SentencePairFolder(dir_ / "data"), split}; }

  TempDir dir_;
  PrepareTableOptions options_;
};

TEST_F(Table, PairsWithAHeader) {
  train("index\tsentence1\tsentence2\tlabel\n0\ta b\tb\tyes\n1\tb\tb  a\tno\n2\tc\ta\tno\n");
  options_.text.valid = {write("dev.tsv", "label\tsentence2\tsentence1\tindex\r\nyes\tzz\ta\t0\r\n")};
  options_.text.test = {write("test.tsv", "index\tsentence1\tsentence2\n0\ta\tc\n")};
  const PrepareTableSummary summary = prepare_table(options_);
  EXPECT_EQ(summary.labels, (std::vector<std::pair<std::string, int64_t>>{{"no", 2}, {"yes", 1}}));
  ASSERT_EQ(summary.splits.size(), 3u);
  EXPECT_EQ(summary.splits[0].samples, 3);
  EXPECT_EQ(summary.splits[0].columns, "'sentence1', 'sentence2'; labels 'label'");
  EXPECT_FALSE(summary.splits[2].labelled);

  const SentencePairFolder folder(dir_ / "data");
  EXPECT_TRUE(folder.pairs);
  EXPECT_FALSE(folder.regression);
  EXPECT_THAT(folder.labels, ElementsAre("no", "yes"));
  const Dictionary& dictionary = folder.dictionary;
  const int32_t a = dictionary.index("a"), b = dictionary.index("b"), c = dictionary.index("c");
  EXPECT_EQ(dictionary.count(b), 4);  // of both sentences
  const SentencePairs samples(folder, "train");
  ASSERT_EQ(samples.size(), 3);
  EXPECT_TRUE(samples.labelled());
  EXPECT_EQ(samples.input0(0), (Ids{a, b, kEosId}));
  EXPECT_EQ(samples.input1(0), (Ids{b, kEosId}));
  EXPECT_EQ(samples.input1(1), (Ids{b, a, kEosId}));
  EXPECT_EQ(samples.length0(0), 3);
  EXPECT_EQ(samples.length1(2), 2);
  EXPECT_THAT((Ids{samples.label(0), samples.label(1), samples.label(2)}), ElementsAre(1, 0, 0));
  const SentencePairs valid(folder, "valid");
  EXPECT_EQ(valid.input0(0), (Ids{a, kEosId}));
  EXPECT_EQ(valid.input1(0), (Ids{kUnkId, kEosId}));
  EXPECT_EQ(valid.label(0), 1);
  const SentencePairs test(folder, "test");
  EXPECT_FALSE(test.labelled());
  EXPECT_EQ(test.input1(0), (Ids{c, kEosId}));
  EXPECT_NE(test.checksum(), valid.checksum());
  EXPECT_EQ(test.checksum(), open("test").checksum());
}

TEST_F(Table, SingleSentencesWithoutAHeader) {
  train("a b\t1\nb\t0\nc\t1\n");
  prepare_table(options_);
  const SentencePairs samples = open("train");
  EXPECT_FALSE(samples.pairs());
  ASSERT_EQ(samples.size(), 3);
  EXPECT_EQ(samples.label(0), 0);  // "1" is the more frequent class
  EXPECT_EQ(samples.label(1), 1);
}

TEST_F(Table, ColumnsByNumberAndByName) {
  train("gj04\t1\t\tfirst one\ngj05\t0\t*\tsecond\n");
  EXPECT_THAT(error(), AllOf(HasSubstr("4 columns"), HasSubstr("--columns")));
  options_.columns = TableColumns::parse("input0=4,label=2");
  prepare_table(options_);
  EXPECT_EQ(open("train").length0(0), 3);
  train("what\twhich\tkind\na\tb\tx\nb\tb\ty\n");
  options_.columns = TableColumns::parse("input0=Which,label=kind");
  prepare_table(options_);
  EXPECT_EQ(open("train").size(), 2);
  EXPECT_FALSE(open("train").pairs());
  EXPECT_THROW(TableColumns::parse("input2=x"), UsageError);
  EXPECT_THROW(TableColumns::parse("input0"), UsageError);
  EXPECT_THROW(TableColumns::parse("input0=a,input0=b"), UsageError);
}

TEST_F(Table, Scores) {
  train("sentence1\tsentence2\tscore\na\tb\t+4.25\nb\tb\t-1e-1\n");
  options_.regression = true;
  EXPECT_TRUE(prepare_table(options_).labels.empty());
  const SentencePairFolder folder(dir_ / "data");
  EXPECT_TRUE(folder.regression);
  const SentencePairs samples(folder, "train");
  EXPECT_FLOAT_EQ(samples.score(0), 4.25f);
  EXPECT_FLOAT_EQ(samples.score(1), -0.1f);
  EXPECT_EQ(read_text(dir_ / "data" / "label" / "train.label"), "+4.25\n-1e-1\n");
  write_text(dir_ / "data" / "label" / "train.label", "4.25\n-1e-2\n");
  EXPECT_THAT(error_of([&] { open("train"); }), AllOf(HasSubstr("train.label"), HasSubstr("not as it was prepared")));
  std::filesystem::remove(dir_ / "data" / "label" / "train.label.sum");
  write_text(dir_ / "data" / "label" / "train.label", "4.25\n");
  EXPECT_THAT(error_of([&] { open("train"); }), HasSubstr("2 samples but 1 labels"));
  write_text(dir_ / "data" / "label" / "train.label", "4.25\nnan\n");
  EXPECT_THAT(error_of([&] { open("train"); }), HasSubstr("'nan' is no score"));
}

TEST_F(Table, BadTablesAreNamedAndNothingIsWritten) {
  train("sentence\tlabel\na\t1\nb 0\nc\t0\n");
  EXPECT_THAT(error(), AllOf(HasSubstr("train.tsv:3"), HasSubstr("1 columns")));
  train("sentence\tlabel\na\t\nb\t0\n");
  EXPECT_THAT(error(), AllOf(HasSubstr("train.tsv:2"), HasSubstr("no label")));
  train("sentence\tlabel\na\t1\nb\t1\n");
  EXPECT_THAT(error(), AllOf(HasSubstr("train.tsv has one class only, '1'"), HasSubstr("two")));
  train("sentence\tlabel\na\t<s>\nb\t<unk>\n");
  EXPECT_THAT(error(), AllOf(HasSubstr("train.tsv:2"), HasSubstr("'<s>' is the name of a special symbol")));
  train("sentence\tlabel\na\tvery\xc2\xa0good\nb\tbad\n");
  EXPECT_THAT(error(), AllOf(HasSubstr("train.tsv:2"), HasSubstr("one word")));
  train("label\tsentence\tlabel\n1\ta\t1\n");
  EXPECT_THAT(error(), AllOf(HasSubstr("columns 1 and 3 are both called 'label'"), HasSubstr("--columns")));
  train("sentence\nb\n");
  EXPECT_THAT(error(), HasSubstr("no column of labels"));
  train("index\tlabel\n0\t1\n");
  EXPECT_THAT(error(), HasSubstr("known to hold sentences"));
  train("sentence\tlabel\n");
  EXPECT_THAT(error(), HasSubstr("but its header"));
  train("sentence\tlabel\na\t1\nb\t0\n");
  options_.text.valid = {write("dev.tsv", "sentence\tlabel\na\tmaybe\n")};
  EXPECT_THAT(error(), AllOf(HasSubstr("dev.tsv"), HasSubstr("'maybe'"), HasSubstr("none of the 2")));
  options_.text.valid = {write("dev.tsv", "sentence1\tsentence2\tlabel\na\tb\t1\n")};
  EXPECT_THAT(error(), HasSubstr("dev.tsv has 'sentence1', 'sentence2'"));
  options_.text.valid = {write("dev.tsv", "sentence\tlabel\na\xff\t1\n")};
  EXPECT_THAT(error(), AllOf(HasSubstr("dev.tsv:2"), HasSubstr("UTF-8")));
  options_.text.valid.clear();
  options_.regression = true;
  train("sentence\tlabel\na\t1\nb\tgood\n");
  EXPECT_THAT(error(), AllOf(HasSubstr("sample 2"), HasSubstr("'good'")));
}

TEST_F(Table, AMisspeltColumnOfLabelsIsNoTableWithout) {
  train("sentence\tkind\na\tx\nb\ty\n");
  options_.columns = TableColumns::parse("label=knid");
  const auto usage_error = [&] {
    EXPECT_THROW(prepare_table(options_), UsageError);
    return error();
  };
  EXPECT_THAT(usage_error(), AllOf(HasSubstr("train.tsv has no column 'knid'"), HasSubstr("sentence, kind")));
  options_.columns = TableColumns::parse("label=3");
  EXPECT_THAT(usage_error(), HasSubstr("no number 3"));
  options_.columns = TableColumns::parse("label=kind");
  options_.text.valid = {write("dev.tsv", "sentence\tkin\na\tx\n")};
  EXPECT_THAT(usage_error(), HasSubstr("dev.tsv has no column 'kind'"));
  // Only a table of a test split may lack it, if there is another that has it.
  options_.text.valid.clear();
  options_.text.test = {write("test.tsv", "sentence\na\n")};
  prepare_table(options_);
  EXPECT_FALSE(open("test").labelled());
  options_.text.srcdict = dir_ / "data" / "input0" / "dict.txt";
  options_.label_dict = dir_ / "data" / "label" / "dict.txt";
  options_.text.train.clear();
  EXPECT_THROW(prepare_table(options_), UsageError);
}

/// A folder that had other tables before holds the new ones only.
TEST_F(Table, NothingOfAnEarlierTableIsMixedIn) {
  const auto files_of = [&](const char* part) {
    std::set<std::string> names;
    if (std::filesystem::exists(dir_ / "data" / part))
      for (const auto& entry : std::filesystem::directory_iterator(dir_ / "data" / part))
        names.insert(entry.path().filename().string());
    return names;
  };
  const std::string pairs = "sentence1\tsentence2\tlabel\na\tb\t1\nb\ta\t0\n", single = "sentence\tlabel\na\t1\nb\t0\n";
  train(pairs);
  options_.text.test = {write("test.tsv", pairs)};
  prepare_table(options_);
  EXPECT_TRUE(open("test").labelled());

  // One sentence instead of two, in all splits; the test without labels.
  train(single);
  options_.text.test = {write("test.tsv", "sentence\na\n")};
  prepare_table(options_);
  EXPECT_FALSE(open("train").pairs());
  EXPECT_FALSE(open("test").labelled());
  EXPECT_THAT(files_of("input1"), testing::IsEmpty());
  EXPECT_FALSE(files_of("label").contains("test.idx"));

  // Scores instead of classes, and back.
  options_.regression = true;
  prepare_table(options_);
  EXPECT_TRUE(SentencePairFolder(dir_ / "data").regression);
  EXPECT_THAT(files_of("label"), ElementsAre("train.label", "train.label.sum"));
  options_.regression = false;
  prepare_table(options_);
  EXPECT_EQ(open("train").label(0), 1);
  EXPECT_FALSE(files_of("label").contains("train.label"));

  // What is not prepared anew has to be of the same kind.
  const auto refusal = [&] {
    const std::string before = read_text(dir_ / "data" / "input0" / "train.sum");
    const std::string message = error_of([&] { prepare_table(options_); });
    EXPECT_EQ(read_text(dir_ / "data" / "input0" / "train.sum"), before);
    return message;
  };
  options_.text.test.clear();
  train(pairs);
  EXPECT_THAT(refusal(), AllOf(HasSubstr("one sentence: test"), HasSubstr("has two sentences")));
  options_.text.valid = {write("dev.tsv", single)};
  train(single);
  prepare_table(options_);
  options_.text.valid.clear();
  options_.regression = true;
  EXPECT_THAT(refusal(), AllOf(HasSubstr("classes: valid"), HasSubstr("has scores")));
  options_.regression = false;
  prepare_table(options_);
  EXPECT_EQ(open("valid").size(), 2);  // the same dictionaries
}

TEST_F(Table, ATokenizerThatOthersNeedStays) {
  write_tiny_pairs(dir_ / "pairs");
  options_.text.tokenizer = open_tokenizer(dir_ / "pairs");
  train("sentence\tlabel\nlow lower\t1\n we\t0\n");
  options_.text.valid = {write("dev.tsv", "sentence\tlabel\nlow\t1\n")};
  prepare_table(options_);
  options_.text.valid.clear();
  options_.text.srcdict = dir_ / "data" / "input0" / "dict.txt";
  options_.text.tokenizer = nullptr;
  EXPECT_THAT(error_of([&] { prepare_table(options_); }),
              AllOf(HasSubstr("input0/valid"), HasSubstr("its own tokenizer/"), HasSubstr("--tokenizer")));
  EXPECT_TRUE(find_tokenizer(dir_ / "data" / "tokenizer")->contains("260"));
  // Also when it is a text that is put beside.
  PrepareOptions text;
  text.train = write("train.txt", "low lower\n");
  text.destdir = dir_ / "data";
  EXPECT_THAT(error_of([&] { prepare(text); }), HasSubstr("input0/train, input0/valid"));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "data" / "dict.txt"));
  // The same one by other names is the same one.
  std::filesystem::create_directories(dir_ / "names");
  std::filesystem::copy(dir_ / "pairs" / "encoder.json", dir_ / "names" / "vocab.json");
  std::filesystem::copy(dir_ / "pairs" / "vocab.bpe", dir_ / "names" / "merges.txt");
  text.tokenizer = open_tokenizer(dir_ / "names");
  prepare(text);
  EXPECT_TRUE(find_tokenizer(dir_ / "data" / "tokenizer")->contains("260"));
}

TEST_F(Table, PiecesOfATokenizer) {
  write_tiny_pairs(dir_ / "pairs");
  options_.text.tokenizer = open_tokenizer(dir_ / "pairs");
  train("sentence\tlabel\nlow lower\t1\n we\t0\n");
  prepare_table(options_);
  const SentencePairFolder folder(dir_ / "data");
  const SentencePairs samples(folder, "train");
  EXPECT_EQ(samples.input0(0), (Ids{folder.dictionary.index("257"), folder.dictionary.index("260"), kEosId}));
  EXPECT_EQ(samples.input0(1), (Ids{folder.dictionary.index("261"), kEosId}));
  EXPECT_TRUE(find_tokenizer(dir_ / "data" / "tokenizer")->contains("260"));
  // A later table, with the dictionaries of the first.
  const TempDir later;
  options_.text.srcdict = dir_ / "data" / "input0" / "dict.txt";
  options_.label_dict = dir_ / "data" / "label" / "dict.txt";
  options_.text.train.clear();
  options_.text.test = {write("test.tsv", "sentence\tlabel\nlow\t0\n")};
  prepare_table(options_);
  EXPECT_EQ(open("test").label(0), samples.label(1));
}

TEST_F(Table, FoldersOfFairseqAndDamagedOnes) {
  train("sentence1\tsentence2\tlabel\na\tb\tx\nb\tb\ty\n");
  prepare_table(options_);
  const std::filesystem::path data = dir_ / "data";
  for (const char* part : {"input0", "input1", "label"}) {  // fairseq leaves no checksums, and padding words
    std::filesystem::remove(data / part / "train.sum");
    std::filesystem::remove(data / part / "dict.sum");
  }
  write_text(data / "label" / "dict.txt", "x 1\ny 1\nmadeupword0000 0\nmadeupword0001 0\n");
  EXPECT_THAT(SentencePairFolder(data).labels, ElementsAre("x", "y"));
  EXPECT_EQ(open("train").label(1), 1);
  EXPECT_THAT(error_of([&] { open("dev"); }), AllOf(HasSubstr("no split 'dev'"), HasSubstr("train")));
  make_stream(data / "label" / "train", std::vector<int64_t>{2, 2}, std::vector<int64_t>{4, 2, 6, 2});
  EXPECT_THAT(error_of([&] { open("train"); }), AllOf(HasSubstr("label 1"), HasSubstr("2 classes")));
  make_stream(data / "label" / "train", std::vector<int64_t>{2}, std::vector<int64_t>{4, 2});
  EXPECT_THAT(error_of([&] { open("train"); }), HasSubstr("2 samples but 1 labels"));
  make_stream(data / "input1" / "train", std::vector<int64_t>{2}, std::vector<int64_t>{4, 2});
  EXPECT_THAT(error_of([&] { open("train"); }), HasSubstr("2 first sentences and 1"));
  write_text(data / "input1" / "dict.txt", "b 1\n");
  EXPECT_THAT(error_of([&] { open("train"); }), HasSubstr("other words"));
  std::filesystem::remove_all(data / "label");
  std::filesystem::remove_all(data / "input1");
  EXPECT_THAT(error_of([&] { open("train"); }), HasSubstr("neither label/dict.txt nor scores"));
  EXPECT_THAT(error_of([&] { SentencePairFolder(dir_.path()); }), HasSubstr("prepare --table"));
}

/// Counts as in the data's index; class numbers as in fairseq semantics 6.6.
TEST_F(Table, RealTables) {
  QN_DATA_OR_SKIP(glue, "glue");
  QN_DATA_OR_SKIP(pairs, "gpt2-bpe");
  options_.text.tokenizer = open_tokenizer(pairs);
  options_.text.srcdict = pairs / "dict.txt";
  options_.text.train = glue / "RTE" / "train.tsv";
  options_.text.valid = {glue / "RTE" / "dev.tsv"};
  options_.text.test = {glue / "RTE" / "test.tsv"};
  const PrepareTableSummary rte = prepare_table(options_);
  EXPECT_EQ(rte.labels, (std::vector<std::pair<std::string, int64_t>>{{"entailment", 1249}, {"not_entailment", 1241}}));
  EXPECT_EQ(open("train").size(), 2490);
  EXPECT_EQ(open("valid").size(), 277);
  EXPECT_EQ(open("test").size(), 3000);
  EXPECT_EQ(open("valid").label(0), 1);
  for (const SplitSummary& split : rte.text.splits) EXPECT_EQ(split.unknown, 0) << split.name;
  options_.text.destdir = dir_ / "sst2";
  options_.text.train = glue / "SST-2" / "train.tsv";
  options_.text.valid = {glue / "SST-2" / "dev.tsv"};
  options_.text.test.clear();
  const PrepareTableSummary sst2 = prepare_table(options_);
  EXPECT_EQ(sst2.labels, (std::vector<std::pair<std::string, int64_t>>{{"1", 37569}, {"0", 29780}}));
  const SentencePairs valid(SentencePairFolder(dir_ / "sst2"), "valid");
  int64_t positive = 0;
  for (int64_t i = 0; i < valid.size(); ++i) positive += valid.label(i) == 0;
  EXPECT_EQ(valid.size(), 872);
  EXPECT_EQ(positive, 444);
}

}  // namespace
}  // namespace qn::test
