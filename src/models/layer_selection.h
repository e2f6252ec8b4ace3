// Which layers of a network are kept when it is pruned (fairseq: --decoder-layers-to-keep; reference 4).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace qn {

class LayerSelection {
 public:
  /// Of a network with so many layers, whose groups of `share_layers` adjacent ones have their weights in common.
  /// `text` is "0,2,4": layers counted from 0, in any order; or "every-other": the first group and every second one
  /// after it. Throws UsageError for texts that are neither, layers that there are not or that are named twice, no
  /// layers at all, and groups of which only some layers are kept.
  LayerSelection(const std::string& text, int64_t layers, int64_t share_layers);
  /// How many layers a list names; nothing for "every-other". Throws UsageError as above.
  static std::optional<int64_t> count(const std::string& text);

  const std::vector<int64_t>& kept() const { return kept_; }  ///< ascending

  /// The name that something of the network has in the pruned one, where layers are counted anew; nothing when it is of
  /// a layer that is not kept. A layer's number is what follows the first ".layers." in a name.
  std::optional<std::string> renamed(const std::string& name) const;

 private:
  std::vector<int64_t> kept_;
};

}  // namespace qn
