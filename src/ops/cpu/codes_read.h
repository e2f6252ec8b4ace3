// Reading packed codes (ops/code_matrix.h).
#pragma once

#include <cstdint>
#include <cstring>

#include "ops/code_matrix.h"

namespace qn::cpu {

/// Of any number of bits up to 16.
class CodeReader {
 public:
  CodeReader(const uint8_t* codes, int bits) : codes_(codes), bits_(bits), mask_((uint32_t{1} << bits) - 1) {}
  uint32_t operator[](int64_t i) const {
    const int64_t bit = i * bits_;
    uint32_t window;  // 7 bits in front and 16 of the code fit
    std::memcpy(&window, codes_ + bit / 8, sizeof window);
    return window >> (bit % 8) & mask_;
  }

 private:
  const uint8_t* codes_;
  int64_t bits_;
  uint32_t mask_;
};

template <typename Code>
class WholeCodes {
 public:
  explicit WholeCodes(const uint8_t* codes) : codes_(codes) {}
  uint32_t operator[](int64_t i) const {
    Code code;
    std::memcpy(&code, codes_ + i * static_cast<int64_t>(sizeof code), sizeof code);
    return code;
  }

 private:
  const uint8_t* codes_;
};

/// f(reader) with the fastest reader.
template <typename F>
void with_reader(const CodeMatrix& m, F&& f) {
  if (m.bits == 8) return f(WholeCodes<uint8_t>(m.codes));
  if (m.bits == 16) return f(WholeCodes<uint16_t>(m.codes));
  f(CodeReader(m.codes, m.bits));
}

/// Codes [first, first + count) as bytes or 16-bit numbers. May write up to a code more.
template <typename Code>
void read_codes(const CodeMatrix& m, int64_t first, int64_t count, Code* to) {
  if (m.bits == 4 && first % 2 == 0) {
    const uint8_t* from = m.codes + first / 2;
    for (int64_t i = 0; i < (count + 1) / 2; ++i) {
      to[2 * i] = from[i] & 15;
      to[2 * i + 1] = from[i] >> 4;
    }
    return;
  }
  with_reader(m, [&](const auto& codes) {
    for (int64_t i = 0; i < count; ++i) to[i] = static_cast<Code>(codes[first + i]);
  });
}

}  // namespace qn::cpu
