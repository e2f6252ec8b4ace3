#include "data/split_checksum.h"

#include <cinttypes>
#include <cstdio>

#include "core/error.h"
#include "core/file_io.h"
#include "core/text.h"

namespace qn {
namespace {

std::string text_of(const SplitChecksum& sum) {
  return fmt::format("quantnoise-split 1\nbin {:016x}\nidx {:016x}\ndictionary {:016x}\n", sum.bin, sum.idx,
                     sum.dictionary);
}

uint64_t checksum_of(const std::filesystem::path& file) {
  const MappedFile mapped(file);
  return hash_bytes(mapped.bytes().data(), mapped.size());
}

}  // namespace

std::optional<SplitChecksum> read_split_checksum(const std::filesystem::path& prefix) {
  const std::string path = prefix.string() + ".sum";
  if (!std::filesystem::exists(path)) return std::nullopt;
  const std::vector<std::byte> bytes = read_file_bytes(path);
  const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  SplitChecksum sum;
  std::sscanf(text.c_str(), "quantnoise-split 1\nbin %" SCNx64 "\nidx %" SCNx64 "\ndictionary %" SCNx64, &sum.bin,
              &sum.idx, &sum.dictionary);
  QN_CHECK(text_of(sum) == text,
           "{} does not hold the checksums of {}: it is damaged or of a newer quantnoise; prepare the data again", path,
           prefix.filename().string());
  return sum;
}

void write_split_checksum(const std::filesystem::path& prefix, uint64_t dictionary_hash) {
  const SplitChecksum sum{checksum_of(prefix.string() + ".bin"), checksum_of(prefix.string() + ".idx"),
                          dictionary_hash};
  atomic_write_text(prefix.string() + ".sum", text_of(sum));
}

}  // namespace qn
