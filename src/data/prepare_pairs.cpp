#include "data/prepare_pairs.h"

#include <array>

#include "core/error.h"
#include "core/folder_lock.h"
#include "data/split_lines.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

/// One language of all splits.
struct Side {
  std::string language;
  std::vector<SplitInput> inputs;
  std::vector<SplitText> texts;
  fs::path dict;  ///< that is given
  Dictionary dictionary;
};

fs::path dictionary_file(const fs::path& folder, const std::string& language) {
  return folder / ("dict." + language + ".txt");
}

Side open_side(const PreparePairsOptions& options, const std::string& language, const fs::path& dict) {
  Side side{language, {}, {}, dict, {}};
  PrepareOptions text = options.text;
  const auto add_language = [&](fs::path& path) {
    if (!path.empty()) path += "." + language;
  };
  add_language(text.train);
  for (std::vector<fs::path>* paths : {&text.valid, &text.test})
    for (fs::path& path : *paths) add_language(path);
  text.srcdict = dict;
  side.inputs = list_splits(text);
  const std::string between = "." + options.source + "-" + options.target + ".";
  for (const SplitInput& split : side.inputs) {
    const std::string name = split.name + between + language;
    side.texts.push_back({options.text.destdir / name, name, split.text.path(), split.text.view()});
    check_encoding(side.texts.back());
  }
  return side;
}

int64_t lines_of(const SplitText& split) {
  int64_t lines = 0;
  for (std::string_view rest = split.text; !rest.empty(); ++lines) take_line(rest);
  return lines;
}

void check_lines(const Side& source, const Side& target) {
  for (size_t i = 0; i < source.texts.size(); ++i) {
    const int64_t lines = lines_of(source.texts[i]), others = lines_of(target.texts[i]);
    QN_CHECK(lines == others, "{} has {} lines, but {} has {}: line by line they have to be translations",
             source.texts[i].source.string(), lines, target.texts[i].source.string(), others);
  }
}

void check_folder(const PreparePairsOptions& options, const std::array<Side, 2>& sides) {
  std::vector<fs::path> inputs, outputs;
  for (const Side& side : sides) {
    for (const SplitText& text : side.texts) {
      inputs.push_back(text.source);
      add_outputs(outputs, text.prefix);
    }
    // A given dictionary may be the folder's own: it is read in full and written as it was.
    const fs::path dictionary = dictionary_file(options.text.destdir, side.language);
    std::error_code error;
    if (!fs::equivalent(side.dict, dictionary, error)) outputs.push_back(dictionary);
  }
  check_outputs(inputs, outputs, {});
}

void make_dictionaries(const PreparePairsOptions& options, std::array<Side, 2>& sides, const Tokenizer* tokenizer) {
  Dictionary joined;
  for (Side& side : sides) {
    if (!side.dict.empty()) {
      side.dictionary = load_dictionary(side.dict, tokenizer);
      continue;
    }
    const SplitText& train = side.texts.front();
    Dictionary& dictionary = options.joined ? joined : side.dictionary;
    count_tokens(train.text, train.source.string(), dictionary, tokenizer);
    if (!options.joined) finish_dictionary(dictionary, options.text, tokenizer);
  }
  if (!options.joined || !options.text.srcdict.empty()) return;
  finish_dictionary(joined, options.text, tokenizer);
  for (Side& side : sides) side.dictionary = joined;
}

/// Splits that stay in the folder must fit the dictionaries that it gets.
void check_all_leftovers(const PreparePairsOptions& options, const std::array<Side, 2>& sides,
                         const Tokenizer* tokenizer) {
  std::vector<std::string> all;
  for (const Side& side : sides) {
    std::vector<std::string> written;
    for (const SplitText& text : side.texts) written.push_back(text.name);
    check_leftovers(options.text.destdir, written, side.dictionary.hash(), "." + side.language);
    all.insert(all.end(), written.begin(), written.end());
  }
  check_tokenizer_of_rest(options.text.destdir, all, tokenizer);
}

}  // namespace

void PreparePairsOptions::set_languages(const std::string& pair) {
  const size_t hyphen = pair.find('-');
  QN_CHECK_USAGE(hyphen != std::string::npos && hyphen > 0 && hyphen + 1 < pair.size() &&
                     pair.find_first_of("./ ") == std::string::npos && pair.find('-', hyphen + 1) == std::string::npos,
                 "languages are given as SOURCE-TARGET, for instance de-en; got '{}'", pair);
  source = pair.substr(0, hyphen);
  target = pair.substr(hyphen + 1);
  QN_CHECK_USAGE(source != target, "source and target are both called '{}': give their files other endings", source);
}

PrepareSummary prepare_pairs(const PreparePairsOptions& options, int64_t& target_types) {
  QN_CHECK_USAGE(!options.text.destdir.empty(), "name the directory to write the prepared data to");
  QN_CHECK_USAGE(!options.joined || options.target_dict.empty(),
                 "with one dictionary for both languages there is no target's: leave --target-dict out");
  QN_CHECK_USAGE(options.text.training.size == 0 || options.target_dict.empty(),
                 "a tokenizer that is trained brings its own dictionaries: leave --target-dict out");
  std::array<Side, 2> sides{
      open_side(options, options.source, options.text.srcdict),
      open_side(options, options.target, options.joined ? options.text.srcdict : options.target_dict)};
  check_lines(sides[0], sides[1]);
  check_folder(options, sides);
  PrepareSummary summary;
  const auto owner = tokenizer_for(options.text, {{sides[0].texts.front().text, sides[1].texts.front().text}}, summary);
  const Tokenizer* const tokenizer = owner.get();
  make_dictionaries(options, sides, tokenizer);
  const fs::path& folder = options.text.destdir;
  make_folder(folder);
  const FolderLock lock(folder, "the folder");
  remove_leftovers(folder);
  check_all_leftovers(options, sides, tokenizer);
  save_tokenizer(folder, tokenizer);
  for (const Side& side : sides) save_dictionary(side.dictionary, dictionary_file(folder, side.language));
  summary.types = sides[0].dictionary.size();
  summary.dictionary_hash = sides[0].dictionary.hash();
  target_types = sides[1].dictionary.size();
  for (const Side& side : sides)
    for (const SplitText& text : side.texts) summary.splits.push_back(write_split(text, side.dictionary, tokenizer));
  return summary;
}

}  // namespace qn
