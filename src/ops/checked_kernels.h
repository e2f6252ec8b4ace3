// Kernels that look at what they have computed: where the first value that is not finite comes from.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "core/error.h"
#include "ops/kernels.h"

namespace qn {

/// Thrown by the kernel that was given or made a value that is not finite; what() is "matmul with NAME: nan at element
/// 5 of 64".
class NonFiniteResult : public Error {
 public:
  using Error::Error;
};

/// A table that calls another's kernels and then looks at every tensor of the call. Memory that kernels have not
/// written yet must hold finite values, and parameters must be finite: what is found then is a result. For one thread;
/// slow on devices, whose tensors are copied to the host.
class CheckedKernels {
 public:
  explicit CheckedKernels(const Kernels& inner);
  const Kernels& kernels() const { return table_; }
  /// What messages call this memory, and copies that kernels make of it.
  void name(const Tensor& memory, const std::string& text);
  /// A new pass begins: copies are forgotten.
  void begin();

 private:
  template <auto Kernel>
  struct Checked;
  struct Named {
    const std::byte* end;
    std::string text;
  };
  using Names = std::map<const std::byte*, Named>;
  void look_at(const char* op, const std::vector<Tensor>& tensors);
  void pass_name_on(const Tensor& to, const Tensor& from);
  const std::string* name_of_memory(const void* place) const;

  Kernels table_;
  const Kernels& inner_;
  Names names_, copies_;
  std::string last_named_;  // the newest call that dealt with named memory
  int64_t calls_ = 0;       // since begin()
};

}  // namespace qn
