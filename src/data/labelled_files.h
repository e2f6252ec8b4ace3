// Which files hold the pictures of a split, and what their labels are: read off folders or lists.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace qn {

struct LabelledFiles {
  std::filesystem::path origin;
  std::vector<std::filesystem::path> files;
  std::vector<std::string> labels;           ///< one per file: a class's name, or number; "": none
  std::map<std::string, std::string> names;  ///< of a list: what its column `name` calls a label
  bool is_list = false;

  /// At least one picture has a label.
  bool labelled() const;
};

/// Files below FOLDER/CLASS with the label CLASS; or files in FOLDER, without labels. What is called ".x" is passed
/// over. Throws qn::Error where there are none, or both.
LabelledFiles files_of_folder(const std::filesystem::path& folder);

/// The header names the columns, separated by commas or, where there is one, tabulators: file, filename, path or image;
/// class_id, label or class (may be absent); name or class_name (may be absent); or what `columns` says:
/// "file=NAME,label=NAME,name=NAME". Fields may be quoted ("a, b"; "" for a quote in it), but not over several lines.
/// Names of files are relative to `root`. Throws qn::Error naming the list and the line.
LabelledFiles files_of_list(const std::filesystem::path& list, const std::filesystem::path& root,
                            const std::string& columns);

}  // namespace qn
