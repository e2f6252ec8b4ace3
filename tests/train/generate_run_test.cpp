// Texts that language models write: from files alone, and as probable as the model says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>
#include <sstream>

#include "core/special_tokens.h"
#include "models/sampling.h"
#include "models/transformer_lm.h"
#include "support/test_comm.h"
#include "tasks/generate_config.h"
#include "tiny_run.h"

namespace qn::test {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;
using Lines = std::vector<std::string>;

/// A language model of the tiny corpus, packed with and without its vocabulary.
class GenerateRun : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    dir_ = std::make_unique<TempDir>();
    prepare_tiny_corpus(dir_->path());
    const auto local = make_local_communicator();
    TinyTrainer(tiny_config(dir_->path(), "dense"), *local, {}).run();
    RunConfig config = tiny_ipq_config(dir_->path(), "ipq", checkpoint());
    TinyTrainer trainer(config, *local, {.quantize = true, .resume = true, .stop_requested = {}});
    trainer.run();
    trainer.round_weights(packed_storage(config.ipq));
    bare_bytes_ = write_packed_file(*dir_ / "bare.safetensors", trainer, config);
    config.ipq.vocabulary = true;
    bytes_ = write_packed_file(*dir_ / "packed.safetensors", trainer, config);
    predicted_bytes_ = predicted_bytes(trainer, config);
  }
  static void TearDownTestSuite() { dir_.reset(); }
  static std::filesystem::path checkpoint() { return *dir_ / "dense" / "checkpoint_last.h5"; }
  static ModelFile packed() { return load_model_file(*dir_ / "packed.safetensors"); }

  static std::vector<std::vector<Generated>> write(const ModelFile& file, const Lines& lines,
                                                   const GenerateConfig& config, const std::string& data = "") {
    return file.task->generate(data, lines, config, cpu_kernels(), DType::f32);
  }
  /// log p of every token of a text behind those before it, windows as generate() has them.
  static std::vector<double> scores_of(const ModelFile& file, const std::vector<int32_t>& tokens, size_t prompt) {
    LanguageModel& model = model_of(file);
    const auto most = static_cast<size_t>(model.max_positions());
    std::vector<double> scores;
    size_t window = 0;
    for (size_t next = prompt; next < tokens.size(); ++next) {
      if (next - window > most) window = next - most / 2;
      Arena arena;
      Tape tape(cpu_kernels(), arena, DType::f32, {});
      const std::vector<int32_t> source(tokens.begin() + static_cast<std::ptrdiff_t>(window),
                                        tokens.begin() + static_cast<std::ptrdiff_t>(next));
      std::vector<int32_t> target(source.size(), kPadId);
      target.back() = tokens[next];
      const Tensor losses = model.losses(tape, {1, std::ssize(source), source, target});
      scores.push_back(-losses.as<double>()[source.size() - 1]);
    }
    return scores;
  }
  /// Ids of a text behind the end of the line before.
  static std::vector<int32_t> ids_of(const std::string& text, bool finished) {
    const Dictionary dictionary = Dictionary::load(*dir_ / "data" / "dict.txt");
    std::vector<int32_t> ids{kEosId};
    std::istringstream words(text);
    for (std::string word; words >> word;) ids.push_back(dictionary.index(word));
    if (finished) ids.push_back(kEosId);
    return ids;
  }

  inline static std::unique_ptr<TempDir> dir_;
  inline static uint64_t bare_bytes_, bytes_, predicted_bytes_;
};

TEST_F(GenerateRun, FilesCarryTheirVocabulary) {
  EXPECT_EQ(bytes_, predicted_bytes_);
  EXPECT_GT(bytes_, bare_bytes_);
  const SafetensorsReader with(*dir_ / "packed.safetensors"), without(*dir_ / "bare.safetensors");
  EXPECT_EQ(with.metadata_at("version"), without.metadata_at("version"));  // older programs read both
  EXPECT_EQ(with.file_size(), packed_sizes(with).total_bytes());
  EXPECT_EQ(packed_sizes(without).vocabulary_bytes(), 0u);
  EXPECT_EQ(packed_sizes(with).vocabulary_bytes(), with.at("vocabulary.words").bytes.size());
  EXPECT_THAT(describe_vocabulary(with), HasSubstr("72 words"));
  EXPECT_EQ(describe_vocabulary(without), "");
  const GenerateConfig config;
  const Lines lines{"w1 w2", ""};
  const auto alone = write(packed(), lines, config);
  const std::string data = (*dir_ / "data").string();
  for (const auto& other :
       {write(packed(), lines, config, data), write(load_model_file(*dir_ / "bare.safetensors"), lines, config, data)})
    for (size_t i = 0; i < lines.size(); ++i) EXPECT_EQ(other[i][0].text, alone[i][0].text);
  EXPECT_THAT([&] { write(load_model_file(*dir_ / "bare.safetensors"), lines, config); },
              ThrowsMessage<UsageError>(HasSubstr("carries no vocabulary")));
  // A checkpoint knows the folder that it was trained on.
  EXPECT_EQ(write(load_model_file(checkpoint()), lines, config).size(), 2u);
}

