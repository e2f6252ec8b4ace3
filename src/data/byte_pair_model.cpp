#include "data/byte_pair_model.h"

#include <algorithm>

#include "core/error.h"
#include "core/strict_json.h"

namespace qn {
namespace {

/// GPT-2's and RoBERTa's, and those that other vocabularies add in the same manner.
bool looks_special(const std::string& token) {
  return (token.starts_with('<') && token.ends_with('>')) || (token.starts_with('[') && token.ends_with(']')) ||
         token.starts_with("madeupword");
}

void read_vocabulary(const TokenizerFile& file, BytePairModel& model) {
  const std::string name = file.path.string();
  model.vocabulary_name = name;
  const auto json = parse_strict_json<nlohmann::json>(file.text, name);
  QN_CHECK(json.is_object() && !json.empty(), "{} is no vocabulary: an object of tokens and their ids is due", name);
  for (const auto& [token, value] : json.items())
    model.ids.emplace(token, static_cast<int32_t>(json_integer(value, fmt::format("{}: the id of '{}'", name, token), 0,
                                                               kMostTokens - 1)));
}

void add_merge(std::string_view line, int64_t number, BytePairModel& model) {
  const size_t space = line.find(' ');
  QN_CHECK(space != std::string_view::npos && space > 0 && space + 1 < line.size() &&
               line.find(' ', space + 1) == std::string_view::npos,
           "{}{}: expected two tokens with a space between them, found '{}'", model.merge_prefix, number, line);
  model.merges.push_back({std::string(line.substr(0, space)), std::string(line.substr(space + 1)), number});
}

}  // namespace

BytePairModel read_byte_pairs(const TokenizerFile& vocabulary, const TokenizerFile& merges) {
  BytePairModel model;
  model.is_special = looks_special;
  read_vocabulary(vocabulary, model);
  model.merges_name = merges.path.string();
  model.merge_prefix = model.merges_name + ":";
  int64_t line = 0;
  for (std::string_view rest = merges.text; !rest.empty();) {
    std::string_view content = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(content.size() + 1, rest.size()));
    if (content.ends_with('\r')) content.remove_suffix(1);
    ++line;
    if (!content.empty() && !(line == 1 && content.starts_with("#version"))) add_merge(content, line, model);
  }
  return model;
}

}  // namespace qn
