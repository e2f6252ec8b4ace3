// Drill: what the program does with damaged and mistyped input. Makes a small run, then mutates one of its files at a
// time (bits, truncations, insertions, swapped fields, huge numbers; the same ones for the same seed), runs the program
// on it under limits of memory and time, and says how each case ended:
//   error   status 1 or 2 with a line that explains
//   same    status 0 and the result of the intact file
//   legal   status 0 where the mutated text is another valid one (configurations, rules, host files)
// Everything else is wrong: a different result without an error (silent), a signal or an error that explains nothing
// (crash), more time than the limit (hang). Exit status 1 if there was any.
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace {

namespace fs = std::filesystem;
using Random = std::mt19937_64;

#ifdef __SANITIZE_ADDRESS__
constexpr rlim_t kMemory = RLIM_INFINITY;  // the sanitizer reserves terabytes of address space
#else
constexpr rlim_t kMemory = rlim_t{6} << 30;  // address space; libraries and threads take most of it
#endif
constexpr auto kPatience = std::chrono::seconds(60), kGrace = std::chrono::seconds(20);

struct Result {
  int status = 0;  // as of waitpid
  bool late = false;
  int64_t peak_mib = 0;
  std::string out, err;
  int code() const { return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status); }
};

std::string content_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// A packed file without checksums, as older programs wrote it: what is left are strict reading and bounded memory.
std::string without_checksums(const std::string& packed) {
  uint64_t length = 0;
  std::memcpy(&length, packed.data(), sizeof length);
  auto header = nlohmann::ordered_json::parse(packed.substr(sizeof length, length));
  header["__metadata__"].erase("xxh3");
  header["__metadata__"]["version"] = "2";
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t shorter = text.size();
  return std::string(reinterpret_cast<const char*>(&shorter), sizeof shorter) + text + packed.substr(8 + length);
}

void write(const fs::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
}

[[noreturn]] void become(const std::vector<std::string>& command, const fs::path& folder) {
  const rlimit memory{kMemory, kMemory};
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_AS, &memory);
  setrlimit(RLIMIT_CORE, &no_core);
  // What sanitizers find is a crash, and not an error that explains.
  for (const char* options : {"ASAN_OPTIONS", "UBSAN_OPTIONS"}) setenv(options, "abort_on_error=1:detect_leaks=0", 1);
  dup2(open((folder / "out").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666), STDOUT_FILENO);
  dup2(open((folder / "err").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666), STDERR_FILENO);
  if (chdir(folder.c_str()) != 0) _exit(99);
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  execv(arguments[0], arguments.data());
  _exit(98);
}

/// A run that takes too long is asked to stop; only one that does not is late.
Result run(const std::vector<std::string>& command, const fs::path& folder) {
  const pid_t child = fork();
  if (child == 0) become(command, folder);
  Result result;
  rusage usage{};
  const auto wait_for = [&](auto patience) {
    const auto end = std::chrono::steady_clock::now() + patience;
    while (wait4(child, &result.status, WNOHANG, &usage) == 0) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return true;
  };
  if (!wait_for(kPatience)) {
    kill(child, SIGTERM);
    if (!wait_for(kGrace)) {
      result.late = true;
      kill(child, SIGKILL);
      wait4(child, &result.status, 0, &usage);
    }
  }
  result.peak_mib = usage.ru_maxrss / 1024;
  result.out = content_of(folder / "out");
  result.err = content_of(folder / "err");
  return result;
}

size_t below(Random& random, size_t bound) { return bound == 0 ? 0 : random() % bound; }

/// Begin and length of the pieces that are made of `set`.
std::vector<std::pair<size_t, size_t>> pieces(const std::string& text, const char* set) {
  std::vector<std::pair<size_t, size_t>> found;
  for (size_t begin = text.find_first_of(set); begin != std::string::npos;) {
    const size_t end = std::min(text.find_first_not_of(set, begin), text.size());
    found.emplace_back(begin, end - begin);
    begin = text.find_first_of(set, end);
  }
  return found;
}

