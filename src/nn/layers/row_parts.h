// Working on some rows at a time, in passes that record no gradient: what is needed in between takes little memory
// then.
#pragma once

#include <algorithm>

#include "ops/tape.h"

namespace qn {

/// f() in memory of the step arena that is free again behind it. Where weights have computed their value it stays,
/// because they do that once in a pass.
template <typename F>
void in_scratch(Tape& tape, const F& f) {
  const Arena::Mark begin = tape.arena.mark();
  const int64_t kept = tape.kept_values();
  f();
  if (tape.kept_values() == kept) tape.arena.rewind(begin);
}

/// f(begin, count) for parts of `rows` rows, `most` in each, and each in the memory of the one before.
template <typename F>
void for_row_parts(Tape& tape, int64_t rows, int64_t most, const F& f) {
  for (int64_t begin = 0; begin < rows; begin += most)
    in_scratch(tape, [&] { f(begin, std::min(most, rows - begin)); });
}

/// Whether a pass may be cut up: masks of dropout go by places in whole tensors.
inline bool may_work_in_parts(const Tape& tape) { return !tape.recording() && !tape.training(); }

}  // namespace qn
