#include "data/tokenizer.h"

#include <algorithm>

#include "core/error.h"
#include "core/file_io.h"
#include "core/file_kind.h"
#include "data/byte_pairs.h"
#include "data/tokenizer_json.h"
#include "data/word_pieces.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

using Files = std::vector<TokenizerFile>;

/// A way to keep a tokenizer: files that must be there, and one that may.
struct Kind {
  std::vector<std::string> files;
  std::string option;
  std::unique_ptr<Tokenizer> (*make)(Files files);  // given in this order
};

std::unique_ptr<Tokenizer> make_byte_pairs(Files files) {
  BytePairModel model = read_byte_pairs(files[0], files[1]);
  return std::make_unique<BytePairs>(std::move(model), std::move(files));
}

std::unique_ptr<Tokenizer> make_word_pieces(Files files) {
  const WordPieceOptions options = files.size() > 1 ? WordPieceOptions::read(files[1]) : WordPieceOptions();
  std::string pieces = files[0].text, name = files[0].path.string() + ":";
  return std::make_unique<WordPieces>(std::move(pieces), name, options, std::move(files));
}

std::unique_ptr<Tokenizer> make_from_json(Files files) { return read_tokenizer_json(std::move(files.front())); }

/// The first one that is complete counts.
const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all = {{{"encoder.json", "vocab.bpe"}, "", make_byte_pairs},
                                        {{"vocab.json", "merges.txt"}, "", make_byte_pairs},
                                        {{"vocab.txt"}, "tokenizer_config.json", make_word_pieces},
                                        {{"tokenizer.json"}, "", make_from_json}};
  return all;
}

/// The names that `exists` knows, of the first kind that has all it needs.
template <typename Exists>
std::vector<std::string> complete_files(const Exists& exists, const Kind*& kind) {
  for (const Kind& each : kinds()) {
    if (!std::all_of(each.files.begin(), each.files.end(), exists)) continue;
    kind = &each;
    std::vector<std::string> names = each.files;
    if (!each.option.empty() && exists(each.option)) names.push_back(each.option);
    return names;
  }
  return {};
}

}  // namespace

std::unique_ptr<Tokenizer> make_tokenizer(Files files) {
  const auto find = [&](const std::string& name) {
    return std::find_if(files.begin(), files.end(),
                        [&](const TokenizerFile& file) { return file.path.filename() == name; });
  };
  const Kind* kind = nullptr;
  Files chosen;
  for (const std::string& name :
       complete_files([&](const std::string& each) { return find(each) != files.end(); }, kind))
    chosen.push_back(std::move(*find(name)));
  QN_CHECK(kind != nullptr, "these files make no tokenizer");
  return kind->make(std::move(chosen));
}

std::unique_ptr<Tokenizer> find_tokenizer(const fs::path& folder) {
  const Kind* kind = nullptr;
  Files files;
  for (const std::string& name :
       complete_files([&](const std::string& each) { return fs::exists(folder / each); }, kind))
    files.push_back({folder / name, read_text_file(folder / name)});
  return kind == nullptr ? nullptr : kind->make(std::move(files));
}

std::unique_ptr<Tokenizer> open_tokenizer(const fs::path& folder) {
  QN_CHECK_USAGE(!fs::is_regular_file(folder), "{} is a file: name the folder that holds the tokenizer's files ({})",
                 folder.string(), folder.has_parent_path() ? folder.parent_path().string() : ".");
  QN_CHECK_USAGE(fs::is_directory(folder), "{}: there is no such folder (of a tokenizer's files)", folder.string());
  std::unique_ptr<Tokenizer> tokenizer = find_tokenizer(folder);
  QN_CHECK_USAGE(tokenizer,
                 "{} has no tokenizer's files: encoder.json and vocab.bpe, or vocab.json and merges.txt (byte pairs of "
                 "GPT-2, RoBERTa), vocab.txt (word pieces of BERT), or tokenizer.json (either)",
                 folder.string());
  return tokenizer;
}

void save_tokenizer(const fs::path& data, const Tokenizer* tokenizer) {
  const fs::path folder = data / kTokenizerFolder;
  std::error_code error;
  for (const Kind& kind : kinds()) {
    for (const std::string& file : kind.files) fs::remove(folder / file, error);
    if (!kind.option.empty()) fs::remove(folder / kind.option, error);
  }
  fs::remove(folder, error);  // unless there is something else in it
  if (tokenizer == nullptr) return;
  error.clear();
  fs::create_directories(folder, error);
  QN_CHECK(!error, "cannot create the directory {}: {}", folder.string(), error.message());
  for (const TokenizerFile& file : tokenizer->files()) atomic_write_text(folder / file.path.filename(), file.text);
}

}  // namespace qn
