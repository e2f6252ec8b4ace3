#include "core/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>

#include "support/temp_dir.h"

namespace qn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

struct ScheduleConfig {
  double lr = 1.0;
  std::optional<int64_t> warmup;
  void visit(ConfigVisitor& v) {
    v.field("lr", lr, "peak learning rate");
    v.field("warmup", warmup, "updates of linear warm-up");
  }
  void validate(const ConfigChecker& c) const { c.check(lr > 0, "lr", "must be positive, got {}", lr); }
};

enum class Rule { nag, adam };

}  // namespace

template <>
struct EnumNames<Rule> {
  static constexpr EnumName<Rule> kAll[] = {{Rule::nag, "nag"}, {Rule::adam, "adam"}};
};

namespace {

struct OptimizerConfig {
  Rule name = Rule::nag, fallback = Rule::nag;
  double momentum = 0.99;
  ScheduleConfig schedule;
  void visit(ConfigVisitor& v) {
    v.choice("name", name, "update rule");
    v.choice("fallback", fallback, {Rule::nag}, "");
    v.field("momentum", momentum, "weight of the past gradients");
    v.section("schedule", schedule, "learning rate over time");
  }
};

struct EmptyConfig {
  void visit(ConfigVisitor&) {}
};

struct RunConfig {
  bool resume = true;
  int workers = 2;
  int64_t max_updates = 5100;
  std::string data = "data/wt2";
  std::vector<int64_t> sizes = {8, 4};
  std::vector<double> ratios;
  std::vector<std::string> groups = {"ffn", "attn"};
  std::vector<std::string> files;
  std::optional<bool> fused;
  std::optional<int> cores;
  std::optional<double> clip = 0.1;
  std::optional<std::string> device;
  OptimizerConfig optimizer;
  EmptyConfig extras;
  void visit(ConfigVisitor& v) {
    v.field("resume", resume, "continue from the newest checkpoint");
    v.field("workers", workers, "loader threads");
    v.field("max_updates", max_updates, "length of the run");
    v.field("data", data, "folder of the tokens");
    v.field("sizes", sizes, "block sizes");
    v.field("ratios", ratios, "");
    v.choice("groups", groups, {"ffn", "attn", "embed"}, "which weights are noised");
    v.field("files", files, "more inputs");
    v.field("fused", fused, "");
    v.field("cores", cores, "");
    v.field("clip", clip, "largest gradient norm");
    v.field("device", device, "null: whatever there is");
    v.section("optimizer", optimizer, "how weights are updated");
    v.section("extras", extras, "nothing yet");
  }
  void validate(const ConfigChecker& c) const {
    c.check(max_updates >= 0, "max_updates", "must not be negative, got {}", max_updates);
    c.check(workers <= 64, "workers", "must be at most 64, got {}", workers);
    c.check(optimizer.name != Rule::adam || optimizer.momentum < 0.995, "optimizer.momentum",
            "must be below 0.995 with adam, got {}", optimizer.momentum);
    c.check(!resume || data != "nowhere", "", "cannot resume without data");
  }
};

RunConfig from_text(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return read_config<RunConfig>(config_tree_from_text(text, "x.yaml", overrides));
}

/// The lines of the error that `action` throws.
template <class Action>
std::vector<std::string> problems(Action action) {
  try {
    action();
  } catch (const Error& e) {
    std::vector<std::string> lines;
    std::istringstream text(e.what());
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    return lines;
  }
  return {};
}

std::vector<std::string> text_problems(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return problems([&] { from_text(text, overrides); });
}

class ConfigFiles : public testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories((dir_ / name).parent_path());
    std::ofstream(dir_ / name) << text;
    return (dir_ / name).string();
  }
  test::TempDir dir_;
};

TEST(EnumNames, OneTableServesBothWays) {
  for (const Rule rule : all_values<Rule>()) EXPECT_EQ(find_value<Rule>(name_of(rule)), rule);
  EXPECT_THAT(names_of(all_values<Rule>()), ElementsAre("nag", "adam"));
  EXPECT_EQ(find_value<Rule>("sgd"), std::nullopt);
  EXPECT_EQ(value_named<Rule>("adam", "rule"), Rule::adam);
  EXPECT_THAT(problems([] { value_named<Rule>("adamw", "rule"); }),
              ElementsAre("rule must be one of nag, adam; got 'adamw'; did you mean 'adam'?"));
}