/// A packed file with these tensors in place of its vocabulary.
void write_with(const std::filesystem::path& from, const std::filesystem::path& to,
                std::span<const StoredTensor> tensors) {
  const SafetensorsReader file(from);
  SafetensorsWriter copy;
  for (const StoredTensor& t : file.tensors())
    if (!is_vocabulary(t.name, file.metadata())) copy.add(t.name, t.type, t.shape, t.bytes);
  for (const StoredTensor& t : tensors) copy.add(t.name, t.type, t.shape, t.bytes);
  for (const auto& [key, value] : file.metadata())
    if (key != kChecksums) copy.set_metadata(key, value);
  copy.set_checksummed();
  copy.write(to);
}

TEST_F(GenerateRun, RefusesAVocabularyThatIsNotTheModels) {
  const auto path = *dir_ / "other.safetensors";
  const auto refused = [&](std::span<const StoredTensor> tensors, const std::string& message,
                           const std::string& data = "") {
    write_with(*dir_ / "packed.safetensors", path, tensors);
    EXPECT_THAT([&] { write(load_model_file(path), {"w1"}, {}, data); }, ThrowsMessage<Error>(HasSubstr(message)));
  };
  const VocabularyParts good = packed().task->vocabulary_parts("");
  EXPECT_THAT(good, testing::SizeIs(1));
  refused(PackedVocabulary(VocabularyParts{{"words", "some\nother\nwords\n"}}).tensors(), "not the one of its model");
  refused(PackedVocabulary(VocabularyParts{{"word", good.at("words")}}).tensors(), "has no part 'words'");
  const std::vector<std::byte> bytes(20, std::byte{'x'});
  const StoredTensor rubbish{"vocabulary.words", StoredType::u8, {20}, bytes};
  refused({&rubbish, 1}, "tensor vocabulary.words is no intact zlib stream");
  EXPECT_THAT([&] { describe_vocabulary(SafetensorsReader(path)); }, ThrowsMessage<Error>(HasSubstr("zlib")));
  EXPECT_NO_THROW(load_model_file(path));  // to evaluate it, words are not needed
  const StoredTensor floats{"vocabulary.words", StoredType::f32, {5}, bytes};
  refused({&floats, 1}, "must be a stream of bytes");
  // The same words from another tokenizer than that of the data.
  Vocabulary cut;
  cut.tokenizer = make_tokenizer({{"vocab.txt", "[UNK]\nw1\n"}});
  cut.dictionary = Dictionary::load(*dir_ / "data" / "dict.txt");
  const PackedVocabulary pieces(parts_of(cut));
  refused(pieces.tensors(), "cuts text into words in another way", (*dir_ / "data").string());
  EXPECT_EQ(write(load_model_file(path), {"w1"}, {}).size(), 1u);
}

TEST_F(GenerateRun, SaysHowProbableATextIs) {
  for (const ModelFile& file : {packed(), load_model_file(checkpoint())}) {
    GenerateConfig config;
    config.samples = 2;
    config.max_length = 70;  // beyond the 24 positions
    config.min_length = 65;
    const Lines lines{"", "w1 w2 w3", "w4 unheard w5", "w1 w2 w3"};
    const auto texts = write(file, lines, config);
    for (size_t i = 0; i < lines.size(); ++i)
      for (const Generated& text : texts[i]) {
        const std::vector<int32_t> ids = ids_of(text.text, text.finished);
        const size_t prompt = ids.size() - text.token_scores.size();
        EXPECT_EQ(prompt, ids_of(lines[i], false).size());
        const std::vector<double> due = scores_of(file, ids, prompt);
        double sum = 0.0;
        for (size_t t = 0; t < due.size(); ++t) {
          EXPECT_NEAR(text.token_scores[t], due[t], 1e-5);
          sum += due[t];
        }
        EXPECT_NEAR(text.score, sum, 1e-4);
      }
    EXPECT_NE(texts[0][0].text, texts[0][1].text);
    EXPECT_NE(texts[1][0].text, texts[3][0].text);
  }
}

TEST_F(GenerateRun, WritesTheSameInAnyCompany) {
  const ModelFile file = packed();
  GenerateConfig config;
  config.samples = 4;
  config.max_length = 30;
  const Lines lines{"w1", "", "w2 w3 w4 w5 w6 w7", "w8"};
  const auto together = write(file, lines, config);
  config.batch = 1;
  const auto alone = write(file, lines, config);
  config.batch = 3;
  config.samples = 2;
  config.lines_before = 2;
  const auto rest = write(file, {lines[2], lines[3]}, config);
  for (size_t i = 0; i < lines.size(); ++i)
    for (size_t s = 0; s < 4; ++s) EXPECT_EQ(together[i][s].text, alone[i][s].text);
  for (size_t i = 0; i < 2; ++i)
    for (size_t s = 0; s < 2; ++s) EXPECT_EQ(rest[i][s].text, together[i + 2][s].text);
  config.seed = 2;
  EXPECT_NE(write(file, {lines[2]}, config)[0][0].text, rest[0][0].text);
}

