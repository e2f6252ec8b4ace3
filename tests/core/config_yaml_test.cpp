// The YAML of configurations: broken files, aliases, duplicates, inheritance.
#include "config_structs.h"

namespace qn {
namespace {

TEST(Config, BrokenYamlNamesLineAndColumn) {
  EXPECT_THAT(text_problems("data: a\nworkers: [1, 2\n"),
              ElementsAre(testing::MatchesRegex("x.yaml:[23]:[0-9]+: not valid YAML: .+")));
  EXPECT_THAT(text_problems("data: a\n\tworkers: 1\n"), ElementsAre(HasSubstr("x.yaml:2:")));
  EXPECT_THAT(text_problems("data: a: b"), ElementsAre(HasSubstr("x.yaml:1:8: not valid YAML")));
  EXPECT_THAT(text_problems("data: a\nworkers 1\n"),
              ElementsAre("x.yaml:2: unknown key 'workers 1'; did you mean 'workers'?"));
  EXPECT_THAT(text_problems("just words"), ElementsAre(HasSubstr("this is a single text")));
  EXPECT_THAT(text_problems("- a\n- b"), ElementsAre(HasSubstr("this is a YAML list")));
  EXPECT_THAT(text_problems("data: a\n---\ndata: b"),
              ElementsAre(HasSubstr("x.yaml:2: a second YAML document or leftover text")));
  EXPECT_THAT(text_problems("data: &a [*a]"),
              ElementsAre(HasSubstr("x.yaml:1: a YAML alias ('*name') inside the very thing it names")));
  EXPECT_THAT(text_problems("data: !!python/name:x y"), ElementsAre(HasSubstr("YAML tags such as")));
  EXPECT_THAT(text_problems("<<: {data: a}"), ElementsAre(HasSubstr("merge keys")));
  EXPECT_THAT(text_problems("[a, b]: 3"), ElementsAre(HasSubstr("a key must be a plain word")));
  // Text that a plain loop over the parser's documents would chew on for ever.
  EXPECT_THAT(text_problems(",: 3\nworkers: 1\n"), ElementsAre(HasSubstr("leftover text")));
  EXPECT_THAT(text_problems(std::string(100000, '[')), ElementsAre(HasSubstr("not valid YAML")));
  std::string bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n";
  for (char c = 'b'; c < 'k'; ++c) {
    const std::string previous = fmt::format("*{}", static_cast<char>(c - 1));
    bomb += fmt::format("{0}: &{0} [{1}, {1}, {1}, {1}, {1}, {1}, {1}, {1}, {1}, {1}]\n", c, previous);
  }
  EXPECT_THAT(text_problems(bomb), ElementsAre(HasSubstr("too large")));
}

TEST(Config, AliasesAreCopies) {
  const RunConfig c =
      from_text("workers: &n 5\ncores: *n\nsizes: &s [1, *n]\noptimizer: {schedule: &o {warmup: *n}}\n");
  EXPECT_EQ(c.cores, 5);
  EXPECT_THAT(c.sizes, ElementsAre(1, 5));
  EXPECT_EQ(c.optimizer.schedule.warmup, 5);
  EXPECT_THAT(text_problems("data: &d abc\n\nworkers: *d\nsizes:\n- 1\n- *d\n"),
              ElementsAre("x.yaml:3: 'workers' expects an integer such as 8, got 'abc'",
                          "x.yaml:6: 'sizes[1]' expects an integer such as 8, got 'abc'"));
}

TEST(Config, DuplicateKeysInNestedMaps) {
  EXPECT_THAT(text_problems("optimizer:\n  momentum: 1\n  name: nag\n  momentum: 2"),
              ElementsAre("x.yaml:4: key 'momentum' is given twice, first at x.yaml:2; remove one of them"));
}

TEST_F(ConfigFiles, InheritanceMergesMapsAndReplacesLists) {
  write("base/common.yaml", "workers: 9\nsizes: [1, 2, 3]\noptimizer: {momentum: 0.5, schedule: {lr: 3, warmup: 4}}\n");
  write("base/extra.yaml", "workers: 10\ndata: extra\n");
  const std::string top = write("top.yaml",
                                "inherits: [base/common.yaml, base/extra.yaml]\nsizes: [7]\noptimizer:\n  schedule:\n"
                                "    lr: 2\n");
  const ConfigTree tree = load_config_tree(top, {"data=set"});
  const RunConfig c = read_config<RunConfig>(tree);
  EXPECT_EQ(c.workers, 10);
  EXPECT_THAT(c.sizes, ElementsAre(7));
  EXPECT_EQ(c.optimizer.momentum, 0.5);
  EXPECT_EQ(c.optimizer.schedule.lr, 2);
  EXPECT_EQ(c.optimizer.schedule.warmup, 4);
  EXPECT_EQ(c.data, "set");

  EXPECT_TRUE(tree.has("optimizer.schedule.warmup"));
  EXPECT_FALSE(tree.has("optimizer.name"));
  EXPECT_FALSE(tree.has("inherits"));
  EXPECT_EQ(tree.location("optimizer.schedule.lr"), top + ":5");
  EXPECT_EQ(tree.location("workers"), (dir_ / "base/extra.yaml").string() + ":1");
  EXPECT_EQ(tree.location("data"), "--set data=set");
  EXPECT_EQ(tree.location("optimizer.name"), top + ":3");
  EXPECT_EQ(tree.location("nothing"), top);
}

TEST_F(ConfigFiles, AFileMayBeInheritedAlongTwoWaysAndAnEmptySectionKeepsTheBase) {
  write("root.yaml", "optimizer: {momentum: 0.25}\nworkers: 1\nworkers: 2\n");
  write("a.yaml", "inherits: root.yaml\n");
  write("b.yaml", "inherits: root.yaml\n");
  const std::string top = write("top.yaml", "inherits: [a.yaml, b.yaml]\noptimizer:\n");
  EXPECT_THAT(problems([&] { read_config<RunConfig>(load_config_tree(top)); }),
              ElementsAre(HasSubstr("root.yaml:3: key 'workers' is given twice")));
  write("root.yaml", "optimizer: {momentum: 0.25}\n");
  EXPECT_EQ(read_config<RunConfig>(load_config_tree(top)).optimizer.momentum, 0.25);
}

TEST_F(ConfigFiles, CirclesAndMissingFilesAreNamed) {
  const std::string a = write("a.yaml", "data: x\ninherits: b.yaml\n");
  const std::string b = write("b.yaml", "inherits: [a.yaml]\n");
  EXPECT_THAT(problems([&] { load_config_tree(a); }),
              ElementsAre(fmt::format("{}:1: 'inherits' goes in a circle: {} -> {} -> {}", b, a, b, a)));
  const std::string c = write("c.yaml", "\ninherits: bb.yaml\n");
  EXPECT_THAT(problems([&] { load_config_tree(c); }),
              ElementsAre(fmt::format("{}:2: there is no config file '{}'; did you mean '{}'?", c,
                                      (dir_ / "bb.yaml").string(), b)));
  const std::string d = write("d.yaml", "inherits: {file: a.yaml}\n");
  EXPECT_THAT(problems([&] { load_config_tree(d); }), ElementsAre(HasSubstr("d.yaml:1: 'inherits' expects a file")));
  EXPECT_THAT(problems([&] { load_config_tree(dir_.path()); }), ElementsAre(HasSubstr("not a regular file")));
  EXPECT_THAT(problems([&] { load_config_tree(dir_ / "none/x.yaml"); }), ElementsAre(HasSubstr("there is no config")));
  EXPECT_THAT(text_problems("inherits: a.yaml"), ElementsAre(HasSubstr("x.yaml:1: 'inherits' is not possible here")));
}

}  // namespace
}  // namespace qn