TEST(Config, ReadsEveryType) {
  const RunConfig c = from_text(R"(
resume: false
workers: +4
max_updates: 6000000000
data: "with space # and: signs"
sizes: [1, -2]
ratios:
  - 1
  - 2.5e-3
  - .inf
groups: [embed]
files: ['8', true, plain]
fused: true
cores: 3
clip: null
device: cpu
optimizer:
  name: adam
  momentum: 1e-1
  schedule: {lr: 0.25, warmup: 16}
)");
  EXPECT_FALSE(c.resume);
  EXPECT_EQ(c.workers, 4);
  EXPECT_EQ(c.max_updates, 6000000000);
  EXPECT_EQ(c.data, "with space # and: signs");
  EXPECT_THAT(c.sizes, ElementsAre(1, -2));
  EXPECT_THAT(c.ratios, ElementsAre(1, 2.5e-3, std::numeric_limits<double>::infinity()));
  EXPECT_THAT(c.groups, ElementsAre("embed"));
  EXPECT_THAT(c.files, ElementsAre("8", "true", "plain"));
  EXPECT_EQ(c.fused, true);
  EXPECT_EQ(c.cores, 3);
  EXPECT_EQ(c.clip, std::nullopt);
  EXPECT_EQ(c.device, "cpu");
  EXPECT_EQ(c.optimizer.name, Rule::adam);
  EXPECT_EQ(c.optimizer.momentum, 0.1);
  EXPECT_EQ(c.optimizer.schedule.lr, 0.25);
  EXPECT_EQ(c.optimizer.schedule.warmup, 16);
}

TEST(Config, EmptyInputGivesDefaults) {
  for (const char* text : {"", "# nothing\n", "---\n", "{}", "optimizer:\n", "extras: {}"}) {
    EXPECT_EQ(dump_config(from_text(text)), dump_config(RunConfig{})) << text;
  }
  EXPECT_EQ(dump_config(read_config<RunConfig>(ConfigTree())), dump_config(RunConfig{}));
}

TEST(Config, ReadIntoStartsFromTheGivenValuesAndIsAllOrNothing) {
  RunConfig c;
  c.workers = 7;
  c.data = "other";
  read_into(config_tree_from_text("data: new", "x.yaml"), c);
  EXPECT_EQ(c.workers, 7);
  EXPECT_EQ(c.data, "new");
  EXPECT_THROW(read_into(config_tree_from_text("data: newer\nworkers: x", "x.yaml"), c), Error);
  EXPECT_EQ(c.data, "new");
}

TEST(Config, UnknownKeysNameTheNearest) {
  EXPECT_THAT(text_problems("data: a\noptimizer:\n  momentun: 0.9\n"),
              ElementsAre("x.yaml:3: unknown key 'optimizer.momentun'; did you mean 'optimizer.momentum'?"));
  EXPECT_THAT(text_problems("momentum: 0.9"),
              ElementsAre("x.yaml:1: unknown key 'momentum'; did you mean 'optimizer.momentum'?"));
  EXPECT_THAT(text_problems("optimzer: {lr: 1}"),
              ElementsAre("x.yaml:1: unknown key 'optimzer'; did you mean 'optimizer'?"));
  EXPECT_THAT(text_problems("optimizer.name: adam"),
              ElementsAre("x.yaml:1: unknown key 'optimizer.name'; in a file, write 'optimizer:' and, indented below "
                          "it, 'name:'"));
  EXPECT_THAT(text_problems("optimizer:\n  schedule:\n    bananas: 1"),
              ElementsAre("x.yaml:3: unknown key 'optimizer.schedule.bananas'; valid keys here, nearest first: warmup, "
                          "lr"));
  EXPECT_THAT(text_problems("extras: {somethingelse: 1}"),
              ElementsAre("x.yaml:1: unknown key 'extras.somethingelse'; this section has no keys"));
  EXPECT_THAT(text_problems("", {"optimizer.schedule.lrr=1"}),
              ElementsAre("--set optimizer.schedule.lrr=1: unknown key 'optimizer.schedule.lrr'; did you mean "
                          "'optimizer.schedule.lr'?"));
}

