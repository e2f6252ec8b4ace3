#include "data/prepared_folder.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <set>

#include "core/error.h"
#include "core/file_io.h"
#include "data/split_checksum.h"
#include "data/split_lines.h"
#include "data/token_stream.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kEos = "</s>";
constexpr std::string_view kUnk = "<unk>";

struct CountingVisitor {
  Dictionary& dictionary;
  int64_t lines = 0;
  void token(std::string_view token) { dictionary.add(token); }
  void end_line() { ++lines; }
};

/// Only for the scanner's check of the encoding.
struct CheckingVisitor {
  void token(std::string_view) {}
  void end_line() {}
};

struct BinarizingVisitor {
  const Dictionary& dictionary;
  TokenStreamWriter& writer;
  SplitSummary& summary;
  void token(std::string_view token) {
    int32_t id = dictionary.index(token);
    if (id < kUnkId) {
      ++summary.specials[static_cast<size_t>(id)];
      if (id == kPadId) id = kUnkId;  // what is padding is not scored; fairseq drops such words from every loss
    }
    if (id == kUnkId) {
      ++summary.unknown;
      summary.replaced += token != kUnk;
    }
    writer.add_token(id);
  }
  void end_line() {
    writer.add_token(kEosId);
    writer.end_sentence();
  }
};

/// What the tokenizer of a folder was made of, whatever the files are called; nothing where there is none.
std::multiset<std::string> texts_of(const Tokenizer* tokenizer) {
  std::multiset<std::string> texts;
  if (tokenizer != nullptr)
    for (const TokenizerFile& file : tokenizer->files()) texts.insert(file.text);
  return texts;
}

/// The dictionary that a split of a folder was made with: its own word for it, or that of the folder's dict.txt.
std::optional<uint64_t> dictionary_of(const std::filesystem::path& prefix) {
  try {
    if (const auto sum = read_split_checksum(prefix)) return sum->dictionary;
    return Dictionary::load(prefix.parent_path() / "dict.txt").hash();
  } catch (const Error&) {
    return std::nullopt;  // what is damaged belongs to nothing
  }
}

}  // namespace

void open_splits(std::vector<SplitInput>& splits, const std::string& name, const std::vector<fs::path>& sources) {
  for (size_t i = 0; i < sources.size(); ++i) {
    const std::string split = i == 0 ? name : name + std::to_string(i);
    splits.push_back({split, InputText(sources[i], split)});
  }
}

void check_outputs(std::span<const fs::path> inputs, std::span<const fs::path> outputs, const fs::path& kept) {
  std::error_code error;
  for (const fs::path& output : outputs) {
    const std::string obstacle = obstacle_at(output);
    QN_CHECK_USAGE(obstacle.empty(), "cannot write {}: this is {}; remove it, or choose another folder",
                   output.string(), obstacle);
    for (const fs::path& input : inputs)
      QN_CHECK_USAGE(!fs::equivalent(input, output, error) || (input == kept && input.filename() == output.filename()),
                     "{} would be overwritten by {}: choose another folder", input.string(), output.string());
  }
}

void add_outputs(std::vector<fs::path>& outputs, const fs::path& prefix) {
  for (const char* ending : {".bin", ".idx", ".sum"}) outputs.push_back(prefix.string() + ending);
}

void remove_leftovers(const fs::path& folder) {
  for (const char* part : {"", "input0", "input1", "label", kTokenizerFolder})
    if (fs::is_directory(folder / part)) remove_leftover_temporaries(folder / part);
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  QN_CHECK(!error, "cannot create the directory {}: {}", folder.string(), error.message());
}

