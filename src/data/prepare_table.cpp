#include "data/prepare_table.h"

#include <charconv>
#include <cmath>

#include "core/error.h"
#include "core/folder_lock.h"
#include "data/split_checksum.h"
#include "data/split_lines.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

struct TableSplit {
  std::string name;
  fs::path source;
  SentenceTable table;
};

std::vector<TableSplit> read_tables(const PrepareTableOptions& options) {
  std::vector<TableSplit> tables;
  for (const SplitInput& split : list_splits(options.text)) {
    check_encoding({{}, split.name, split.text.path(), split.text.view()});
    tables.push_back({split.name, split.text.path(), read_sentence_table(split, options.columns)});
    const SentenceTable& first = tables.front().table;
    const SentenceTable& table = tables.back().table;
    QN_CHECK(table.pairs == first.pairs, "{} has {} of sentences, but {} has {}: name the columns (--columns)",
             split.text.name(), table.columns, tables.front().source.string(), first.columns);
    QN_CHECK(table.labelled || split.name.starts_with("test"),
             "{} has no column of labels (its sentences: {}): name it, for instance --columns label=NAME",
             split.text.name(), table.columns);
  }
  return tables;
}

/// Throws qn::Error naming the line unless every label is a number.
void check_scores(const TableSplit& split) {
  std::string_view rest = split.table.labels;
  for (int64_t sample = 1; !rest.empty(); ++sample) {
    const std::string_view word = take_line(rest);
    float score = 0;
    const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), score);
    QN_CHECK(error == std::errc() && stop == word.data() + word.size() && std::isfinite(score),
             "{}: the label of sample {} is '{}', a number is due: leave --regression out if labels are classes",
             split.source.string(), sample, word);
  }
}

Dictionary label_dictionary(const PrepareTableOptions& options, const std::vector<TableSplit>& tables) {
  Dictionary labels;
  if (!options.label_dict.empty()) {
    labels = Dictionary::load(options.label_dict);
  } else {
    QN_CHECK_USAGE(!options.text.train.empty(),
                   "classes are numbered by the training table: name it, or the label/dict.txt of a prepared folder "
                   "(--label-dict)");
    count_tokens(tables.front().table.labels, tables.front().source.string(), labels);
    labels.finalize({.padding_factor = 1});
  }
  const int64_t classes = labels.size() - kSpecialCount;
  QN_CHECK(classes >= 2, "{} has {} classes, two at least are due", tables.front().source.string(), classes);
  QN_CHECK(classes <= 10000, "{} has {} classes: these are no classes; use --regression, or name another column",
           tables.front().source.string(), classes);
  for (const TableSplit& split : tables) {
    std::string_view rest = split.table.labels;
    for (int64_t sample = 1; !rest.empty(); ++sample) {
      const std::string_view label = take_line(rest);
      QN_CHECK(labels.index(label) >= kSpecialCount, "{}: the label '{}' of sample {} is none of the {} classes of {}",
               split.source.string(), label, sample, classes,
               options.label_dict.empty() ? "the training table" : options.label_dict.string());
    }
  }
  return labels;
}

/// The sentences of all tables, in the order of writing.
std::vector<SplitText> sentences(const fs::path& folder, const std::vector<TableSplit>& tables) {
  std::vector<SplitText> texts;
  for (const TableSplit& split : tables) {
    texts.push_back({folder / "input0" / split.name, split.name + " input0", split.source, split.table.input0});
    if (split.table.pairs)
      texts.push_back({folder / "input1" / split.name, split.name + " input1", split.source, split.table.input1});
  }
  return texts;
}

std::vector<std::string_view> training_texts(const std::vector<SplitText>& texts) {
  std::vector<std::string_view> training;
  for (const SplitText& text : texts)
    if (text.name.starts_with("train")) training.push_back(text.text);
  return training;
}

