// A thin RAII layer over serial HDF5: groups, datasets and attributes by path. Used by checkpoints and by tests that
// read golden files. Paths use '/' ("" and "/" are the root group); missing parent groups are created on write.
// Every failure throws qn::Error naming the file, the object and HDF5's reason. An Hdf5File belongs to one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/hdf5_output.h"
#include "core/tensor.h"

namespace qn {

class Hdf5File {
 public:
  enum class Mode { read, create };
  /// Throws when the file cannot be opened or is no HDF5 file. `create` truncates an existing file, and writes the
  /// format generation whose metadata carries checksums; equal content gives equal bytes (no time stamps).
  /// `user_block` (0, or a power of two from 512): bytes left free before the HDF5 content, for the caller's own use.
  Hdf5File(const std::filesystem::path& path, Mode mode, size_t user_block = 0);
  ~Hdf5File();
  Hdf5File(const Hdf5File&) = delete;
  Hdf5File& operator=(const Hdf5File&) = delete;

  const std::string& path() const { return path_; }
  bool exists(const std::string& object) const;
  bool has_attribute(const std::string& object, const std::string& name) const;
  /// Names of the direct members of a group, in name order.
  std::vector<std::string> members(const std::string& group) const;
  /// Names of the attributes of a group or dataset, in name order.
  std::vector<std::string> attributes(const std::string& object) const;
  bool is_group(const std::string& object) const;

  /// Shape of a dataset (at most 4 dimensions).
  Shape shape(const std::string& dataset) const;
  /// The whole dataset, row-major, converted to T (float, double, int32_t, int64_t, uint8_t). Throws rather than
  /// dropping fractions or clipping values that do not fit.
  template <typename T>
  std::vector<T> read(const std::string& dataset) const;
  /// The dataset as stored: f32, f64, i32, i64 or u8. Other integers and booleans become i64, halves f32.
  OwnedTensor read_tensor(const std::string& dataset) const;
  /// Where the elements of a contiguous dataset lie in the file; {0, 0} when there are none.
  struct Extent {
    uint64_t offset = 0, bytes = 0;
  };
  Extent extent(const std::string& dataset) const;
  /// A dataset of fixed-length strings, padding removed.
  std::vector<std::string> read_strings(const std::string& dataset) const;
  /// Creates the dataset (uncompressed, contiguous, little-endian); throws when the name is taken.
  void write_tensor(const std::string& dataset, const Tensor& tensor);

  /// Attributes of a group or dataset. Integers may be stored as booleans, floats as integers; strings may have fixed
  /// or variable length and are written as UTF-8 of fixed length. Writing replaces an attribute of the same name.
  int64_t int_attribute(const std::string& object, const std::string& name) const;
  std::vector<int64_t> int_list_attribute(const std::string& object, const std::string& name) const;
  double float_attribute(const std::string& object, const std::string& name) const;
  std::string string_attribute(const std::string& object, const std::string& name) const;
  void write_attribute(const std::string& object, const std::string& name, int64_t value);
  void write_attribute(const std::string& object, const std::string& name, double value);
  void write_attribute(const std::string& object, const std::string& name, const std::string& value);

  void create_group(const std::string& group);
  /// Flushes to the operating system; throws on failure (a full disk, for example).
  void flush();
  /// Flushes and closes; throws on failure. The destructor closes too but has to stay silent.
  void close();

  /// Whether files may be used by several threads at the same time (how the HDF5 library was built).
  static bool thread_safe();

 private:
  std::string path_;
  std::unique_ptr<Hdf5Output> output_;  // of a file that is being created
  int64_t file_ = -1;
};

}  // namespace qn
