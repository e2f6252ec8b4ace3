#include "compress/noise.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <numeric>
#include <set>

#include "compress/replacement_noise.h"
#include "compress/scalar_noise.h"
#include "core/log.h"
#include "ops/ops.h"
#include "quant/int_quantizer.h"
#include "quant/kmeans.h"

namespace qn {
namespace {

constexpr int64_t kDefaultBlock = 8;
constexpr const char* kPresets[] = {"paper", "fairseq"};
constexpr const char* kGroups[] = {
    groups::kFfn,       groups::kAttention, groups::kCrossAttention, groups::kEmbedding, groups::kEmbeddingProjection,
    groups::kPositions, groups::kSoftmax,   groups::kHead,           groups::kConv,      groups::kDepthwise,
    groups::kPointwise, groups::kSqueeze,   groups::kClassifier};

/// The proxy of product quantization: blocks of columns are zero, the rest is scaled up.
class ZeroBlocks : public NoisyWeight {
 public:
  ZeroBlocks(Parameter* dense, const WeightNoise& noise) : NoisyWeight(dense, noise.rate), block_(noise.block) {}
  Var value(Tape& tape) override { return block_noise(tape, dense()->var(tape), block_, rate(), id()); }

 private:
  int64_t block_;
};

constexpr const char *kZeroBlocks = "zero_blocks", *kInt = "int";
constexpr const char *kZeroClusters = "zero_clusters", *kMeanBlocks = "mean_blocks", *kMeanClusters = "mean_clusters",
                     *kExactBlocks = "exact_blocks", *kExactClusters = "exact_clusters";
constexpr const char* kCentroids = "n_centroids";  // option of the forms with a codebook

constexpr const char* kRangeUpdates = "range_updates";  // beside the quantizer's own options

std::unique_ptr<Representation> make_int_noise(Parameter* parameter, const WeightNoise& noise) {
  QuantizerOptions options = noise.options;
  ScalarNoiseOptions how{.rate = noise.rate, .block = noise.block};
  if (const auto every = options.extract(kRangeUpdates))
    how.range_updates = OptionReader(kInt, {{kRangeUpdates, every.mapped()}}).integer(kRangeUpdates);
  QN_CHECK(how.range_updates >= 1, "noise of '{}': {} = {}; at least 1 is due", parameter->name, kRangeUpdates,
           how.range_updates);
  how.grid = IntQuantizer::options_from(options);
  return make_scalar_noise(parameter, how);
}

template <Replacement By, bool Clusters>
std::unique_ptr<Representation> make_replacement(Parameter* parameter, const WeightNoise& noise) {
  ReplacementOptions how{.by = By, .clusters = Clusters, .shape = {noise.block, 0}, .rate = noise.rate};
  OptionReader reader(noise.form, noise.options);
  if (Clusters || By == Replacement::centroid) {
    how.shape.n_centroids = reader.integer(kCentroids);
    QN_CHECK(how.shape.n_centroids >= 1 && how.shape.n_centroids <= 65536,
             "noise of '{}': {} centroids; 1 to 65536 are possible", parameter->name, how.shape.n_centroids);
  }
  reader.finish();
  return std::make_unique<ReplacementNoise>(parameter, how);
}

/// Forms of noise by name.
struct Form {
  const char* name;
  std::unique_ptr<Representation> (*make)(Parameter* parameter, const WeightNoise& noise);
};
constexpr Form kForms[] = {{kZeroBlocks,
                            [](Parameter* parameter, const WeightNoise& noise) -> std::unique_ptr<Representation> {
                              return std::make_unique<ZeroBlocks>(parameter, noise);
                            }},
                           {kZeroClusters, make_replacement<Replacement::zero, true>},
                           {kMeanBlocks, make_replacement<Replacement::mean, false>},
                           {kMeanClusters, make_replacement<Replacement::mean, true>},
                           {kExactBlocks, make_replacement<Replacement::centroid, false>},
                           {kExactClusters, make_replacement<Replacement::centroid, true>},
                           {kInt, make_int_noise}};

const Form& form_named(const std::string& name, const std::string& weight) {
  for (const Form& form : kForms)
    if (name == form.name) return form;
  fail("'{}' is planned to get noise of the form '{}', which this program does not know: use a newer quantnoise",
       weight, name);
}

const char* form_of(const NoiseConfig& config) {
  if (config.scalar > 0.0) return kInt;
  const bool clusters = config.unit == NoiseUnit::cluster;
  switch (config.form) {
    case BlockNoise::zero:
      return clusters ? kZeroClusters : kZeroBlocks;
    case BlockNoise::mean:
      return clusters ? kMeanClusters : kMeanBlocks;
    case BlockNoise::exact:
      return clusters ? kExactClusters : kExactBlocks;
  }
  QN_ASSERT(false);
}

/// A member of `rates`, "ffn=0.1"; nothing when it is none.
std::optional<std::pair<std::string, double>> read_rate(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos) return std::nullopt;
  double rate = 0.0;
  const char* end = text.data() + text.size();
  const auto [read, error] = std::from_chars(text.data() + equals + 1, end, rate);
  if (error != std::errc() || read != end) return std::nullopt;
  return std::pair{text.substr(0, equals), rate};
}

/// Codebooks of noise are those of the weight itself.
void check_without_row_scales(const WeightPlan& weight, const std::optional<KMeansShape>& imitated) {
  QN_CHECK_USAGE(!imitated || !imitated->row_scales,
                 "quant_noise.form: exact and unit: cluster do not know scales of rows (ipq.row_scales), with which {} "
                 "is quantized: leave row_scales out, or take noise without codebooks (form: zero, unit: block)",
                 weight.name);
}

/// What a quantizer of the weight has, or will have.
std::optional<KMeansShape> kmeans_of(const WeightPlan& weight, const QuantizationPlan* later) {
  if (weight.quantizer != nullptr) return weight.quantizer->kmeans();
  const WeightPlan* planned = later == nullptr ? nullptr : later->find(weight.name);
  return planned == nullptr || planned->quantizer == nullptr ? std::nullopt : planned->quantizer->kmeans();
}

/// What the configuration says, or else the quantizer that the noise imitates.
/// Adjacent columns that make a block where nothing else is known.
int64_t default_block(const WeightPlan& weight) {
  if (weight.kernel > 1) return weight.kernel;
  return weight.group == groups::kSqueeze ? std::gcd(kDefaultBlock, weight.cols) : kDefaultBlock;
}

KMeansShape codebook_shape(const WeightPlan& weight, const NoiseConfig& config, const QuantizationPlan* later) {
  const KMeansShape imitated = kmeans_of(weight, later).value_or(KMeansShape{default_block(weight), 256});
  const KMeansShape shape{weight.kernel > 1 ? imitated.block_size : config.block_size.value_or(imitated.block_size),
                          config.n_centroids.value_or(imitated.n_centroids)};
  if (shape.block_size < 1 || weight.cols % shape.block_size != 0) return shape;  // the caller says so
  return {shape.block_size, capped_centroids(weight.rows * weight.cols / shape.block_size, shape.n_centroids)};
}

/// Noise of other blocks than those that it is to imitate is allowed, but hardly what somebody wants.
void warn_of_other_blocks(const QuantizationPlan& plan, const NoiseConfig& config, const QuantizationPlan* later) {
  if (!config.imitates() || !config.block_size) return;
  int64_t others = 0;
  const WeightPlan* example = nullptr;
  for (const WeightPlan& weight : plan.weights) {
    const auto imitated = weight.noise.form.empty() ? std::nullopt : kmeans_of(weight, later);
    if (!imitated || imitated->block_size == weight.noise.block) continue;
    ++others;
    example = &weight;
  }
  if (example != nullptr)
    spdlog::warn(
        "quant_noise.block_size {}: `quantize` will use other blocks for {} weights ({}: {}); leave block_size out "
        "(null), and noise has the blocks that come later",
        *config.block_size, others, example->name, kmeans_of(*example, later)->block_size);
}

WeightNoise noise_of(const WeightPlan& weight, const NoiseConfig& config, const QuantizationPlan* later) {
  WeightNoise noise{.form = form_of(config), .rate = config.rate_of(weight.group), .schedule = config.schedule()};
  if (noise.form == kInt) {
    noise.block = config.scalar_block;
    noise.options = IntQuantizer({static_cast<int>(config.bits), config.range}).options();
    if (config.range == RangeMethod::histogram) noise.options[kRangeUpdates] = std::to_string(config.range_updates);
  } else if (noise.form == kZeroBlocks) {
    noise.block = weight.kernel > 1 ? weight.kernel : config.block_size.value_or(default_block(weight));
    if (weight.group == groups::kSqueeze) noise.block = std::gcd(noise.block, weight.cols);
  } else {
    const KMeansShape shape = codebook_shape(weight, config, later);
    noise.block = shape.block_size;
    if (noise.form == kMeanBlocks || noise.rate <= 0.0) return noise;
    check_without_row_scales(weight, kmeans_of(weight, later));
    noise.options[kCentroids] = std::to_string(shape.n_centroids);
  }
  return noise;
}

}  // namespace