Dictionary sentence_dictionary(const PrepareOptions& options, const std::vector<SplitText>& texts,
                               const Tokenizer* tokenizer) {
  if (!options.srcdict.empty()) return load_dictionary(options.srcdict, tokenizer);
  Dictionary dictionary;
  for (const SplitText& text : texts)
    if (text.name.starts_with("train")) count_tokens(text.text, text.source.string(), dictionary, tokenizer);
  finish_dictionary(dictionary, options, tokenizer);
  return dictionary;
}

void check_folder(const PrepareTableOptions& options, const std::vector<TableSplit>& tables,
                  const std::vector<SplitText>& texts) {
  const fs::path& folder = options.text.destdir;
  std::vector<fs::path> inputs, outputs;
  for (const fs::path& dict : {options.text.srcdict, options.label_dict})
    if (!dict.empty()) inputs.push_back(dict);
  for (const TableSplit& split : tables) {
    inputs.push_back(split.source);
    if (options.regression) {
      outputs.push_back(folder / "label" / (split.name + ".label"));
    } else {
      add_outputs(outputs, folder / "label" / split.name);
    }
  }
  for (const SplitText& text : texts) add_outputs(outputs, text.prefix);
  check_outputs(inputs, outputs, {});
  QN_CHECK_USAGE(!fs::exists(folder / "label" / "dict.txt") || !options.regression,
                 "{} holds sentences with classes, not scores; choose another folder", folder.string());
}

std::vector<std::string> names_of(const std::vector<TableSplit>& tables) {
  std::vector<std::string> names;
  for (const TableSplit& split : tables) names.push_back(split.name);
  return names;
}

}  // namespace

PrepareTableSummary prepare_table(const PrepareTableOptions& options) {
  QN_CHECK_USAGE(!options.text.destdir.empty(), "name the directory to write the prepared data to");
  const std::vector<TableSplit> tables = read_tables(options);
  const fs::path& folder = options.text.destdir;
  const std::vector<SplitText> texts = sentences(folder, tables);
  check_folder(options, tables, texts);
  Dictionary labels;
  if (!options.regression) labels = label_dictionary(options, tables);
  for (const TableSplit& split : tables)
    if (options.regression) check_scores(split);
  PrepareTableSummary summary;
  const auto owner = tokenizer_for(options.text, training_texts(texts), summary.text);
  const Tokenizer* const tokenizer = owner.get();
  const Dictionary dictionary = sentence_dictionary(options.text, texts, tokenizer);

  make_folder(folder);
  const FolderLock lock(folder, "the folder");
  std::vector<const char*> parts{"input0", "label"};
  if (tables.front().table.pairs) parts.push_back("input1");
  for (const char* part : parts) {
    const bool of_labels = std::string_view(part) == "label";
    check_leftovers(folder / part, names_of(tables), (of_labels ? labels : dictionary).hash());
    make_folder(folder / part);
    if (!of_labels) save_dictionary(dictionary, folder / part / "dict.txt");
  }
  if (!options.regression) save_dictionary(labels, folder / "label" / "dict.txt");
  save_tokenizer(folder, tokenizer);

  summary.text.types = dictionary.size();
  summary.text.dictionary_hash = dictionary.hash();
  for (const SplitText& text : texts) summary.text.splits.push_back(write_split(text, dictionary, tokenizer));
  for (const TableSplit& split : tables) {
    summary.splits.push_back({split.name, split.table.columns, split.table.samples, split.table.labelled});
    if (!split.table.labelled) continue;
    if (options.regression) {
      write_text_with_checksum(folder / "label" / (split.name + ".label"), split.table.labels);
    } else {
      write_split({folder / "label" / split.name, split.name, split.source, split.table.labels}, labels, nullptr);
    }
  }
  for (int32_t id = kSpecialCount; id < labels.size(); ++id)
    summary.labels.emplace_back(labels.symbol(id), labels.count(id));
  return summary;
}

}  // namespace qn
