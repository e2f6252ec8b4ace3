// One folder with a prepared miniature corpus for all ranks of a test.
#pragma once

#include <filesystem>
#include <memory>

#include "support/temp_dir.h"
#include "support/test_comm.h"
#include "tiny_run.h"

namespace qn::test {

/// A folder that all ranks share, made by rank 0.
class SharedDir {
 public:
  SharedDir() {
    if (comm().is_root()) {
      own_ = std::make_unique<TempDir>();
      prepare_tiny_corpus(own_->path());
    }
    path_ = comm().broadcast_text(own_ ? own_->path().string() : "");
  }
  ~SharedDir() { comm().barrier(); }
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::unique_ptr<TempDir> own_;
  std::filesystem::path path_;
};

}  // namespace qn::test
