#include "tasks/hf_tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/special_tokens.h"
#include "core/text.h"
#include "data/byte_pair_model.h"
#include "data/byte_pairs.h"
#include "data/word_pieces.h"

namespace qn {
namespace {

using Json = nlohmann::ordered_json;

std::vector<HfFile> renumbered_pairs(const BytePairs& pairs, const Dictionary& dictionary, bool mask, int64_t size) {
  const std::vector<TokenizerFile>& files = pairs.files();
  std::vector<std::pair<int32_t, std::string>> tokens;
  for (int32_t id = 0; id < kSpecialCount; ++id) tokens.emplace_back(id, dictionary.symbol(id));
  for (const auto& [token, id] : read_byte_pairs(files[0], files[1]).ids)
    if (const int32_t own = dictionary.index(pairs.word(id)); own >= kSpecialCount) tokens.emplace_back(own, token);
  if (mask) tokens.emplace_back(static_cast<int32_t>(size - 1), "<mask>");
  std::sort(tokens.begin(), tokens.end());
  Json vocabulary = Json::object();
  for (const auto& [id, token] : tokens) vocabulary[token] = id;
  Json config{{"tokenizer_class", mask ? "RobertaTokenizer" : "GPT2Tokenizer"},
              {"bos_token", mask ? "<s>" : "</s>"},
              {"eos_token", "</s>"},
              {"unk_token", "<unk>"},
              {"pad_token", "<pad>"}};
  return {{"vocab.json", vocabulary.dump()}, {"merges.txt", files[1].text}, {"tokenizer_config.json", config.dump(2)}};
}

/// A line's number is its piece's id.
std::vector<HfFile> renumbered_pieces(const WordPieces& pieces, const Dictionary& dictionary) {
  std::string text = "[CLS]\n[PAD]\n[SEP]\n[UNK]\n";
  for (int32_t id = kSpecialCount; id < dictionary.size(); ++id) text.append(dictionary.symbol(id)).push_back('\n');
  return {{"vocab.txt", text + "[MASK]\n"}, {"tokenizer_config.json", pieces.options().text()}};
}

}  // namespace

std::vector<HfFile> tokenizer_files(const Tokenizer& tokenizer) {
  std::vector<HfFile> files;
  for (const TokenizerFile& file : tokenizer.files()) {
    const std::string name = file.path.filename().string();
    files.push_back({name == "encoder.json" ? "vocab.json" : name == "vocab.bpe" ? "merges.txt" : name, file.text});
  }
  return files;
}

std::vector<HfFile> renumbered_tokenizer(const Vocabulary& vocabulary, ModelType type, int64_t size, std::string& why) {
  const Dictionary& dictionary = vocabulary.dictionary;
  if (vocabulary.tokenizer == nullptr) {
    why = "there is no tokenizer: words are what stands between spaces, and ids are those of dict.txt";
    return {};
  }
  const Tokenizer& tokenizer = *vocabulary.tokenizer;
  const std::vector<std::string_view> words = tokenizer.words();
  const auto missing =
      std::count_if(words.begin(), words.end(), [&](std::string_view word) { return !dictionary.contains(word); });
  if (missing > 0) {
    why = fmt::format(
        "{} of the tokenizer's {} pieces are not in dict.txt and unknown to the model, which transformers "
        "has no way to say",
        group_digits(missing), group_digits(std::ssize(words)));
    return {};
  }
  const bool bert = type == ModelType::bert;
  const auto* pairs = dynamic_cast<const BytePairs*>(&tokenizer);
  const auto* pieces = dynamic_cast<const WordPieces*>(&tokenizer);
  if (pairs != nullptr && !bert && pairs->files().size() == 2)
    return renumbered_pairs(*pairs, dictionary, type == ModelType::roberta, size);
  if (pieces != nullptr && bert) return renumbered_pieces(*pieces, dictionary);
  why = fmt::format("models of type {} have another kind of tokenizer in transformers", name_of(type));
  return {};
}

}  // namespace qn
