#include "core/hdf5_file.h"

#include <hdf5.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <type_traits>
#include <utility>

#include "core/text.h"

namespace qn {
namespace {

/// An HDF5 identifier that closes itself.
template <herr_t (*Close)(hid_t)>
class Handle {
 public:
  explicit Handle(hid_t id = -1) : id_(id) {}
  ~Handle() {
    if (id_ >= 0) Close(id_);
  }
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator hid_t() const { return id_; }  // NOLINT: stands for the identifier in every HDF5 call

 private:
  hid_t id_;
};
using Object = Handle<H5Oclose>;
using Dataset = Handle<H5Dclose>;
using Group = Handle<H5Gclose>;
using Attribute = Handle<H5Aclose>;
using Space = Handle<H5Sclose>;
using Type = Handle<H5Tclose>;
using Properties = Handle<H5Pclose>;

static_assert(sizeof(hid_t) <= sizeof(int64_t));

/// The innermost entry of HDF5's error stack: it holds the system's errno text.
std::string hdf5_reason() {
  std::string reason;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_DOWNWARD,
      [](unsigned, const H5E_error2_t* entry, void* out) -> herr_t {
        if (entry->desc != nullptr && *entry->desc != '\0') *static_cast<std::string*>(out) = entry->desc;
        return 0;
      },
      &reason);
  H5Eclear2(H5E_DEFAULT);
  constexpr std::string_view system_text = "error message = '";
  if (const size_t start = reason.find(system_text); start != std::string::npos) {
    reason.erase(0, start + system_text.size());
    reason.erase(std::min(reason.find('\''), reason.size()));
  }
  return reason.empty() ? "unknown reason" : reason;
}

/// HDF5 reports failure by a negative value.
template <typename Result>
Result hdf5_check(Result result, const std::string& path, const char* action, const std::string& object) {
  QN_CHECK(result >= 0, "{}: cannot {} '{}': {}", path, action, object, hdf5_reason());
  return result;
}

/// Settings of the library, before its first use in each thread.
void configure_library() {
  // Every object here closes itself; the library's clean-up at exit may come after what it would use.
  static const herr_t no_exit_handler = H5dont_atexit();
  // The error stack belongs to the thread, so each thread has to be told not to print it.
  thread_local const herr_t silenced = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  static_cast<void>(no_exit_handler);
  static_cast<void>(silenced);
}

hid_t memory_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return H5T_NATIVE_FLOAT;
    case DType::f64:
      return H5T_NATIVE_DOUBLE;
    case DType::i32:
      return H5T_NATIVE_INT32;
    case DType::i64:
      return H5T_NATIVE_INT64;
    case DType::u8:
      return H5T_NATIVE_UINT8;
    case DType::bf16:
    case DType::f16:
    case DType::i8:
      break;
  }
  QN_ASSERT(false, "files do not hold {}", name_of(dtype));
}

hid_t file_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return H5T_IEEE_F32LE;
    case DType::f64:
      return H5T_IEEE_F64LE;
    case DType::i32:
      return H5T_STD_I32LE;
    case DType::i64:
      return H5T_STD_I64LE;
    case DType::u8:
      return H5T_STD_U8LE;
    case DType::bf16:
    case DType::f16:
    case DType::i8:
      break;
  }
  QN_ASSERT(false, "files do not hold {}", name_of(dtype));
}

/// The element type that holds the stored type without loss (but for 64-bit unsigned values above 2^63, which throw).
DType stored_dtype(hid_t type, const std::string& path, const std::string& dataset) {
  const H5T_class_t kind = H5Tget_class(type);
  const size_t size = H5Tget_size(type);
  if (kind == H5T_FLOAT) return size <= 4 ? DType::f32 : DType::f64;
  if (kind == H5T_ENUM) return DType::i64;  // h5py's booleans
  QN_CHECK(kind == H5T_INTEGER, "{}: dataset '{}' does not hold numbers", path, dataset);
  const bool is_signed = H5Tget_sign(type) == H5T_SGN_2;
  if (size == 1 && !is_signed) return DType::u8;
  return size == 4 && is_signed ? DType::i32 : DType::i64;
}

bool is_floating(DType dtype) { return dtype == DType::f32 || dtype == DType::f64; }