std::string other_number(std::string text, Random& random) {
  constexpr const char* kNumbers[] = {
      "0",   "-3", "010",  "1e3",  ".5",   "100000000",           "1e12",
      "inf", "-1", ".nan", "0x10", "1_00", "9223372036854775807", "99999999999999999999"};
  const auto numbers = pieces(text, "0123456789");
  if (numbers.empty()) return text + kNumbers[below(random, std::size(kNumbers))];
  const auto [begin, length] = numbers[below(random, numbers.size())];
  return text.replace(begin, length, kNumbers[below(random, std::size(kNumbers))]);
}

std::string swap_fields(std::string text, Random& random) {
  const auto words =
      pieces(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./<>*\\\"'[]{}(),;$%&=?!|+-^`~@#");
  if (words.size() < 2) return text + text;
  const auto a = words[below(random, words.size() - 1)], b = words[below(random, words.size())];
  const auto [first, second] = std::minmax(a, b);
  if (first.first + first.second > second.first) return text + text;
  const std::string late = text.substr(second.first, second.second);
  text.replace(second.first, second.second, text.substr(first.first, first.second));
  return text.replace(first.first, first.second, late);
}

/// Eight bytes that claim much.
std::string huge_word(std::string bytes, Random& random) {
  constexpr uint64_t kWords[] = {UINT64_MAX, uint64_t{1} << 40, uint64_t{INT64_MAX}, uint64_t{1} << 31, 0};
  if (bytes.size() < 8) return bytes + bytes;
  const uint64_t word = kWords[below(random, std::size(kWords))];
  const size_t at = below(random, std::min<size_t>(bytes.size() - 7, 64 + below(random, bytes.size())));
  return bytes.replace(at, 8, reinterpret_cast<const char*>(&word), 8);
}

enum class Style { binary, text, numbers };

std::string mutate(std::string content, Style style, Random& random) {
  if (style == Style::numbers) return other_number(content, random);
  const bool text = style == Style::text;
  const size_t size = content.size(), at = below(random, size);
  switch (below(random, 10)) {
    case 0:
    case 1:
    case 2:
      for (size_t n = below(random, 3) + 1; n > 0 && size > 0; --n)
        content[below(random, size)] ^= static_cast<char>(1 << below(random, 8));
      return content;
    case 3:
      return content.substr(0, at);
    case 4:
      for (size_t n = below(random, 9) + 1; n > 0; --n) content.insert(at, 1, static_cast<char>(random()));
      return content;
    case 5:
      return content.erase(at, below(random, 9) + 1);
    case 6:
    case 7:
      return text ? swap_fields(content, random) : content.substr(at) + content.substr(0, at);
    default:
      return text ? other_number(content, random) : huge_word(content, random);
  }
}

struct Kind {
  const char* name;
  fs::path file;
  Style style;  // how to mutate it
  bool strict;  // another result is never right
  std::vector<std::string> command;
};

/// What has to stay the same; numbers that differ from run to run are left out.
std::string essence(const std::string& out) {
  auto json = nlohmann::json::parse(out, nullptr, false);
  if (!json.is_object()) return out;
  json.erase("seconds");
  return json.dump();
}

/// An error must be in the program's own words.
bool explains(const std::string& err) {
  for (const char* bare :
       {"report this", "std::", "vector::", "basic_string", "terminate called", "bad_alloc", "filesystem error",
        "unbound variable", "json.exception", "YAML::", "Assertion", " E stoi", " E map::", " E bad "})
    if (err.find(bare) != std::string::npos) return false;
  for (const char* mark : {" E ", "launch/run: ", "--help", "hosts:"})
    if (err.find(mark) != std::string::npos) return true;
  return false;
}

