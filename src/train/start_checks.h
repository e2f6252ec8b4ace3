// What can be known to go wrong before a run has done any work.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "core/file_kind.h"
#include "train/trainer_config.h"

namespace qn {

/// Collects what is wrong, all of it instead of the first.
class ProblemList {
 public:
  /// Calls `check`; an Error that it throws is a problem: one of the configuration if it is a UsageError, or if
  /// `of_configuration` says that it cannot be anything else. True when there was none.
  bool collect(const std::function<void()>& check, bool of_configuration = false);
  /// The problems of all ranks on every rank, each once. Collective.
  void gather(Communicator& comm);
  bool empty() const { return problems_.empty(); }
  bool of_configuration() const;
  /// One message for each.
  std::vector<std::string> texts() const;
  /// Throws UsageError or Error with all of them, unless there are none.
  void fail_if_any() const;

 private:
  struct Problem {
    std::string text;
    bool of_configuration = false;
  };
  std::vector<Problem> problems_;
};

/// Throws qn::Error unless files can be written in `folder`, or it can be made. Makes nothing. `key` names it.
void check_folder(const std::filesystem::path& folder, const std::string& key);

/// Throws UsageError unless `path` can become a file of the kind `written`: there may be an older one, an empty one or
/// none, but nothing else, none of `inputs`, and nothing that a run keeps in `run_folder`, which will have been made by
/// then. `option` names it.
void check_output_file(const std::filesystem::path& path, const std::string& option, FileKind written,
                       const std::vector<std::filesystem::path>& inputs, const std::filesystem::path& run_folder = {});

/// Throws UsageError unless checkpoint.init_from, if it is needed or given, is a checkpoint.
void check_init_from(const CheckpointConfig& config, bool quantize, bool resume);

/// Folder and first checkpoint of a run, and the packed file that it ends with (empty: none). For rank 0.
void check_files(ProblemList& problems, const TrainerConfig& config, bool quantize, bool resume,
                 const std::filesystem::path& packed);

/// The folder itself, or the nearest one above it that exists.
std::filesystem::path existing_folder(const std::filesystem::path& folder);

}  // namespace qn
