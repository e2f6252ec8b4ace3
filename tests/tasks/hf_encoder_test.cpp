// Encoders of Hugging Face, in and out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "core/hdf5_file.h"
#include "data/joined_sentences.h"
#include "hf_test.h"
#include "models/sentence_encoder.h"
#include "support/capture.h"
#include "tasks/hf_vocabulary.h"

namespace qn::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class HfEncoder : public testing::TestWithParam<const char*> {
 protected:
  /// Of a model's outputs for the rows of a golden group, each without its padding.
  double worst(const std::string& group,
               const std::function<Tensor(SentenceEncoder&, Tape&, const SentenceBatch&)>& outputs,
               const std::string& result, bool per_token) {
    const ModelFile file = load_model_file(dir_ / "run" / kImportedCheckpoint);
    auto& model = dynamic_cast<SentenceEncoder&>(file.module());
    const Hdf5File golden(*golden_file("hf_models.h5"), Hdf5File::Mode::read);
    const auto tokens = golden.read<int32_t>(group + "/tokens"), mask = golden.read<int32_t>(group + "/attention_mask");
    const std::string types_name = group + "/token_type_ids";
    const auto types = golden.exists(types_name) ? golden.read<int32_t>(types_name) : std::vector<int32_t>();
    const auto logits = golden.read<double>(group + "/" + result + "_f64");
    const auto time = static_cast<size_t>(golden.shape(group + "/tokens")[1]);
    const auto width = static_cast<size_t>(golden.shape(group + "/" + result)[-1]);
    double largest = 0;
    for (size_t row = 0; row < tokens.size() / time; ++row) {
      const auto begin = static_cast<std::ptrdiff_t>(row * time);
      const auto length =
          std::accumulate(mask.begin() + begin, mask.begin() + begin + static_cast<std::ptrdiff_t>(time), 0);
      const std::vector<int32_t> own(tokens.begin() + begin, tokens.begin() + begin + length);
      const std::span<const int32_t> own_types =
          types.empty() ? std::span<const int32_t>()
                        : std::span(types).subspan(row * time, static_cast<size_t>(length));
      const int32_t zero = 0, size = length;
      Arena arena(*cpu_kernels().memory);
      Tape tape(cpu_kernels(), arena, DType::f32, {});
      const Tensor found = outputs(model, tape, {own, {{&zero, 1}, {&size, 1}, length}, own_types});
      largest = std::max(
          largest, worst_difference({found.as<float>(), static_cast<size_t>(found.elements())},
                                    std::span(logits).subspan(row * (per_token ? time : 1) * width), false, width));
    }
    return largest;
  }
  /// Of the logits of every word at every token.
  double worst_words(const std::string& group) {
    return worst(
        group,
        [](SentenceEncoder& model, Tape& tape, const SentenceBatch& batch) {
          std::vector<int32_t> rows(batch.tokens.size());
          std::iota(rows.begin(), rows.end(), 0);
          return model.masked_logits(tape, batch, rows).value;
        },
        "logits", true);
  }
  double worst_classes(const std::string& group, const std::string& result) {
    return worst(
        group,
        [](SentenceEncoder& model, Tape& tape, const SentenceBatch& batch) {
          return model.sentence_logits(tape, batch).value;
        },
        result, false);
  }
  TempDir dir_;
};

using HfRoberta = HfEncoder;

TEST_P(HfRoberta, LogitsEqualThoseOfTransformers) {
  make_folder_of(dir_ / "hf", GetParam());
  EXPECT_EQ(import_hf(dir_ / "hf", HfKind::roberta, dir_ / "run").task, "masked_lm");
  EXPECT_LT(worst_words(GetParam()), 2e-5);
}

const std::string kPositions = "roberta.embeddings.position_embeddings.weight",
                  kTypes = "roberta.embeddings.token_type_embeddings.weight";

