#include "data/text_scanner.h"

#include "data_test_util.h"

namespace qn::test {
namespace {

using testing::HasSubstr;

struct Lines {
  std::vector<std::vector<std::string>> lines = {{}};
  void token(std::string_view token) { lines.back().emplace_back(token); }
  void end_line() { lines.emplace_back(); }
};

std::vector<std::vector<std::string>> scan(std::string_view text) {
  Lines visitor;
  scan_text(text, "a.txt", visitor);
  EXPECT_TRUE(visitor.lines.back().empty()) << "tokens after the last line";
  visitor.lines.pop_back();
  return visitor.lines;
}

using Expected = std::vector<std::vector<std::string>>;

TEST(TextScanner, UniversalLineEnds) {
  EXPECT_EQ(scan("a b\nc\r\nd\re\n\nf"), (Expected{{"a", "b"}, {"c"}, {"d"}, {"e"}, {}, {"f"}}));
  EXPECT_EQ(scan("\r\n\r\n"), (Expected{{}, {}}));
  EXPECT_EQ(scan("\n\r"), (Expected{{}, {}}));
  EXPECT_EQ(scan(" "), (Expected{{}}));
  EXPECT_EQ(scan(""), Expected{});
}

TEST(TextScanner, SplitsAtUnicodeSpaceOnly) {
  // Every code point for which Python's str.isspace() holds; \n and \r end lines.
  for (const char* space : {"\t",     "\v",     "\f",     "\x1c",   "\x1d",   "\x1e",   "\x1f",   " ",      "\u0085",
                            "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006",
                            "\u2007", "\u2008", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"}) {
    EXPECT_EQ(scan(std::string(space) + "x" + space + space + "\u00e9y" + space), (Expected{{"x", "\u00e9y"}}));
  }
  // Zero-width space, byte order mark and neighbours of the spaces are part of tokens.
  const std::string odd = "a\u200bb\ufeffcd\u180e\u2010\u202a\U0001f600";
  EXPECT_EQ(scan(odd), (Expected{{odd}}));
}

TEST(TextScanner, InvalidUtf8NamesFileAndLine) {
  for (const char* bad : {"caf\xe9", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
                          "\x80", "\xe2\x82", "\xe2\x82 x"}) {
    const std::string text = std::string("ok \u20ac\nsecond ") + bad;
    EXPECT_THAT(error_of([&] { scan(text); }), AllOf(HasSubstr("a.txt:2:"), HasSubstr("not valid UTF-8"))) << bad;
  }
  EXPECT_THAT(error_of([&] { scan(std::string("ok\na\0b", 6)); }), HasSubstr("a.txt:2: byte 0x00 at position 2"));
}

}  // namespace
}  // namespace qn::test