/// Transfer properties that make a conversion fail instead of clipping values out of range.
Properties checked_conversion() {
  Properties transfer(H5Pcreate(H5P_DATASET_XFER));
  H5Pset_type_conv_cb(
      transfer,
      [](H5T_conv_except_t what, hid_t, hid_t, void*, void*, void*) {
        return what == H5T_CONV_EXCEPT_RANGE_HI || what == H5T_CONV_EXCEPT_RANGE_LOW ? H5T_CONV_ABORT
                                                                                     : H5T_CONV_UNHANDLED;
      },
      nullptr);
  return transfer;
}

/// Removes the padding of one fixed-length string.
std::string unpadded(const char* text, size_t size, H5T_str_t padding) {
  std::string result(text, size);
  if (padding == H5T_STR_SPACEPAD) {
    result.erase(result.find_last_not_of(' ') + 1);
  } else if (const size_t end = padding == H5T_STR_NULLTERM ? result.find('\0') : result.find_last_not_of('\0') + 1;
             end < size) {
    result.erase(end);
  }
  return result;
}

std::string normalized(const std::string& object) { return object.empty() ? "/" : object; }

Object open_object(hid_t file, const std::string& path, const std::string& object) {
  return Object(hdf5_check(H5Oopen(file, normalized(object).c_str(), H5P_DEFAULT), path, "open", object));
}

Attribute open_attribute(hid_t object, const std::string& path, const std::string& where, const std::string& name) {
  return Attribute(hdf5_check(H5Aopen(object, name.c_str(), H5P_DEFAULT), path, "open attribute", where + "@" + name));
}

/// Reads the numbers of an attribute as `memory`, which describes T; integers refuse floating-point values.
template <typename T>
std::vector<T> read_numbers(hid_t file, const std::string& path, const std::string& object, const std::string& name,
                            hid_t memory) {
  const Object owner = open_object(file, path, object);
  const Attribute attribute = open_attribute(owner, path, object, name);
  const Space space(H5Aget_space(attribute));
  const Type type(H5Aget_type(attribute));
  const H5T_class_t kind = H5Tget_class(type);
  const bool floating = kind == H5T_FLOAT && std::is_floating_point_v<T>;
  QN_CHECK(kind == H5T_INTEGER || kind == H5T_ENUM || floating, "{}: attribute '{}' of '{}' does not hold {}", path,
           name, object, std::is_floating_point_v<T> ? "numbers" : "integers");
  std::vector<T> values(static_cast<size_t>(std::max<hssize_t>(H5Sget_simple_extent_npoints(space), 0)));
  hdf5_check(H5Aread(attribute, memory, values.data()), path, "read attribute", object + "@" + name);
  return values;
}

/// The element of an attribute that has to be one number.
template <typename T>
T only(const std::vector<T>& values, const std::string& path, const std::string& object, const std::string& name) {
  QN_CHECK(values.size() == 1, "{}: attribute '{}' of '{}' holds {} numbers, one is needed", path, name, object,
           values.size());
  return values[0];
}

/// Creates (or replaces) an attribute of one element and writes it.
void write_scalar(hid_t file, const std::string& path, const std::string& object, const std::string& name, hid_t stored,
                  hid_t memory, const void* value) {
  const Object owner = open_object(file, path, object);
  const std::string what = object + "@" + name;
  if (hdf5_check(H5Aexists(owner, name.c_str()), path, "look up attribute", what) > 0) {
    hdf5_check(H5Adelete(owner, name.c_str()), path, "replace attribute", what);
  }
  const Space space(H5Screate(H5S_SCALAR));
  const Attribute attribute(hdf5_check(H5Acreate2(owner, name.c_str(), stored, space, H5P_DEFAULT, H5P_DEFAULT), path,
                                       "create attribute", what));
  hdf5_check(H5Awrite(attribute, memory, value), path, "write attribute", what);
}

/// Link properties for UTF-8 names.
Properties utf8_name() {
  Properties links(H5Pcreate(H5P_LINK_CREATE));
  H5Pset_char_encoding(links, H5T_CSET_UTF8);
  return links;
}

std::string parent_of(const std::string& object) {
  const size_t slash = object.rfind('/');
  return slash == std::string::npos ? "" : object.substr(0, slash);
}

