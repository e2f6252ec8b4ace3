#include "quant/bit_packing.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/error.h"

namespace qn {

static_assert(std::endian::native == std::endian::little, "packed codes are little-endian");

int bits_per_code(int64_t n_centroids) {
  QN_ASSERT(n_centroids >= 1 && n_centroids <= 65536);
  return std::max(1, static_cast<int>(std::bit_width(static_cast<uint64_t>(n_centroids - 1))));
}

int64_t packed_bytes(int64_t count, int bits) {
  QN_ASSERT(bits >= 1 && bits <= 16, "{} bits", bits);
  return (count * bits + 7) / 8;
}

namespace {

template <typename Code>
std::vector<uint8_t> pack(std::span<const Code> codes, int bits) {
  QN_ASSERT(bits <= static_cast<int>(8 * sizeof(Code)), "{} bits", bits);
  std::vector<uint8_t> packed(static_cast<size_t>(packed_bytes(std::ssize(codes), bits)));
  Code all = 0;
  for (const Code code : codes) all = static_cast<Code>(all | code);
  QN_ASSERT(std::bit_width(all) <= bits, "a code of {} bits does not fit into {}", std::bit_width(all), bits);
  if (bits == 8) {
    std::transform(codes.begin(), codes.end(), packed.begin(), [](Code c) { return static_cast<uint8_t>(c); });
    return packed;
  }
  if (bits == 16 && sizeof(Code) == 2) {
    if (!codes.empty()) std::memcpy(packed.data(), codes.data(), packed.size());
    return packed;
  }
  uint32_t pending = 0;
  int pending_bits = 0;
  auto out = packed.begin();
  for (const Code code : codes) {
    pending |= static_cast<uint32_t>(code) << pending_bits;
    for (pending_bits += bits; pending_bits >= 8; pending_bits -= 8, pending >>= 8)
      *out++ = static_cast<uint8_t>(pending);
  }
  if (pending_bits > 0) *out = static_cast<uint8_t>(pending);
  return packed;
}

template <typename Code>
void unpack(std::span<const uint8_t> packed, int bits, std::span<Code> codes) {
  constexpr int kMost = 8 * sizeof(Code);
  QN_CHECK(bits >= 1 && bits <= kMost, "packed codes of {} bits; 1..{} allowed", bits, kMost);
  const int64_t expected = packed_bytes(std::ssize(codes), bits);
  QN_CHECK(std::ssize(packed) == expected, "{} codes of {} bits take {} bytes, but {} are there", codes.size(), bits,
           expected, packed.size());
  if (bits == 8) {
    std::copy(packed.begin(), packed.end(), codes.begin());
    return;
  }
  if (bits == 16 && sizeof(Code) == 2) {
    if (!codes.empty()) std::memcpy(codes.data(), packed.data(), packed.size());
    return;
  }
  const uint32_t mask = (uint32_t{1} << bits) - 1;
  uint32_t pending = 0;
  int pending_bits = 0;
  auto in = packed.begin();
  for (Code& code : codes) {
    for (; pending_bits < bits; pending_bits += 8) pending |= static_cast<uint32_t>(*in++) << pending_bits;
    code = static_cast<Code>(pending & mask);
    pending >>= bits;
    pending_bits -= bits;
  }
}

}  // namespace

std::vector<uint8_t> pack_codes(std::span<const uint16_t> codes, int bits) { return pack(codes, bits); }
std::vector<uint8_t> pack_codes(std::span<const uint8_t> codes, int bits) { return pack(codes, bits); }
void unpack_codes(std::span<const uint8_t> packed, int bits, std::span<uint16_t> codes) { unpack(packed, bits, codes); }
void unpack_codes(std::span<const uint8_t> packed, int bits, std::span<uint8_t> codes) { unpack(packed, bits, codes); }

}  // namespace qn