void NoiseConfig::visit(ConfigVisitor& v) {
  v.field("pq", pq, "probability that a block of weights is noise in a forward pass (0: no noise)");
  v.choice(
      "form", form,
      "what such blocks are: zero, the others being scaled up (the paper's proxy); the mean of the weight's blocks; "
      "or exactly what product quantization would make of them, the nearest centroid of the weight's codebook");
  v.choice("unit", unit, "every block has a fate of its own, or all blocks of the same centroid share theirs");
  v.field(
      "block_size", block_size,
      "adjacent input columns that make a block (null: 8 with zero, and in convolutions over several pixels always "
      "a kernel's weights of one input channel, as in fairseq; smaller in squeeze and excitation, whose channels are "
      "few; with what imitates a quantizer, mean, exact and "
      "clusters, those that `quantize` with the section ipq will use for the weight)");
  v.field("n_centroids", n_centroids,
          "centroids of codebooks, for exact and clusters (null: those that `quantize` will use)");
  v.field("codebook_updates", codebook_updates, "updates from one refresh of the codebooks by k-means to the next");
  v.field("codebook_iterations", codebook_iterations,
          "k-means iterations of a refresh, which starts from the centroids before (the first has 15)");
  v.field("scalar", scalar,
          "probability that a weight is quantized to `bits` bits in a training pass (0: no scalar noise; 1: "
          "quantization-aware training); evaluation quantizes all of them");
  v.field("bits", bits, "scalar noise: bits per weight");
  v.choice(
      "range", range,
      "scalar noise: levels between the smallest and largest weight of the tensor; per output channel, symmetric "
      "about zero; per output channel between smallest and largest; of the tensor, with the bounds of least squared "
      "error");
  v.field("range_updates", range_updates,
          "ranges by histogram: updates from one search for the bounds to the next; those of activations are also "
          "searched for in the updates 1, 2, 4, 8 and so on before");
  v.field("scalar_block", scalar_block, "scalar noise: adjacent input columns that are quantized together");
  v.choice("activations", activations,
           "activations that are quantized in evaluation: those that go into linear maps, that come out of them and of "
           "tables, or both. Training keeps them within the range seen so far, and rounds them too if scalar is 1");
  v.field("activation_bits", activation_bits, "bits per activation");
  v.choice("activation_range", activation_range, {RangeMethod::tensor, RangeMethod::histogram},
           "levels between the smallest and largest activation of a place, or with the bounds of least squared error, "
           "which are searched for as those of weights are");
  std::vector<std::string> names(std::begin(kPresets), std::end(kPresets));
  names.insert(names.end(), std::begin(kGroups), std::end(kGroups));
  v.choice("groups", groups, std::move(names),
           "weights that get noise; paper = ffn, attn, cross_attn, embed, embed_proj, and of image networks conv, "
           "depthwise, pointwise, squeeze, classifier; fairseq = ffn, cross_attn, embed_proj");
  v.field("rates", rates,
          "rates of single groups in place of pq or scalar, whether `groups` names them or not: [ffn=0.1, attn=0.05]");
  v.field("start", start, "part of the run's updates after which noise begins");
  v.field("end", end,
          "part of the run's updates after which there is none any more; `quantize` goes on with noise if 1");
  v.choice("rate_schedule", rate_schedule,
           "between start and end the rate is constant, or rises from zero, in 32 steps");
}

