// Which run a folder belongs to. Every run has an identity of its own, drawn when it starts; its checkpoints carry it
// (the text "run"), and run.json in the folder names the run that the folder's current one is. Checkpoints of programs
// that knew no identities have the empty one: they are one run.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "nn/state_dict.h"
#include "train/trainer_config.h"

namespace qn {

/// 16 hexadecimal digits that no other run has.
std::string new_run_id();

/// Where a folder's record is.
std::filesystem::path run_record(const std::filesystem::path& folder);
/// The run that run.json names; nothing where it is missing or not, byte for byte, as it was written. Throws qn::Error
/// when a newer program has written it.
std::optional<std::string> recorded_run(const std::filesystem::path& folder);
/// Makes `run` the folder's current run, atomically. Throws qn::Error when it cannot be written.
void record_run(const std::filesystem::path& folder, const std::string& run);

/// The run of a state; empty for those of older programs.
std::string run_of(const StateDict& state);
/// The same for a checkpoint, without reading all of it; nothing when it is too damaged to tell.
std::optional<std::string> run_of(const std::filesystem::path& checkpoint);

/// Throws qn::Error unless the run of `state`, found in config.dir, is what the command asks for: `train` or `quantize`
/// as it is, and started from the checkpoint config.init_from (if that is named and still there), from the layers of it
/// that config.layers_to_keep names.
void check_same_run(const StateDict& state, const CheckpointConfig& config, bool quantize);

/// What tells a run's source: the checksum of all of a checkpoint's content. Kept as the text "source".
std::string source_identity(const std::filesystem::path& init_from);

/// Warns of what a configuration says otherwise than that of the checkpoint `state`. Keys that only the new one has, as
/// those that older programs did not know, are a line together.
void warn_of_changes(const StateDict& state, const std::string& config_text);

}  // namespace qn
