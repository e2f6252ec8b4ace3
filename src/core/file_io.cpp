#include "core/file_io.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <mutex>
#include <random>
#include <set>
#include <system_error>
#include <utility>

#include "core/error.h"
#include "core/text.h"

namespace qn {
namespace {

constexpr std::string_view kTemporaryMark = ".tmp-";
constexpr size_t kTemporaryDigits = 16;

std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

/// The temporary files of this process. Held while one appears, is renamed or disappears.
struct Temporaries {
  std::mutex mutex;
  std::set<std::filesystem::path> paths;
};

Temporaries& temporaries() {
  static auto* const all = new Temporaries;  // never destroyed: threads may still write when the process ends
  return *all;
}

/// A file beside its target that disappears unless it is renamed into place.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::filesystem::path& path) : target_(output_target(path)), path_(target_) {
    std::random_device random;
    path_ += std::string(kTemporaryMark) + hex64(uint64_t{random()} << 32 | random());
    const std::lock_guard lock(temporaries().mutex);
    const FileDescriptor created(path_, O_WRONLY | O_CREAT | O_EXCL, "create");
    temporaries().paths.insert(path_);
  }
  ~TemporaryFile() {
    if (renamed_) return;
    const std::lock_guard lock(temporaries().mutex);
    // Truncated first: where the writer still holds the file open, unlinking alone would not free the disk.
    std::error_code ignored;
    std::filesystem::resize_file(path_, 0, ignored);
    std::filesystem::remove(path_, ignored);
    temporaries().paths.erase(path_);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::filesystem::path& path() const { return path_; }

  void commit() {
    FileDescriptor(path_, O_RDONLY, "open").sync();
    rename();
    FileDescriptor(folder_of(target_), O_RDONLY | O_DIRECTORY, "open folder").sync();
  }

 private:
  void rename() {
    const std::lock_guard lock(temporaries().mutex);
    rename_file(path_, target_);
    renamed_ = true;
    temporaries().paths.erase(path_);
  }

  std::filesystem::path target_, path_;
  bool renamed_ = false;
};

bool is_temporary(const std::string& name) {
  const size_t tail = kTemporaryMark.size() + kTemporaryDigits;
  return name.size() > tail && name.compare(name.size() - tail, kTemporaryMark.size(), kTemporaryMark) == 0 &&
         name.find_first_not_of("0123456789abcdef", name.size() - kTemporaryDigits) == std::string::npos;
}

}  // namespace

std::string obstacle_at(const std::filesystem::path& path) {
  std::error_code error;
  switch (std::filesystem::status(path, error).type()) {
    case std::filesystem::file_type::regular:
    case std::filesystem::file_type::not_found:
      return "";
    case std::filesystem::file_type::directory:
      return "a folder";
    case std::filesystem::file_type::fifo:
      return "a pipe";
    case std::filesystem::file_type::none:  // creating the file will say what else there is
      return error == std::errc::too_many_symbolic_link_levels ? "a circle of symbolic links" : "";
    default:
      return "a device or socket";
  }
}

std::filesystem::path output_target(const std::filesystem::path& path) {
  const std::string obstacle = obstacle_at(path);
  QN_CHECK(obstacle.empty(), "cannot write {}: this is {}; name a regular file", path.string(), obstacle);
  std::filesystem::path target = path;
  std::error_code error;
  while (std::filesystem::is_symlink(std::filesystem::symlink_status(target, error)))
    target = target.parent_path() / std::filesystem::read_symlink(target);
  return target;
}

void atomic_write(const std::filesystem::path& path,
                  const std::function<void(const std::filesystem::path& temporary)>& write) {
  TemporaryFile temporary(path);
  write(temporary.path());
  temporary.commit();
}

void atomic_write(const std::filesystem::path& path, std::span<const std::byte> content) {
  atomic_write(path, [&](const std::filesystem::path& temporary) { overwrite_file_bytes(temporary, 0, content); });
}

void atomic_write_text(const std::filesystem::path& path, std::string_view content) {
  atomic_write(path, std::as_bytes(std::span(content)));
}

void discard_temporaries() {
  temporaries().mutex.lock();  // and never unlocked
  std::error_code ignored;
  for (const std::filesystem::path& path : temporaries().paths) std::filesystem::remove(path, ignored);
}

