#include "train/broadcast_state.h"

#include <fmt/format.h>

#include <cstdlib>
#include <sstream>

namespace qn {
namespace {

/// One line per tensor: type, rank, dimensions, name.
std::string tensor_list(const StateDict& state) {
  std::string list;
  for (const auto& [name, tensor] : state.tensors) {
    list += fmt::format("{} {}", static_cast<int>(tensor.view().dtype), tensor.view().shape.rank());
    for (const int64_t d : tensor.view().shape.to_vector()) list += fmt::format(" {}", d);
    list += ' ' + name + '\n';
  }
  return list;
}

void broadcast_tensors(Communicator& comm, StateDict& state) {
  std::istringstream lines(comm.broadcast_text(tensor_list(state)));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream in(line);
    int dtype = 0, rank = 0;
    in >> dtype >> rank;
    std::vector<int64_t> dims(static_cast<size_t>(rank));
    for (int64_t& d : dims) in >> d;
    std::string name;
    in.get();
    std::getline(in, name);
    if (!comm.is_root()) state.tensors[name] = OwnedTensor(Shape(dims), static_cast<DType>(dtype));
    const Tensor& t = state.tensor(name);
    comm.broadcast({static_cast<std::byte*>(t.data), t.bytes()});
  }
}

void broadcast_texts(Communicator& comm, StateDict& state) {
  const std::string count = comm.broadcast_text(std::to_string(state.texts.size()));
  auto entry = state.texts.begin();
  for (int64_t i = 0, n = std::stoll(count); i < n; ++i) {
    const std::string key = comm.broadcast_text(comm.is_root() ? entry->first : "");
    const std::string value = comm.broadcast_text(comm.is_root() ? entry->second : "");
    if (comm.is_root())
      ++entry;
    else
      state.texts[key] = value;
  }
}

void broadcast_numbers(Communicator& comm, StateDict& state) {
  std::string numbers;
  for (const auto& [name, value] : state.ints) numbers += fmt::format("i {} {}\n", value, name);
  for (const auto& [name, value] : state.floats) numbers += fmt::format("f {:a} {}\n", value, name);
  std::istringstream entries(comm.broadcast_text(numbers));
  for (std::string kind, value, name; entries >> kind >> value && entries.get() && std::getline(entries, name);) {
    if (kind == "i")
      state.ints[name] = std::stoll(value);
    else
      state.floats[name] = std::strtod(value.c_str(), nullptr);
  }
}

}  // namespace

void broadcast_state(Communicator& comm, StateDict& state) {
  if (comm.size() == 1) return;
  broadcast_tensors(comm, state);
  broadcast_texts(comm, state);
  broadcast_numbers(comm, state);
}

}  // namespace qn
