// Codes stored with as few bits as they need. Little-endian bit order: code i occupies bits [i*b, (i+1)*b) of the
// stream, and bit q of the stream is bit q % 8 of byte q / 8 (numpy: unpackbits(..., bitorder="little")).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qn {

/// Bits per code for K centroids: ceil(log2 K), at least 1. K in 1..65536.
int bits_per_code(int64_t n_centroids);

/// Bytes that `count` codes of `bits` bits take; the last byte is filled up with zero bits.
int64_t packed_bytes(int64_t count, int bits);

/// Packs codes of `bits` bits, 1..16. Throws qn::InternalError when a code does not fit.
std::vector<uint8_t> pack_codes(std::span<const uint16_t> codes, int bits);
/// The same for codes that are held as bytes, of 1..8 bits.
std::vector<uint8_t> pack_codes(std::span<const uint8_t> codes, int bits);

/// The inverse: fills `codes`. Throws qn::Error when `packed` has not exactly packed_bytes(codes.size(), bits) bytes.
void unpack_codes(std::span<const uint8_t> packed, int bits, std::span<uint16_t> codes);
/// The same into bytes, for 1..8 bits.
void unpack_codes(std::span<const uint8_t> packed, int bits, std::span<uint8_t> codes);

}  // namespace qn
