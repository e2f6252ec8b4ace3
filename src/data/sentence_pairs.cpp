#include "data/sentence_pairs.h"

#include "core/error.h"
#include "core/file_kind.h"
#include "core/text.h"
#include "data/sentence_table.h"
#include "data/split_checksum.h"
#include "data/split_lines.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRemedy = "make it with 'quantnoise prepare --table'";

fs::path scores_file(const fs::path& folder, const std::string& split) { return folder / "label" / (split + ".label"); }

bool has_scores(const fs::path& folder) {
  if (!fs::is_directory(folder / "label")) return false;
  for (const auto& entry : fs::directory_iterator(folder / "label"))
    if (entry.path().extension() == ".label") return true;
  return false;
}

/// Padding words of fairseq's label dictionaries are no classes.
std::vector<std::string> class_names(const Dictionary& dictionary) {
  std::vector<std::string> names;
  for (int32_t id = kSpecialCount; id < dictionary.size(); ++id)
    if (!(dictionary.count(id) == 0 && dictionary.symbol(id).starts_with("madeupword")))
      names.emplace_back(dictionary.symbol(id));
  return names;
}

}  // namespace

SentencePairFolder::SentencePairFolder(const fs::path& folder) : path(folder) {
  QN_CHECK_USAGE(fs::is_directory(folder), "{}: there is no such folder of sentences; {}", folder.string(), kRemedy);
  QN_CHECK_USAGE(fs::exists(folder / "input0" / "dict.txt"),
                 "{} is no folder of labelled sentences, because it has no input0/dict.txt; {}", folder.string(),
                 kRemedy);
  dictionary = Dictionary::load(folder / "input0" / "dict.txt");
  pairs = fs::exists(folder / "input1" / "dict.txt");
  if (pairs) {
    const uint64_t second = Dictionary::load(folder / "input1" / "dict.txt").hash();
    QN_CHECK(second == dictionary.hash(),
             "{}: input0/dict.txt and input1/dict.txt have other words, but a model has one dictionary; {}",
             folder.string(), kRemedy);
  }
  regression = has_scores(folder);
  if (regression) return;
  QN_CHECK_USAGE(fs::exists(folder / "label" / "dict.txt"),
                 "{} has neither label/dict.txt nor scores (label/SPLIT.label); {}", folder.string(), kRemedy);
  labels = class_names(Dictionary::load(folder / "label" / "dict.txt"));
  QN_CHECK(labels.size() >= 2, "{}: label/dict.txt has {} classes, two at least are due", folder.string(),
           labels.size());
}

SentencePairs::SentencePairs(const SentencePairFolder& folder, const std::string& split)
    : name_((folder.path / split).string()), input0_(TokenStream::open(folder.path / "input0", split)) {
  std::vector<uint64_t> parts{input0_.verify(folder.dictionary)};
  if (folder.pairs) {
    input1_.emplace(TokenStream::open(folder.path / "input1", split));
    parts.push_back(input1_->verify(folder.dictionary));
    QN_CHECK(input1_->sentences() == size(),
             "{} has {} first sentences and {} second ones: they do not belong together; prepare the data again", name_,
             size(), input1_->sentences());
  }
  for (int64_t i = 0; i < size(); ++i)
    QN_CHECK(length0(i) > 0 && (!pairs() || length1(i) > 0), "{}: sample {} has no token; prepare the data again",
             name_, i);
  read_labels(folder, split);
  parts.push_back(hash_bytes(labels_.data(), labels_.size() * sizeof(int32_t)));
  parts.push_back(hash_bytes(scores_.data(), scores_.size() * sizeof(float)));
  checksum_ = hash_bytes(parts.data(), parts.size() * sizeof(uint64_t));
}

void SentencePairs::read_labels(const SentencePairFolder& folder, const std::string& split) {
  const fs::path scores = scores_file(folder.path, split);
  if (folder.regression) {
    if (fs::exists(scores)) read_scores(scores);
  } else if (fs::exists(folder.path / "label" / (split + ".idx"))) {
    const TokenStream stream = TokenStream::open(folder.path / "label", split);
    stream.verify(Dictionary::load(folder.path / "label" / "dict.txt"));
    labels_.resize(static_cast<size_t>(stream.sentences()));
    for (int64_t i = 0; i < stream.sentences(); ++i) {
      const std::vector<int32_t> ids = stream.sentence(i);
      const int32_t label = ids.empty() ? -1 : ids[0] - kSpecialCount;
      QN_CHECK(ids.size() == 2 && ids[1] == kEosId && label >= 0 && label < std::ssize(folder.labels),
               "{}: label {} is none of the {} classes of label/dict.txt; prepare the data again", name_, i,
               folder.labels.size());
      labels_[static_cast<size_t>(i)] = label;
    }
  }
  const int64_t count = std::ssize(labels_) + std::ssize(scores_);
  QN_CHECK(!labelled() || count == size(),
           "{} has {} samples but {} labels: they do not belong together; prepare the data again", name_, size(),
           count);
}

void SentencePairs::read_scores(const fs::path& path) {
  const std::string text = read_text_file(path);
  check_text_checksum(path, text);
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view word = strip(take_line(rest));
    const std::optional<float> score = score_of(word);
    QN_CHECK(score, "{}:{}: '{}' is no score: one number is due on every line", path.string(), scores_.size() + 1,
             word);
    scores_.push_back(*score);
  }
}

}  // namespace qn
