#include "compress/ipq_config.h"

namespace qn {

void IpqConfig::visit(ConfigVisitor& v) {
  v.choice(
      "method", method,
      "pq: product quantization by the rules; int: every weight that a stage's pattern matches (default: one stage "
      "with all of them) to `bits` bits");
  v.field(
      "quantizer", quantizer,
      "any quantizer in place of `method`, for every weight that a stage's pattern matches: its type and options as "
      "packed files have them, e.g. \"int bits=4 range=channel\"");
  v.field("bits", bits, "int: bits per weight");
  v.choice(
      "range", range,
      "int: levels between the smallest and largest weight of the tensor; per output channel, symmetric about "
      "zero; per output channel between smallest and largest; of the tensor, with the bounds of least squared error");
  v.choice(
      "activations", activations,
      "activations that are quantized as well: those that go into linear maps, that come out of them and of tables, "
      "or both");
  v.field("activation_bits", activation_bits, "bits per activation");
  v.choice("activation_range", activation_range, {RangeMethod::tensor, RangeMethod::histogram},
           "levels between the smallest and largest activation of a place, or with the bounds of least squared error "
           "over all micro-batches of the calibration");
  v.field(
      "calibration_batches", calibration_batches,
      "training micro-batches that give activations their range where training has not, and inputs their importance "
      "(input_exponent), and batch normalisations their averages (measure_norms)");
  v.field("rules", rules,
          "fairseq quantization YAML (n_centroids, block_sizes, layers_to_quantize; empty: built-in rules)");
  v.field(
      "stages", stages,
      "regular expressions, one stage each, instead of those of the rules (built-in rules: token tables, feed-forward, "
      "attention). Learned positions are quantized by a stage that names embed_positions");
  v.field("updates_per_stage", updates_per_stage,
          "the recipe of older configurations: so many finetuning updates after each stage's k-means, by the run's own "
          "sections optimizer and schedule, and fairseq's order of the built-in stages (feed-forward, token tables, "
          "attention). 0: no finetuning");
  v.field("kmeans_iterations", kmeans_iterations, "k-means iterations per stage");
  v.field(
      "row_scales", row_scales,
      "regular expressions, as in stages ([.]: all): product quantization of these weights has a scale for every row "
      "(output, or word of a table). k-means sees rows divided by their root mean square, scales are trained with "
      "the centroids, and each takes a byte in the packed file");
  v.field(
      "frequency_exponent", frequency_exponent,
      "k-means weighs the row of a token that occurs n times in the training text with (n + 1) to this power (0: all "
      "rows alike, as fairseq does)");
  v.field(
      "input_exponent", input_exponent,
      "k-means weighs the column of an input whose mean square is m, over calibration_batches, with m to this power: "
      "one number for all stages, or one for each (empty, 0: all columns alike; 1: errors count as they change the "
      "layer's output)");
  v.choice("centroid_gradient", centroid_gradient,
           "gradient of a centroid: sum over its n blocks (fairseq's code), their mean (the paper), or the sum over "
           "sqrt(n)");
  v.field("reassign_updates", reassign_updates,
          "let codes change while finetuning: weights keep latent values beside their codes, which the gradient of the "
          "decoded ones trains, and every n updates blocks move to the centroid nearest to them (0: codes stay)");
  v.field("reassign_share", reassign_share, "at most this share of a weight's blocks moves at a time");
  v.field("dense_softmax", dense_softmax,
          "leave output matrices that are tied to quantized tables dense, as fairseq does, instead of keeping the tie");
  v.field("restart_schedule", restart_schedule,
          "start the learning-rate schedule, warm-up included, anew in each stage");
  v.field("save_every_kmeans_iterations", save_every_kmeans_iterations,
          "checkpoint inside k-means every n iterations (0: only between stages)");
  v.choice("centroids", centroids, {ValueStorage::f16, ValueStorage::int8}, "storage of centroids in the packed file");
  v.choice("dense", dense, {ValueStorage::f16, ValueStorage::f32},
           "storage of everything that is not quantized in the packed file");
  v.choice(
      "norms", norms,
      "batch normalisations in the packed file: keep: factor, sum and running averages of every channel; fold: the "
      "averages become part of factor and sum, which takes a third of the bytes");
  v.field(
      "measure_norms", measure_norms,
      "after a stage's k-means, and when the rest is rounded to what the packed file holds, take the running averages "
      "of batch normalisations anew, from calibration_batches training micro-batches (unset: with product "
      "quantization and integers of less than 8 bits)");
  v.field(
      "freeze_norms", freeze_norms,
      "finetune with running averages in place of each batch's statistics: batch normalisations are then in training "
      "what they are afterwards, which small batches of few images need");
  v.field("vocabulary", vocabulary,
          "the packed file carries its dictionary and tokenizer, so that predict, embed and generate need no --data "
          "(unset: "
          "for sentence_prediction, sentence_embedding and translation)");
}

void IpqConfig::validate(const ConfigChecker& c) const {
  c.check(quantizer.empty() || (method == QuantizeMethod::pq && rules.empty()), "quantizer",
          "says all that method and rules do: leave them out");
  try {
    if (!quantizer.empty()) quantizer_from_text(quantizer, "is wrong");
  } catch (const Error& error) {
    c.report("quantizer", error.what());
  }
  c.check(bits >= 2 && bits <= 8, "bits", "must be 2 to 8, got {}", bits);
  c.check(activation_bits >= 2 && activation_bits <= 8, "activation_bits", "must be 2 to 8, got {}", activation_bits);
  c.check(calibration_batches >= 1, "calibration_batches", "must be at least 1, got {}", calibration_batches);
  c.check(method == QuantizeMethod::pq || rules.empty(), "rules", "are for method pq");
  c.check(row_scales.empty() || (method == QuantizeMethod::pq && quantizer.empty()), "row_scales",
          "are of product quantization: leave them out, or method and quantizer; a quantizer of one's own has them as "
          "\"pq block_size=8 n_centroids=256 row_scales=rms\"");
  c.check(updates_per_stage.value_or(0) >= 0, "updates_per_stage", "must not be negative, got {}",
          updates_per_stage.value_or(0));
  c.check(reassign_updates >= 0, "reassign_updates", "must not be negative, got {}", reassign_updates);
  c.check(reassign_share > 0.0 && reassign_share <= 1.0, "reassign_share", "must be in (0, 1], got {}", reassign_share);
  c.check(kmeans_iterations >= 1, "kmeans_iterations", "must be at least 1, got {}", kmeans_iterations);
  c.check(frequency_exponent >= 0.0 && frequency_exponent <= 2.0, "frequency_exponent", "must be in [0, 2], got {}",
          frequency_exponent);
  c.check(input_exponent.empty() || method == QuantizeMethod::pq, "input_exponent", "is for method pq");
  for (const double exponent : input_exponent)
    c.check(exponent >= 0.0 && exponent <= 2.0, "input_exponent", "must be in [0, 2], got {}", exponent);
  c.check(save_every_kmeans_iterations >= 0, "save_every_kmeans_iterations", "must not be negative, got {}",
          save_every_kmeans_iterations);
}

}  // namespace qn