TEST_P(HfRoberta, ComesOutAsItWentIn) {
  make_folder_of(dir_ / "hf", GetParam());
  std::set<std::string> others{kPositions, kTypes};
  if (GetParam() == std::string("roberta_masked_lm_untied")) others.insert("lm_head.bias");  // it has two, one is used
  expect_same_folder(dir_.path(), HfKind::roberta,
                     {"model_type", "hidden_act", "hidden_size", "intermediate_size", "num_attention_heads",
                      "num_hidden_layers", "max_position_embeddings", "tie_word_embeddings", "vocab_size",
                      "architectures", "layer_norm_eps", "pad_token_id", "type_vocab_size"},
                     others);
  // The type of all tokens was added to the positions, and is nothing now.
  const TensorFiles before(dir_ / "hf"), after(dir_ / "again");
  const auto floats = [](const TensorFiles& files, const std::string& name) {
    return floats_of(*files.tensors().at(name));
  };
  const std::vector<float> was = floats(before, kPositions), type = floats(before, kTypes),
                           is = floats(after, kPositions);
  for (size_t i = 0; i < was.size(); ++i) EXPECT_EQ(is[i], was[i] + type[i % type.size()]);
  EXPECT_EQ(floats(after, kTypes), std::vector<float>(type.size(), 0.0f));
}

INSTANTIATE_TEST_SUITE_P(Golden, HfRoberta, testing::Values("roberta_masked_lm", "roberta_masked_lm_untied"));

TEST_F(HfRoberta, Classification) {
  make_folder_of(dir_ / "hf", "roberta_sequence_classification");
  EXPECT_EQ(import_hf(dir_ / "hf", HfKind::roberta, dir_ / "run").task, "sentence_prediction");
  EXPECT_LT(worst_classes("roberta_sequence_classification", "logits"), 2e-5);
  expect_same_folder(dir_.path(), HfKind::roberta, {"architectures", "id2label", "label2id", "tie_word_embeddings"},
                     {kPositions, kTypes});
}

class HfBert : public HfEncoder {
 protected:
  /// A vocabulary of so many pieces, the special ones where those of the real one are: not in front.
  void write_pieces(int size) {
    std::ofstream out(dir_ / "hf" / "vocab.txt");
    for (int i = 0; i < size; ++i) {
      const std::map<int, std::string> special{{0, "[PAD]"}, {3, "[UNK]"}, {4, "[CLS]"}, {5, "[SEP]"}, {6, "[MASK]"}};
      out << (special.contains(i) ? special.at(i)
              : i < 10            ? fmt::format("[unused{}]", i)
                                  : fmt::format("w{}", i))
          << '\n';
    }
  }
  std::string error() {
    const std::string message = error_of([&] { import_hf(dir_ / "hf", HfKind::bert, dir_ / "run"); });
    EXPECT_FALSE(fs::exists(dir_ / "run")) << message;
    return message;
  }
};

const std::vector<std::string> kBertKeys = {"model_type",          "hidden_act",        "hidden_size",
                                            "intermediate_size",   "layer_norm_eps",    "max_position_embeddings",
                                            "num_attention_heads", "num_hidden_layers", "tie_word_embeddings",
                                            "type_vocab_size",     "vocab_size",        "architectures"};

TEST_F(HfBert, MaskedLm) {
  make_folder_of(dir_ / "hf", "bert_masked_lm");
  EXPECT_EQ(import_hf(dir_ / "hf", HfKind::bert, dir_ / "run").task, "masked_lm");
  EXPECT_LT(worst_words("bert_masked_lm"), 2e-5);
  expect_same_folder(dir_.path(), HfKind::bert, kBertKeys);
}

/// A classifier whose output matrix is the identity gives the pooler's output.
void add_identity(const fs::path& folder, int64_t width) {
  std::vector<float> identity(static_cast<size_t>(width * width), 0.0f), bias(static_cast<size_t>(width), 0.0f);
  for (int64_t i = 0; i < width; ++i) identity[static_cast<size_t>(i * width + i)] = 1.0f;
  edit_tensors(folder, [&](auto& tensors) {
    tensors["classifier.weight"] = tensors.at("pooler.dense.weight");
    tensors["classifier.weight"].bytes = std::as_bytes(std::span(identity));
    tensors["classifier.bias"] = tensors.at("pooler.dense.bias");
    tensors["classifier.bias"].bytes = std::as_bytes(std::span(bias));
  });
  nlohmann::json labels;
  for (int64_t i = 0; i < width; ++i) labels[std::to_string(i)] = fmt::format("class{}", i);
  set_config(folder, "id2label", labels);
}

