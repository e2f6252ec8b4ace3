#include "compress/size_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/text.h"

namespace qn {
namespace {

nlohmann::ordered_json to_json_object(const SizeEntry& entry) {
  return {{"name", entry.name},
          {"storage", entry.storage},
          {"values", entry.values},
          {"code_bytes", entry.code_bytes},
          {"side_bytes", entry.side_bytes},
          {"dense_bytes", entry.dense_bytes},
          {"bytes", entry.bytes()},
          {"bits_per_value", entry.bits_per_value()}};
}

std::string table_line(const SizeEntry& entry, size_t name_width) {
  return fmt::format("{:<{}}  {:<18} {:>14} {:>12} {:>12} {:>12} {:>12} {:>7.3f}\n", entry.name, name_width,
                     entry.storage, group_digits(entry.values), group_digits(static_cast<int64_t>(entry.code_bytes)),
                     group_digits(static_cast<int64_t>(entry.side_bytes)),
                     group_digits(static_cast<int64_t>(entry.dense_bytes)),
                     group_digits(static_cast<int64_t>(entry.bytes())), entry.bits_per_value());
}

}  // namespace

void SizeReport::add_quantized(const std::string& name, const Quantizer& quantizer, int64_t rows, int64_t cols,
                               ValueStorage side) {
  const std::vector<SideLayout> layout = quantizer.layout(rows, cols).side;
  const bool rounded = std::any_of(layout.begin(), layout.end(), [](const SideLayout& s) { return s.roundable; });
  const QuantizedBytes bytes = quantizer.bytes(rows, cols, side);
  SizeEntry entry;
  entry.name = name;
  entry.storage = quantizer.text() + (rounded ? fmt::format(" {}", name_of(side)) : "");
  entry.values = rows * cols;
  entry.code_bytes = bytes.codes;
  entry.side_bytes = bytes.side;
  entries_.push_back(std::move(entry));
}

void SizeReport::add_dense(const std::string& name, int64_t values, ValueStorage storage) {
  add_stored(name, name_of(storage), values, stored_bytes(values, storage));
}

void SizeReport::add_stored(const std::string& name, const std::string& storage, int64_t values, uint64_t bytes) {
  SizeEntry entry;
  entry.name = name;
  entry.storage = storage;
  entry.values = values;
  entry.dense_bytes = bytes;
  entries_.push_back(std::move(entry));
}

SizeEntry SizeReport::total() const {
  SizeEntry sum;
  sum.name = "total";
  sum.other_bytes = header_bytes_ + vocabulary_bytes_;
  for (const SizeEntry& entry : entries_) {
    sum.values += entry.values;
    sum.code_bytes += entry.code_bytes;
    sum.side_bytes += entry.side_bytes;
    sum.dense_bytes += entry.dense_bytes;
  }
  return sum;
}

uint64_t SizeReport::original_bytes() const {
  return stored_bytes(original_values_ > 0 ? original_values_ : total().values, ValueStorage::f32);
}

double SizeReport::ratio() const {
  const uint64_t bytes = total_bytes();
  return bytes == 0 ? 1.0 : static_cast<double>(original_bytes()) / static_cast<double>(bytes);
}

std::string SizeReport::to_table() const {
  size_t name_width = 10;
  for (const SizeEntry& entry : entries_) name_width = std::max(name_width, entry.name.size());
  std::string text = fmt::format("{:<{}}  {:<18} {:>14} {:>12} {:>12} {:>12} {:>12} {:>7}\n", "tensor", name_width,
                                 "storage", "values", "codes", "side", "dense", "bytes", "bits");
  for (const SizeEntry& entry : entries_) text += table_line(entry, name_width);
  const auto add_other = [&](const char* name, const char* content, uint64_t bytes) {
    if (bytes > 0)
      text +=
          fmt::format("{:<{}}  {:<18} {:>66}\n", name, name_width, content, group_digits(static_cast<int64_t>(bytes)));
  };
  add_other("vocabulary", "words, compressed", vocabulary_bytes_);
  add_other("header", "names, metadata", header_bytes_);
  text += table_line(total(), name_width);
  text += fmt::format("{}; in float32 {}; {:.2f} times smaller\n", format_bytes(total_bytes()),
                      format_bytes(original_bytes()), ratio());
  return text;
}

std::string SizeReport::to_json() const {
  nlohmann::ordered_json report;
  report["tensors"] = nlohmann::ordered_json::array();
  for (const SizeEntry& entry : entries_) report["tensors"].push_back(to_json_object(entry));
  report["total"] = to_json_object(total());
  report["vocabulary_bytes"] = vocabulary_bytes_;
  report["header_bytes"] = header_bytes_;
  report["file_bytes"] = total_bytes();
  report["original_bytes"] = original_bytes();
  report["ratio"] = ratio();
  return report.dump(2);
}

std::map<std::string, double> bytes_by_group(const SizeReport& report, const Module& module) {
  std::map<std::string, double> bytes;
  const auto add = [&](const std::string& group, uint64_t more) {
    if (more > 0) bytes[group] += static_cast<double>(more);
  };
  for (const SizeEntry& entry : report.entries()) {
    const Weight* weight = module.weights().find(entry.name);
    add(weight != nullptr ? weight->group() : "other", entry.bytes());
  }
  add("vocabulary", report.vocabulary_bytes());
  add("header", report.header_bytes());
  return bytes;
}

}  // namespace qn
