// The Philox4x32-10 block function (Salmon et al., SC 2011), for host and device code alike.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define QN_HOST_DEVICE __host__ __device__
#else
#define QN_HOST_DEVICE
#endif

namespace qn {

/// Replaces the counter c by its block of random words.
QN_HOST_DEVICE inline void philox_block(uint32_t (&c)[4], uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57} * c[2];
    c[0] = static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ key0;
    c[1] = static_cast<uint32_t>(p1);
    c[2] = static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ key1;
    c[3] = static_cast<uint32_t>(p0);
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
}

}  // namespace qn