TEST_F(HfBert, ClassificationBeginsWithThePooler) {
  make_folder_of(dir_ / "hf", "bert_model");
  add_identity(dir_ / "hf", 32);
  EXPECT_EQ(import_hf(dir_ / "hf", HfKind::bert, dir_ / "run").task, "sentence_prediction");
  EXPECT_LT(worst_classes("bert_model", "pooler_output"), 2e-5);
  const ModelFile file = load_model_file(dir_ / "run" / kImportedCheckpoint);
  export_hf(file, "x", dir_ / "run", dir_ / "again");
  EXPECT_EQ(config_of(dir_ / "again")["architectures"][0], "BertForSequenceClassification");
  const TensorFiles before(dir_ / "hf"), after(dir_ / "again");
  EXPECT_EQ(after.tensors().size(), before.tensors().size());
  EXPECT_TRUE(after.tensors().contains("bert.pooler.dense.weight"));
  EXPECT_TRUE(after.tensors().contains("classifier.bias"));
}

TEST_F(HfBert, AnEncoderAloneMakesVectors) {
  make_folder_of(dir_ / "hf", "bert_model");
  EXPECT_EQ(import_hf(dir_ / "hf", HfKind::bert, dir_ / "run").task, "sentence_embedding");
  for (const Pooling pooling : {Pooling::mean, Pooling::cls}) {
    const ModelFile file = load_model_file(dir_ / "run" / kImportedCheckpoint);
    const Hdf5File golden(*golden_file("hf_models.h5"), Hdf5File::Mode::read);
    const auto tokens = golden.read<int32_t>("bert_model/tokens"),
               mask = golden.read<int32_t>("bert_model/attention_mask"),
               types = golden.read<int32_t>("bert_model/token_type_ids");
    const auto states = golden.read<double>("bert_model/last_hidden_state_f64");
    const Shape shape = golden.shape("bert_model/last_hidden_state");
    const int64_t time = shape[1], width = shape[2];
    JoinedSentences batch;
    std::vector<int32_t> own_types;
    std::vector<double> expected;
    for (int64_t row = 0; row < shape[0]; ++row) {
      const auto begin = row * time;
      const auto length = std::accumulate(mask.begin() + begin, mask.begin() + begin + time, int64_t{0});
      batch.add(std::span(tokens).subspan(static_cast<size_t>(begin), static_cast<size_t>(length)));
      own_types.insert(own_types.end(), types.begin() + begin, types.begin() + begin + length);
      std::vector<double> vector(static_cast<size_t>(width), 0.0);
      for (int64_t t = 0; t < (pooling == Pooling::cls ? 1 : length); ++t)
        for (int64_t d = 0; d < width; ++d)
          vector[static_cast<size_t>(d)] += states[static_cast<size_t>((begin + t) * width + d)];
      const double norm = std::sqrt(std::inner_product(vector.begin(), vector.end(), vector.begin(), 0.0));
      for (const double value : vector) expected.push_back(value / norm);
    }
    Arena arena(*cpu_kernels().memory);
    Tape tape(cpu_kernels(), arena, DType::f32, {});
    const Tensor found =
        dynamic_cast<SentenceEncoder&>(file.module())
            .sentence_vectors(tape, {batch.tokens, {batch.begins, batch.lengths, batch.longest}, own_types}, pooling)
            .value;
    ASSERT_EQ(found.elements(), std::ssize(expected));
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(found.as<float>()[i], expected[i], 1e-5);
  }
  // Out again without its pooler, which nothing here computes with.
  const fs::path checkpoint = dir_ / "run" / kImportedCheckpoint;
  export_hf(load_model_file(checkpoint), checkpoint.string(), dir_ / "run", dir_ / "again");
  const TensorFiles before(dir_ / "hf"), after(dir_ / "again");
  EXPECT_EQ(after.tensors().size() + 2, before.tensors().size());
  for (const auto& [name, tensor] : after.tensors())
    EXPECT_TRUE(std::equal(tensor->bytes.begin(), tensor->bytes.end(), before.tensors().at(name)->bytes.begin()))
        << name;
  EXPECT_EQ(config_of(dir_ / "again")["architectures"][0], "BertModel");
}