const char* verdict(const Kind& kind, const Result& result, const std::string& expected) {
  if (result.late) return "HANG";
  const int code = result.code();
  if (code == 1 || code == 2) return explains(result.err) ? "error" : "CRASH";
  if (code != 0 && code != 3) return "CRASH";
  if (code == 0 && !result.out.empty() && essence(result.out) == expected) return "same";
  return kind.strict ? "SILENT" : "legal";
}

class Drill {
 public:
  Drill(std::string program, std::string launch, fs::path folder)
      : program_(std::move(program)), launch_(std::move(launch)), folder_(std::move(folder)) {
    make_files();
  }

  int run_cases(size_t cases, uint64_t seed) {
    std::map<std::string, std::map<std::string, int>> counts;
    int64_t peak = 0;
    for (size_t i = 0; i < cases; ++i) {
      const Kind& kind = kinds_[i % kinds_.size()];
      Random random(seed * 1'000'003 + i);
      const std::string intact = content_of(kind.file);
      write(kind.file, mutate(intact, kind.style, random));
      clear();
      const Result result = run(kind.command, folder_);
      const std::string how = verdict(kind, result, expected_.at(kind.name));
      ++counts[kind.name][how];
      peak = std::max(peak, result.peak_mib);
      if (how == "CRASH" || how == "HANG" || how == "SILENT")
        report(i, kind, how, result);
      else if (verbose)
        fmt::print("{:4} {:<12} {:<6} {}", i, kind.name, how, result.err.substr(0, 400) + "\n");
      write(kind.file, intact);
    }
    return summary(counts, peak);
  }

  bool verbose = false;

 private:
  void need(const std::vector<std::string>& command) {
    const Result result = run(command, folder_);
    if (result.code() == 0) return;
    fmt::print(stderr, "cannot set the drill up: {} ended with {}\n{}", command[1], result.code(), result.err);
    std::exit(2);
  }

  static std::string words(Random& random, int lines) {
    std::string text;
    for (int line = 0; line < lines; ++line) {
      for (int word = 0; word < 21; ++word) text += fmt::format("w{} ", below(random, 60));
      text += '\n';
    }
    return text;
  }

  /// What the last case left.
  void clear() const { fs::remove_all(folder_ / "new"); }

