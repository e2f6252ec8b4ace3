// Reading configurations: values, defaults, problems, overrides.
#include <cmath>
#include <limits>

#include "config_structs.h"

namespace qn {
namespace {

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
