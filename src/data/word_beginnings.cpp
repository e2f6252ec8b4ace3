#include "data/word_beginnings.h"

#include "data/tokenizer.h"

namespace qn {

std::vector<bool> word_beginnings(const std::filesystem::path& folder, const Dictionary& dictionary) {
  const std::unique_ptr<Tokenizer> tokenizer = find_tokenizer(folder / kTokenizerFolder);
  std::vector<bool> begins(static_cast<size_t>(dictionary.size()), true);
  for (int32_t id = kSpecialCount; tokenizer && id < dictionary.size(); ++id)
    begins[static_cast<size_t>(id)] =
        dictionary.symbol(id).starts_with("madeupword") || tokenizer->begins_word(dictionary.symbol(id));
  return begins;
}

}  // namespace qn