/// Collects the names that H5Literate and H5Aiterate report.
herr_t collect_name(const char* name, void* out) {
  static_cast<std::vector<std::string>*>(out)->emplace_back(name);
  return 0;
}

/// Opens a dataset; a missing one is reported together with the nearest name beside it.
Dataset open_dataset(const Hdf5File& reader, hid_t file, const std::string& path, const std::string& dataset) {
  if (!reader.exists(dataset)) {
    const std::string parent = parent_of(dataset);
    std::vector<std::string> near;
    if (reader.exists(parent) && reader.is_group(parent)) {
      near = nearest(dataset.substr(dataset.rfind('/') + 1), reader.members(parent));
    }
    fail("{}: there is no dataset '{}'{}", path, dataset,
         near.empty() ? "" : fmt::format("; the nearest name in the same group is '{}'", near[0]));
  }
  QN_CHECK(!reader.is_group(dataset), "{}: '{}' is a group, not a dataset", path, dataset);
  return Dataset(hdf5_check(H5Dopen2(file, dataset.c_str(), H5P_DEFAULT), path, "open", dataset));
}

Shape shape_of(hid_t dataset, const std::string& path, const std::string& name) {
  const Space space(hdf5_check(H5Dget_space(dataset), path, "read the shape of", name));
  if (H5Sget_simple_extent_type(space) == H5S_NULL) return Shape{0};
  const int rank = hdf5_check(H5Sget_simple_extent_ndims(space), path, "read the shape of", name);
  QN_CHECK(rank <= Shape::kMaxRank, "{}: dataset '{}' has {} dimensions, more than {}", path, name, rank,
           Shape::kMaxRank);
  std::array<hsize_t, Shape::kMaxRank> extents{};
  H5Sget_simple_extent_dims(space, extents.data(), nullptr);
  std::vector<int64_t> dims(extents.begin(), extents.begin() + rank);
  return Shape(dims);
}

/// Reads all elements into `out`, which has room for them, converted to `dtype`.
void read_into(hid_t dataset, const std::string& path, const std::string& name, DType dtype, void* out) {
  const Type type(hdf5_check(H5Dget_type(dataset), path, "read the type of", name));
  QN_CHECK(is_floating(dtype) || !is_floating(stored_dtype(type, path, name)),
           "{}: dataset '{}' holds floating-point numbers, integers are needed", path, name);
  const Properties transfer = checked_conversion();
  hdf5_check(H5Dread(dataset, memory_type(dtype), H5S_ALL, H5S_ALL, transfer, out), path, "read", name);
}

}  // namespace

Hdf5File::Hdf5File(const std::filesystem::path& path, Mode mode, size_t user_block) : path_(path.string()) {
  configure_library();
  const Properties access(H5Pcreate(H5P_FILE_ACCESS));
  // Writers rename finished files into place, so readers need no locks; network file systems often lack them.
  H5Pset_file_locking(access, false, true);
  if (mode == Mode::read) {
    file_ = hdf5_check(H5Fopen(path_.c_str(), H5F_ACC_RDONLY, access), path_, "open HDF5 file", path.filename());
    return;
  }
  output_ = std::make_unique<Hdf5Output>(path);
  output_->attach(access);
  H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_LATEST);
  const Properties creation(H5Pcreate(H5P_FILE_CREATE));
  H5Pset_obj_track_times(creation, false);
  QN_ASSERT(H5Pset_userblock(creation, user_block) >= 0, "user block of {} bytes", user_block);
  file_ =
      hdf5_check(H5Fcreate(path_.c_str(), H5F_ACC_TRUNC, creation, access), path_, "create HDF5 file", path.filename());
}

Hdf5File::~Hdf5File() {
  if (file_ >= 0) H5Fclose(file_);
}

bool Hdf5File::exists(const std::string& object) const {
  for (size_t start = object.find_first_not_of('/'); start != std::string::npos;) {
    const size_t end = object.find('/', start);
    const std::string prefix = object.substr(0, end);
    if (hdf5_check(H5Lexists(file_, prefix.c_str(), H5P_DEFAULT), path_, "look up", object) == 0) return false;
    start = end == std::string::npos ? end : object.find_first_not_of('/', end);
    if (start != std::string::npos && !is_group(prefix)) return false;
  }
  return true;
}

