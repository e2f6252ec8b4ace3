#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "core/file_io.h"
#include "core/hdf5_file.h"
#include "data/byte_pairs.h"
#include "data/tiny_tokenizer.h"
#include "hf_test.h"
#include "models/transformer_lm.h"
#include "support/capture.h"
#include "tasks/hf_tokenizer.h"
#include "tasks/hf_vocabulary.h"

namespace qn::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

/// Logarithms of the probabilities of every next token, [tokens, vocabulary].
std::vector<float> log_probabilities(const fs::path& checkpoint, const std::vector<int32_t>& tokens) {
  const ModelFile file = load_model_file(checkpoint);
  auto& model = dynamic_cast<TransformerLm&>(file.module());
  Arena arena(*cpu_kernels().memory);
  Tape tape(cpu_kernels(), arena, DType::f32, {});
  const Var features = model.features(tape, {.rows = 1, .cols = std::ssize(tokens), .source = tokens, .target = {}});
  const Tensor result = model.head().log_probabilities(tape, features);
  return {result.as<float>(), result.as<float>() + result.elements()};
}

class HfGpt2 : public testing::TestWithParam<const char*> {
 protected:
  TempDir dir_;
};

TEST_P(HfGpt2, LogitsEqualThoseOfTransformers) {
  QN_GOLDEN(path, "hf_models.h5");
  make_folder_of(dir_ / "hf", GetParam());
  const ImportSummary summary = import_hf(dir_ / "hf", HfKind::gpt2, dir_ / "run");
  EXPECT_EQ(summary.tokenizer, false);
  const Hdf5File golden(path, Hdf5File::Mode::read);
  const std::string group = GetParam();
  const Shape shape = golden.shape(group + "/logits");
  const auto tokens = golden.read<int32_t>(group + "/tokens"), mask = golden.read<int32_t>(group + "/attention_mask");
  const auto logits = golden.read<double>(group + "/logits_f64");
  const int64_t time = shape[1], vocabulary = shape[2];
  EXPECT_NE(summary.details.find(fmt::format("vocabulary {},", vocabulary)), std::string::npos);
  double worst = 0;
  for (int64_t row = 0; row < shape[0]; ++row) {
    const int64_t length = std::accumulate(mask.begin() + row * time, mask.begin() + (row + 1) * time, int64_t{0});
    const std::vector<int32_t> own(tokens.begin() + row * time, tokens.begin() + row * time + length);
    const std::vector<float> found = log_probabilities(dir_ / "run" / kImportedCheckpoint, own);
    worst =
        std::max(worst, worst_difference(found, std::span(logits).subspan(static_cast<size_t>(row * time * vocabulary)),
                                         true, static_cast<size_t>(vocabulary)));
  }
  EXPECT_LT(worst, 2e-5);
}

TEST_P(HfGpt2, ComesOutAsItWentIn) {
  make_folder_of(dir_ / "hf", GetParam());
  expect_same_folder(dir_.path(), HfKind::gpt2,
                     {"model_type", "activation_function", "n_embd", "n_head", "n_layer", "n_positions",
                      "tie_word_embeddings", "vocab_size", "architectures"});
}

INSTANTIATE_TEST_SUITE_P(Golden, HfGpt2, testing::Values("gpt2_lm", "gpt2_lm_untied"));

class Importing : public testing::Test {
 protected:
  Importing() { make_folder_of(hf_, "gpt2_lm"); }
  std::string error() {
    const std::string message = error_of([&] { import_hf(hf_, HfKind::gpt2, dir_ / "run"); });
    EXPECT_FALSE(fs::exists(dir_ / "run")) << message;
    return message;
  }
  void edit(const std::function<void(std::map<std::string, StoredTensor>&)>& change) { edit_tensors(hf_, change); }
  TempDir dir_;
  fs::path hf_ = dir_ / "hf";
};

TEST_F(Importing, TensorsThatAreMissingOrTooManyAreListed) {
  edit([](auto& tensors) {
    tensors.erase("transformer.h.1.mlp.c_fc.bias");
    tensors.erase("transformer.ln_f.weight");
  });
  EXPECT_THAT(error(), AllOf(HasSubstr("lacks"), HasSubstr("transformer.h.1.mlp.c_fc.bias, transformer.ln_f.weight")));
  make_folder_of(hf_, "gpt2_lm");
  edit([](auto& tensors) {
    tensors["transformer.h.2.ln_1.bias"] = tensors["transformer.h.1.ln_1.bias"];
    tensors["transformer.h.0.attn.masked_bias"] = tensors["transformer.h.1.ln_1.bias"];  // a buffer of old files
    tensors["score.weight"] = tensors["transformer.wte.weight"];
  });
  EXPECT_THAT(error(), AllOf(HasSubstr("does not have: score.weight, transformer.h.2.ln_1.bias"),
                             testing::Not(HasSubstr("masked_bias"))));
}