TEST(Config, TypeErrorsSayWhatIsExpectedAndWhatCame) {
  const struct {
    const char *text, *message;
  } kCases[] = {
      {"workers: many", "x.yaml:1: 'workers' expects an integer such as 8, got 'many'"},
      {"workers: 1.0", "'workers' expects an integer such as 8, got '1.0'"},
      {"workers: \"8\"", "'workers' expects an integer such as 8, got the quoted text \"8\""},
      {"workers: 3000000000", "'workers' is out of range: got '3000000000'"},
      {"workers:", "'workers' expects an integer such as 8, got nothing (null)"},
      {"max_updates: 99999999999999999999", "'max_updates' is out of range"},
      {"max_updates: 1e6", "'max_updates' expects an integer"},
      {"resume: yes", "'resume' expects true or false, got 'yes'"},
      {"resume: 1", "'resume' expects true or false, got '1'"},
      {"data: [a]", "'data' expects a text such as \"abc\", got a list"},
      {"data: ~", "'data' expects a text such as \"abc\", got nothing (null)"},
      {"sizes: 3", "'sizes' expects a list of integers such as [1, 2, 3], got '3'"},
      {"sizes:\n- 1\n- 2\n- x", "x.yaml:4: 'sizes[2]' expects an integer such as 8, got 'x'"},
      {"ratios: [inf]", "'ratios[0]' expects a number such as 0.5, got 'inf'"},
      {"ratios: [.nan]", "'ratios[0]' expects a number such as 0.5, got '.nan'"},
      {"workers: 010", "'workers' is ambiguous: '010'"},
      {"workers: -08", "'workers' is ambiguous: '-08'"},
      {"clip: 010", "'clip' is ambiguous: '010'"},
      {"clip: 00.5", "'clip' is ambiguous"},
      {"workers: 1_000", "got '1_000'; numbers are decimal, without '_'"},
      {"workers: 0x10", "got '0x10'; numbers are decimal"},
      {"workers: 1e3", "got '1e3'; write whole numbers with digits only"},
      {"workers: .inf", "'workers' expects an integer such as 8, got '.inf'"},
      {"ratios: [1e999]", "'ratios[0]' is out of range: got '1e999'"},
      {"clip: high", "'clip' expects a number such as 0.5, got 'high'"},
      {"cores: {a: 1}", "'cores' expects an integer such as 8, got a section with keys of its own"},
      {"optimizer: adam", "'optimizer' is a section: write 'optimizer:' and its keys, indented, below it; got 'adam'"},
      {"optimizer: {name: nagg}", "'optimizer.name' must be one of nag, adam; got 'nagg'; did you mean 'nag'?"},
      {"groups: [ffn, atn]", "'groups[1]' must be one of ffn, attn, embed; got 'atn'; did you mean 'attn'?"},
      {"optimizer: {fallback: adam}", "'optimizer.fallback' must be one of nag; got 'adam'"},
      {"optimizer: {name: [adam]}", "'optimizer.name' expects a text such as \"abc\", got a list"},
  };
  for (const auto& c : kCases) EXPECT_THAT(text_problems(c.text), ElementsAre(HasSubstr(c.message))) << c.text;
}

TEST(Config, NumbersAreTheSameEverywhere) {
  const RunConfig c = from_text("clip: .5\nratios: [+1, 5., 0, 0.5, -0]\nworkers: +3", {"max_updates=10"});
  EXPECT_EQ(c.clip, 0.5);
  EXPECT_THAT(c.ratios, ElementsAre(1, 5, 0, 0.5, 0));
  EXPECT_EQ(c.workers, 3);
  EXPECT_EQ(c.max_updates, 10);
  EXPECT_THAT(text_problems("", {"max_updates=010"}), ElementsAre(HasSubstr("'max_updates' is ambiguous: '010'")));
}

TEST(Config, NumbersAreWrittenForEveryReaderOfYaml) {
  RunConfig c;
  c.ratios = {1e-8, 2.5e-7, 1e20, 3, 0.1};
  EXPECT_THAT(dump_config(c), HasSubstr("[1.0e-08, 2.5e-07, 1.0e+20, 3.0, 0.1]"));
  EXPECT_THAT(diff_config("a: 1e-08\nb: [2]", "a: 1.0e-08\nb: [3]"), ElementsAre("b: [2] -> [3]"));
}

TEST(Config, ValidationKnowsTheLine) {
  EXPECT_THAT(text_problems("\nmax_updates: -1"), ElementsAre("x.yaml:2: 'max_updates' must not be negative, got -1"));
  EXPECT_THAT(text_problems("optimizer:\n  schedule:\n    lr: 0"),
              ElementsAre("x.yaml:3: 'optimizer.schedule.lr' must be positive, got 0"));
  EXPECT_THAT(text_problems("optimizer: {name: adam}", {"optimizer.momentum=0.999"}),
              ElementsAre("--set optimizer.momentum=0.999: 'optimizer.momentum' must be below 0.995 with adam, got "
                          "0.999"));
  EXPECT_THAT(text_problems("data: nowhere"), ElementsAre("x.yaml: cannot resume without data"));
}