/// What sentence-transformers keeps beside a model, which comes out as well.
TEST_F(HfBert, PoolingIsRead) {
  make_folder_of(dir_ / "hf", "bert_model");
  fs::create_directories(dir_ / "hf" / "1_Pooling");
  const auto write = [&](const char* file, const nlohmann::json& json) {
    std::ofstream(dir_ / "hf" / file) << json.dump();
  };
  write("1_Pooling/config.json", {{"pooling_mode_cls_token", true}, {"pooling_mode_mean_tokens", false}});
  write("sentence_bert_config.json", {{"max_seq_length", 12}});
  import_hf(dir_ / "hf", HfKind::bert, dir_ / "run");
  const ModelFile file = load_model_file(dir_ / "run" / kImportedCheckpoint);
  EXPECT_THAT(file.task->packed_metadata().at("task"), HasSubstr("cls"));
  EXPECT_EQ(file.task->packed_metadata().at("tokens_per_sample"), "12");
  export_hf(file, "x", dir_ / "run", dir_ / "again");
  EXPECT_EQ(
      nlohmann::json::parse(std::ifstream(dir_ / "again" / "1_Pooling" / "config.json"))["pooling_mode_cls_token"],
      true);
  fs::remove_all(dir_ / "run");
  write("1_Pooling/config.json", {{"pooling_mode_max_tokens", true}});
  EXPECT_THAT(error(),
              HasSubstr("1_Pooling/config.json: vectors of the mean of all tokens, or of [CLS], are possible"));
  write("1_Pooling/config.json", {{"pooling_mode_mean_tokens", true}});
  write("modules.json", {{{"type", "sentence_transformers.models.Dense"}}});
  EXPECT_THAT(error(), HasSubstr("models.Dense"));
}

TEST_F(HfBert, PiecesKeepTheirVectors) {
  make_folder_of(dir_ / "hf", "bert_masked_lm");
  write_pieces(67);
  EXPECT_EQ(import_hf(dir_ / "hf", HfKind::bert, dir_ / "run").tokenizer, true);
  const Dictionary dictionary = Dictionary::load(dir_ / "run" / "dict.txt");
  EXPECT_EQ(dictionary.size(), 66);  // [MASK] is the task's
  const HfVocabulary vocabulary = bert_vocabulary(find_tokenizer(dir_ / "hf").get(), 67);
  EXPECT_EQ(std::vector<int32_t>(vocabulary.theirs.begin(), vocabulary.theirs.begin() + 6),
            (std::vector<int32_t>{4, 0, 5, 3, 1, 2}));
  EXPECT_EQ(vocabulary.theirs.back(), 6);
  const fs::path checkpoint = dir_ / "run" / kImportedCheckpoint;
  const ModelFile file = load_model_file(checkpoint);
  const TensorFiles theirs(dir_ / "hf");
  const std::vector<float> rows = floats_of(*theirs.tensors().at("bert.embeddings.word_embeddings.weight")),
                           biases = floats_of(*theirs.tensors().at("cls.predictions.bias"));
  const auto values = [&](const std::string& name) {
    const ParameterStore& store = file.module().parameters();
    return store.values_of(*store.find(name));
  };
  const std::vector<float> table = values("encoder.sentence_encoder.embed_tokens.weight"),
                           bias = values("encoder.lm_head.bias");
  const auto id = static_cast<size_t>(dictionary.index("w20"));
  EXPECT_EQ(table[id * 32 + 7], rows[20 * 32 + 7]);
  EXPECT_EQ(bias[id], biases[20]);
  EXPECT_EQ(bias[66], biases[6]);
  expect_same_folder(dir_.path(), HfKind::bert, kBertKeys);
  EXPECT_TRUE(fs::exists(dir_ / "again" / "vocab.txt"));
  EXPECT_EQ(config_of(dir_ / "again")["pad_token_id"], 0);
}

TEST_F(HfBert, NamesOfOldFilesAreKnown) {
  make_folder_of(dir_ / "hf", "bert_masked_lm");
  edit_tensors(dir_ / "hf", [&](auto& tensors) {
    std::map<std::string, StoredTensor> old;
    for (const auto& [name, tensor] : tensors) {
      std::string then = name;
      for (const auto& [now, was] :
           {std::pair("LayerNorm.weight", "LayerNorm.gamma"), {"LayerNorm.bias", "LayerNorm.beta"}})
        if (then.ends_with(now)) then = then.substr(0, then.size() - std::string(now).size()) + was;
      old[then] = tensor;
    }
    old["bert.embeddings.position_ids"] = old.at("cls.predictions.bias");
    old["cls.seq_relationship.bias"] = old.at("cls.predictions.bias");
    tensors = old;
  });
  import_hf(dir_ / "hf", HfKind::bert, dir_ / "run");
  EXPECT_LT(worst_words("bert_masked_lm"), 2e-5);
}

