#include <spdlog/spdlog.h>

#include "cli/commands.h"
#include "cli/prepare_images.h"
#include "cli/usage.h"
#include "core/text.h"
#include "data/byte_pair_model.h"
#include "data/prepare_pairs.h"
#include "data/prepare_table.h"
#include "tasks/hf_folder.h"

namespace qn::cli {

namespace {

/// Words that a text should not have are reported, one line each.
void warn_of_specials(const SplitSummary& split) {
  const auto warn = [&](int32_t id, const char* word, const char* fate) {
    const int64_t count = split.specials[static_cast<size_t>(id)];
    if (count > 0)
      spdlog::warn("{}: {} words of the text are spelled {}: {}", split.name, group_digits(count), word, fate);
  };
  warn(kBosId, "<s>", "they become the symbol of that name");
  warn(kPadId, "<pad>", "they become <unk>, because padding is not scored");
  warn(kEosId, "</s>", "they become the end of a line, beside the real ones");
}

void report_training(const TrainedBytePairs& trained, int64_t asked, const std::filesystem::path& folder) {
  const std::string last = trained.frequency == 0
                               ? "no pairs"
                               : fmt::format("the last pair occurs {} times", group_digits(trained.frequency));
  spdlog::info("tokenizer: {} tokens of {} different words; {} -> {}", group_digits(trained.size),
               group_digits(trained.words), last, folder.string());
  if (trained.size < asked)
    spdlog::warn(
        "the training text gives {} tokens, not {}: no other pair occurs often enough (--min-frequency); take more "
        "text or ask for fewer",
        group_digits(trained.size), group_digits(asked));
}

void report(const PrepareSummary& summary, const PrepareOptions& options, const std::string& types,
            const std::string& dictionary) {
  if (summary.trained) report_training(*summary.trained, options.training.size, options.destdir / kTokenizerFolder);
  spdlog::info("dictionary: {} types -> {}", types, dictionary);
  for (const SplitSummary& split : summary.splits) {
    spdlog::info("{}: {} sentences, {} tokens, {:.2f} % unknown ({})", split.name, group_digits(split.sentences),
                 group_digits(split.tokens), 100.0 * split.unknown_share(), split.source.string());
    warn_of_specials(split);
  }
}

struct Options {
  PrepareOptions text;
  std::string tokenizer, columns, languages;
  PrepareTableOptions table;
  PreparePairsOptions pairs;
  PrepareImages images;
  bool is_table = false;
  std::vector<const CLI::Option*> limits;

