// Checkpoints on disk: one HDF5 file per state, written atomically, verified completely when read.
//
//   /            attributes: format "quantnoise-checkpoint", version
//   /tensors/N   one dataset per tensor
//   /texts/N     the same for texts, as bytes
//   /ints        one attribute per integer
//   /floats      one attribute per number
//
// In front of the HDF5 content stands the seal with the checksums of all bytes, see checkpoint_seal.h.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "nn/state_dict.h"
#include "train/checkpoint_seal.h"

namespace qn {

/// Writes `state` to `path`: a crash at any moment leaves the old file or the complete new one, on disk. Equal states
/// give equal bytes. Throws qn::Error naming the path and the reason; `path` is then as it was.
void save_state(const std::filesystem::path& path, const StateDict& state);

/// Reads and verifies all of `path`. Throws DamagedCheckpoint naming the file and, where possible, the dataset;
/// qn::Error when the file cannot be opened, is an intact file of another kind, or was written by a newer version.
StateDict load_state(const std::filesystem::path& path);

struct LoadedState {
  std::filesystem::path path;
  StateDict state;
};

/// The first of `newest_first` that is not damaged; a warning is logged for each damaged one. Nothing when the list is
/// empty; throws qn::Error when all are damaged (starting afresh has to be the user's decision) or as load_state().
std::optional<LoadedState> newest_valid(std::span<const std::filesystem::path> newest_first);

}  // namespace qn