void NoiseConfig::validate(const ConfigChecker& c) const {
  const bool scales = form == BlockNoise::zero;  // by 1 / (1 - pq)
  c.check(pq >= 0.0 && (pq < 1.0 || (pq == 1.0 && !scales)), "pq", "must be in {}, got {}",
          scales ? "[0, 1)" : "[0, 1]", pq);
  c.check(!block_size || *block_size >= 1, "block_size", "must be at least 1, got {}", block_size.value_or(0));
  c.check(!n_centroids || (*n_centroids >= 2 && *n_centroids <= 65536), "n_centroids", "must be 2 to 65536, got {}",
          n_centroids.value_or(0));
  c.check(codebook_updates >= 1, "codebook_updates", "must be at least 1, got {}", codebook_updates);
  c.check(codebook_iterations >= 1, "codebook_iterations", "must be at least 1, got {}", codebook_iterations);
  c.check(scalar >= 0.0 && scalar <= 1.0, "scalar", "must be in [0, 1], got {}", scalar);
  c.check(scalar == 0.0 || pq == 0.0, "scalar", "and pq are two forms of noise: set one of them");
  c.check(scalar == 0.0 || (form == BlockNoise::zero && unit == NoiseUnit::block), scales ? "unit" : "form",
          "is of noise by pq; leave it out with scalar");
  c.check(bits >= 2 && bits <= 8, "bits", "must be 2 to 8, got {}", bits);
  c.check(range_updates >= 1, "range_updates", "must be at least 1, got {}", range_updates);
  c.check(scalar_block >= 1, "scalar_block", "must be at least 1, got {}", scalar_block);
  c.check(activation_bits >= 2 && activation_bits <= 8, "activation_bits", "must be 2 to 8, got {}", activation_bits);
  c.check(start >= 0.0 && start < 1.0, "start", "must be in [0, 1), got {}", start);
  c.check(end > start && end <= 1.0, "end", "must be above start and at most 1, got {}", end);
  check_rates(c);
}