  void make_files() {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    Random random(7);
    write(folder_ / "train.txt", words(random, 200));
    write(folder_ / "valid.txt", words(random, 20));
    write(folder_ / "run.yaml",
          "# a small model\nseed: 1\nmodel: {layers: 2, embed_dim: 16, ffn_dim: 32, heads: 2, prenorm: true}\n"
          "data:\n  path: data\n  tokens_per_sample: 32\n  max_tokens: 128\noptimizer: {name: adam, eps: 1.0e-08}\n"
          "schedule: {lr: 1.0e-3}\ntrain:\n  micro_batches: 2\n  max_updates: 3\ncheckpoint:\n  dir: new\n");
    write(folder_ / "rules.yaml",
          "n_centroids:\n  Linear:\n    key: in_features\n    value: {\"*\": 16}\n"
          "  Embedding: {key: embedding_dim, value: {\"*\": 16}}\nblock_sizes:\n  Linear:\n    key: fuzzy_name\n"
          "    value: {fc: 8, attn: 4, emb: 4}\n  Embedding: {key: fuzzy_name, value: {emb: 8}}\n"
          "layers_to_quantize:\n  - decoder\\.layers\\.\\d+\\.fc[12]\n  - decoder\\.embed_tokens\n");
    write(folder_ / "hosts", "# machines\nnode1 slots=2\nnode2 slots=2 max_slots=4\n");
    need({program_, "prepare", "--train", "train.txt", "--valid", "valid.txt", "--out", "data"});
    need({program_, "train", "-c", "run.yaml", "--set", "checkpoint.dir=run"});
    need({program_, "quantize", "-c", "run.yaml", "--set", "checkpoint.dir=q", "--set", "ipq.rules=rules.yaml",
          "--from", "run/checkpoint_last.h5", "-o", "model.safetensors"});
    write(folder_ / "old.safetensors", without_checksums(content_of(folder_ / "model.safetensors")));
    const auto eval = [this](const std::string& file) {
      return std::vector<std::string>{program_, "eval", file, "--data", "data", "--split", "valid", "--json"};
    };
    const std::vector<std::string> packed = eval("model.safetensors");
    const std::vector<std::string> train{
        program_, "train", "-c", "run.yaml", "--set", "train.max_updates=2", "--set", "checkpoint.dir=new"};
    const std::vector<std::string> plan{program_,    "quantize", "-c", "run.yaml", "--set", "ipq.rules=rules.yaml",
                                        "--dry-run", "--json"};
    const auto in = [this](const char* file) { return folder_ / file; };
    kinds_ = {
        {"config", in("run.yaml"), Style::text, false, train},
        {"its numbers", in("run.yaml"), Style::numbers, false, train},
        {"rules", in("rules.yaml"), Style::text, false, plan},
        {"dictionary", in("data/dict.txt"), Style::text, true, packed},
        {"bin", in("data/valid.bin"), Style::binary, true, packed},
        {"idx", in("data/valid.idx"), Style::binary, true, packed},
        {"sum", in("data/valid.sum"), Style::text, true, packed},
        {"checkpoint", in("run/checkpoint_last.h5"), Style::binary, true, eval("run/checkpoint_last.h5")},
        {"packed", in("model.safetensors"), Style::binary, true, packed},
        {"packed text", in("model.safetensors"), Style::text, true, packed},
        {"version 2", in("old.safetensors"), Style::numbers, false, eval("old.safetensors")},
        {"hosts", in("hosts"), Style::text, false, {launch_, "--dry-run", "-n", "2", "--hostfile", "hosts", "true"}}};
    for (const Kind& kind : kinds_) {
      clear();
      const Result intact = run(kind.command, folder_);
      if (intact.code() != 0)
        fmt::print(stderr, "{}: status {} before any change\n{}", kind.name, intact.code(), intact.err);
      expected_[kind.name] = essence(intact.out);
    }
  }

  static void report(size_t number, const Kind& kind, const std::string& how, const Result& result) {
    fmt::print("case {} ({}): {}, status {}\n{}\n", number, kind.name, how, result.code(),
               result.err.substr(0, 1000) + result.out.substr(0, 300));
    std::fflush(stdout);
  }

  int summary(std::map<std::string, std::map<std::string, int>>& counts, int64_t peak) const {
    constexpr const char* kHow[] = {"error", "same", "legal", "SILENT", "CRASH", "HANG"};
    fmt::print("{:<12} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}\n", "kind", "error", "same", "legal", "silent", "crash",
               "hang");
    std::map<std::string, int> total;
    for (const Kind& kind : kinds_) {
      fmt::print("{:<12}", kind.name);
      for (const char* how : kHow) {
        fmt::print(" {:>7}", counts[kind.name][how]);
        total[how] += counts[kind.name][how];
      }
      fmt::print("\n");
    }
    fmt::print("{:<12}", "total");
    for (const char* how : kHow) fmt::print(" {:>7}", total[how]);
    fmt::print("\nlargest process: {} MiB\n", peak);
    return total["SILENT"] + total["CRASH"] + total["HANG"] > 0 ? 1 : 0;
  }

  std::string program_, launch_;
  fs::path folder_;
  std::vector<Kind> kinds_;
  std::map<std::string, std::string> expected_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    fmt::print(stderr,
               "usage: mutations PROGRAM LAUNCH_RUN FOLDER CASES [SEED [verbose]]\n"
               "FOLDER is emptied first. Takes about a second per case.\n");
    return 2;
  }
  setenv("OMP_NUM_THREADS", "1", 1);
  Drill drill(fs::absolute(argv[1]), fs::absolute(argv[2]), fs::absolute(argv[3]));
  drill.verbose = argc > 6;
  return drill.run_cases(std::stoul(argv[4]), argc > 5 ? std::stoul(argv[5]) : 1);
}