TEST(Config, ValidationOfDefaultsPointsAtTheSection) {
  struct Needy {
    ScheduleConfig schedule;
    void visit(ConfigVisitor& v) { v.section("schedule", schedule, ""); }
    void validate(const ConfigChecker& c) { c.check(false, "schedule.warmup", "must be given"); }
  };
  auto read = [](const char* text, const std::vector<std::string>& overrides = {}) {
    return problems([&] { read_config<Needy>(config_tree_from_text(text, "x.yaml", overrides)); });
  };
  EXPECT_THAT(read("\nschedule: {lr: 1}"),
              ElementsAre("x.yaml:2: 'schedule.warmup' must be given (not given, so the default)"));
  EXPECT_THAT(read("\nschedule: {lr: 1}", {"schedule.lr=2"}), ElementsAre(HasSubstr("x.yaml:2: ")));
  EXPECT_THAT(read(""), ElementsAre(HasSubstr("x.yaml: 'schedule.warmup'")));
}

TEST(Config, AllProblemsAreReportedTogetherInFileOrder) {
  const auto lines = text_problems(R"(bogus: 1
workers: many
optimizer:
  momentun: 1
  name: sgd
  schedule: {lr: -1}
max_updates: -5
workers: 3
)",
                                   {"groups=[x]", "nokey=1", "broken"});
  EXPECT_THAT(
      lines,
      ElementsAre(HasSubstr("--set broken: write it as key=value"), HasSubstr("--set groups=[x]: 'groups[0]'"),
                  HasSubstr("--set nokey=1: unknown key 'nokey'"), HasSubstr("x.yaml:1: unknown key 'bogus'"),
                  HasSubstr("x.yaml:2: 'workers' expects"), HasSubstr("x.yaml:4: unknown key 'optimizer.momentun'"),
                  HasSubstr("x.yaml:5: 'optimizer.name' must be one of"),
                  HasSubstr("x.yaml:6: 'optimizer.schedule.lr' must be positive"),
                  HasSubstr("x.yaml:7: 'max_updates' must not be negative"),
                  "x.yaml:8: key 'workers' is given twice, first at x.yaml:2; remove one of them"));
}

TEST(Config, OverridesAreYamlAndComeLast) {
  const RunConfig c = from_text("workers: 1\nfiles: [a]\noptimizer: {momentum: 0.5}",
                                {"workers=3", "files=[x, y]", "optimizer.schedule.warmup=7", "clip=null",
                                 "optimizer={name: adam}", "data=a=b", "workers=5"});
  EXPECT_EQ(c.workers, 5);
  EXPECT_THAT(c.files, ElementsAre("x", "y"));
  EXPECT_EQ(c.optimizer.schedule.warmup, 7);
  EXPECT_EQ(c.clip, std::nullopt);
  EXPECT_EQ(c.optimizer.name, Rule::adam);
  EXPECT_EQ(c.optimizer.momentum, 0.5);
  EXPECT_EQ(c.data, "a=b");
}

TEST(Config, MalformedOverrides) {
  for (const char* text : {"workers", "=3", ".workers=3", "optimizer..name=adam", "optimizer.=3", "a b=3"}) {
    EXPECT_THAT(text_problems("", {text}), ElementsAre(HasSubstr(std::string("--set ") + text + ": write it as")));
  }
  EXPECT_THAT(text_problems("", {"sizes=[1, 2"}), ElementsAre(HasSubstr("--set sizes=[1, 2: not valid YAML: ")));
  EXPECT_THAT(text_problems("", {"inherits=a.yaml"}), ElementsAre(HasSubstr("can only be given in a file")));
  EXPECT_THAT(text_problems("", {"workers="}), ElementsAre(HasSubstr("--set workers=: 'workers' expects an integer")));
  EXPECT_THAT(text_problems("workers: 2", {"workers.count=3"}), ElementsAre(HasSubstr("got a section with keys")));
}

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

