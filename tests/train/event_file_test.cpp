// TensorBoard's event files, read back by a reader that shares nothing with what wrote them.
#include "train/event_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <map>

#include "support/temp_dir.h"

namespace qn {
namespace {

using testing::ElementsAre;

/// CRC-32C bit by bit, from its polynomial.
uint32_t slow_masked_crc(std::string_view bytes) {
  uint32_t crc = 0xffffffffU;
  for (const char c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0x82f63b78U & (0U - (crc & 1U)));
  }
  crc ^= 0xffffffffU;
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
}

struct ReadEvent {
  double time = 0.0;
  uint64_t step = 0;
  std::string version;
  bool session = false;
  std::map<std::string, float> scalars;
};

/// Field by field; throws std::out_of_range where a message ends too early.
class Message {
 public:
  explicit Message(std::string bytes) : bytes_(std::move(bytes)) {}
  bool done() const { return at_ == bytes_.size(); }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(bytes_.at(at_++));
      value |= uint64_t{byte & 0x7fU} << shift;
      if (byte < 0x80) return value;
    }
  }
  template <typename T>
  T fixed() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string text() { return take(varint()); }

 private:
  std::string take(size_t count) {
    if (count > bytes_.size() - at_) throw std::out_of_range("short");
    at_ += count;
    return bytes_.substr(at_ - count, count);
  }
  std::string bytes_;
  size_t at_ = 0;
};

ReadEvent read_event(const std::string& bytes) {
  ReadEvent event;
  for (Message m(bytes); !m.done();) {
    switch (m.varint()) {
      case 1 << 3 | 1:
        event.time = m.fixed<double>();
        break;
      case 2 << 3 | 0:
        event.step = m.varint();
        break;
      case 3 << 3 | 2:
        event.version = m.text();
        break;
      case 7 << 3 | 2:
        event.session = m.text() == "\x08\x01";
        break;
      case 5 << 3 | 2:
        for (Message summary(m.text()); !summary.done();) {
          EXPECT_EQ(summary.varint(), 1U << 3 | 2U);
          Message value(summary.text());
          EXPECT_EQ(value.varint(), 1U << 3 | 2U);
          const std::string tag = value.text();
          EXPECT_EQ(value.varint(), 2U << 3 | 5U);
          event.scalars[tag] = value.fixed<float>();
          EXPECT_TRUE(value.done());
        }
        break;
      default:
        ADD_FAILURE() << "an unknown field";
    }
  }
  return event;
}

std::vector<ReadEvent> read_events(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string file{std::istreambuf_iterator<char>(in), {}};
  std::vector<ReadEvent> events;
  for (size_t at = 0; at < file.size();) {
    uint64_t length = 0;
    uint32_t head = 0, tail = 0;
    std::memcpy(&length, file.data() + at, 8);
    std::memcpy(&head, file.data() + at + 8, 4);
    EXPECT_EQ(head, slow_masked_crc(std::string_view(file).substr(at, 8)));
    const std::string bytes = file.substr(at + 12, length);
    std::memcpy(&tail, file.data() + at + 12 + length, 4);
    EXPECT_EQ(tail, slow_masked_crc(bytes));
    events.push_back(read_event(bytes));
    at += 16 + length;
  }
  return events;
}

TEST(MaskedCrc32c, IsThatOfTheStandard) {
  EXPECT_EQ(masked_crc32c("123456789"), std::rotr(0xe3069283U, 15) + 0xa282ead8U);  // RFC 3720's check value
  for (const std::string& text : {std::string(), std::string(1000, '\xff'), std::string("\0\1\2", 3)})
    EXPECT_EQ(masked_crc32c(text), slow_masked_crc(text));
}

TEST(EventLog, HoldsWhatTheMetricsSayAndNothingTwice) {
  const test::TempDir dir;
  const std::string first =
      "{\"kind\":\"start\",\"update\":0,\"time\":5.0}\n"
      "{\"kind\":\"train\",\"update\":1,\"loss\":9.5,\"clipped\":true,\"time\":10.5}\n";
  std::filesystem::path before;
  {
    EventLog log(dir.path(), first);
    log.add("{\"kind\":\"train\",\"update\":2,\"loss\":null,\"time\":11.5}\n");
    log.add("{\"kind\":\"train\",\"update\":3,\"loss\":7,\"time\":12.5}\n");
    before = log.path();
  }
  const std::vector<ReadEvent> events = read_events(before);
  ASSERT_EQ(events.size(), 5U);
  EXPECT_EQ(events[0].version, "brain.Event:2");
  EXPECT_TRUE(events[1].session);
  EXPECT_EQ(events[1].step, 0U);
  EXPECT_EQ(events[2].step, 1U);
  EXPECT_EQ(events[2].time, 10.5);
  EXPECT_EQ(events[2].scalars, (std::map<std::string, float>{{"train/loss", 9.5f}, {"train/clipped", 1.0f}}));
  EXPECT_TRUE(std::isnan(events[3].scalars.at("train/loss")));

  // The run goes on from update 1: what was beyond it is made again.
  EventLog resumed(dir.path(), first);
  resumed.add("{\"kind\":\"train\",\"update\":2,\"loss\":8.25,\"time\":20}\n");
  resumed.add(
      "{\"kind\":\"kmeans\",\"update\":2,\"stage\":1,\"iteration\":3,\"objective\":{\"a.weight\":1.5},\"time\":21}\n");
  resumed.add("{\"kind\":\"stage\",\"update\":2,\"stage\":1,\"valid_ppl\":50.5,\"time\":22}\n");
  resumed.add("rubbish\n");
  EXPECT_THAT(event_files(dir.path()), ElementsAre(resumed.path()));
  std::map<std::pair<uint64_t, std::string>, float> found;
  for (const ReadEvent& event : read_events(resumed.path()))
    for (const auto& [tag, value] : event.scalars) EXPECT_TRUE(found.emplace(std::pair{event.step, tag}, value).second);
  EXPECT_EQ(found.at({2, "train/loss"}), 8.25f);
  EXPECT_EQ(found.at({3, "kmeans/stage1/a.weight"}), 1.5f);
  EXPECT_EQ(found.at({1, "stage/valid_ppl"}), 50.5f);
  EXPECT_EQ(found.size(), 6U);  // loss and clipped of update 1, loss of 2, the objective, stage and its perplexity
}

}  // namespace
}  // namespace qn
