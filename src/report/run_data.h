// What a run's folder tells about the run, for `report`: metrics.jsonl, the configuration, how it stands.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "report/run_health.h"
#include "train/metrics_log.h"

namespace qn {

/// Records of one kind as columns: every number that any of them has, NaN where a record has none (or null).
class RecordTable {
 public:
  void add(const std::vector<std::pair<std::string, double>>& numbers);
  size_t rows() const { return rows_; }
  bool has(const std::string& name) const { return columns_.contains(name); }
  /// Empty where no record has it.
  const std::vector<double>& column(const std::string& name) const;
  /// NaN where there is none.
  double last(const std::string& name) const;
  /// In the order in which they came first.
  const std::vector<std::string>& names() const { return names_; }

 private:
  size_t rows_ = 0;
  std::vector<std::string> names_;
  std::map<std::string, std::vector<double>> columns_;
};

/// Something that happened once: a start, an end, a spike.
struct RunEvent {
  std::string kind;
  double update = 0.0, time = 0.0;  ///< time: 0 where older programs have not told
  std::string text;                 ///< for people
};

/// One iteration of a stage's k-means.
struct KMeansRecord {
  int64_t stage = 0, iteration = 0;
  NamedNumbers objective;  ///< by weight
};

struct RunData {
  std::filesystem::path folder;
  std::string name;     ///< of the folder, told apart from those of the other runs
  std::string command;  ///< "train" or "quantize"
  std::string config;   ///< YAML; empty where nothing tells it
  RunHealth health;
  std::string samples = "samples";  ///< "tokens"
  double max_updates = 0.0;         ///< 0: not known
  RecordTable train, valid, stage, packed;
  /// Seconds of training after each row of `train`.
  std::vector<double> train_seconds;
  std::vector<KMeansRecord> kmeans;
  std::vector<RunEvent> events;
  NamedNumbers parameters, packed_bytes;  ///< by group
  std::string packed_file;
  int64_t unreadable = 0;  ///< lines that are no records

  /// The metrics of a validation, the decisive one first: "ppl", "loss".
  std::vector<std::string> metrics() const;
  /// Empty where nothing was validated.
  std::string decisive() const;
  /// Seconds of training when so many updates were done.
  double seconds_at(double update) const;
};

/// Throws qn::Error naming the folder when there is no run in it.
RunData read_run(const std::filesystem::path& folder);
/// Of several folders, with names of their own: the shortest ends of their paths that differ.
std::vector<RunData> read_runs(const std::vector<std::filesystem::path>& folders);

/// Configuration keys that not all runs have alike: the key, then each run's value ("" where it has no such key).
struct ConfigDifference {
  std::string key;
  std::vector<std::string> values;
};
std::vector<ConfigDifference> config_differences(const std::vector<RunData>& runs);

}  // namespace qn
