#include "data/tokenizer_json.h"

#include <algorithm>

#include "core/error.h"
#include "core/strict_json.h"
#include "data/byte_pairs.h"
#include "data/word_pieces.h"

namespace qn {
namespace {

using Json = nlohmann::json;

/// An object of the file, `path` being where it is: "model", "pre_tokenizer". Null and absent are the same.
class Section {
 public:
  Section(std::string file, std::string path, const Json& value)
      : file_(std::move(file)), path_(std::move(path)), value_(value.is_null() ? Json::object() : value) {
    QN_CHECK(value_.is_object(), "{}: '{}' is no object", file_, path_);
  }
  static Section of(const std::string& file, const Json& root, const char* key) {
    return Section(file, key, root.value(key, Json()));
  }

  bool absent() const { return value_.empty(); }
  std::string type() const { return text("type", absent() ? "none" : ""); }
  const Json& operator[](const char* key) const {
    static const Json null;
    const auto found = value_.find(key);
    return found == value_.end() ? null : *found;
  }
  bool flag(const char* key, bool otherwise) const {
    const Json& value = (*this)[key];
    if (value.is_null()) return otherwise;
    QN_CHECK(value.is_boolean(), "{}: {} of '{}' is {}, true or false is due", file_, key, path_, value.dump());
    return value.get<bool>();
  }
  std::string text(const char* key, const char* otherwise) const {
    const Json& value = (*this)[key];
    return value.is_string() ? value.get<std::string>() : otherwise;
  }
  /// Refuses everything but `value` (and null where that is empty, 0 or false).
  void require(const char* key, const Json& value) const {
    const Json& found = (*this)[key];
    const bool nothing = value == "" || value == 0 || value == false;
    QN_CHECK(found == value || (found.is_null() && nothing),
             "{}: {} of '{}' is {}; only {} is done here, so texts would be cut otherwise than for the model", file_,
             key, path_, found.dump(), value.dump());
  }
  /// Refuses a section of another type than these; "none" where there is none.
  void require_type(std::initializer_list<const char*> types) const {
    const std::string found = type();
    QN_CHECK(std::find(types.begin(), types.end(), found) != types.end(),
             "{}: {} is of type '{}', only '{}' is done here, so texts would be cut otherwise than for the model",
             file_, path_, found, *types.begin());
  }

 private:
  std::string file_, path_;
  Json value_;
};

/// Tokens that the file lists beside the model's; special ones stand for no text.
struct AddedToken {
  std::string content;
  int32_t id;
  bool special;
};

std::vector<AddedToken> added_tokens(const std::string& file, const Json& root) {
  std::vector<AddedToken> tokens;
  const Json list = root.value("added_tokens", Json::array());
  QN_CHECK(list.is_array(), "{}: 'added_tokens' is no list", file);
  for (const Json& entry : list) {
    const Section token(file, "added_tokens", entry);
    QN_CHECK(token["content"].is_string(), "{}: an entry of 'added_tokens' has no content", file);
    const std::string content = token["content"].get<std::string>();
    const int64_t id =
        json_integer(token["id"], fmt::format("{}: the id of the added token '{}'", file, content), 0, kMostTokens - 1);
    tokens.push_back({content, static_cast<int32_t>(id), token.flag("special", false)});
  }
  return tokens;
}

std::unordered_map<std::string, int32_t> read_ids(const std::string& file, const Section& model) {
  const Json& vocabulary = model["vocab"];
  QN_CHECK(vocabulary.is_object() && !vocabulary.empty(), "{}: the model has no vocabulary ('vocab')", file);
  std::unordered_map<std::string, int32_t> ids;
  for (const auto& [token, value] : vocabulary.items())
    ids.emplace(token, static_cast<int32_t>(
                           json_integer(value, fmt::format("{}: the id of '{}'", file, token), 0, kMostTokens - 1)));
  return ids;
}

/// Either "a b" or ["a", "b"]; the second form came later, for tokens with a blank in them.
BytePairModel::Merge read_merge(const Json& entry, const std::string& prefix, int64_t number) {
  if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string())
    return {entry[0].get<std::string>(), entry[1].get<std::string>(), number};
  const std::string text = entry.is_string() ? entry.get<std::string>() : "";
  const size_t space = text.find(' ');
  QN_CHECK(space != std::string::npos && space > 0 && space + 1 < text.size() &&
               text.find(' ', space + 1) == std::string::npos,
           "{}{} is {}: two tokens are due", prefix, number, entry.dump());
  return {text.substr(0, space), text.substr(space + 1), number};
}

std::unique_ptr<Tokenizer> read_pairs(TokenizerFile file, const Json& root, const Section& model) {
  const std::string name = file.path.string();
  Section::of(name, root, "normalizer").require_type({"none"});
  const Section cutting = Section::of(name, root, "pre_tokenizer");
  cutting.require_type({"ByteLevel"});
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) model.require(key, "");
  model.require("ignore_merges", false);
  model.require("dropout", 0);
  BytePairModel pairs;
  pairs.vocabulary_name = pairs.merges_name = name;
  pairs.merge_prefix = name + ": merge ";
  pairs.prefix_space = cutting.flag("add_prefix_space", true);
  pairs.by_words = cutting.flag("use_regex", true);
  pairs.ids = read_ids(name, model);
  std::unordered_set<std::string> specials;
  for (const AddedToken& token : added_tokens(name, root)) {
    QN_CHECK(token.special || pairs.ids.contains(token.content),
             "{}: '{}' is added to the vocabulary and cut out of texts before all else, which is not done here", name,
             token.content);
    const auto known = pairs.ids.emplace(token.content, token.id).first;
    QN_CHECK(known->second == token.id, "{}: '{}' has the ids {} and {}", name, token.content, known->second, token.id);
    specials.insert(token.content);
  }
  pairs.is_special = [specials](const std::string& token) { return specials.contains(token); };
  QN_CHECK(model["merges"].is_array(), "{}: the model has no merges", name);
  for (const Json& entry : model["merges"])
    pairs.merges.push_back(read_merge(entry, pairs.merge_prefix, std::ssize(pairs.merges) + 1));
  return std::make_unique<BytePairs>(std::move(pairs), std::vector{std::move(file)});
}