TEST_F(GenerateRun, DrawsAsOftenAsTheModelSays) {
  const ModelFile file = packed();
  GenerateConfig config;
  config.max_length = 1;
  config.min_length = 0;
  config.samples = 6000;
  config.batch = 3000;
  config.temperature = 0.7;
  std::map<std::string, int> counts;
  const auto texts = write(file, {"w7 w38"}, config);
  for (const Generated& text : texts[0]) ++counts[text.text];
  Arena arena;
  Tape tape(cpu_kernels(), arena, DType::f32, {});
  auto& model = dynamic_cast<TransformerLm&>(file.module());
  const std::vector<int32_t> prompt = ids_of("w7 w38", false);
  const Tensor log_p = model.head()
                           .log_probabilities(tape, model.features(tape, {1, std::ssize(prompt), prompt, {}}))
                           .row_slice(std::ssize(prompt) - 1, 1);
  const Dictionary dictionary = Dictionary::load(*dir_ / "data" / "dict.txt");
  double chi2 = 0.0, rare = 0.0;
  int bins = 0, rare_count = 0;
  for (const Choice& choice : choices(log_p, config, true)) {
    const std::string word(choice.token == kEosId ? "" : dictionary.symbol(choice.token));
    const int count = counts[word.empty() ? "w7 w38" : "w7 w38 " + word];
    const double due = choice.probability * static_cast<double>(config.samples);
    if (due < 10.0) {
      rare += due, rare_count += count;
      continue;
    }
    chi2 += (count - due) * (count - due) / due;
    ++bins;
  }
  if (rare > 0.0) chi2 += (rare_count - rare) * (rare_count - rare) / rare;
  ASSERT_GT(bins, 5);
  EXPECT_LT(chi2, bins + 4.0 * std::sqrt(2.0 * bins));
}

TEST_F(GenerateRun, GreedyAndSearchedTexts) {
  const ModelFile file = packed();
  const Lines lines{"w1 w2", "w9"};
  GenerateConfig greedy, first, beam;
  greedy.temperature = 0.0;
  first.top_k = 1;
  beam.given = {"beam"};
  beam.beam = 1;
  greedy.max_length = first.max_length = beam.max_length = 12;
  const auto a = write(file, lines, greedy), b = write(file, lines, first), c = write(file, lines, beam);
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(a[i][0].text, b[i][0].text);
    EXPECT_THAT(a[i][0].text, testing::StartsWith(lines[i]));
    if (c[i][0].finished) {
      EXPECT_EQ(a[i][0].text, c[i][0].text);
    }
  }
  beam.beam = 8;
  beam.length_penalty = 0.0;
  const auto d = write(file, lines, beam);
  ASSERT_EQ(d[0].size(), 8u);
  for (const Generated& text : d[0]) {
    const std::vector<int32_t> ids = ids_of(text.text, true);
    const std::vector<double> due = scores_of(file, ids, 3);
    EXPECT_NEAR(text.score, std::accumulate(due.begin(), due.end(), 0.0), 1e-4);
    EXPECT_EQ(text.text.find("<unk>"), std::string::npos);
  }
  EXPECT_GE(d[0][0].score, d[0][7].score);
}

TEST_F(GenerateRun, RefusesWhatIsOfNoUse) {
  const ModelFile file = packed();
  const auto refused = [&](std::set<std::string> given, const std::string& message) {
    GenerateConfig config;
    config.given = std::move(given);
    EXPECT_THAT([&] { write(file, {"w1"}, config); }, ThrowsMessage<UsageError>(HasSubstr(message)));
  };
  refused({"max_length_b"}, "--max-length-b is for translations");
  refused({"length_penalty"}, "--length-penalty is for a search");
  refused({"best"}, "--best is for a search");
  refused({"beam", "top_k"}, "--top-k is for drawing tokens: leave out --beam");
  EXPECT_THAT([&] { file.task->generate_split("", "test", {}, cpu_kernels(), DType::f32); },
              ThrowsMessage<UsageError>(HasSubstr("--split is for translations")));
  GenerateConfig config;
  config.given = {"beam"};
  std::string text;
  for (int i = 0; i < 30; ++i) text += "w1 ";
  EXPECT_THAT([&] { write(file, {"w1", text}, config); }, ThrowsMessage<UsageError>(HasSubstr("line 2 has 31 tokens")));
}

}  // namespace
}  // namespace qn::test
