#include "data/split_checksum.h"

#include <spdlog/spdlog.h>

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

std::filesystem::path sum_beside(std::filesystem::path dictionary) { return dictionary.replace_extension(".sum"); }

std::string dictionary_text(std::span<const std::byte> content) {
  return fmt::format("quantnoise-dictionary 1\ntext {:016x}\n", hash_bytes(content.data(), content.size()));
}

std::string checksum_text(std::string_view text) {
  return fmt::format("quantnoise-text 1\ntext {:016x}\n", hash_bytes(text.data(), text.size()));
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

void write_dictionary_checksum(const std::filesystem::path& dictionary) {
  atomic_write_text(sum_beside(dictionary), dictionary_text(MappedFile(dictionary).bytes()));
}

void remove_dictionary_checksum(const std::filesystem::path& dictionary) {
  std::error_code ignored;
  std::filesystem::remove(sum_beside(dictionary), ignored);
}

void check_dictionary_checksum(const std::filesystem::path& dictionary, std::span<const std::byte> content) {
  const std::filesystem::path path = sum_beside(dictionary);
  std::error_code error;
  const std::string name = dictionary.filename().string();
  if (!name.starts_with("dict.") || !name.ends_with(".txt") || !std::filesystem::exists(path, error)) return;
  const std::vector<std::byte> bytes = read_file_bytes(path);
  if (std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()) == dictionary_text(content)) return;
  spdlog::warn(
      "{} is not as it was prepared (checksum in {}): it is damaged or was edited. Words are compared with those of "
      "every split; nothing is computed from counts, but they may be wrong. Remove {} if this was on purpose",
      dictionary.string(), path.filename().string(), path.string());
}

void write_text_with_checksum(const std::filesystem::path& path, std::string_view text) {
  atomic_write_text(path, text);
  atomic_write_text(path.string() + ".sum", checksum_text(text));
}

void check_text_checksum(const std::filesystem::path& path, std::string_view text) {
  const std::string sum = path.string() + ".sum";
  if (!std::filesystem::exists(sum)) return;
  const std::vector<std::byte> bytes = read_file_bytes(sum);
  QN_CHECK(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()) == checksum_text(text),
           "{} is not as it was prepared (checksum in {}): it is damaged or was replaced; prepare the data again, or "
           "remove {} if it was replaced on purpose",
           path.string(), sum, sum);
}

}  // namespace qn
