#include "data/prepare_table.h"

#include <fmt/ranges.h>

#include <set>

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
    const bool may_lack_labels = split.name.starts_with("test");
    // A name of the labels that no table has is misspelt.
    const bool named_elsewhere = !tables.empty() && tables.front().table.labelled;
    tables.push_back({split.name, split.text.path(),
                      read_sentence_table(split, options.columns, may_lack_labels && named_elsewhere)});
    const SentenceTable& first = tables.front().table;
    const SentenceTable& table = tables.back().table;
    QN_CHECK(table.pairs == first.pairs, "{} has {} of sentences, but {} has {}: name the columns (--columns)",
             split.text.name(), table.columns, tables.front().source.string(), first.columns);
    QN_CHECK_USAGE(table.labelled || may_lack_labels,
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
    QN_CHECK(score_of(word).has_value(),
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
  QN_CHECK(classes >= 2, "{} has {}: two classes at least are due",
           (options.label_dict.empty() ? tables.front().source : options.label_dict).string(),
           classes == 0 ? "no classes" : fmt::format("one class only, '{}'", labels.symbol(kSpecialCount)));
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
}

/// Splits that stay in the folder must be of the same kind as those that it gets: as many sentences, labels or scores.
void check_kind_of_rest(const fs::path& folder, const std::vector<std::string>& written, bool pairs, bool regression) {
  const auto rest = [&](const char* part, const char* extension) {
    std::set<std::string> names;
    if (fs::is_directory(folder / part))
      for (const auto& entry : fs::directory_iterator(folder / part))
        if (entry.path().extension() == extension) names.insert(entry.path().stem().string());
    for (const std::string& name : written) names.erase(name);
    return names;
  };
  const auto refuse = [&](const std::set<std::string>& strange, const char* theirs, const char* ours) {
    QN_CHECK(
        strange.empty(),
        "{} holds splits that have {}: {}. The table that is prepared has {}: prepare theirs as well, remove them, "
        "or choose another folder",
        folder.string(), theirs, fmt::join(strange, ", "), ours);
  };
  std::set<std::string> first = rest("input0", ".idx");
  const std::set<std::string> second = rest("input1", ".idx");
  if (pairs) {
    for (const std::string& name : second) first.erase(name);
    refuse(first, "one sentence", "two sentences");
  } else {
    refuse(second, "two sentences", "one sentence");
  }
  if (regression)
    refuse(rest("label", ".idx"), "classes", "scores");
  else
    refuse(rest("label", ".label"), "scores", "classes");
}

/// What the folder still has of the same splits as they were before: it would be taken for a part of the new ones.
void remove_old_parts(const fs::path& folder, const std::vector<TableSplit>& tables, bool regression) {
  const auto remove = [](const fs::path& path) {
    std::error_code ignored;
    fs::remove(path, ignored);
  };
  const auto remove_dictionary = [&](const fs::path& part) {
    for (const char* name : {"dict.txt", "dict.sum"}) remove(part / name);
  };
  for (const TableSplit& split : tables) {
    if (!split.table.pairs) remove_split(folder / "input1" / split.name);
    if (!split.table.labelled || regression) remove_split(folder / "label" / split.name);
    if (split.table.labelled && regression) continue;
    for (const char* ending : {".label", ".label.sum"}) remove(folder / "label" / (split.name + ending));
  }
  if (!tables.front().table.pairs) {
    remove_dictionary(folder / "input1");
    remove(folder / "input1");  // unless there is something else in it
  }
  if (regression) remove_dictionary(folder / "label");
}

std::vector<std::string> names_of(const std::vector<TableSplit>& tables) {
  std::vector<std::string> names;
  for (const TableSplit& split : tables) names.push_back(split.name);
  return names;
}

/// Nothing that stays in the folder is misunderstood when it gets these tables.
void check_folder_of_tables(const PrepareTableOptions& options, const std::vector<TableSplit>& tables,
                            const Dictionary& dictionary, const Dictionary& labels, const Tokenizer* tokenizer) {
  const fs::path& folder = options.text.destdir;
  const std::vector<std::string> written = names_of(tables);
  const bool pairs = tables.front().table.pairs;
  check_kind_of_rest(folder, written, pairs, options.regression);
  for (const char* part : {"input0", "input1"}) check_leftovers(folder / part, written, dictionary.hash());
  if (!options.regression) check_leftovers(folder / "label", written, labels.hash());
  std::vector<std::string> parts;
  for (const std::string& name : written)
    for (const char* part : {"input0/", "input1/"}) parts.push_back(part + name);
  check_tokenizer_of_rest(folder, parts, tokenizer);
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
  remove_leftovers(folder);
  check_folder_of_tables(options, tables, dictionary, labels, tokenizer);
  remove_old_parts(folder, tables, options.regression);
  make_folder(folder / "label");
  for (const char* part : {"input0", "input1"}) {
    if (part == std::string_view("input1") && !tables.front().table.pairs) continue;
    make_folder(folder / part);
    save_dictionary(dictionary, folder / part / "dict.txt");
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