TEST_F(Importing, FilesWithoutAPrefixAndTiedCopies) {
  edit([](auto& tensors) {
    std::map<std::string, StoredTensor> bare;
    for (const auto& [name, tensor] : tensors) bare[name.substr(std::string("transformer.").size())] = tensor;
    bare["lm_head.weight"] = bare["wte.weight"];
    tensors = bare;
  });
  import_hf(hf_, HfKind::gpt2, dir_ / "run");
  fs::remove_all(dir_ / "run");
  make_folder_of(hf_, "gpt2_lm_untied");
  set_config(hf_, "tie_word_embeddings", true);
  EXPECT_THAT(error(), AllOf(HasSubstr("lm_head.weight"), HasSubstr("differ"), HasSubstr("tie_word_embeddings")));
}

TEST_F(Importing, ConfigurationsThatCannotBeAreNamed) {
  const std::vector<std::tuple<std::string, nlohmann::json, std::string>> cases = {
      {"model_type", "bert", "'bert', not 'gpt2'"},
      {"n_embd", 31, "must be even"},
      {"n_embd", 36, "has the shape"},
      {"n_embd", "32", "n_embd"},
      {"n_layer", 1000000000000, "n_layer"},
      {"n_layer", 9000, "do not belong together"},
      {"vocab_size", 2000000000, "do not belong together"},
      {"vocab_size", 68, "has the shape [67, 32], by config.json it should be [68, 32]"},
      {"activation_function", "swish", "'swish'"},
      {"scale_attn_by_inverse_layer_idx", true, "not possible here"},
      {"layer_norm_epsilon", 1e-6, "layer_norm_epsilon"},
      {"resid_pdrop", 1.5, "resid_pdrop"}};
  for (const auto& [key, value, message] : cases) {
    make_folder_of(hf_, "gpt2_lm");
    set_config(hf_, key, value);
    EXPECT_THAT(error(), AllOf(HasSubstr(message), HasSubstr("hf"))) << key;
  }
  std::ofstream(hf_ / "config.json") << "{\"model_type\": ";
  EXPECT_THAT(error(), AllOf(HasSubstr("config.json"), HasSubstr("no JSON")));
  fs::remove(hf_ / "config.json");
  EXPECT_THAT(error(), HasSubstr("config.json is missing"));
}

TEST_F(Importing, ValuesThatAreNotFinite) {
  const std::vector<float> bad(32, std::nanf(""));
  edit([&](auto& tensors) { tensors["transformer.ln_f.bias"].bytes = std::as_bytes(std::span(bad)); });
  EXPECT_THAT(error(), AllOf(HasSubstr("transformer.ln_f.bias"), HasSubstr("not finite")));
}

TEST_F(Importing, SeveralFilesWithAnIndex) {
  import_hf(hf_, HfKind::gpt2, dir_ / "one");
  {
    const TensorFiles files(hf_);
    SafetensorsWriter parts[2];
    nlohmann::json map;
    size_t number = 0;
    for (const auto& [name, tensor] : files.tensors()) {
      parts[number % 2].add(name, tensor->type, tensor->shape, tensor->bytes);
      map[name] = fmt::format("model-{}.safetensors", number++ % 2);
    }
    for (int i = 0; i < 2; ++i) parts[i].write(hf_ / fmt::format("model-{}.safetensors", i));
    std::ofstream(hf_ / "model.safetensors.index.json") << nlohmann::json{{"weight_map", map}}.dump();
  }
  fs::remove(hf_ / "model.safetensors");
  import_hf(hf_, HfKind::gpt2, dir_ / "two");
  const std::vector<int32_t> tokens{10, 20, 30};
  EXPECT_EQ(log_probabilities(dir_ / "one" / kImportedCheckpoint, tokens),
            log_probabilities(dir_ / "two" / kImportedCheckpoint, tokens));
}