TEST(Config, DumpRoundTripsExactly) {
  RunConfig c;
  c.resume = false;
  c.workers = std::numeric_limits<int>::min();
  c.max_updates = std::numeric_limits<int64_t>::max();
  c.ratios = {0.1, 1.0 / 3, 1e300, 5e-324, -0.0, 1e16, 123456789.0, 2, -INFINITY, INFINITY};
  c.sizes.clear();
  c.files = {"",     "true",  "No",    "null", "~",  "8",   "1e3",    ".5",       "-",         "a b",  "a: b",
             "a #b", "#c",    "*x",    "&y",   "!z", "'q'", "\"dq\"", "back\\s",  "tab\tnl\n", "[x]",  "{y}",
             "a,b",  " lead", "tail ", "%p",   "@q", "`r",  "é ü 漢", "\x01\x7f", "/abs/p",    "x=y",  "=",
             "<<",   "---",   "...",   "?",    ":",  "a:",  "|",      ">",        "C:\\dir",   "0x10", ".inf"};
  c.files.push_back(std::string(3000, 'x') + " " + std::string(3000, 'y'));
  c.files.push_back(std::string("nul\0inside", 10));
  c.fused = false;
  c.cores = -3;
  c.clip.reset();
  c.device = "cuda";
  c.optimizer.momentum = 0.30000000000000004;
  const std::string text = dump_config(c);
  const RunConfig back = from_text(text);
  EXPECT_EQ(back.files, c.files) << text;
  ASSERT_EQ(back.ratios.size(), c.ratios.size());
  for (size_t i = 0; i < c.ratios.size(); ++i) {
    EXPECT_EQ(std::bit_cast<uint64_t>(back.ratios[i]), std::bit_cast<uint64_t>(c.ratios[i])) << c.ratios[i];
  }
  EXPECT_THAT(back.sizes, IsEmpty());
  EXPECT_EQ(back.workers, c.workers);
  EXPECT_EQ(back.max_updates, c.max_updates);
  EXPECT_EQ(back.fused, c.fused);
  EXPECT_EQ(back.cores, c.cores);
  EXPECT_EQ(back.clip, std::nullopt);
  EXPECT_EQ(back.device, "cuda");
  EXPECT_EQ(back.optimizer.momentum, c.optimizer.momentum);
  EXPECT_EQ(dump_config(back), text);
}

TEST(Config, DumpIsReadable) {
  EXPECT_EQ(dump_config(RunConfig{}), R"(resume: true
workers: 2
max_updates: 5100
data: data/wt2
sizes: [8, 4]
ratios: []
groups: [ffn, attn]
files: []
fused: null
cores: null
clip: 0.1
device: null
optimizer:
  name: nag
  fallback: nag
  momentum: 0.99
  schedule:
    lr: 1.0
    warmup: null
extras: {}
)");
  EXPECT_EQ(dump_config(EmptyConfig{}), "{}\n");
}

TEST(Config, DescriptionListsKeyDefaultTypeAndMeaning) {
  const std::string text = describe_config<RunConfig>();
  EXPECT_THAT(text, HasSubstr("max_updates = 5100  (integer)\n    length of the run\n"));
  EXPECT_THAT(text, HasSubstr("\n# optimizer.schedule: learning rate over time\n"
                              "optimizer.schedule.lr = 1.0  (number)\n    peak learning rate\n"
                              "optimizer.schedule.warmup = null  (integer or null)\n"));
  EXPECT_THAT(text, HasSubstr("optimizer.name = nag  (one of nag, adam)\n"));
  EXPECT_THAT(text, HasSubstr("groups = [ffn, attn]  (list of texts, out of ffn, attn, embed)\n"));
  EXPECT_THAT(text, HasSubstr("device = null  (text or null)\n"));

  struct Long {
    double x = 0;
    void visit(ConfigVisitor& v) {
      v.field("x", x,
              "a meaning that is told in so many words that no terminal of the usual width has the room to "
              "show all of them in one line");
    }
  };
  EXPECT_EQ(describe_config<Long>(),
            "x = 0.0  (number)\n"
            "    a meaning that is told in so many words that no terminal of the usual width has the room to show\n"
            "    all of them in one line\n");
}

TEST(Config, DiffListsChangedKeys) {
  RunConfig a, b;
  EXPECT_THAT(diff_config(dump_config(a), dump_config(b)), IsEmpty());
  b.optimizer.schedule.lr = 0.5;
  b.groups = {"ffn"};
  b.data = "a b";
  EXPECT_THAT(
      diff_config(dump_config(a), dump_config(b)),
      ElementsAre("data: data/wt2 -> \"a b\"", "groups: [ffn, attn] -> [ffn]", "optimizer.schedule.lr: 1.0 -> 0.5"));
  EXPECT_THAT(diff_config("a: 1\nb: {c: 2}", "b: {d: 3}"),
              ElementsAre("a: 1 -> (not set)", "b.c: 2 -> (not set)", "b.d: (not set) -> 3"));
}

TEST(Config, TwoKeysOfOneNameAreABug) {
  struct Twice {
    int a = 0, b = 0;
    void visit(ConfigVisitor& v) {
      v.field("a", a, "");
      v.field("a", b, "");
    }
  };
  EXPECT_THROW(read_config<Twice>(ConfigTree()), InternalError);
}

}  // namespace
}  // namespace qn
