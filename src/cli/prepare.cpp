#include <spdlog/spdlog.h>

#include "cli/commands.h"
#include "cli/usage.h"
#include "core/text.h"
#include "data/preprocess.h"

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

void report(const PrepareSummary& summary, const std::filesystem::path& folder) {
  spdlog::info("dictionary: {} types -> {}", group_digits(summary.types), (folder / "dict.txt").string());
  for (const SplitSummary& split : summary.splits) {
    spdlog::info("{}: {} sentences, {} tokens, {:.2f} % unknown ({})", split.name, group_digits(split.sentences),
                 group_digits(split.tokens), 100.0 * split.unknown_share(), split.source.string());
    warn_of_specials(split);
  }
}

}  // namespace

Command add_prepare(CLI::App& app) {
  auto options = std::make_shared<PrepareOptions>();
  app.add_option(
      "--train", options->train,
      "Training text, one sentence or paragraph per line, words separated by spaces; like all texts a file or "
      "a pipe, which is read into memory: --train <(zstd -dc FILE), --train /dev/stdin");
  app.add_option("--valid", options->valid, "Validation text (repeatable: valid, valid1, ...)");
  app.add_option("--test", options->test, "Test text (repeatable: test, test1, ...)");
  app.add_option("-o,--out", options->destdir, "Folder to write dict.txt, train.bin, train.idx, ... to")->required();
  app.add_option("--dict", options->srcdict, "Use this dict.txt instead of making one from the training text");
  app.add_option("--threshold", options->limits.threshold, "Words counted less often become <unk>")
      ->check(whole_number(0))
      ->capture_default_str();
  app.add_option("--nwords", options->limits.nwords, "Keep at most this many words (-1: all)")
      ->check(whole_number(-1))
      ->capture_default_str();
  app.add_option("--padding-factor", options->limits.padding_factor,
                 "Fill the dictionary up to a multiple of this with unused words")
      ->check(whole_number(1))
      ->capture_default_str();
  app.footer("The result is what fairseq-preprocess --only-source makes; folders made by it are read as well.");
  return [options](Communicator& comm) {
    if (comm.is_root()) report(prepare(*options), options->destdir);
    log_peak_memory(comm);
    return kSuccess;
  };
}

}  // namespace qn::cli
