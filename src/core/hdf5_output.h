// Where HDF5 writes: an HDF5 file driver over this program's own files. The library cannot close a file that it could
// not write to (it keeps the file open, or crashes at exit), so it never hears of a failure: the first one is kept
// here, what comes after it is thrown away, and the file's owner asks.
#pragma once

#include <cstdint>
#include <exception>
#include <filesystem>

#include "core/file_descriptor.h"

namespace qn {

class Hdf5Output {
 public:
  /// Opens an existing file, which is emptied. Throws qn::Error.
  explicit Hdf5Output(const std::filesystem::path& path);

  /// Makes files created with these access properties write here. One HDF5 file at a time, which this must outlive.
  void attach(int64_t access_properties);
  /// Throws the first failure, if there was one.
  void check() const;

 private:
  friend struct Hdf5Driver;
  template <typename Step>
  void guard(Step&& step) noexcept;

  void write_in_pieces(size_t offset, std::span<const std::byte> bytes);
  void start_write_back(size_t end);

  FileDescriptor file_;
  size_t written_back_ = 0;  // the disk has been given everything up to here
  std::exception_ptr failure_;
};

}  // namespace qn
