// The functions of cuDNN's graph API that the backend calls: objects keep their attributes, and executing a plan
// computes its convolution in double from what the graph says of its tensors. As of the real one, an engine that is
// named first need not be one to take: here it does not repeat its results.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cudnn_graph.h>

#include <array>
#include <cstring>
#include <map>
#include <vector>

#include "streams.h"

using namespace qn::emulation;

struct cudnnContext {
  cudaStream_t stream = nullptr;
};

namespace {

/// A backend descriptor. Those that it refers to may be gone when it is used: it keeps copies of what they are.
struct Node {
  cudnnBackendDescriptorType_t type;
  bool finalized = false, repeats = true;
  std::map<int, std::vector<int64_t>> numbers = {};
  std::map<int, std::vector<Node>> nodes = {};
  cudnnHandle_t handle = nullptr;

  int64_t number(int name, size_t i = 0) const { return numbers.at(name).at(i); }
  const Node& node(int name) const { return nodes.at(name).at(0); }
};

Node& node_of(cudnnBackendDescriptor_t object) { return *static_cast<Node*>(object); }

/// An operand of a plan, by its elements in the order batch, channel, row, column.
class Operand {
 public:
  Operand(const Node& tensor, void* data) : tensor_(tensor), data_(data) {
    if (reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(tensor.number(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT)) !=
        0)
      refuse("an operand of cuDNN that is not aligned as it says");
  }
  int64_t size(size_t axis) const { return tensor_.number(CUDNN_ATTR_TENSOR_DIMENSIONS, axis); }
  double get(int64_t n, int64_t c, int64_t h, int64_t w) const {
    const int64_t i = index(n, c, h, w);
    switch (tensor_.number(CUDNN_ATTR_TENSOR_DATA_TYPE)) {
      case CUDNN_DATA_FLOAT:
        return static_cast<const float*>(data_)[i];
      case CUDNN_DATA_HALF:
        return __half2float(static_cast<const __half*>(data_)[i]);
      case CUDNN_DATA_BFLOAT16:
        return __bfloat162float(static_cast<const __nv_bfloat16*>(data_)[i]);
      default:
        refuse("cuDNN tensors of this type");
    }
  }
  void set(int64_t n, int64_t c, int64_t h, int64_t w, double value) const {
    const int64_t i = index(n, c, h, w);
    const auto rounded = static_cast<float>(value);
    switch (tensor_.number(CUDNN_ATTR_TENSOR_DATA_TYPE)) {
      case CUDNN_DATA_FLOAT:
        static_cast<float*>(data_)[i] = rounded;
        break;
      case CUDNN_DATA_HALF:
        static_cast<__half*>(data_)[i] = __float2half(rounded);
        break;
      default:
        static_cast<__nv_bfloat16*>(data_)[i] = __float2bfloat16(rounded);
    }
  }

