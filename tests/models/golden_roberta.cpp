#include "golden_roberta.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace qn::test {

ModelConfig golden_roberta_config(const Hdf5File& file, const std::string& group) {
  const auto integer = [&](const char* name, int64_t otherwise) {
    return file.has_attribute(group, name) ? file.int_attribute(group, name) : otherwise;
  };
  ModelConfig c(ModelType::roberta);
  c.layers = integer("layers", 0);
  c.embed_dim = integer("embed_dim", 0);
  c.ffn_dim = integer("ffn_dim", 0);
  c.heads = integer("heads", 0);
  c.max_positions = file.shape(group + "/params/encoder.sentence_encoder.embed_positions.weight")[0] - 2;
  c.dropout = c.attention_dropout = 0.0;
  c.prenorm = integer("normalize_before", 0) != 0;
  EXPECT_EQ(integer("has_final_norm", 0) != 0, c.prenorm);
  EXPECT_EQ(integer("has_layernorm_embedding", 1) != 0, !c.prenorm);
  c.untie_output = integer("tied_lm_head", 1) == 0;
  if (file.has_attribute(group, "layerdrop")) c.layerdrop = file.float_attribute(group, "layerdrop");
  return c;
}

std::unique_ptr<SentenceEncoder> load_golden_roberta(const Hdf5File& file, const std::string& group, DType dtype) {
  EncoderHeads heads{.masked_lm = true};
  if (file.has_attribute(group, "num_classes")) heads.classes = file.int_attribute(group, "num_classes");
  auto model = make_sentence_encoder(golden_roberta_config(file, group), file.int_attribute(group, "vocab"), 0, heads);
  load_golden_parameters(file, group, dtype, *model);
  return model;
}

std::vector<double> RobertaPass::kept(const std::vector<double>& values) const {
  const size_t width = values.size() / real.size();
  std::vector<double> rows;
  for (size_t i = 0; i < real.size(); ++i)
    if (real[i])
      rows.insert(rows.end(), values.begin() + static_cast<int64_t>(i * width),
                  values.begin() + static_cast<int64_t>((i + 1) * width));
  return rows;
}

std::unique_ptr<RobertaPass> make_roberta_pass(const Hdf5File& file, const std::string& tokens,
                                               const std::string& targets, DType dtype, const PassOptions& options) {
  auto pass = std::make_unique<RobertaPass>();
  pass->tape = std::make_unique<Tape>(cpu_kernels(), pass->arena, dtype, options);
  const Shape shape = file.shape(tokens);
  const std::vector<int32_t> ids = read_ids(file, tokens);
  const std::vector<int32_t> wanted = targets.empty() ? std::vector<int32_t>() : read_ids(file, targets);
  for (int64_t b = 0; b < shape[0]; ++b) {
    pass->begins.push_back(static_cast<int32_t>(pass->tokens.size()));
    for (int64_t t = 0; t < shape[1]; ++t) {
      const auto i = static_cast<size_t>(b * shape[1] + t);
      pass->real.push_back(ids[i] != kPadId);
      if (ids[i] == kPadId) continue;
      if (!wanted.empty() && wanted[i] != kPadId) {
        pass->masked_rows.push_back(static_cast<int32_t>(pass->tokens.size()));
        pass->targets.push_back(wanted[i]);
      }
      pass->tokens.push_back(ids[i]);
    }
    pass->lengths.push_back(static_cast<int32_t>(pass->tokens.size()) - pass->begins.back());
  }
  pass->batch = {pass->tokens,
                 {pass->begins, pass->lengths, *std::max_element(pass->lengths.begin(), pass->lengths.end())}};
  return pass;
}

namespace {

double finish(SentenceEncoder& model, RobertaPass& pass, const Tensor& losses) {
  const std::vector<double> values = to_doubles(losses);
  if (pass.tape->recording()) {
    model.parameters().begin_gradients();
    pass.tape->backward();
  }
  return std::accumulate(values.begin(), values.end(), 0.0);
}

}  // namespace

double run_masked_lm(SentenceEncoder& model, RobertaPass& pass) {
  return finish(model, pass, model.masked_losses(*pass.tape, pass.batch, pass.masked_rows, pass.targets));
}

double run_classification(SentenceEncoder& model, RobertaPass& pass, const std::vector<int32_t>& labels) {
  return finish(model, pass, cross_entropy(*pass.tape, model.sentence_logits(*pass.tape, pass.batch), labels));
}

double run_regression(SentenceEncoder& model, RobertaPass& pass, const std::vector<float>& targets) {
  return finish(model, pass, squared_error(*pass.tape, model.sentence_logits(*pass.tape, pass.batch), targets));
}

}  // namespace qn::test
