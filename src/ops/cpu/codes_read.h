// Reading packed codes (ops/code_matrix.h).
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "ops/code_matrix.h"
#include "ops/cpu/scratch.h"

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

/// Of product quantization with codes of up to 8 bits: codes of rows from some first one on, a byte each, of block j
/// from codes + j * stride on.
struct ByteCodes {
  const uint8_t* codes;
  int64_t stride;
};
/// Those of rows [first, first + count), unpacked into `scratch` where the matrix has no bytes.
inline ByteCodes byte_codes(const CodeMatrix& m, int64_t first, int64_t count, std::vector<uint8_t>& scratch) {
  if (m.bits == 8) return {m.codes + first, m.rows};
  uint8_t* codes = at_least(scratch, m.blocks() * count + kCodePadding);
  for (int64_t j = 0; j < m.blocks(); ++j) read_codes(m, j * m.rows + first, count, codes + j * count);
  return {codes, count};
}

}  // namespace qn::cpu
