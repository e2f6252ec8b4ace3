#include "ops/cuda/conv_plans.h"

#include <cudnn_graph.h>

#include <array>
#include <map>
#include <memory>
#include <optional>

#include "ops/cuda/context.h"
#include "ops/cuda/matmul_plans.h"

namespace qn::cuda {
namespace {

constexpr int64_t kMostWorkspace = int64_t{256} << 20;
constexpr int64_t kAlignment = 16;               // bytes; what every operand has to have
constexpr int64_t kX = 1, kWeights = 2, kY = 3;  // how the graph calls its tensors

void check(cudnnStatus_t status, const char* what) {
  QN_CHECK(status == CUDNN_STATUS_SUCCESS, "cuDNN: {} from {}", cudnnGetErrorString(status), what);
}

/// An object of the graph API: attributes are set, then it is finalized.
class Object {
 public:
  explicit Object(cudnnBackendDescriptorType_t type) {
    check(cudnnBackendCreateDescriptor(type, &object_), "cudnnBackendCreateDescriptor");
  }
  ~Object() {
    if (object_ != nullptr) cudnnBackendDestroyDescriptor(object_);
  }
  Object(Object&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  cudnnBackendDescriptor_t get() const { return object_; }
  template <typename T>
  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const T* values, int64_t count) {
    check(cudnnBackendSetAttribute(object_, name, type, count, values), "cudnnBackendSetAttribute");
  }
  template <typename T>
  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const T& value) {
    set(name, type, &value, 1);
  }
  void set(cudnnBackendAttributeName_t name, const Object& value) {
    set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, value.object_);
  }
  /// False where cuDNN does not support what has been described.
  bool supported() { return cudnnBackendFinalize(object_) == CUDNN_STATUS_SUCCESS; }
  void finalize() { check(cudnnBackendFinalize(object_), "cudnnBackendFinalize"); }

 private:
  cudnnBackendDescriptor_t object_ = nullptr;
};

struct Key {
  ConvPass pass;
  ConvShape shape;
  DType dtype;
  bool tf32;
  auto operator<=>(const Key&) const = default;
};

cudnnDataType_t type_of(DType dtype) {
  return dtype == DType::bf16 ? CUDNN_DATA_BFLOAT16 : dtype == DType::f16 ? CUDNN_DATA_HALF : CUDNN_DATA_FLOAT;
}

/// Sizes are given with the channels second, as cuDNN names them; in memory they are last.
Object tensor(int64_t id, DType dtype, const std::array<int64_t, 4>& sizes) {
  const auto [n, c, h, w] = sizes;
  const std::array<int64_t, 4> strides{h * w * c, 1, w * c, c};
  Object t(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  t.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, type_of(dtype));
  t.set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, sizes.data(), 4);
  t.set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, strides.data(), 4);
  t.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, id);
  t.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, kAlignment);
  t.finalize();
  return t;
}

Object convolution(const ConvShape& s) {
  const std::array<int64_t, 2> one{1, 1}, strides{s.stride, s.stride}, before{s.pad_top, s.pad_left},
      behind{s.pad_bottom, s.pad_right};
  Object c(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  c.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
  c.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, CUDNN_CROSS_CORRELATION);
  c.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, int64_t{2});
  c.set(CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, one.data(), 2);
  c.set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, strides.data(), 2);
  c.set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, before.data(), 2);
  c.set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, behind.data(), 2);
  c.finalize();
  return c;
}

/// What the attributes of the three operations are called.
struct OperationNames {
  cudnnBackendDescriptorType_t operation;
  cudnnBackendAttributeName_t x, weights, y, convolution, alpha, beta;
};

const OperationNames& names_of(ConvPass pass) {
  static constexpr OperationNames kForward{CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                                           CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                                           CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                                           CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                                           CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                                           CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                                           CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
  static constexpr OperationNames kInput{CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
  static constexpr OperationNames kWeight{CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
  return pass == ConvPass::forward ? kForward : pass == ConvPass::input_grad ? kInput : kWeight;
}

/// A graph of one operation; nothing where cuDNN does not know it for these types and sizes.
std::optional<Object> graph_of(cudnnHandle_t handle, const Key& key) {
  const ConvShape& s = key.shape;
  const OperationNames& names = names_of(key.pass);
  const Object x = tensor(kX, key.dtype, {s.batch, s.in, s.height, s.width});
  const Object weights = tensor(kWeights, key.dtype, {s.out, s.in_per_group(), s.kernel_h, s.kernel_w});
  const Object y = tensor(kY, key.dtype, {s.batch, s.out, s.out_height(), s.out_width()});
  Object operation(names.operation);
  operation.set(names.x, x);
  operation.set(names.weights, weights);
  operation.set(names.y, y);
  operation.set(names.convolution, convolution(s));
  operation.set(names.alpha, CUDNN_TYPE_FLOAT, 1.0f);
  operation.set(names.beta, CUDNN_TYPE_FLOAT, 0.0f);
  if (!operation.supported()) return std::nullopt;
  Object graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, handle);
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, operation);
  if (!graph.supported()) return std::nullopt;
  return graph;
}

/// Engines for a graph, those that should be fastest first.
std::vector<Object> engines_for(const Object& graph, cudnnBackendHeurMode_t mode) {
  constexpr size_t kMost = 16;
  Object question(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  question.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
  question.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, mode);
  if (!question.supported()) return {};
  std::vector<Object> engines;
  std::array<cudnnBackendDescriptor_t, kMost> places{};
  for (cudnnBackendDescriptor_t& place : places) place = engines.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR).get();
  int64_t found = 0;
  if (cudnnBackendGetAttribute(question.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, kMost,
                               &found, places.data()) != CUDNN_STATUS_SUCCESS)
    return {};
  while (std::ssize(engines) > found) engines.pop_back();
  return engines;
}