bool Hdf5File::has_attribute(const std::string& object, const std::string& name) const {
  const Object owner = open_object(file_, path_, object);
  return hdf5_check(H5Aexists(owner, name.c_str()), path_, "look up attribute", object + "@" + name) > 0;
}

std::vector<std::string> Hdf5File::members(const std::string& group) const {
  QN_CHECK(is_group(group), "{}: '{}' is not a group", path_, group);
  const Object parent = open_object(file_, path_, group);
  std::vector<std::string> names;
  hdf5_check(H5Literate(
                 parent, H5_INDEX_NAME, H5_ITER_INC, nullptr,
                 [](hid_t, const char* name, const H5L_info_t*, void* out) { return collect_name(name, out); }, &names),
             path_, "list", group);
  return names;
}

std::vector<std::string> Hdf5File::attributes(const std::string& object) const {
  const Object owner = open_object(file_, path_, object);
  std::vector<std::string> names;
  hdf5_check(H5Aiterate2(
                 owner, H5_INDEX_NAME, H5_ITER_INC, nullptr,
                 [](hid_t, const char* name, const H5A_info_t*, void* out) { return collect_name(name, out); }, &names),
             path_, "list the attributes of", object);
  return names;
}

bool Hdf5File::is_group(const std::string& object) const {
  return H5Iget_type(open_object(file_, path_, object)) == H5I_GROUP;
}

Shape Hdf5File::shape(const std::string& dataset) const {
  return shape_of(open_dataset(*this, file_, path_, dataset), path_, dataset);
}

template <typename T>
std::vector<T> Hdf5File::read(const std::string& dataset) const {
  const Dataset source = open_dataset(*this, file_, path_, dataset);
  std::vector<T> values(static_cast<size_t>(shape_of(source, path_, dataset).elements()));
  read_into(source, path_, dataset, DTypeOf<T>::value, values.data());
  return values;
}
template std::vector<float> Hdf5File::read<float>(const std::string&) const;
template std::vector<double> Hdf5File::read<double>(const std::string&) const;
template std::vector<int32_t> Hdf5File::read<int32_t>(const std::string&) const;
template std::vector<int64_t> Hdf5File::read<int64_t>(const std::string&) const;
template std::vector<uint8_t> Hdf5File::read<uint8_t>(const std::string&) const;

OwnedTensor Hdf5File::read_tensor(const std::string& dataset) const {
  const Dataset source = open_dataset(*this, file_, path_, dataset);
  const Type type(hdf5_check(H5Dget_type(source), path_, "read the type of", dataset));
  OwnedTensor tensor(shape_of(source, path_, dataset), stored_dtype(type, path_, dataset));
  read_into(source, path_, dataset, tensor.view().dtype, tensor.view().data);
  return tensor;
}

Hdf5File::Extent Hdf5File::extent(const std::string& dataset) const {
  const Dataset source = open_dataset(*this, file_, path_, dataset);
  const haddr_t offset = H5Dget_offset(source);
  return offset == HADDR_UNDEF ? Extent{} : Extent{offset, H5Dget_storage_size(source)};
}

std::vector<std::string> Hdf5File::read_strings(const std::string& dataset) const {
  const Dataset source = open_dataset(*this, file_, path_, dataset);
  const Type type(hdf5_check(H5Dget_type(source), path_, "read the type of", dataset));
  QN_CHECK(H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0,
           "{}: dataset '{}' does not hold fixed-length strings", path_, dataset);
  const size_t count = static_cast<size_t>(shape_of(source, path_, dataset).elements());
  const size_t size = H5Tget_size(type);
  std::vector<char> text(std::max<size_t>(count * size, 1));
  hdf5_check(H5Dread(source, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text.data()), path_, "read", dataset);
  std::vector<std::string> strings(count);
  for (size_t i = 0; i < count; ++i) strings[i] = unpadded(text.data() + i * size, size, H5Tget_strpad(type));
  return strings;
}

