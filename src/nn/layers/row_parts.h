// Working on some rows at a time, in passes that record no gradient: what is needed in between takes little memory
// then.
#pragma once

#include <algorithm>
#include <optional>

#include "ops/tape.h"

namespace qn {

/// f(begin, count) for parts of `rows` rows, `most` in each, and each in the memory of the one before. Only what the
/// first part has made stays until the step arena is rewound, because values that weights compute once in a pass are
/// among it.
template <typename F>
void for_row_parts(Tape& tape, int64_t rows, int64_t most, const F& f) {
  for (int64_t begin = 0; begin < rows; begin += most) {
    std::optional<ScratchScope> scope;
    if (begin > 0) scope.emplace(tape.arena);
    f(begin, std::min(most, rows - begin));
  }
}

/// Whether a pass may be cut up: masks of dropout go by places in whole tensors.
inline bool may_work_in_parts(const Tape& tape) { return !tape.recording() && !tape.training(); }

}  // namespace qn
