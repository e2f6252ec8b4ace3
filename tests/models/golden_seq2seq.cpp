#include "golden_seq2seq.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace qn::test {

ModelConfig golden_seq2seq_config(const Hdf5File& file, const std::string& group) {
  const auto integer = [&](const std::string& name) { return file.int_attribute(group, name); };
  const auto of_both = [&](const std::string& name) {
    EXPECT_EQ(integer("encoder_" + name), integer("decoder_" + name));
    return integer("decoder_" + name);
  };
  ModelConfig c(ModelType::transformer);
  c.encoder_layers = integer("encoder_layers");
  c.layers = integer("decoder_layers");
  c.embed_dim = of_both("embed_dim");
  c.encoder_ffn_dim = integer("encoder_ffn_embed_dim");
  c.ffn_dim = integer("decoder_ffn_embed_dim");
  c.heads = of_both("attention_heads");
  c.dropout = 0.0;
  c.activation = value_named<Activation>(file.string_attribute(group, "activation_fn"), "activation_fn");
  c.prenorm = of_both("normalize_before") != 0;
  EXPECT_EQ(of_both("has_final_norm") != 0, c.prenorm);
  c.share_all_embeddings = integer("share_all_embeddings") != 0;
  c.share_input_output = integer("share_decoder_input_output_embed") != 0;
  c.noise_projection = file.has_attribute(group, "quant_noise_pq");
  c.max_positions = file.shape(group + "/sinusoidal_table")[0] - (kPadId + 1);
  return c;
}

std::unique_ptr<Seq2Seq> load_golden_seq2seq(const Hdf5File& file, const std::string& group, DType dtype) {
  auto model = make_seq2seq(golden_seq2seq_config(file, group), file.int_attribute(group, "vocab_source"),
                            file.int_attribute(group, "vocab_target"));
  load_golden_parameters(file, group, dtype, *model);
  model->set_sinusoids(file.read<float>(group + "/sinusoidal_table"));
  return model;
}

RealTokens::RealTokens(const Hdf5File& file, const std::string& dataset) {
  const Shape shape = file.shape(dataset);
  const std::vector<int32_t> ids = read_ids(file, dataset);
  for (int64_t b = 0; b < shape[0]; ++b) {
    begins.push_back(static_cast<int32_t>(tokens.size()));
    for (int64_t t = 0; t < shape[1]; ++t) {
      const int32_t id = ids[static_cast<size_t>(b * shape[1] + t)];
      real.push_back(id != kPadId);
      if (id != kPadId) tokens.push_back(id);
    }
    lengths.push_back(static_cast<int32_t>(tokens.size()) - begins.back());
  }
}

Sequences RealTokens::sequences() const { return {begins, lengths, *std::max_element(lengths.begin(), lengths.end())}; }

std::vector<double> RealTokens::kept(const std::vector<double>& values) const {
  const size_t width = values.size() / real.size();
  std::vector<double> rows;
  for (size_t i = 0; i < real.size(); ++i)
    if (real[i])
      rows.insert(rows.end(), values.begin() + static_cast<int64_t>(i * width),
                  values.begin() + static_cast<int64_t>((i + 1) * width));
  return rows;
}

std::unique_ptr<PairPass> make_pair_pass(const Hdf5File& file, const std::string& group, DType dtype,
                                         const PassOptions& options) {
  auto pass = std::make_unique<PairPass>();
  pass->tape = std::make_unique<Tape>(cpu_kernels(), pass->arena, dtype, options);
  pass->source = RealTokens(file, group + "/src_tokens");
  pass->previous = RealTokens(file, group + "/prev_output_tokens");
  pass->target = RealTokens(file, group + "/target");
  EXPECT_EQ(pass->previous.lengths, pass->target.lengths);
  pass->batch = {pass->source.tokens, pass->source.sequences(), pass->previous.tokens, pass->target.tokens,
                 pass->target.sequences()};
  return pass;
}

double run_pairs(Seq2Seq& model, PairPass& pass, double smoothing) {
  model.parameters().begin_gradients();
  const std::vector<double> losses = to_doubles(model.losses(*pass.tape, pass.batch, smoothing));
  if (pass.tape->recording()) pass.tape->backward();
  return std::accumulate(losses.begin(), losses.end(), 0.0);
}

}  // namespace qn::test
