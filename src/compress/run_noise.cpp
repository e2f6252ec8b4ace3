#include "compress/run_noise.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>

#include "core/profiler.h"

namespace qn {
namespace {

constexpr const char* kPrefix = "noise";
// Of the random numbers of k-means; stages of quantization count from 0.
constexpr uint32_t kFirstStage = 1U << 16;

std::string entry(const char* what, const Weight& weight) {
  return fmt::format("{}/{}/{}", kPrefix, what, weight.name());
}

Shape shape_of(const KMeansShape& kmeans) { return {kmeans.n_centroids, kmeans.block_size}; }

/// Of the checkpoint, if it is of this shape.
const Tensor* centroids_in(const StateDict& state, const std::string& name, const KMeansShape& shape) {
  const auto found = state.tensors.find(name);
  return found == state.tensors.end() || found->second.view().shape != shape_of(shape) ? nullptr
                                                                                       : &found->second.view();
}

}  // namespace

RunNoise::RunNoise(Module& module, Communicator& comm, const QuantizationPlan& plan, const RunNoiseOptions& options,
                   RowImportance importance)
    : module_(module), comm_(comm), plan_(plan), options_(options), importances_(std::move(importance)) {}

void RunNoise::set_rates(int64_t update) {
  for (const auto& weight : module_.weights().all()) {
    auto* noisy = dynamic_cast<NoisyWeight*>(&weight->representation());
    const WeightPlan* planned = noisy == nullptr ? nullptr : plan_.find(weight->name());
    if (planned == nullptr) continue;
    const NoiseSchedule& schedule = planned->noise.schedule;
    noisy->set_rate(planned->noise.rate * (options_.after_training ? schedule.share_at_the_end()
                                                                   : schedule.share(update, options_.total_updates)));
  }
}

std::vector<RunNoise::Noisy> RunNoise::with_codebook() const {
  std::vector<Noisy> found;
  for (const auto& weight : module_.weights().all())
    if (auto* noise = dynamic_cast<ReplacementNoise*>(&weight->representation());
        noise != nullptr && noise->needs_codebook())
      found.push_back({weight.get(), noise});
  return found;
}

std::vector<KMeansOf> RunNoise::kmeans_of(const std::vector<Noisy>& weights) {
  std::vector<KMeansOf> result;
  for (const auto& [weight, noise] : weights) result.push_back({weight->name(), noise->shape()});
  return result;
}

std::vector<RunNoise::Noisy> RunNoise::active() const {
  std::vector<Noisy> found = with_codebook();
  std::erase_if(found, [](const Noisy& n) { return n.noise->rate() <= 0.0; });
  return found;
}

bool RunNoise::refresh_due(int64_t update) const {
  const std::vector<Noisy> weights = active();
  if (weights.empty()) return false;
  const bool incomplete =
      std::any_of(weights.begin(), weights.end(), [](const Noisy& n) { return n.noise->codebook() == nullptr; });
  return incomplete || update - refreshed_ >= options_.codebook_updates;
}

std::vector<KMeansProblem> RunNoise::problems_of(const std::vector<Noisy>& weights) {
  std::vector<KMeansProblem> problems;
  for (const auto& [weight, noise] : weights) {
    KMeansProblem problem{.name = weight->name(),
                          .weight = weight->dense()->value.as<float>(),
                          .rows = weight->rows(),
                          .cols = weight->cols(),
                          .block_size = noise->shape().block_size,
                          .n_centroids = noise->shape().n_centroids,
                          .row_importance = importances_.of(*weight)};
    if (noise->codebook() != nullptr) problem.initial_centroids = noise->codebook()->centroids;
    problems.push_back(std::move(problem));
  }
  return problems;
}

bool RunNoise::refresh(int64_t update, const std::function<bool()>& keep_going) {
  const ProfileScope phase(Phase::kmeans, update);
  const auto start = std::chrono::steady_clock::now();
  const std::vector<Noisy> weights = active();
  std::vector<KMeansProblem> problems = problems_of(weights);
  const bool first =
      std::any_of(problems.begin(), problems.end(), [](const KMeansProblem& p) { return p.initial_centroids.empty(); });
  const Kernels& kernels = module_.parameters().kernels();
  StageKMeans kmeans(std::move(problems),
                     {.iterations = first ? options_.first_iterations : options_.refresh_iterations,
                      .seed = options_.seed,
                      .stage = kFirstStage + static_cast<uint32_t>(update)},
                     comm_, kernels);
  if (pending_) kmeans.restore(std::move(*pending_));
  pending_.reset();
  while (kmeans.step())
    if (keep_going && !keep_going()) {
      pending_ = kmeans.state();
      return false;
    }
  std::vector<WeightResult> results = kmeans.finish();
  for (size_t i = 0; i < results.size(); ++i) weights[i].noise->set_codebook(kernels, std::move(results[i].table));
  refreshed_ = update;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (first) spdlog::info("noise: codebooks of {} weights, k-means {:.2f} s", weights.size(), seconds);
  return true;
}

void RunNoise::save(StateDict& state) const {
  const std::vector<Noisy> weights = with_codebook();
  if (weights.empty()) return;
  state.ints["noise/refreshed"] = refreshed_;
  for (const auto& [weight, noise] : weights) {
    const PqTable* codebook = noise->codebook();
    if (codebook == nullptr) continue;
    state.tensors[entry("centroids", *weight)] =
        tensor_of(codebook->centroids, {codebook->n_centroids, codebook->block_size});
    state.tensors[entry("codes", *weight)] = codes_to_tensor(codebook->codes, codebook->n_centroids <= 256);
  }
  save_kmeans(state, kPrefix, kmeans_of(weights), pending_);
}

StateDict RunNoise::codebooks_of(StateDict state) {
  StateDict codebooks;
  for (auto& [name, tensor] : state.tensors)
    if (name.starts_with(fmt::format("{}/centroids/", kPrefix))) codebooks.tensors[name] = std::move(tensor);
  return codebooks;
}

void RunNoise::load(const StateDict& state) {
  if (!state.ints.contains("noise/refreshed")) return;
  refreshed_ = state.integer("noise/refreshed");
  for (const auto& [weight, noise] : with_codebook()) {
    const Tensor* centroids = centroids_in(state, entry("centroids", *weight), noise->shape());
    if (centroids == nullptr) continue;
    PqTable codebook{.rows = weight->rows(),
                     .cols = weight->cols(),
                     .block_size = noise->shape().block_size,
                     .n_centroids = noise->shape().n_centroids,
                     .centroids = values_of<float>(*centroids),
                     .codes = codes_from_tensor(state.tensor(entry("codes", *weight))),
                     .counts = std::vector<int64_t>(static_cast<size_t>(noise->shape().n_centroids), 0)};
    for (const uint16_t code : codebook.codes)
      if (code < codebook.n_centroids) ++codebook.counts[code];
    check_table(codebook, weight->name());
    noise->set_codebook(module_.parameters().kernels(), std::move(codebook));
  }
  const std::vector<KMeansOf> weights = kmeans_of(with_codebook());
  const bool same = std::all_of(weights.begin(), weights.end(), [&](const KMeansOf& of) {
    return centroids_in(state, fmt::format("{}/kmeans/centroids/{}", kPrefix, of.weight), of.shape) != nullptr;
  });
  if (same) pending_ = load_kmeans(state, kPrefix, weights);
}

}  // namespace qn
