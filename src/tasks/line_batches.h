// What an encoder computes of lines of text, in batches of similar lengths.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "models/sentence_encoder.h"

namespace qn {

class LineBatches {
 public:
  /// An input, and where the second sentence of a pair begins in it (beyond its end for single ones).
  struct Item {
    std::vector<int32_t> tokens;
    size_t second = SIZE_MAX;
  };
  /// [sentences, columns] of a batch.
  using Compute = std::function<Var(Tape& tape, const SentenceBatch& batch)>;

  /// The row of every item, in their order.
  std::vector<std::vector<double>> rows(const std::vector<Item>& items, const Kernels& kernels, DType dtype,
                                        const Compute& compute);

 private:
  std::unique_ptr<Arena> arena_;  // for the next call as well
  const Memory* arena_memory_ = nullptr;
};

}  // namespace qn
