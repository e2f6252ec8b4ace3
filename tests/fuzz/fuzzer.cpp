// libFuzzer's entry points for the target QN_FUZZ_TARGET of QN_FUZZ_GROUP. bench/drills/fuzz starts them. With
// QN_FUZZ_SEEDS=FOLDER in the environment it only writes its seeds there.
#include <spdlog/spdlog.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "core/error.h"
#include "targets.h"

namespace {

qn::fuzz::Target find_target() {
  for (const qn::fuzz::Target& target : qn::fuzz::QN_FUZZ_GROUP())
    if (std::string_view(target.name) == QN_FUZZ_TARGET) return target;
  std::abort();
}

const qn::fuzz::Target& target() {
  static const qn::fuzz::Target found = find_target();
  return found;
}

void write_seeds(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  size_t number = 0;
  for (const std::string& seed : target().seeds())
    std::ofstream(folder / std::to_string(++number), std::ios::binary) << seed;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  spdlog::set_level(spdlog::level::off);
  if (const char* folder = std::getenv("QN_FUZZ_SEEDS"); folder != nullptr) {
    write_seeds(folder);
    std::exit(0);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    target().read(std::as_bytes(std::span(data, size)));
  } catch (const qn::Error&) {
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "finding: %s\n", error.what());
    std::abort();
  }
  return 0;
}