 private:
  int64_t index(int64_t n, int64_t c, int64_t h, int64_t w) const {
    const auto stride = [&](size_t axis) { return tensor_.number(CUDNN_ATTR_TENSOR_STRIDES, axis); };
    return n * stride(0) + c * stride(1) + h * stride(2) + w * stride(3);
  }
  const Node& tensor_;
  void* data_;
};

struct Names {
  int x, w, y, convolution, alpha, beta;
};

Names names_of(cudnnBackendDescriptorType_t operation) {
  switch (operation) {
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
      return {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
      return {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
      return {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
    default:
      refuse("cuDNN operations other than convolutions");
  }
}

void convolve(const Node& operation, const std::map<int64_t, void*>& places) {
  const Names names = names_of(operation.type);
  const auto operand = [&](int name) {
    const Node& tensor = operation.node(name);
    return Operand(tensor, places.at(tensor.number(CUDNN_ATTR_TENSOR_UNIQUE_ID)));
  };
  const Operand x = operand(names.x), w = operand(names.w), y = operand(names.y);
  const Node& convolution = operation.node(names.convolution);
  const bool forward = operation.type == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR;
  const bool input = operation.type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR;
  const Operand& made = forward ? y : input ? x : w;
  const auto index = [](const Operand& o, int64_t n, int64_t c, int64_t h, int64_t v) {
    return static_cast<size_t>(((n * o.size(1) + c) * o.size(2) + h) * o.size(3) + v);
  };
  std::vector<double> sums(static_cast<size_t>(made.size(0) * made.size(1) * made.size(2) * made.size(3)), 0.0);
  const int64_t ins = w.size(1), outs = w.size(0) / (x.size(1) / ins);  // of a group
  for (int64_t n = 0; n < y.size(0); ++n)
    for (int64_t o = 0; o < y.size(1); ++o)
      for (int64_t p = 0; p < y.size(2); ++p)
        for (int64_t q = 0; q < y.size(3); ++q)
          for (int64_t r = 0; r < w.size(2); ++r)
            for (int64_t s = 0; s < w.size(3); ++s) {
              const auto source = [&](size_t axis, int64_t at, int64_t tap) {
                return at * convolution.number(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, axis) +
                       tap * convolution.number(CUDNN_ATTR_CONVOLUTION_DILATIONS, axis) -
                       convolution.number(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, axis);
              };
              const int64_t h = source(0, p, r), v = source(1, q, s);
              if (h < 0 || h >= x.size(2) || v < 0 || v >= x.size(3)) continue;
              for (int64_t i = 0; i < ins; ++i) {
                const int64_t c = o / outs * ins + i;
                if (forward)
                  sums[index(y, n, o, p, q)] += x.get(n, c, h, v) * w.get(o, i, r, s);
                else if (input)
                  sums[index(x, n, c, h, v)] += y.get(n, o, p, q) * w.get(o, i, r, s);
                else
                  sums[index(w, o, i, r, s)] += y.get(n, o, p, q) * x.get(n, c, h, v);
              }
            }
  for (int64_t a = 0; a < made.size(0); ++a)
    for (int64_t b = 0; b < made.size(1); ++b)
      for (int64_t c = 0; c < made.size(2); ++c)
        for (int64_t d = 0; d < made.size(3); ++d) made.set(a, b, c, d, sums[index(made, a, b, c, d)]);
}

/// What cuDNN checks when an operation is finalized.
bool fits_together(const Node& operation) {
  const Names names = names_of(operation.type);
  float scales[2];
  std::memcpy(scales, operation.numbers.at(names.alpha).data(), sizeof(float));
  std::memcpy(scales + 1, operation.numbers.at(names.beta).data(), sizeof(float));
  if (scales[0] != 1.0f || scales[1] != 0.0f) return false;
  const Node &x = operation.node(names.x), &w = operation.node(names.w), &y = operation.node(names.y),
             &c = operation.node(names.convolution);
  for (size_t axis = 0; axis < 2; ++axis) {
    const int64_t padded = x.number(CUDNN_ATTR_TENSOR_DIMENSIONS, axis + 2) +
                           c.number(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, axis) +
                           c.number(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, axis);
    const int64_t results = (padded - w.number(CUDNN_ATTR_TENSOR_DIMENSIONS, axis + 2)) /
                                c.number(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, axis) +
                            1;
    if (results != y.number(CUDNN_ATTR_TENSOR_DIMENSIONS, axis + 2)) return false;
  }
  return x.number(CUDNN_ATTR_TENSOR_DIMENSIONS) == y.number(CUDNN_ATTR_TENSOR_DIMENSIONS) &&
         w.number(CUDNN_ATTR_TENSOR_DIMENSIONS) == y.number(CUDNN_ATTR_TENSOR_DIMENSIONS, 1);
}

size_t bytes_of(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_VOID_PTR:
      return sizeof(int64_t);
    case CUDNN_TYPE_FLOAT:
      return sizeof(float);
    default:
      return sizeof(int);  // enumerations
  }
}

}  // namespace

extern "C" {

const char* cudnnGetErrorString(cudnnStatus_t) { return "the emulated cuDNN does not do this"; }

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  *handle = new cudnnContext;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  delete handle;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* object) {
  *object = new Node{type};
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t object) {
  delete &node_of(object);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t object, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count, const void* values) {
  Node& node = node_of(object);
  if (node.finalized) return CUDNN_STATUS_BAD_PARAM;
  if (type == CUDNN_TYPE_HANDLE) {
    std::memcpy(&node.handle, values, sizeof node.handle);
    return CUDNN_STATUS_SUCCESS;
  }
  for (int64_t i = 0; i < count; ++i) {
    if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
      const Node& other = node_of(static_cast<const cudnnBackendDescriptor_t*>(values)[i]);
      if (!other.finalized) return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
      node.nodes[name].push_back(other);
      continue;
    }
    const size_t bytes = bytes_of(type);
    int64_t number = 0;
    std::memcpy(&number, static_cast<const std::byte*>(values) + static_cast<size_t>(i) * bytes, bytes);
    node.numbers[name].push_back(number);
  }
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t object) {
  Node& node = node_of(object);
  const bool operation = node.type == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR ||
                         node.type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR ||
                         node.type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR;
  if (operation && !fits_together(node)) return CUDNN_STATUS_BAD_PARAM;
  // For sizes like these the backend has to do without.
  if (operation && node.node(names_of(node.type).x).number(CUDNN_ATTR_TENSOR_DIMENSIONS, 1) == 17)
    return CUDNN_STATUS_NOT_SUPPORTED;
  node.finalized = true;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t object, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t, int64_t wanted, int64_t* found, void* values) {
  const Node& node = node_of(object);
  if (!node.finalized) return CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
  auto* places = static_cast<cudnnBackendDescriptor_t*>(values);
  switch (name) {
    case CUDNN_ATTR_ENGINEHEUR_RESULTS:
      *found = std::min<int64_t>(wanted, 2);
      for (int64_t i = 0; i < *found; ++i) {
        Node& config = node_of(places[i]);
        config.nodes[CUDNN_ATTR_ENGINE_OPERATION_GRAPH] = {node.node(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH)};
        config.repeats = i > 0;
        config.finalized = true;
      }
      return CUDNN_STATUS_SUCCESS;
    case CUDNN_ATTR_ENGINECFG_ENGINE:
      *found = 1;
      node_of(places[0]).repeats = node.repeats;
      node_of(places[0]).finalized = true;
      return CUDNN_STATUS_SUCCESS;
    case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE:
      *found = node.repeats ? 0 : 1;
      if (!node.repeats) *static_cast<cudnnBackendNumericalNote_t*>(values) = CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
      return CUDNN_STATUS_SUCCESS;
    case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE:
      *found = 1;
      *static_cast<int64_t*>(values) = 256;
      return CUDNN_STATUS_SUCCESS;
    default:
      return CUDNN_STATUS_NOT_SUPPORTED;
  }
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan_object,
                                  cudnnBackendDescriptor_t pack_object) {
  const Node &plan = node_of(plan_object), &pack = node_of(pack_object);
  if (!plan.finalized || !pack.finalized || plan.handle != handle) return CUDNN_STATUS_BAD_PARAM;
  if (pack.number(CUDNN_ATTR_VARIANT_PACK_WORKSPACE) == 0) return CUDNN_STATUS_BAD_PARAM;
  const Node& config = plan.node(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
  std::map<int64_t, void*> places;
  for (size_t i = 0; i < pack.numbers.at(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS).size(); ++i) {
    const int64_t place = pack.number(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, i);
    std::memcpy(&places[pack.number(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, i)], &place, sizeof(void*));
  }
  const Node operation = config.node(CUDNN_ATTR_ENGINE_OPERATION_GRAPH).node(CUDNN_ATTR_OPERATIONGRAPH_OPS);
  enqueue(handle->stream, [operation, places] { convolve(operation, places); });
  return CUDNN_STATUS_SUCCESS;
}

}  // extern "C"