  /// Whether no dictionary is made, because all are given.
  bool has_dictionaries() const {
    return !text.srcdict.empty() && (languages.empty() || pairs.joined || !pairs.target_dict.empty());
  }
};

void run_table(Options& options) {
  options.table.text = options.text;
  options.table.columns = TableColumns::parse(options.columns);
  const PrepareTableSummary summary = prepare_table(options.table);
  for (const auto& split : summary.splits)
    spdlog::info("{}: {} samples of {}{}", split.name, group_digits(split.samples), split.columns,
                 split.labelled ? "" : "; no labels");
  for (const auto& [label, count] : summary.labels) spdlog::info("class {}: {} samples", label, group_digits(count));
  report(summary.text, options.text, group_digits(summary.text.types),
         (options.text.destdir / "input0" / "dict.txt").string());
}

void run_pairs(Options& options) {
  options.pairs.text = options.text;
  options.pairs.set_languages(options.languages);
  int64_t target_types = 0;
  const PrepareSummary summary = prepare_pairs(options.pairs, target_types);
  const std::string types = options.pairs.joined ? group_digits(summary.types)
                                                 : group_digits(summary.types) + " and " + group_digits(target_types);
  report(
      summary, options.text, types,
      (options.text.destdir / fmt::format("dict.{{{},{}}}.txt", options.pairs.source, options.pairs.target)).string());
}

void run(Options& options) {
  // An import is of no use with another dictionary; with its own one nothing changes.
  std::error_code error;
  const std::filesystem::path dictionary = options.text.destdir / "dict.txt";
  QN_CHECK_USAGE(!std::filesystem::exists(options.text.destdir / kImportedCheckpoint) ||
                     (!options.is_table && std::filesystem::equivalent(options.text.srcdict, dictionary, error)),
                 "{} holds an imported model, whose files would be overwritten: choose another folder",
                 options.text.destdir.string());
  if (options.images.asked()) return options.images.run(options.text, options.columns);
  QN_CHECK_USAGE(!options.is_table || options.languages.empty(),
                 "texts are either tables (--table) or pairs (--pairs)");
  QN_CHECK_USAGE(
      options.is_table || (options.columns.empty() && !options.table.regression && options.table.label_dict.empty()),
      "--columns, --regression and --label-dict are for tables (--table)");
  QN_CHECK_USAGE(!options.languages.empty() || (!options.pairs.joined && options.pairs.target_dict.empty()),
                 "--joined-dict and --target-dict are for pairs of texts (--pairs)");
  for (const CLI::Option* limit : options.limits)
    QN_CHECK_USAGE(limit->count() == 0 || !options.has_dictionaries(),
                   "{} is for a dictionary that is made of the training text; that of --dict stays as it is: leave one "
                   "of the two out",
                   limit->get_name());
  if (!options.tokenizer.empty()) options.text.tokenizer = open_tokenizer(options.tokenizer);
  if (options.is_table) return run_table(options);
  if (!options.languages.empty()) return run_pairs(options);
  const PrepareSummary summary = prepare(options.text);
  report(summary, options.text, group_digits(summary.types), (options.text.destdir / "dict.txt").string());
}

void add_tables(CLI::App& app, Options& options) {
  const std::string group = "Tables of labelled sentences (GLUE)";
  app.add_flag(
         "--table", options.is_table,
         "The texts are tables: a sample per line, columns separated by tabulators. Writes folders input0, input1 "
         "(for pairs of sentences) and label")
      ->group(group);
  app.add_option(
         "--columns", options.columns,
         "input0=NAME,input1=NAME,label=NAME: names in the header, or numbers from 1. Without it they are found "
         "by the names of GLUE's tasks; without a header, by their number. Of lists of images file=NAME,label=NAME,"
         "name=NAME")
      ->group(group);
  app.add_flag("--regression", options.table.regression, "Labels are numbers, not classes")->group(group);
  app.add_option("--label-dict", options.table.label_dict,
                 "Use the classes of this label/dict.txt instead of those of the training table")
      ->group(group);
}

void add_pairs(CLI::App& app, Options& options) {
  const std::string group = "Texts and their translations";
  app.add_option(
         "--pairs", options.languages,
         "SOURCE-TARGET, for instance de-en: --train X means the texts X.de and X.en, line by line translations "
         "of each other; --valid and --test likewise")
      ->group(group);
  app.add_flag("--joined-dict", options.pairs.joined, "One dictionary for both languages")->group(group);
  app.add_option("--target-dict", options.pairs.target_dict, "What --dict is for the source")->group(group);
}

}  // namespace

Command add_prepare(CLI::App& app) {
  auto all = std::make_shared<Options>();
  PrepareOptions* const options = &all->text;
  app.add_option(
      "--train", options->train,
      "Training text, one sentence or paragraph per line, words separated by spaces; like all texts a file or "
      "a pipe, which is read into memory: --train <(zstd -dc FILE), --train /dev/stdin");
  app.add_option("--valid", options->valid, "Validation text (repeatable: valid, valid1, ...)");
  app.add_option("--test", options->test, "Test text (repeatable: test, test1, ...)");
  app.add_option("-o,--out", options->destdir,
                 "Folder to write dict.txt, train.bin, train.idx, ... to; with images train.images, ...")
      ->required();
  app.add_option("--dict", options->srcdict, "Use this dict.txt instead of making one from the training text");
  app.add_option(
      "--tokenizer", all->tokenizer,
      "Folder of a tokenizer, which cuts words into known pieces: encoder.json and vocab.bpe or vocab.json and "
      "merges.txt (byte pairs of GPT-2 and RoBERTa), vocab.txt (word pieces of BERT), or tokenizer.json (either). Its "
      "files are copied to OUT/tokenizer");
  CLI::Option* const training =
      app.add_option(
             "--train-tokenizer", options->training.size,
             "Make such a tokenizer of the training text (of both sentences, of both languages), with this many "
             "byte pairs, the 256 bytes among them, in OUT/tokenizer; all are in the dictionary. Other texts "
             "get the same pieces by --tokenizer OUT/tokenizer --dict OUT/dict.txt (of a table OUT/input0/dict.txt)")
          ->check(whole_number(256, kMostTokens));
  app.add_option("--min-frequency", options->training.min_frequency,
                 "With --train-tokenizer: pairs that occur less often in the text are not joined")
      ->check(whole_number(1))
      ->needs(training)
      ->capture_default_str();
  const auto limit = [&](const char* name, int64_t& value, int64_t least, const char* doc) {
    all->limits.push_back(app.add_option(name, value, doc)->check(whole_number(least))->capture_default_str());
  };
  limit("--threshold", options->limits.threshold, 0, "Words counted less often become <unk>");
  limit("--nwords", options->limits.nwords, -1, "Keep at most this many words (-1: all)");
  limit("--padding-factor", options->limits.padding_factor, 1,
        "Fill the dictionary up to a multiple of this with unused words");
  add_tables(app, *all);
  add_pairs(app, *all);
  all->images.add_to(app);
  app.footer(
      "Of texts the result is what fairseq-preprocess --only-source makes; folders made by it are read as well.");
  return [all](Communicator& comm) {
    if (comm.is_root()) run(*all);
    log_peak_memory(comm);
    return kSuccess;
  };
}

}  // namespace qn::cli