TEST_F(HfBert, AClassifierAnswersAtOnce) {
  make_folder_of(dir_ / "hf", "bert_model");
  add_identity(dir_ / "hf", 32);
  write_pieces(67);
  const ImportSummary summary = import_hf(dir_ / "hf", HfKind::bert, dir_ / "run");
  EXPECT_EQ(summary.classes, 32);
  const Dictionary labels = Dictionary::load(dir_ / "run" / kClassNames);
  EXPECT_EQ(labels.symbol(kSpecialCount + 31), "class31");
  const fs::path checkpoint = dir_ / "run" / kImportedCheckpoint;
  const auto ask = [&](const std::vector<std::string>& lines, const std::string& data = {}) {
    return load_model_file(checkpoint).task->predict(data, lines, cpu_kernels(), DType::f32);
  };
  const auto said = ask({"w12 w13", "w40"});
  ASSERT_EQ(said.size(), 2u);
  EXPECT_EQ(said[0].probabilities.size(), 32u);
  EXPECT_EQ(ask({"w12 w13", "w40"}, (dir_ / "run").string())[0].probabilities, said[0].probabilities);
  EXPECT_EQ(ask({"w12\tw13", "w14\tw15"}).size(), 2u);  // the first line tells what they are
  EXPECT_THAT(error_of([&] { ask({"w12\tw13", "w14"}); }), HasSubstr("line 2: this model takes two sentences"));
  EXPECT_THAT(error_of([&] { ask({"w12", "w13\tw14"}); }), HasSubstr("line 2: this model takes one sentence"));
  EXPECT_THAT(error_of([&] { ask({"w12\tw13\tw14"}); }), HasSubstr("no other tabulators"));
  std::string many;
  for (int i = 0; i < 40; ++i) many += fmt::format("w{} ", 12 + i);
  EXPECT_EQ(ask({many + "w9"})[0].probabilities, ask({many + "w8 w7"})[0].probabilities);

  // What transformers gets has the tokenizer, wherever it is found; and no file takes the place of what is read.
  const auto exported = [&](const fs::path& from) {
    return export_hf(load_model_file(checkpoint), checkpoint.string(), from, dir_ / "again");
  };
  const auto values = [&] {
    const TensorFiles files(dir_ / "again");
    const auto bytes = files.tensors().at("bert.embeddings.word_embeddings.weight")->bytes;
    return std::vector(bytes.begin(), bytes.end());
  };
  EXPECT_THAT(exported(dir_ / "run"), testing::ElementsAre("model.safetensors", "config.json", "vocab.txt"));
  const auto due = values();
  EXPECT_THAT(exported({}), testing::Contains("vocab.txt"));
  EXPECT_EQ(values(), due);
  const ModelFile file = load_model_file(checkpoint);
  EXPECT_THAT(error_of([&] { export_hf(file, (dir_ / "again" / "model.safetensors").string(), {}, dir_ / "again"); }),
              HasSubstr("would be overwritten"));
  fs::rename(dir_ / "run" / "dict.txt", dir_ / "moved");
  const LogCapture log;
  EXPECT_THAT(exported({}), testing::ElementsAre("model.safetensors", "config.json"));
  EXPECT_THAT(log.text(), HasSubstr("no vocabulary is known"));
}