/// Whether an engine repeats its results and, where it must, computes in float.
bool acceptable(const Object& config, bool exact) {
  Object engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendDescriptor_t place = engine.get();
  int64_t found = 0;
  if (cudnnBackendGetAttribute(config.get(), CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &found,
                               &place) != CUDNN_STATUS_SUCCESS)
    return false;
  std::array<cudnnBackendNumericalNote_t, CUDNN_NUMERICAL_NOTE_TYPE_COUNT> notes{};
  if (cudnnBackendGetAttribute(engine.get(), CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                               std::ssize(notes), &found, notes.data()) != CUDNN_STATUS_SUCCESS)
    return false;
  for (int64_t i = 0; i < std::min(found, std::ssize(notes)); ++i) {
    const cudnnBackendNumericalNote_t note = notes[static_cast<size_t>(i)];
    if (note == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC || note == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)
      return false;
    const bool rounds = note == CUDNN_NUMERICAL_NOTE_TENSOR_CORE || note == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS;
    if (exact && rounds) return false;
  }
  return true;
}

class Plan {
 public:
  /// Nothing where no engine will do.
  static std::unique_ptr<Plan> find(cudnnHandle_t handle, const Key& key) {
    const std::optional<Object> graph = graph_of(handle, key);
    if (!graph) return nullptr;
    const bool exact = key.dtype == DType::f32 && !key.tf32;
    for (const cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK})
      for (const Object& engine : engines_for(*graph, mode)) {
        if (!acceptable(engine, exact)) continue;
        auto plan = std::unique_ptr<Plan>(new Plan);
        plan->plan_.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, handle);
        plan->plan_.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, engine);
        if (!plan->plan_.supported()) continue;
        int64_t found = 0;
        check(cudnnBackendGetAttribute(plan->plan_.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
                                       &found, &plan->workspace_),
              "the size of a plan's workspace");
        if (plan->workspace_ <= kMostWorkspace) return plan;
      }
    return nullptr;
  }

  void run(cudnnHandle_t handle, const ConvOperands& operands) const {
    Context& context = Context::current();
    const ScratchScope scope(context.scratch());
    void* workspace = workspace_ > 0 ? context.scratch().allocate(static_cast<size_t>(workspace_)) : nullptr;
    const std::array<void*, 3> places{operands.x, operands.weights, operands.y};
    const std::array<int64_t, 3> ids{kX, kWeights, kY};
    Object arguments(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    arguments.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, places.data(), 3);
    arguments.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, ids.data(), 3);
    arguments.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, workspace);
    arguments.finalize();
    check(cudnnBackendExecute(handle, plan_.get(), arguments.get()), "cudnnBackendExecute");
  }

 private:
  Plan() : plan_(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) {}
  Object plan_;
  int64_t workspace_ = 0;
};

/// The calling thread's plans, on its device and stream.
class ConvPlans {
 public:
  static ConvPlans& current() {
    static thread_local ConvPlans plans;
    return plans;
  }
  bool run(const ConvOperands& o) {
    const Key key{o.pass, o.shape, o.dtype, o.dtype == DType::f32 && MatmulPlans::tf32_allowed()};
    const auto found = plans_.find(key);
    const auto& plan = (found != plans_.end() ? found : plans_.emplace(key, Plan::find(handle_, key)).first)->second;
    if (plan == nullptr) return false;
    plan->run(handle_, o);
    return true;
  }

 private:
  ConvPlans() {
    cudaStream_t stream = Context::current().stream();
    check(cudnnCreate(&handle_), "cudnnCreate");
    check(cudnnSetStream(handle_, stream), "cudnnSetStream");
  }
  ~ConvPlans() {
    plans_.clear();
    cudnnDestroy(handle_);
  }
  cudnnHandle_t handle_ = nullptr;
  std::map<Key, std::unique_ptr<Plan>> plans_;  // null: there is none
};

}  // namespace

bool convolve_by_plan(const ConvOperands& operands) {
  for (const void* place : {operands.x, operands.weights, operands.y})
    if (reinterpret_cast<uintptr_t>(place) % kAlignment != 0) return false;
  return ConvPlans::current().run(operands);
}

}  // namespace qn::cuda
