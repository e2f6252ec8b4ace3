#include "data/preprocess.h"

#include "core/error.h"
#include "core/folder_lock.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

/// All of them can be written, and none is read from (but a dict.txt, which is read in full and stays the same).
void check_folder(const PrepareOptions& options, const std::vector<SplitInput>& splits) {
  std::vector<fs::path> inputs, outputs;
  if (!options.srcdict.empty()) inputs.push_back(options.srcdict);
  for (const SplitInput& split : splits) {
    inputs.push_back(split.text.path());
    add_outputs(outputs, options.destdir / split.name);
  }
  outputs.insert(outputs.end(), {options.destdir / "dict.sum", options.destdir / "dict.txt"});
  check_outputs(inputs, outputs, options.srcdict);
}

}  // namespace

std::vector<SplitInput> list_splits(const PrepareOptions& options) {
  QN_CHECK(!options.train.empty() || !options.valid.empty() || !options.test.empty(),
           "there is no text to prepare; name at least a training text");
  QN_CHECK(!options.train.empty() || !options.srcdict.empty(),
           "the dictionary is made from the training text; name one, or an existing dict.txt");
  std::vector<SplitInput> splits;
  if (!options.train.empty()) open_splits(splits, "train", {options.train});
  open_splits(splits, "valid", options.valid);
  open_splits(splits, "test", options.test);
  return splits;
}

std::shared_ptr<const Tokenizer> tokenizer_for(const PrepareOptions& options, std::span<const std::string_view> texts,
                                               PrepareSummary& summary) {
  if (options.training.size == 0) return options.tokenizer;
  QN_CHECK_USAGE(!options.train.empty(), "a tokenizer is trained on the training text: name one");
  QN_CHECK_USAGE(options.tokenizer == nullptr && options.srcdict.empty(),
                 "a tokenizer that is trained brings its own dictionary: name no other tokenizer and no dict.txt");
  summary.trained = train_byte_pairs(texts, options.training);
  return make_tokenizer(summary.trained->files);
}

void finish_dictionary(Dictionary& dictionary, const PrepareOptions& options, const Tokenizer* tokenizer) {
  if (options.training.size > 0)
    for (const std::string_view word : tokenizer->words()) dictionary.add(word, 0);
  dictionary.finalize(options.limits);
}

PrepareSummary prepare(const PrepareOptions& options) {
  const std::vector<SplitInput> splits = list_splits(options);
  QN_CHECK(!options.destdir.empty(), "name the directory to write the prepared data to");
  check_folder(options, splits);
  std::vector<SplitText> texts;
  for (const SplitInput& split : splits) {
    texts.push_back({options.destdir / split.name, split.name, split.text.path(), split.text.view()});
    check_encoding(texts.back());
  }
  PrepareSummary result;
  const auto owner = tokenizer_for(options, {{texts.front().text}}, result);
  const Tokenizer* const tokenizer = owner.get();
  Dictionary dictionary;
  if (options.srcdict.empty()) {
    count_tokens(texts.front().text, texts.front().source.string(), dictionary, tokenizer);
    finish_dictionary(dictionary, options, tokenizer);
  } else {
    dictionary = load_dictionary(options.srcdict, tokenizer);
  }
  make_folder(options.destdir);
  const FolderLock lock(options.destdir, "the folder");  // two at once would mix their dictionaries
  remove_leftovers(options.destdir);
  std::vector<std::string> names;
  for (const SplitInput& split : splits) names.push_back(split.name);
  check_leftovers(options.destdir, names, dictionary.hash());
  check_tokenizer_of_rest(options.destdir, names, tokenizer);
  save_tokenizer(options.destdir, tokenizer);
  save_dictionary(dictionary, options.destdir / "dict.txt");
  result.types = dictionary.size();
  result.dictionary_hash = dictionary.hash();
  for (const SplitText& text : texts) result.splits.push_back(write_split(text, dictionary, tokenizer));
  return result;
}

}  // namespace qn
