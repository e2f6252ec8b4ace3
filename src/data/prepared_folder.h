// What everything that `quantnoise prepare` writes has in common: a folder that is checked before anything in it
// changes, dictionaries and token streams with their checksums.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/dictionary.h"
#include "data/input_text.h"
#include "data/tokenizer.h"

namespace qn {

struct SplitSummary {
  std::string name;                        ///< train, valid, ...
  std::filesystem::path source;            ///< the text file
  int64_t sentences = 0;                   ///< lines
  int64_t tokens = 0;                      ///< one </s> per line included
  int64_t unknown = 0;                     ///< tokens that are stored as <unk>
  int64_t replaced = 0;                    ///< of these, the ones that the text spells differently
  std::array<int64_t, kUnkId> specials{};  ///< words that the text spells <s>, <pad>, </s>
  double unknown_share() const { return tokens > 0 ? static_cast<double>(unknown) / static_cast<double>(tokens) : 0; }
};

/// A text on its way to a token stream.
struct SplitText {
  std::filesystem::path prefix;  ///< of .bin, .idx and .sum, in the folder
  std::string name;              ///< train, valid, valid1, ...
  std::filesystem::path source;  ///< for messages
  std::string_view text;
};

/// An input of prepare: the split that a file becomes.
struct SplitInput {
  std::string name;
  InputText text;
};
/// Opens `sources` as splits `name`, `name`1, ...; pipes are read.
void open_splits(std::vector<SplitInput>& splits, const std::string& name,
                 const std::vector<std::filesystem::path>& sources);

/// Throws qn::Error unless every one of `outputs` can be written and is none of `inputs`, of which `kept` (may be
/// empty) may be the output of the same name: it is read in full and written as it was.
void check_outputs(std::span<const std::filesystem::path> inputs, std::span<const std::filesystem::path> outputs,
                   const std::filesystem::path& kept);
/// The three files of a split.
void add_outputs(std::vector<std::filesystem::path>& outputs, const std::filesystem::path& prefix);
/// What killed processes left of files that they were writing to a prepared folder, which the caller has locked.
void remove_leftovers(const std::filesystem::path& folder);

void make_folder(const std::filesystem::path& folder);

/// Splits that stay in `folder`, of those whose names end in `ending`, must fit the dictionary that it gets: throws
/// qn::Error naming those that do not.
void check_leftovers(const std::filesystem::path& folder, const std::vector<std::string>& written, uint64_t dictionary,
                     const std::string& ending = "");

/// Splits of any kind that stay in the prepared `folder`, of which those named in `written` ("train", "input0/train")
/// are made anew, must have been cut by the tokenizer that it gets. Throws qn::Error naming them.
void check_tokenizer_of_rest(const std::filesystem::path& folder, const std::vector<std::string>& written,
                             const Tokenizer* tokenizer);

/// Removes the files of a split, where there are any.
void remove_split(const std::filesystem::path& prefix);

/// Throws qn::Error naming file and line where a text is no UTF-8.
void check_encoding(const SplitText& text);

/// dict.txt or one of its likes, and the checksum beside it.
void save_dictionary(const Dictionary& dictionary, const std::filesystem::path& path);

/// Counts the tokens of a text, plus one </s> per line, into `dictionary`. `name` is for messages.
void count_tokens(std::string_view text, std::string_view name, Dictionary& dictionary,
                  const Tokenizer* tokenizer = nullptr);

class TokenStreamWriter;
/// Appends a text to a stream: per line its ids and </s>. A word spelled like a special symbol gets that symbol's id,
/// as in fairseq, but <pad>, which becomes <unk>: padding is scored by nobody. `name` is for messages. Sets all of the
/// summary but the names.
SplitSummary binarize(std::string_view text, std::string_view name, const Dictionary& dictionary,
                      TokenStreamWriter& writer, const Tokenizer* tokenizer = nullptr);

/// PREFIX.bin, .idx and .sum.
SplitSummary write_split(const SplitText& split, const Dictionary& dictionary, const Tokenizer* tokenizer);

/// `path` read as the dictionary of `tokenizer`'s words. Throws qn::Error when most of them are not.
Dictionary load_dictionary(const std::filesystem::path& path, const Tokenizer* tokenizer);

}  // namespace qn
