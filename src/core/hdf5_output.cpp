#include "core/hdf5_output.h"

#include <fcntl.h>
#include <hdf5.h>
#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

#include <algorithm>
#include <cstring>
#include <limits>

#include "core/error.h"

namespace qn {

namespace {
constexpr size_t kWriteBackPiece = size_t{16} << 20;
}

/// Without this the system keeps gigabytes back until the sync at the end, and the disk idles while there is copying.
/// Advice only: nothing depends on its success.
void Hdf5Output::start_write_back(size_t end) {
  if (end < written_back_ + kWriteBackPiece) return;
#ifdef SYNC_FILE_RANGE_WRITE
  ::sync_file_range(file_.get(), static_cast<off_t>(written_back_), static_cast<off_t>(end - written_back_),
                    SYNC_FILE_RANGE_WRITE);
#endif
  written_back_ = end;
}

void Hdf5Output::write_in_pieces(size_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t piece = std::min(bytes.size(), kWriteBackPiece);
    file_.write(offset, bytes.first(piece));
    bytes = bytes.subspan(piece);
    offset += piece;
    start_write_back(offset);
  }
}

template <typename Step>
void Hdf5Output::guard(Step&& step) noexcept {
  if (failure_) return;
  try {
    step();
  } catch (...) {
    failure_ = std::current_exception();
  }
}

/// The library's view of an output. Functions have the names and types that H5FD_class_t wants.
struct Hdf5Driver {
  H5FD_t base;  // first: the library sees this
  Hdf5Output* output;
  haddr_t end_of_addresses, end_of_file;

  static Hdf5Driver& self(H5FD_t* file) { return *reinterpret_cast<Hdf5Driver*>(file); }
  static const Hdf5Driver& self(const H5FD_t* file) { return *reinterpret_cast<const Hdf5Driver*>(file); }

  static H5FD_t* open(const char*, unsigned, hid_t access, haddr_t) {
    const auto* info = static_cast<Hdf5Output* const*>(H5Pget_driver_info(access));
    auto* driver = new Hdf5Driver{};
    driver->output = *info;
    return &driver->base;
  }
  static herr_t close(H5FD_t* file) {
    delete &self(file);
    return 0;
  }
  static herr_t query(const H5FD_t*, unsigned long* flags) {
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
             H5FD_FEAT_AGGREGATE_SMALLDATA;
    return 0;
  }
  static haddr_t get_eoa(const H5FD_t* file, H5FD_mem_t) { return self(file).end_of_addresses; }
  static herr_t set_eoa(H5FD_t* file, H5FD_mem_t, haddr_t end) {
    self(file).end_of_addresses = end;
    return 0;
  }
  static haddr_t get_eof(const H5FD_t* file, H5FD_mem_t) { return self(file).end_of_file; }
  static herr_t read(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t offset, size_t size, void* bytes) {
    std::memset(bytes, 0, size);
    Hdf5Output& output = *self(file).output;
    output.guard([&] { output.file_.read(offset, {static_cast<std::byte*>(bytes), size}); });
    return 0;
  }
  static herr_t write(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t offset, size_t size, const void* bytes) {
    Hdf5Output& output = *self(file).output;
    output.guard([&] { output.write_in_pieces(offset, {static_cast<const std::byte*>(bytes), size}); });
    self(file).end_of_file = std::max(self(file).end_of_file, offset + size);
    return 0;
  }
  static herr_t truncate(H5FD_t* file, hid_t, hbool_t) {
    Hdf5Driver& driver = self(file);
    driver.output->guard([&] { driver.output->file_.truncate(driver.end_of_addresses); });
    driver.end_of_file = driver.end_of_addresses;
    return 0;
  }

  static H5FD_class_t description() {
    H5FD_class_t driver{};
#if H5_VERSION_GE(1, 13, 0)
    driver.version = H5FD_CLASS_VERSION;
    driver.value = static_cast<H5FD_class_value_t>(512);  // the first of those that are nobody's
#endif
    driver.name = "quantnoise";
    driver.maxaddr = std::numeric_limits<off_t>::max();
    driver.fc_degree = H5F_CLOSE_WEAK;
    driver.fapl_size = sizeof(Hdf5Output*);
    driver.open = open;
    driver.close = close;
    driver.query = query;
    driver.get_eoa = get_eoa;
    driver.set_eoa = set_eoa;
    driver.get_eof = get_eof;
    driver.read = read;
    driver.write = write;
    driver.truncate = truncate;
    const H5FD_mem_t kinds[] = H5FD_FLMAP_DICHOTOMY;
    std::copy(std::begin(kinds), std::end(kinds), std::begin(driver.fl_map));
    return driver;
  }
};

Hdf5Output::Hdf5Output(const std::filesystem::path& path) : file_(path, O_RDWR | O_CREAT | O_TRUNC, "write") {}

void Hdf5Output::attach(int64_t access_properties) {
  static const H5FD_class_t description = Hdf5Driver::description();
  static const hid_t driver = H5FDregister(&description);
  const Hdf5Output* self = this;
  QN_ASSERT(driver >= 0 && H5Pset_driver(access_properties, driver, &self) >= 0, "HDF5 does not take the driver");
}

void Hdf5Output::check() const {
  if (failure_) std::rethrow_exception(failure_);
}

}  // namespace qn
