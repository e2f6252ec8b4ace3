// Where values come into a network.
#include "ops/host_access.h"
#include "ops/ops.h"

namespace qn {

Tensor input_values(Tape& tape, std::span<const float> values, Shape shape) {
  QN_CHECK(std::ssize(values) == shape.elements(), "an input {} takes {} values, not {}", shape.to_string(),
           shape.elements(), values.size());
  const Tensor x = tape.parameter_tensor(shape);
  if (x.dtype == DType::f32)
    upload(tape.k, x, view_of(values.data(), shape));
  else
    write_on_host(tape.k, x, [&](const Tensor& host) { std::copy(values.begin(), values.end(), host.as<double>()); });
  return x;
}

Var input(Tape& tape, std::span<const float> values, Shape shape) {
  return cast_to_compute(tape, {input_values(tape, values, shape), nullptr});
}

}  // namespace qn