void NoiseConfig::check_rates(const ConfigChecker& c) const {
  const bool may_be_one = scalar > 0.0 || form != BlockNoise::zero;
  std::vector<std::string> seen;
  for (const std::string& text : rates) {
    const auto read = read_rate(text);
    c.check(read.has_value(), "rates", "has '{}': write GROUP=RATE, for example ffn=0.1", text);
    if (!read) continue;
    const auto& [group, rate] = *read;
    c.check(std::find(std::begin(kGroups), std::end(kGroups), group) != std::end(kGroups), "rates",
            "names '{}'; there are {}", group, fmt::join(kGroups, ", "));
    c.check(rate >= 0.0 && (rate < 1.0 || (rate == 1.0 && may_be_one)), "rates", "of {}: must be in {}, got {}", group,
            may_be_one ? "[0, 1]" : "[0, 1)", rate);
    c.check(std::find(seen.begin(), seen.end(), group) == seen.end(), "rates", "names {} twice", group);
    seen.push_back(group);
  }
}

double NoiseConfig::rate_of(const std::string& group) const {
  for (const std::string& text : rates)
    if (const auto read = read_rate(text); read && read->first == group) return read->second;
  const std::vector<std::string> chosen = expand_groups(groups);
  if (std::find(chosen.begin(), chosen.end(), group) == chosen.end()) return 0.0;
  return scalar > 0.0 ? scalar : pq;
}