TEST_F(HfBert, ClassesAreNamed) {
  make_folder_of(dir_ / "hf", "bert_model");
  add_identity(dir_ / "hf", 32);
  nlohmann::json names = config_of(dir_ / "hf")["id2label"];
  names["3"] = "3 stars";
  set_config(dir_ / "hf", "id2label", names);
  import_hf(dir_ / "hf", HfKind::bert, dir_ / R"(a "b" \c)");
  EXPECT_EQ(Dictionary::load(dir_ / R"(a "b" \c)" / kClassNames).symbol(kSpecialCount + 3), "3 stars");
  const auto config = read_config<RunConfig>(load_config_tree(dir_ / R"(a "b" \c)" / kImportedConfig));
  EXPECT_EQ(config.checkpoint.init_from, (dir_ / R"(a "b" \c)" / kImportedCheckpoint).string());
  EXPECT_EQ(config.task.sentences.shorten, Shorten::keep_end);
  names["4"] = "3 stars";
  set_config(dir_ / "hf", "id2label", names);
  EXPECT_THAT(error(), AllOf(HasSubstr("two classes are called '3 stars'"), HasSubstr("--classes")));
  const fs::path file = dir_ / "names";
  for (int i = 0; i < 32; ++i) std::ofstream(file, std::ios::app) << "c" << i << '\n';
  import_hf(dir_ / "hf", HfKind::bert, dir_ / "named", file);
  EXPECT_EQ(Dictionary::load(dir_ / "named" / kClassNames).symbol(kSpecialCount + 4), "c4");
  std::ofstream(file) << "one\ntwo\n";
  EXPECT_THAT(error_of([&] { import_hf(dir_ / "hf", HfKind::bert, dir_ / "run", file); }),
              HasSubstr("names 2 classes, the model has 32"));
}

TEST_F(HfBert, OtherHeadsAreRefused) {
  make_folder_of(dir_ / "hf", "bert_model");
  add_identity(dir_ / "hf", 32);
  for (const auto& [key, value] : std::vector<std::pair<std::string, nlohmann::json>>{
           {"architectures", nlohmann::json::array({"BertForTokenClassification"})},
           {"architectures", nlohmann::json::array({"BertForMultipleChoice"})},
           {"problem_type", "multi_label_classification"},
           {"problem_type", "regression"}}) {
    const nlohmann::json before = config_of(dir_ / "hf");
    set_config(dir_ / "hf", key, value);
    EXPECT_THAT(error(), AllOf(HasSubstr(key), HasSubstr("possible here"))) << value;
    std::ofstream(dir_ / "hf" / "config.json") << before.dump();
  }
  make_folder_of(dir_ / "hf", "roberta_masked_lm");
  set_config(dir_ / "hf", "pad_token_id", 0);
  EXPECT_THAT(error_of([&] { import_hf(dir_ / "hf", HfKind::roberta, dir_ / "run"); }),
              HasSubstr("pad_token_id is 0, a model whose pad_token_id is 1 is due"));
}

TEST_F(HfBert, WhatIsWrongIsNamed) {
  make_folder_of(dir_ / "hf", "bert_masked_lm");
  edit_tensors(dir_ / "hf", [&](auto& tensors) {
    tensors.erase("bert.embeddings.token_type_embeddings.weight");
    tensors["qa_outputs.bias"] = tensors.at("cls.predictions.bias");
  });
  EXPECT_THAT(error(), AllOf(HasSubstr("lacks"), HasSubstr("bert.embeddings.token_type_embeddings.weight")));
  make_folder_of(dir_ / "hf", "bert_masked_lm");
  edit_tensors(dir_ / "hf", [&](auto& tensors) { tensors["qa_outputs.bias"] = tensors.at("cls.predictions.bias"); });
  EXPECT_THAT(error(), HasSubstr("does not have: qa_outputs.bias"));
  make_folder_of(dir_ / "hf", "bert_masked_lm");
  write_pieces(4);
  EXPECT_THAT(error(), HasSubstr("vocab.txt has no line [CLS]"));
  write_pieces(68);
  EXPECT_THAT(error(), HasSubstr("vocab.txt has 68 tokens, but the model only 67"));
  fs::remove(dir_ / "hf" / "vocab.txt");
  for (const auto& [key, value, message] : std::vector<std::tuple<std::string, nlohmann::json, std::string>>{
           {"layer_norm_eps", 0, "layer_norm_eps"},
           {"type_vocab_size", 3, "has the shape [2, 32], by config.json it should be [3, 32]"},
           {"max_position_embeddings", 25, "position_embeddings.weight has the shape [24, 32]"},
           {"position_embedding_type", "relative_key", "only position_embedding_type absolute"},
           {"model_type", "roberta", "'roberta', not 'bert'"}}) {
    make_folder_of(dir_ / "hf", "bert_masked_lm");
    set_config(dir_ / "hf", key, value);
    EXPECT_THAT(error(), HasSubstr(message)) << key;
  }
}

}  // namespace
}  // namespace qn::test
