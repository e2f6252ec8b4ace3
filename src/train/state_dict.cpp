#include "train/state_dict.h"

#include <cstring>

#include "core/error.h"
#include "core/text.h"

namespace qn {
namespace {

template <typename Value>
const Value& find(const std::map<std::string, Value>& entries, const std::string& name, const char* kind) {
  const auto found = entries.find(name);
  if (found != entries.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& entry : entries) names.push_back(entry.first);
  const std::vector<std::string> near = nearest(name, names);
  fail("the checkpoint holds no {} '{}'{}: was it written by a run with another configuration?", kind, name,
       near.empty() ? "" : fmt::format(" (nearest: '{}')", near[0]));
}

}  // namespace

OwnedTensor copy_of(const Tensor& tensor) {
  QN_ASSERT(tensor.defined(), "copy of an undefined tensor");
  OwnedTensor copy(tensor.shape, tensor.dtype);
  std::memcpy(copy.view().data, tensor.data, tensor.bytes());
  return copy;
}

const Tensor& StateDict::tensor(const std::string& name) const { return find(tensors, name, "tensor").view(); }
const std::string& StateDict::text(const std::string& name) const { return find(texts, name, "text"); }
int64_t StateDict::integer(const std::string& name) const { return find(ints, name, "integer"); }
double StateDict::real(const std::string& name) const { return find(floats, name, "number"); }

}  // namespace qn