std::unique_ptr<Tokenizer> read_pieces(TokenizerFile file, const Json& root, const Section& model) {
  const std::string name = file.path.string();
  const Section cleaning = Section::of(name, root, "normalizer"), cutting = Section::of(name, root, "pre_tokenizer");
  cleaning.require_type({"BertNormalizer"});
  cutting.require_type({"BertPreTokenizer"});
  cleaning.require("clean_text", true);
  model.require("unk_token", "[UNK]");
  model.require("continuing_subword_prefix", "##");
  model.require("max_input_chars_per_word", 100);
  WordPieceOptions options;
  options.lower_case = cleaning.flag("lowercase", true);
  options.strip_accents = cleaning.flag("strip_accents", options.lower_case);
  options.split_cjk = cleaning.flag("handle_chinese_chars", true);
  std::vector<std::string> tokens;
  const auto ids = read_ids(name, model);
  tokens.resize(ids.size());
  for (const auto& [token, id] : ids) {
    const auto i = static_cast<size_t>(id);
    QN_CHECK(i < tokens.size() && tokens[i].empty(), "{}: the ids of its {} pieces are not 0 to {}, each once", name,
             tokens.size(), tokens.size() - 1);
    QN_CHECK(!token.empty() && token.find_first_of(" \n\r") == std::string::npos, "{}: '{}' is no word piece", name,
             token);
    tokens[i] = token;
  }
  for (const AddedToken& token : added_tokens(name, root))
    QN_CHECK(ids.contains(token.content), "{}: the added token '{}' is not in the vocabulary, which is not done here",
             name, token.content);
  std::string lines;
  for (const std::string& token : tokens) lines.append(token) += '\n';
  return std::make_unique<WordPieces>(std::move(lines), name + ": piece ", options, std::vector{std::move(file)});
}

}  // namespace

std::unique_ptr<Tokenizer> read_tokenizer_json(TokenizerFile file) {
  const std::string name = file.path.string();
  const auto root = parse_strict_json<Json>(file.text, name);
  QN_CHECK(root.is_object(), "{} is no tokenizer of Hugging Face's: an object is due", name);
  const Section model = Section::of(name, root, "model");
  // Older files do not name the type.
  const std::string type = model.text("type", model["merges"].is_array()                      ? "BPE"
                                              : model["max_input_chars_per_word"].is_number() ? "WordPiece"
                                                                                              : "");
  if (type == "BPE") return read_pairs(std::move(file), root, model);
  if (type == "WordPiece") return read_pieces(std::move(file), root, model);
  fail(
      "{} holds a tokenizer of type '{}'; byte pairs (BPE, as of GPT-2) and word pieces (WordPiece, as of BERT) are "
      "read",
      name, type);
}

}  // namespace qn