std::vector<std::string> expand_groups(const std::vector<std::string>& names) {
  std::vector<std::string> result;
  const auto add = [&](const std::string& name) {
    if (std::find(result.begin(), result.end(), name) == result.end()) result.push_back(name);
  };
  for (const std::string& name : names) {
    if (name == "paper")
      for (const char* g :
           {groups::kFfn, groups::kAttention, groups::kCrossAttention, groups::kEmbedding, groups::kEmbeddingProjection,
            groups::kConv, groups::kDepthwise, groups::kPointwise, groups::kSqueeze, groups::kClassifier})
        add(g);
    else if (name == "fairseq")
      for (const char* g : {groups::kFfn, groups::kCrossAttention, groups::kEmbeddingProjection}) add(g);
    else
      add(name);
  }
  return result;
}

std::vector<ActivationPlan> plan_activations(const Module& module, Activations which, const ActivationPlan& how) {
  std::vector<ActivationPlan> plan;
  const bool input = which == Activations::input || which == Activations::both;
  const bool output = which == Activations::output || which == Activations::both;
  for (const auto& point : module.activations().all())
    if ((input && point->name().ends_with("input")) || (output && point->name().ends_with("output")))
      plan.emplace_back(how).name = point->name();
  return plan;
}

void plan_noise(QuantizationPlan& plan, const NoiseConfig& config, const QuantizationPlan* later) {
  for (WeightPlan& weight : plan.weights) {
    weight.noise = {};
    const WeightNoise noise = noise_of(weight, config, later);
    if (noise.rate <= 0.0) continue;
    QN_CHECK(weight.cols % noise.block == 0,
             "quant_noise.{} {} does not divide the {} columns of {}: choose a divisor, or leave group '{}' out of "
             "quant_noise.groups",
             noise.form == kInt ? "scalar_block" : "block_size", noise.block, weight.cols, weight.name, weight.group);
    weight.noise = noise;
  }
  warn_of_other_blocks(plan, config, later);
}

void warn_of_missing_noise(const QuantizationPlan& plan, const NoiseConfig& config) {
  const auto noisy = [](const WeightPlan& weight) { return !weight.noise.form.empty(); };
  if (std::any_of(plan.weights.begin(), plan.weights.end(), noisy)) return;
  if (config.pq > 0.0 || config.scalar > 0.0 || !config.rates.empty()) {
    std::set<std::string> groups;
    for (const WeightPlan& weight : plan.weights) groups.insert(weight.group);
    spdlog::warn("quant_noise: no weight gets noise; the groups of this model are {}: name some in quant_noise.groups",
                 fmt::join(groups, ", "));
  } else if (config.imitates()) {
    spdlog::warn("quant_noise: no weight gets noise, because every rate is 0: set quant_noise.pq or rates");
  }
}

void check_noise_schedule(const NoiseConfig& config, int64_t total_updates) {
  QN_CHECK_USAGE(
      total_updates > 0 || config.schedule().always(),
      "quant_noise.start, end and rate_schedule are about parts of the run, and nobody knows how many updates it has: "
      "set train.max_updates or train.max_epochs");
}

bool apply_noise(Weight& weight, const QuantizationPlan& plan) {
  const WeightPlan* planned = plan.find(weight.name());
  if (planned == nullptr || planned->noise.form.empty() || weight.dense() == nullptr) return false;
  const Form& form = form_named(planned->noise.form, weight.name());
  weight.set_representation(form.make(weight.dense(), planned->noise), weight.dense());
  return true;
}

std::vector<std::string> apply_noise(WeightSet& weights, const QuantizationPlan& plan) {
  std::vector<std::string> noised;
  for (const auto& w : weights.all())
    if (apply_noise(*w, plan)) noised.push_back(w->name());
  return noised;
}

}  // namespace qn