void mark_temporary(const std::filesystem::path& path, bool temporary) {
  const std::lock_guard lock(temporaries().mutex);
  if (temporary) {
    temporaries().paths.insert(path);
  } else {
    temporaries().paths.erase(path);
  }
}

size_t remove_leftover_temporaries(const std::filesystem::path& directory) {
  size_t removed = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    std::error_code ignored;  // another process may have removed it first
    if (is_temporary(entry.path().filename()) && std::filesystem::remove(entry.path(), ignored)) ++removed;
  }
  QN_CHECK(!error, "cannot list folder {}: {}", directory.string(), error.message());
  return removed;
}

std::string read_pipe(const std::filesystem::path& path) {
  constexpr size_t kPiece = size_t{1} << 20;
  constexpr std::chrono::milliseconds kPatience(10'000);
  constexpr int kPause = 20;                        // milliseconds
  const FileDescriptor in(path, O_RDONLY, "open");  // without waiting for a writer
  const auto give_up = std::chrono::steady_clock::now() + kPatience;
  std::string content;
  for (bool written = false;;) {
    const size_t had = content.size();
    content.resize(had + kPiece);
    const ssize_t got = ::read(in.get(), content.data() + had, kPiece);
    content.resize(had + static_cast<size_t>(std::max<ssize_t>(got, 0)));
    const bool waits = got < 0 && (errno == EAGAIN || errno == EINTR);  // for one who has opened it
    in.check(got >= 0 || waits, "read");
    written = written || got > 0 || waits;
    if (waits) {
      pollfd ready{in.get(), POLLIN, 0};
      ::poll(&ready, 1, -1);
    } else if (got == 0) {
      if (written || !std::filesystem::is_fifo(path)) return content;
      QN_CHECK(std::chrono::steady_clock::now() < give_up,
               "{} is a pipe that nobody writes to: name a file, or start what writes to it first", path.string());
      pollfd writer{in.get(), POLLIN, 0};  // hangs up only where there has been one, however short its stay
      if (::poll(&writer, 1, kPause) > 0 && (writer.revents & POLLHUP) != 0) written = true;
    }
  }
}

std::vector<std::byte> read_file_bytes(const std::filesystem::path& path) {
  const FileDescriptor file(path, O_RDONLY, "open");
  std::vector<std::byte> content(file.size());
  content.resize(file.read(0, content));
  return content;
}

std::vector<std::byte> read_file_bytes(const std::filesystem::path& path, size_t offset, size_t count) {
  const FileDescriptor file(path, O_RDONLY, "open");
  const size_t size = file.size();
  QN_CHECK(offset <= size && count <= size - offset, "cannot read bytes {} to {} of {}: it has only {}", offset,
           offset + count, path.string(), size);
  std::vector<std::byte> content(count);
  QN_CHECK(file.read(offset, content) == count, "cannot read {}: it became shorter meanwhile", path.string());
  return content;
}

std::vector<std::byte> read_file_head(const std::filesystem::path& path, size_t limit) {
  const FileDescriptor file(path, O_RDONLY, "open");
  std::vector<std::byte> content(std::min(limit, file.size()));
  content.resize(file.read(0, content));
  return content;
}

void overwrite_file_bytes(const std::filesystem::path& path, size_t offset, std::span<const std::byte> content) {
  FileDescriptor(path, O_WRONLY, "open").write(offset, content);
}

AppendedFile::AppendedFile(const std::filesystem::path& path, bool keep)
    : file_(path, O_RDWR | O_CREAT | (keep ? 0 : O_TRUNC), "open"), size_(file_.size()) {}

void AppendedFile::append(std::string_view text) {
  try {
    file_.write(size_, std::as_bytes(std::span(text)));
  } catch (const Error&) {
    // Readers should not see half a text; should this fail, too, the next append overwrites it.
    static_cast<void>(file_.try_truncate(size_));
    throw;
  }
  size_ += text.size();
}

MappedFile::MappedFile(const std::filesystem::path& path) {
  const FileDescriptor file(path, O_RDONLY, "open");
  size_ = file.size();
  if (size_ == 0) return;  // a mapping cannot be empty
  void* address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.get(), 0);
  file.check(address != MAP_FAILED, "map");
  data_ = static_cast<const std::byte*>(address);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace qn
