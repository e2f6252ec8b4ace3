#include "data/parallel_text.h"

#include <fmt/ranges.h>

#include <set>

#include "core/error.h"
#include "core/text.h"

namespace qn {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRemedy = "make it with 'quantnoise prepare --pairs SOURCE-TARGET'";

/// "de-en" of "train.de-en.de"; empty for other names.
std::string languages_in(const std::string& name) {
  const size_t last = name.rfind('.');
  const size_t before = last == std::string::npos || last == 0 ? last : name.rfind('.', last - 1);
  if (before == std::string::npos) return "";
  const std::string pair = name.substr(before + 1, last - before - 1), language = name.substr(last + 1);
  return pair.starts_with(language + "-") || pair.ends_with("-" + language) ? pair : "";
}

TokenStream open_side(const ParallelFolder& folder, const std::string& split, const std::string& language) {
  const std::string name = folder.name_of(split, language);
  if (!fs::exists(folder.path / (name + ".idx"))) {
    const std::string ending = folder.name_of("", language);
    std::vector<std::string> splits;
    for (const std::string& known : splits_in(folder.path))
      if (known.ends_with(ending)) splits.push_back(known.substr(0, known.size() - ending.size()));
    QN_CHECK_USAGE(splits.empty(), "{} has no split '{}'; it has: {}", folder.path.string(), split,
                   fmt::join(splits, ", "));
  }
  return TokenStream::open(folder.path, name);
}

}  // namespace

ParallelFolder::ParallelFolder(const fs::path& folder) : path(folder) {
  QN_CHECK_USAGE(fs::is_directory(folder), "{}: there is no such folder of translations; {}", folder.string(), kRemedy);
  std::set<std::string> pairs;
  for (const std::string& name : splits_in(folder))
    if (const std::string pair = languages_in(name); !pair.empty()) pairs.insert(pair);
  QN_CHECK_USAGE(!pairs.empty(), "{} holds no translations (train.de-en.de.idx and the like); {}", folder.string(),
                 kRemedy);
  QN_CHECK_USAGE(pairs.size() == 1, "{} holds several pairs of languages: {}; give each a folder of its own",
                 folder.string(), fmt::join(pairs, ", "));
  const std::string& pair = *pairs.begin();
  // A language may have a hyphen (pt-BR): the dictionaries tell where one ends.
  for (size_t hyphen = pair.find('-'); hyphen != std::string::npos; hyphen = pair.find('-', hyphen + 1)) {
    source_language = pair.substr(0, hyphen);
    target_language = pair.substr(hyphen + 1);
    if (fs::exists(folder / ("dict." + source_language + ".txt"))) break;
  }
  source = Dictionary::load(folder / ("dict." + source_language + ".txt"));
  target = Dictionary::load(folder / ("dict." + target_language + ".txt"));
}

ParallelText::ParallelText(const ParallelFolder& folder, const std::string& split)
    : source_(open_side(folder, split, folder.source_language)),
      target_(open_side(folder, split, folder.target_language)) {
  QN_CHECK(source_.sentences() == target_.sentences(),
           "{} has {} lines, {} has {}: they do not belong together; prepare the data again", source_.name(),
           source_.sentences(), target_.name(), target_.sentences());
  const uint64_t parts[] = {source_.verify(folder.source), target_.verify(folder.target)};
  checksum_ = hash_bytes(parts, sizeof parts);
}

}  // namespace qn
