// The part of `prepare` that is for images.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <string>

#include "data/image_resize.h"
#include "data/preprocess.h"

namespace qn::cli {

class PrepareImages {
 public:
  void add_to(CLI::App& app);
  /// Whether the command line asks for images. Throws UsageError for options that do not go together.
  bool asked() const;
  /// Prepares them; `texts` has the inputs of --train, --valid and --test, and where to write; `columns` is --columns.
  void run(const PrepareOptions& texts, const std::string& columns);

 private:
  /// Whether an option of the command was given.
  bool given(const std::string& option) const { return app_->get_option(option)->count() > 0; }
  void check_options() const;

  CLI::App* app_ = nullptr;
  bool images_ = false, grey_ = false, skip_damaged_ = false;
  std::filesystem::path mnist_, cifar_, root_, classes_;
  int64_t resize_ = 0, hold_out_ = 0;
  ResizeFilter filter_ = ResizeFilter::bicubic;
};

}  // namespace qn::cli
