// Configurations written, described and compared.
#include <bit>
#include <cmath>
#include <limits>

#include "config_structs.h"

namespace qn {
namespace {

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

}  // namespace
}  // namespace qn
