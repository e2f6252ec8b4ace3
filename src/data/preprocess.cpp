#include "data/preprocess.h"

#include "core/error.h"
#include "core/file_io.h"
#include "core/folder_lock.h"
#include "data/text_scanner.h"
#include "data/token_stream.h"

namespace qn {
namespace {

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
    const int32_t id = dictionary.index(token);
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

struct Split {
  std::string name;
  std::filesystem::path source;
};

void add_splits(std::vector<Split>& splits, const std::string& name,
                const std::vector<std::filesystem::path>& sources) {
  for (size_t i = 0; i < sources.size(); ++i) {
    splits.push_back({i == 0 ? name : name + std::to_string(i), sources[i]});
  }
}

/// The texts to binarize; all are checked before the first one is read.
std::vector<Split> list_splits(const PrepareOptions& options) {
  std::vector<Split> splits;
  if (!options.train.empty()) splits.push_back({"train", options.train});
  add_splits(splits, "valid", options.valid);
  add_splits(splits, "test", options.test);
  QN_CHECK(!splits.empty(), "there is no text to prepare; name at least a training text");
  QN_CHECK(!options.train.empty() || !options.srcdict.empty(),
           "the dictionary is made from the training text; name one, or an existing dict.txt");
  for (const Split& split : splits) {
    QN_CHECK(std::filesystem::exists(split.source), "{}: no such file (text of the {} split)", split.source.string(),
             split.name);
    QN_CHECK(!std::filesystem::is_directory(split.source), "{} is a directory; name a text file for the {} split",
             split.source.string(), split.name);
    QN_CHECK(std::filesystem::file_size(split.source) > 0, "{}: the file is empty; there is nothing to prepare for {}",
             split.source.string(), split.name);
  }
  return splits;
}

Dictionary make_dictionary(const PrepareOptions& options) {
  if (!options.srcdict.empty()) return Dictionary::load(options.srcdict);
  const MappedFile text(options.train);
  Dictionary dictionary;
  count_tokens(as_text(text.bytes()), options.train.string(), dictionary);
  dictionary.finalize(options.limits);
  return dictionary;
}

SplitSummary write_split(const Split& split, const std::filesystem::path& destdir, const Dictionary& dictionary) {
  const MappedFile text(split.source);
  SplitSummary summary;
  write_token_stream(destdir / split.name, dictionary.size(), [&](TokenStreamWriter& writer) {
    summary = binarize(as_text(text.bytes()), split.source.string(), dictionary, writer);
  });
  summary.name = split.name;
  summary.source = split.source;
  return summary;
}

}  // namespace

void count_tokens(std::string_view text, std::string_view name, Dictionary& dictionary) {
  CountingVisitor visitor{dictionary};
  scan_text(text, name, visitor);
  dictionary.add(kEos, visitor.lines);
}

SplitSummary binarize(std::string_view text, std::string_view name, const Dictionary& dictionary,
                      TokenStreamWriter& writer) {
  SplitSummary summary;
  scan_text(text, name, BinarizingVisitor{dictionary, writer, summary});
  summary.sentences = writer.sentences();
  summary.tokens = writer.tokens();
  return summary;
}

PrepareSummary prepare(const PrepareOptions& options) {
  const std::vector<Split> splits = list_splits(options);
  QN_CHECK(!options.destdir.empty(), "name the directory to write the prepared data to");
  const Dictionary dictionary = make_dictionary(options);
  std::error_code error;
  std::filesystem::create_directories(options.destdir, error);
  QN_CHECK(!error, "cannot create the directory {}: {}", options.destdir.string(), error.message());
  const FolderLock lock(options.destdir, "the folder");  // two at once would mix their dictionaries

  for (const Split& split : splits) {
    if (split.name == "train" && options.srcdict.empty()) continue;  // read in full just now
    const MappedFile text(split.source);
    scan_text(as_text(text.bytes()), split.source.string(), CheckingVisitor{});
  }
  dictionary.save(options.destdir / "dict.txt");
  PrepareSummary result{dictionary.size(), dictionary.hash(), {}};
  for (const Split& split : splits) result.splits.push_back(write_split(split, options.destdir, dictionary));
  return result;
}

}  // namespace qn