void Hdf5File::write_tensor(const std::string& dataset, const Tensor& tensor) {
  QN_ASSERT(tensor.defined(), "undefined tensor for dataset {}", dataset);
  create_group(parent_of(dataset));
  const std::vector<int64_t> dims = tensor.shape.to_vector();
  const std::vector<hsize_t> extents(dims.begin(), dims.end());
  const Space space(dims.empty() ? H5Screate(H5S_SCALAR)
                                 : H5Screate_simple(tensor.shape.rank(), extents.data(), nullptr));
  const Properties creation(H5Pcreate(H5P_DATASET_CREATE));
  H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER);
  H5Pset_obj_track_times(creation, false);
  const Dataset target(
      hdf5_check(H5Dcreate2(file_, dataset.c_str(), file_type(tensor.dtype), space, utf8_name(), creation, H5P_DEFAULT),
                 path_, "create dataset", dataset));
  hdf5_check(H5Dwrite(target, memory_type(tensor.dtype), H5S_ALL, H5S_ALL, H5P_DEFAULT, tensor.data), path_, "write",
             dataset);
  output_->check();  // better now than after the rest
}

int64_t Hdf5File::int_attribute(const std::string& object, const std::string& name) const {
  return only(int_list_attribute(object, name), path_, object, name);
}

std::vector<int64_t> Hdf5File::int_list_attribute(const std::string& object, const std::string& name) const {
  return read_numbers<int64_t>(file_, path_, object, name, H5T_NATIVE_INT64);
}

double Hdf5File::float_attribute(const std::string& object, const std::string& name) const {
  return only(read_numbers<double>(file_, path_, object, name, H5T_NATIVE_DOUBLE), path_, object, name);
}

std::string Hdf5File::string_attribute(const std::string& object, const std::string& name) const {
  const Object owner = open_object(file_, path_, object);
  const Attribute attribute = open_attribute(owner, path_, object, name);
  const Space space(H5Aget_space(attribute));
  const Type type(H5Aget_type(attribute));
  const std::string what = object + "@" + name;
  QN_CHECK(H5Tget_class(type) == H5T_STRING && H5Sget_simple_extent_npoints(space) == 1,
           "{}: attribute '{}' of '{}' is not one string", path_, name, object);
  if (H5Tis_variable_str(type) > 0) {
    char* text = nullptr;
    hdf5_check(H5Aread(attribute, type, &text), path_, "read attribute", what);
    std::string result = text == nullptr ? "" : text;
    H5free_memory(text);
    return result;
  }
  std::string text(H5Tget_size(type), '\0');
  hdf5_check(H5Aread(attribute, type, text.data()), path_, "read attribute", what);
  return unpadded(text.data(), text.size(), H5Tget_strpad(type));
}

void Hdf5File::write_attribute(const std::string& object, const std::string& name, int64_t value) {
  write_scalar(file_, path_, object, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
}

void Hdf5File::write_attribute(const std::string& object, const std::string& name, double value) {
  write_scalar(file_, path_, object, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value);
}

void Hdf5File::write_attribute(const std::string& object, const std::string& name, const std::string& value) {
  const Type type(H5Tcopy(H5T_C_S1));
  H5Tset_size(type, std::max<size_t>(value.size(), 1));  // HDF5 has no strings of length 0
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  H5Tset_cset(type, H5T_CSET_UTF8);
  write_scalar(file_, path_, object, name, type, type, value.c_str());
}

void Hdf5File::create_group(const std::string& group) {
  if (exists(group)) {
    QN_CHECK(is_group(group), "{}: '{}' is a dataset, a group is wanted", path_, group);
    return;
  }
  create_group(parent_of(group));
  const Properties creation(H5Pcreate(H5P_GROUP_CREATE));
  H5Pset_obj_track_times(creation, false);
  const Group created(
      hdf5_check(H5Gcreate2(file_, group.c_str(), utf8_name(), creation, H5P_DEFAULT), path_, "create group", group));
}

void Hdf5File::flush() {
  hdf5_check(H5Fflush(file_, H5F_SCOPE_GLOBAL), path_, "write", "/");
  if (output_) output_->check();
}

void Hdf5File::close() {
  flush();
  hdf5_check(H5Fclose(std::exchange(file_, -1)), path_, "close", "/");
  if (output_) output_->check();
}

bool Hdf5File::thread_safe() {
  hbool_t safe = 0;
  return H5is_library_threadsafe(&safe) >= 0 && safe != 0;
}

}  // namespace qn
