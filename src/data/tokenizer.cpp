#include "data/tokenizer.h"

#include "core/error.h"
#include "core/file_io.h"
#include "data/byte_pairs.h"
#include "data/word_pieces.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

struct Kind {
  std::vector<const char*> files;
  std::unique_ptr<Tokenizer> (*open)(const fs::path& folder, const std::vector<const char*>& files);
};

std::unique_ptr<Tokenizer> open_byte_pairs(const fs::path& folder, const std::vector<const char*>& files) {
  return std::make_unique<BytePairs>(folder / files[0], folder / files[1]);
}

std::unique_ptr<Tokenizer> open_word_pieces(const fs::path& folder, const std::vector<const char*>& files) {
  return std::make_unique<WordPieces>(folder / files[0], WordPieceOptions::read(folder / "tokenizer_config.json"));
}

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all = {{{"encoder.json", "vocab.bpe"}, open_byte_pairs},
                                        {{"vocab.json", "merges.txt"}, open_byte_pairs},
                                        {{"vocab.txt"}, open_word_pieces}};
  return all;
}

}  // namespace

std::unique_ptr<Tokenizer> find_tokenizer(const fs::path& folder) {
  for (const Kind& kind : kinds()) {
    bool complete = true;
    for (const char* file : kind.files) complete &= fs::exists(folder / file);
    if (complete) return kind.open(folder, kind.files);
  }
  return nullptr;
}

std::unique_ptr<Tokenizer> open_tokenizer(const fs::path& folder) {
  QN_CHECK_USAGE(fs::is_directory(folder), "{}: there is no such folder (of a tokenizer's files)", folder.string());
  std::unique_ptr<Tokenizer> tokenizer = find_tokenizer(folder);
  QN_CHECK_USAGE(tokenizer,
                 "{} has no tokenizer's files: encoder.json and vocab.bpe, or vocab.json and merges.txt (byte pairs of "
                 "GPT-2, RoBERTa), or vocab.txt (word pieces of BERT)",
                 folder.string());
  return tokenizer;
}

void save_tokenizer(const fs::path& data, const Tokenizer* tokenizer) {
  const fs::path folder = data / kTokenizerFolder;
  std::error_code error;
  std::vector<fs::path> sources = tokenizer != nullptr ? tokenizer->files() : std::vector<fs::path>();
  if (!sources.empty() && fs::equivalent(sources.front().parent_path(), folder, error)) return;
  for (const Kind& kind : kinds())
    for (const char* file : kind.files) fs::remove(folder / file, error);
  fs::remove(folder / "tokenizer_config.json", error);
  fs::remove(folder, error);  // unless there is something else in it
  if (sources.empty()) return;
  fs::create_directories(folder, error);
  QN_CHECK(!error, "cannot create the directory {}: {}", folder.string(), error.message());
  for (const fs::path& source : sources) atomic_write(folder / source.filename(), read_file_bytes(source));
}

}  // namespace qn
