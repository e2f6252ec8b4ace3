#include "data/preprocess.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "core/file_io.h"
#include "core/folder_lock.h"
#include "data/input_text.h"
#include "data/split_checksum.h"
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

struct Split {
  std::string name;
  InputText text;
};

void add_splits(std::vector<Split>& splits, const std::string& name,
                const std::vector<std::filesystem::path>& sources) {
  for (size_t i = 0; i < sources.size(); ++i) {
    const std::string split = i == 0 ? name : name + std::to_string(i);
    splits.push_back({split, InputText(sources[i], split)});
  }
}

/// The texts to binarize; each is opened once, and pipes are read.
std::vector<Split> list_splits(const PrepareOptions& options) {
  QN_CHECK(!options.train.empty() || !options.valid.empty() || !options.test.empty(),
           "there is no text to prepare; name at least a training text");
  QN_CHECK(!options.train.empty() || !options.srcdict.empty(),
           "the dictionary is made from the training text; name one, or an existing dict.txt");
  std::vector<Split> splits;
  if (!options.train.empty()) add_splits(splits, "train", {options.train});
  add_splits(splits, "valid", options.valid);
  add_splits(splits, "test", options.test);
  return splits;
}

Dictionary make_dictionary(const PrepareOptions& options, const std::vector<Split>& splits) {
  if (!options.srcdict.empty()) return Dictionary::load(options.srcdict);
  const InputText& text = splits.front().text;
  Dictionary dictionary;
  count_tokens(text.view(), text.name(), dictionary);
  dictionary.finalize(options.limits);
  return dictionary;
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

/// Splits that stay in the folder must fit the dictionary that it gets.
void check_leftovers(const std::filesystem::path& folder, const std::vector<Split>& splits, uint64_t dictionary) {
  if (!std::filesystem::is_directory(folder)) return;
  std::vector<std::string> strange;
  for (const std::string& name : splits_in(folder)) {
    if (std::any_of(splits.begin(), splits.end(), [&](const Split& s) { return s.name == name; })) continue;
    if (dictionary_of(folder / name) != dictionary) strange.push_back(name);
  }
  QN_CHECK(
      strange.empty(),
      "{} holds splits that were made with another dictionary: {}. Their ids would mean other words: prepare their "
      "texts as well, remove their .bin and .idx files, or choose another folder",
      folder.string(), fmt::join(strange, ", "));
}

/// All of them can be written, and none is read from (but a dict.txt, which is read in full and stays the same).
void check_outputs(const PrepareOptions& options, const std::vector<Split>& splits) {
  namespace fs = std::filesystem;
  std::vector<fs::path> inputs, outputs;
  if (!options.srcdict.empty()) inputs.push_back(options.srcdict);
  for (const Split& split : splits) {
    inputs.push_back(split.text.path());
    for (const char* ending : {".bin", ".idx", ".sum"}) outputs.push_back(options.destdir / (split.name + ending));
  }
  outputs.insert(outputs.end(), {options.destdir / "dict.sum", options.destdir / "dict.txt"});
  std::error_code error;
  for (const fs::path& output : outputs) {
    const std::string obstacle = obstacle_at(output);
    QN_CHECK_USAGE(obstacle.empty(), "cannot write {}: this is {}; remove it, or choose another folder",
                   output.string(), obstacle);
    for (const fs::path& input : inputs)
      QN_CHECK_USAGE(!fs::equivalent(input, output, error) || (input == options.srcdict && output == outputs.back()),
                     "{} would be overwritten by {}: choose another folder", input.string(), output.string());
  }
}

SplitSummary write_split(const Split& split, const std::filesystem::path& destdir, const Dictionary& dictionary) {
  SplitSummary summary;
  write_token_stream(destdir / split.name, dictionary.size(), [&](TokenStreamWriter& writer) {
    summary = binarize(split.text.view(), split.text.name(), dictionary, writer);
  });
  write_split_checksum(destdir / split.name, dictionary.hash());
  summary.name = split.name;
  summary.source = split.text.path();
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
  check_outputs(options, splits);
  const Dictionary dictionary = make_dictionary(options, splits);
  for (const Split& split : splits) {
    if (split.name == "train" && options.srcdict.empty()) continue;  // read in full just now
    scan_text(split.text.view(), split.text.name(), CheckingVisitor{});
  }
  std::error_code error;
  std::filesystem::create_directories(options.destdir, error);
  QN_CHECK(!error, "cannot create the directory {}: {}", options.destdir.string(), error.message());
  const FolderLock lock(options.destdir, "the folder");  // two at once would mix their dictionaries
  check_leftovers(options.destdir, splits, dictionary.hash());
  std::error_code ignored;
  std::filesystem::remove(options.destdir / "dict.sum", ignored);  // of the dictionary before
  dictionary.save(options.destdir / "dict.txt");
  write_dictionary_checksum(options.destdir / "dict.txt");
  PrepareSummary result{dictionary.size(), dictionary.hash(), {}};
  for (const Split& split : splits) result.splits.push_back(write_split(split, options.destdir, dictionary));
  return result;
}

}  // namespace qn