/// With a tokenizer tokens have other ids here, but the same probabilities.
TEST_F(Importing, TokensKeepTheirProbabilities) {
  constexpr int64_t kTokens = 263;
  std::vector<float> table(kTokens * 32);
  for (size_t i = 0; i < table.size(); ++i) table[i] = std::sin(static_cast<float>(i * i % 1009));
  edit([&](auto& tensors) {
    tensors["transformer.wte.weight"].shape = {kTokens, 32};
    tensors["transformer.wte.weight"].bytes = std::as_bytes(std::span(table));
  });
  set_config(hf_, "vocab_size", kTokens);
  import_hf(hf_, HfKind::gpt2, dir_ / "plain");
  write_tiny_pairs(hf_);
  fs::rename(hf_ / "encoder.json", hf_ / "vocab.json");
  fs::rename(hf_ / "vocab.bpe", hf_ / "merges.txt");
  EXPECT_EQ(import_hf(hf_, HfKind::gpt2, dir_ / "run").tokenizer, true);
  const HfVocabulary vocabulary = gpt2_vocabulary(find_tokenizer(hf_).get(), kTokens);
  EXPECT_EQ(vocabulary.theirs[kEosId], 262);  // <|endoftext|>
  EXPECT_EQ(vocabulary.dictionary.hash(), Dictionary::load(dir_ / "run" / "dict.txt").hash());

  std::vector<int32_t> ours, theirs;
  for (const char* word : {"257", "260", "1", "262"}) {
    const int32_t id = std::string(word) == "262" ? kEosId : vocabulary.dictionary.index(word);
    ours.push_back(id);
    theirs.push_back(vocabulary.theirs[static_cast<size_t>(id)]);
    EXPECT_EQ(theirs.back(), std::stoi(word));
  }
  theirs[2] = 5, ours[2] = static_cast<int32_t>(std::find(vocabulary.theirs.begin(), vocabulary.theirs.end(), 5) -
                                                vocabulary.theirs.begin());  // id 1 is padding where ids stay
  const std::vector<float> found = log_probabilities(dir_ / "run" / kImportedCheckpoint, ours),
                           expected = log_probabilities(dir_ / "plain" / kImportedCheckpoint, theirs);
  for (size_t t = 0; t < ours.size(); ++t)
    for (size_t v = 0; v < kTokens; ++v)
      EXPECT_NEAR(found[t * kTokens + v], expected[t * kTokens + static_cast<size_t>(vocabulary.theirs[v])], 1e-4);

  // And they get their ids back.
  const fs::path checkpoint = dir_ / "run" / kImportedCheckpoint;
  export_hf(load_model_file(checkpoint), checkpoint.string(), dir_ / "run", dir_ / "again");
  const TensorFiles again(dir_ / "again");
  const StoredTensor& exported = *again.tensors().at("transformer.wte.weight");
  EXPECT_TRUE(std::equal(exported.bytes.begin(), exported.bytes.end(), std::as_bytes(std::span(table)).begin()));
  EXPECT_EQ(config_of(dir_ / "again")["eos_token_id"], 262);
  EXPECT_TRUE(fs::exists(dir_ / "again" / "vocab.json"));
  EXPECT_TRUE(fs::exists(dir_ / "again" / "merges.txt"));
  set_config(hf_, "vocab_size", 67);
  make_folder_of(hf_, "gpt2_lm");
  EXPECT_THAT(error_of([&] { import_hf(hf_, HfKind::gpt2, dir_ / "new"); }),
              AllOf(HasSubstr("vocab.json has 263 tokens"), HasSubstr("67")));
}

/// A tokenizer whose pieces a dictionary of a text numbers in its own way.
TEST(HfTokenizer, GetsTheIdsOfTheDictionary) {
  const TempDir dir;
  write_tiny_pairs(dir.path());
  Vocabulary vocabulary{find_tokenizer(dir.path()), {}, {}};
  std::vector<std::string_view> words = vocabulary.tokenizer->words();
  std::reverse(words.begin(), words.end());
  for (const std::string_view word : words) vocabulary.dictionary.add(word, 1);
  std::string why;
  const int64_t size = vocabulary.dictionary.size() + 1;
  std::vector<TokenizerFile> files;
  for (const HfFile& file : renumbered_tokenizer(vocabulary, ModelType::roberta, size, why))
    files.push_back({dir / file.name, file.text});
  ASSERT_EQ(files.size(), 3u) << why;
  const nlohmann::json ids = nlohmann::json::parse(files[0].text);
  EXPECT_EQ(ids["</s>"], kEosId);
  EXPECT_EQ(ids["<mask>"], size - 1);
  files.pop_back();
  const std::unique_ptr<Tokenizer> renumbered = make_tokenizer(files);
  const auto* pairs = dynamic_cast<const BytePairs*>(renumbered.get());
  ASSERT_NE(pairs, nullptr);
  const std::string text = "the lower \xc3\xa9 wwe";
  std::vector<int32_t> found, expected;
  BytePairs::Encoder(*pairs).encode(text, found);
  std::vector<std::string_view> cut;
  vocabulary.tokenizer->splitter()->split(text, cut);
  for (const std::string_view word : cut) expected.push_back(vocabulary.dictionary.index(word));
  EXPECT_EQ(found, expected);

  Vocabulary some{find_tokenizer(dir.path()), {}, {}};
  some.dictionary.add(words[0], 1);
  EXPECT_TRUE(renumbered_tokenizer(some, ModelType::roberta, 6, why).empty());
  EXPECT_THAT(why, HasSubstr("pieces are not in dict.txt"));
  EXPECT_TRUE(renumbered_tokenizer(vocabulary, ModelType::bert, size, why).empty());
  EXPECT_THAT(why, HasSubstr("type bert"));
}

}  // namespace
}  // namespace qn::test
