#include "data/token_blocks.h"

#include "core/hdf5_file.h"
#include "data/lm_dataset.h"
#include "data_test_util.h"
#include "support/golden.h"
#include "support/temp_dir.h"

namespace qn::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

struct Dumped {
  std::vector<int64_t> bounds, sizes, source, target;
};

Dumped dump(const TokenBlocks& blocks) {
  Dumped all;
  for (int64_t b = 0; b < blocks.size(); ++b) {
    const BlockRange range = blocks.range(b);
    all.bounds.insert(all.bounds.end(), {range.begin, range.begin + range.length});
    all.sizes.push_back(blocks.length(b));
    std::vector<int32_t> tokens(static_cast<size_t>(range.length));
    blocks.fill_source(b, tokens.data());
    all.source.insert(all.source.end(), tokens.begin(), tokens.end());
    blocks.fill_target(b, tokens.data());
    all.target.insert(all.target.end(), tokens.begin(), tokens.end());
  }
  return all;
}

TEST(TokenBlocks, EqualTheReference) {
  QN_GOLDEN(path, "data.h5");
  const Hdf5File golden(path, Hdf5File::Mode::read);
  const TempDir dir;
  const TokenStream stream =
      make_stream(dir / "t", golden.read<int64_t>("blocks/sentence_sizes"), golden.read<int64_t>("blocks/stream"));
  int groups = 0;
  for (const std::string& name : golden.members("blocks")) {
    const std::string group = "blocks/" + name;
    if (!golden.is_group(group)) continue;
    SCOPED_TRACE(name);
    const TokenBlocks blocks(stream,
                             {value_named<BreakMode>(golden.string_attribute(group, "break_mode"), "break_mode"),
                              golden.int_attribute(group, "block_size")});
    EXPECT_EQ(blocks.size(), golden.int_attribute(group, "n_blocks"));
    const Dumped all = dump(blocks);
    EXPECT_EQ(all.bounds, golden.read<int64_t>(group + "/bounds"));
    EXPECT_EQ(all.sizes, golden.read<int64_t>(group + "/sizes"));
    EXPECT_EQ(all.source, golden.read<int64_t>(group + "/source"));
    EXPECT_EQ(all.target, golden.read<int64_t>(group + "/target"));
    ++groups;
  }
  EXPECT_GT(groups, 0);
}

TEST(TokenBlocks, SentenceModesWithoutEndOfSentence) {
  // A stream without </s>: the first source token is </s> at sentence starts and the previous token elsewhere.
  const TempDir dir;
  const std::vector<int64_t> sizes = {3, 4}, tokens = {10, 11, 12, 13, 14, 15, 16};
  const TokenStream stream = make_stream(dir / "t", sizes, tokens);
  EXPECT_EQ(dump({stream, {BreakMode::eos, 0}}).source, (std::vector<int64_t>{2, 10, 11, 2, 13, 14, 15}));
  EXPECT_EQ(dump({stream, {BreakMode::none, 3}}).source, (std::vector<int64_t>{2, 10, 11, 2, 13, 14, 15}));
  EXPECT_EQ(dump({stream, {BreakMode::none, 2}}).source, (std::vector<int64_t>{2, 10, 11, 12, 13, 14, 15}));
}

TEST(TokenBlocks, EmptyStream) {
  const TempDir dir;
  const TokenStream stream = make_stream(dir / "t", {}, {});
  for (const BreakMode mode : {BreakMode::none, BreakMode::complete, BreakMode::complete_doc, BreakMode::eos}) {
    EXPECT_EQ(TokenBlocks(stream, {mode, 4}).size(), 0) << name_of(mode);
  }
}

TEST(TokenBlocks, BadOptions) {
  const TempDir dir;
  const TokenStream stream = make_stream(dir / "t", {}, {});
  EXPECT_THAT(error_of([&] { TokenBlocks(stream, {BreakMode::none, 0}); }), HasSubstr("tokens per sample"));
}

TEST(LmDataset, CollatesWithPaddingOnTheRight) {
  const TempDir dir;
  const std::vector<int64_t> sizes = {3, 1, 4}, tokens = {10, 11, 2, 2, 12, 1, 14, 2};
  const LmDataset dataset(std::make_shared<const TokenStream>(make_stream(dir / "t", sizes, tokens)),
                          {BreakMode::eos, 0});
  EXPECT_EQ(dataset.size(), 3);
  EXPECT_EQ(dataset.lengths(), (std::vector<int32_t>{3, 1, 4}));
  const std::vector<int64_t> items = {1, 2, 0};
  const Batch batch = dataset.collate(items);
  EXPECT_EQ(batch.rows, 3);
  EXPECT_EQ(batch.cols, 4);
  EXPECT_EQ(batch.source, (std::vector<int32_t>{2, 1, 1, 1, 2, 12, 1, 14, 2, 10, 11, 1}));
  EXPECT_EQ(batch.target, (std::vector<int32_t>{2, 1, 1, 1, 12, 1, 14, 2, 10, 11, 2, 1}));
  // A <pad> that the text itself holds is no target either.
  EXPECT_EQ(batch.tokens, 7);
  const Batch empty = dataset.collate({});
  EXPECT_EQ(empty.rows, 0);
  EXPECT_EQ(empty.tokens, 0);
}

}  // namespace
}  // namespace qn::test
