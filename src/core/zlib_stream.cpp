#include "core/zlib_stream.h"

#include <zlib.h>

#include <algorithm>
#include <limits>

#include "core/error.h"

namespace qn {
namespace {

constexpr size_t kChunk = size_t{1} << 20;

Bytef* bytes_of(const void* data) { return static_cast<Bytef*>(const_cast<void*>(data)); }  // zlib's inputs

/// The end of a stream's memory.
struct Inflation {
  z_stream z{};
  explicit Inflation(int window) {
    QN_CHECK(inflateInit2(&z, window) == Z_OK, "zlib cannot start: {}", z.msg != nullptr ? z.msg : "no memory");
  }
  ~Inflation() { inflateEnd(&z); }
  Inflation(const Inflation&) = delete;
  Inflation& operator=(const Inflation&) = delete;
};

/// `format` is what messages call it; `window` is what inflateInit2() tells formats apart by.
std::string inflate_all(std::span<const std::byte> stream, size_t most, const std::string& where, const char* format,
                        int window) {
  QN_CHECK(stream.size() < std::min<size_t>(most, std::numeric_limits<uInt>::max()),
           "{} has {} bytes, which is too much", where, stream.size());
  Inflation inflation(window);
  z_stream& z = inflation.z;
  z.next_in = bytes_of(stream.data());
  z.avail_in = static_cast<uInt>(stream.size());
  std::string content;
  for (int status = Z_OK; status != Z_STREAM_END;) {
    const size_t done = content.size(), room = std::min(kChunk, most + 1 - done);
    content.resize(done + room);
    z.next_out = bytes_of(content.data() + done);
    z.avail_out = static_cast<uInt>(room);
    status = inflate(&z, Z_NO_FLUSH);
    content.resize(done + room - z.avail_out);
    QN_CHECK(status == Z_OK || status == Z_STREAM_END, "{} is no intact {} ({})", where, format,
             status == Z_BUF_ERROR ? "it ends too soon"
             : z.msg != nullptr    ? z.msg
                                   : "zlib cannot read it");
    QN_CHECK(content.size() <= most, "{} gives more than {} bytes, which is too much: the file is damaged", where,
             most);
  }
  QN_CHECK(z.avail_in == 0, "{} has {} bytes behind its {}: the file is damaged", where, z.avail_in, format);
  return content;
}

}  // namespace

std::vector<std::byte> compress_bytes(std::string_view content) {
  uLongf size = compressBound(content.size());
  std::vector<std::byte> result(size);
  const int status = compress2(bytes_of(result.data()), &size, bytes_of(content.data()), content.size(), 9);
  QN_ASSERT(status == Z_OK, "zlib: {}", status);
  result.resize(size);
  return result;
}

std::string decompress_bytes(std::span<const std::byte> stream, size_t most, const std::string& where) {
  return inflate_all(stream, most, where, "zlib stream", MAX_WBITS);
}

std::string decompress_gzip(std::span<const std::byte> file, size_t most, const std::string& where) {
  return inflate_all(file, most, where, "gzip file", MAX_WBITS + 16);
}

}  // namespace qn