void check_leftovers(const fs::path& folder, const std::vector<std::string>& written, uint64_t dictionary,
                     const std::string& ending) {
  if (!fs::is_directory(folder)) return;
  std::vector<std::string> strange;
  for (const std::string& name : splits_in(folder)) {
    if (!name.ends_with(ending) || std::find(written.begin(), written.end(), name) != written.end()) continue;
    if (dictionary_of(folder / name) != dictionary) strange.push_back(name);
  }
  QN_CHECK(
      strange.empty(),
      "{} holds splits that were made with another dictionary: {}. Their ids would mean other words: prepare their "
      "texts as well, remove their .bin and .idx files, or choose another folder",
      folder.string(), fmt::join(strange, ", "));
}

void check_tokenizer_of_rest(const fs::path& folder, const std::vector<std::string>& written,
                             const Tokenizer* tokenizer) {
  std::vector<std::string> rest;
  for (const std::string part : {"", "input0/", "input1/"}) {
    if (!fs::is_directory(folder / part)) continue;
    for (const std::string& name : splits_in(folder / part))
      if (std::find(written.begin(), written.end(), part + name) == written.end()) rest.push_back(part + name);
  }
  if (rest.empty()) return;
  const std::unique_ptr<Tokenizer> present = find_tokenizer(folder / kTokenizerFolder);
  QN_CHECK(texts_of(present.get()) == texts_of(tokenizer),
           "{} holds splits whose words were cut {}: {}. They would be taken for words {}: prepare their texts as "
           "well, {}, or choose another folder",
           folder.string(), present ? "by its own tokenizer/" : "without a tokenizer", fmt::join(rest, ", "),
           tokenizer != nullptr ? "of another one" : "as texts have them",
           present ? fmt::format("use --tokenizer {}", (folder / kTokenizerFolder).string()) : "use no tokenizer");
}

void remove_split(const fs::path& prefix) {
  std::vector<fs::path> files;
  add_outputs(files, prefix);
  std::error_code ignored;
  for (const fs::path& file : files) fs::remove(file, ignored);
}

void check_encoding(const SplitText& text) { scan_text(text.text, text.source.string(), CheckingVisitor{}); }

void save_dictionary(const Dictionary& dictionary, const fs::path& path) {
  remove_dictionary_checksum(path);  // of the dictionary before
  dictionary.save(path);
  write_dictionary_checksum(path);
}

void count_tokens(std::string_view text, std::string_view name, Dictionary& dictionary, const Tokenizer* tokenizer) {
  CountingVisitor visitor{dictionary};
  scan_words(text, name, tokenizer, visitor);
  dictionary.add(kEos, visitor.lines);
}

SplitSummary binarize(std::string_view text, std::string_view name, const Dictionary& dictionary,
                      TokenStreamWriter& writer, const Tokenizer* tokenizer) {
  SplitSummary summary;
  scan_words(text, name, tokenizer, BinarizingVisitor{dictionary, writer, summary});
  summary.sentences = writer.sentences();
  summary.tokens = writer.tokens();
  return summary;
}

SplitSummary write_split(const SplitText& split, const Dictionary& dictionary, const Tokenizer* tokenizer) {
  SplitSummary summary;
  write_token_stream(split.prefix, dictionary.size(), [&](TokenStreamWriter& writer) {
    summary = binarize(split.text, split.source.string(), dictionary, writer, tokenizer);
  });
  write_split_checksum(split.prefix, dictionary.hash());
  summary.name = split.name;
  summary.source = split.source;
  return summary;
}

Dictionary load_dictionary(const fs::path& path, const Tokenizer* tokenizer) {
  Dictionary dictionary = Dictionary::load(path);
  if (tokenizer == nullptr) return dictionary;
  int64_t words = 0, known = 0;
  for (int32_t id = kSpecialCount; id < dictionary.size(); ++id) {
    if (dictionary.symbol(id).starts_with("madeupword")) continue;
    ++words;
    known += tokenizer->contains(dictionary.symbol(id));
  }
  QN_CHECK_USAGE(2 * known >= words,
                 "{} is no dictionary of this tokenizer: of its {} words only {} are pieces that the tokenizer makes; "
                 "name another one, or leave --dict out to have one made of the training text",
                 path.string(), words, known);
  return dictionary;
}

}  // namespace qn
