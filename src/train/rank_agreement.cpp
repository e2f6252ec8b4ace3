#include "train/rank_agreement.h"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "core/config.h"
#include "core/error.h"
#include "core/file_io.h"
#include "core/machine.h"
#include "core/text.h"
#include "ops/host_access.h"

namespace qn {
namespace {

constexpr char kSeparator = '\x02';

std::string hash_of(std::string_view text) { return hex64(hash_bytes(text.data(), text.size())); }

/// Of the program's own file; empty where it cannot be read.
std::string build_id() {
  try {
    const MappedFile self("/proc/self/exe");
    return hex64(hash_bytes(self.bytes().data(), self.size()));
  } catch (const Error&) {
    return {};
  }
}

}  // namespace

bool RankValues::agree() const {
  return std::all_of(values.begin(), values.end(), [&](const std::string& value) { return value == values.front(); });
}

size_t RankValues::majority() const {
  size_t best = 0;
  const auto count = [&](size_t rank) { return std::count(values.begin(), values.end(), values[rank]); };
  for (size_t rank = 1; rank < values.size(); ++rank)
    if (count(rank) > count(best)) best = rank;
  return best;
}

std::string RankValues::others() const {
  std::vector<std::string> names;
  for (size_t rank = 0; rank < values.size(); ++rank)
    if (values[rank] != values[majority()]) names.push_back(fmt::format("rank {} on {}", rank, hosts[rank]));
  return fmt::format("{}", fmt::join(names, ", "));
}

RankValues gather_values(Communicator& comm, const std::string& own) {
  RankValues result;
  for (const std::string& text : comm.all_gather(host_name() + kSeparator + own)) {
    const size_t gap = text.find(kSeparator);
    result.hosts.push_back(text.substr(0, gap));
    result.values.push_back(text.substr(gap + 1));
  }
  return result;
}

void check_same_program(Communicator& comm, const std::string& config_text) {
  if (comm.size() == 1) return;
  const RankValues versions = gather_values(comm, QN_VERSION);
  QN_CHECK(versions.agree(),
           "{}: another version of quantnoise ({}) than the other ranks ({}); install one on all machines",
           versions.others(), fmt::join(versions.values, ", "), versions.values[versions.majority()]);
  const RankValues builds = gather_values(comm, build_id());
  if (!builds.agree() && comm.is_root())
    spdlog::warn(
        "{}: another build of quantnoise {} than the other ranks: results may round differently, and ranks part "
        "company; use the same file on all machines",
        builds.others(), QN_VERSION);
  if (gather_values(comm, hash_of(config_text)).agree()) return;
  const RankValues configs = gather_values(comm, config_text);
  const size_t most = configs.majority();
  std::string text;
  for (size_t rank = 0; rank < configs.values.size(); ++rank)
    if (configs.values[rank] != configs.values[most])
      text += fmt::format("\nrank {} on {}: {}", rank, configs.hosts[rank],
                          fmt::join(diff_config(configs.values[most], configs.values[rank]), "; "));
  fail_usage(
      "the ranks have different configurations (what most of them have -> what this one has):{}\nGive all the same "
      "files and options",
      text);
}

void check_same_task(Communicator& comm, const Task& task) {
  if (comm.size() == 1) return;
  StateDict state;
  task.save(state);
  std::string own;
  for (const auto& [name, text] : state.texts) own += name + " " + hash_of(text) + "\n";
  const RankValues found = gather_values(comm, own);
  if (found.agree()) return;
  const std::vector<std::pair<const char*, const char*>> kinds{{"dictionary_hash", "the dictionary"},
                                                               {"source_dictionary_hash", "the source dictionary"},
                                                               {"train_checksum", "the training data"},
                                                               {"valid_checksum", "the validation data"},
                                                               {"labels", "the labels"}};
  const auto line_of = [](const std::string& text, const std::string& name) {
    const size_t at = text.find(name + " ");
    return at == std::string::npos ? std::string() : text.substr(at, text.find('\n', at) - at);
  };
  std::vector<std::string> what;
  for (const auto& [name, words] : kinds) {
    const auto differs = [&, key = name](const std::string& text) {
      return line_of(text, key) != line_of(found.values[0], key);
    };
    if (std::any_of(found.values.begin(), found.values.end(), differs)) what.push_back(words);
  }
  fail("{}: other data than the other ranks have ({}); copy the same prepared folder to all machines", found.others(),
       what.empty() ? "their order" : fmt::format("{}", fmt::join(what, ", ")));
}

void check_same_parameters(Communicator& comm, const ParameterStore& store, const Kernels& kernels, int64_t update) {
  if (comm.size() == 1) return;
  std::string own;
  {
    const HostView values(kernels, store.values());
    own = hex64(hash_bytes(values.view().data, values.view().bytes()));
  }
  const RankValues found = gather_values(comm, own);
  QN_CHECK(
      found.agree(),
      "after update {} the ranks have parted company: {} has other parameters than the other {}. Faulty memory or "
      "another processor or build on that machine may be the reason; leave it out, and run the same command: it goes "
      "on from the newest checkpoint",
      update, found.others(), comm.size() == 2 ? "rank" : "ranks");
}

}  // namespace qn
