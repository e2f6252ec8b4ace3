// Prepared text and what it is prepared with (dictionaries, token streams, tokenizers), and plain files of tensors.
#include "core/error.h"
#include "core/safetensors.h"
#include "core/tensor_files.h"
#include "data/dictionary.h"
#include "data/split_checksum.h"
#include "data/token_stream.h"
#include "data/tokenizer.h"
#include "data/vocabulary.h"
#include "targets.h"

namespace qn::fuzz {
namespace {

void read_dictionary(Bytes input) {
  const Dictionary dictionary = Dictionary::load(file_with(text_of(input), "dict.txt"));
  const std::string saved = file_with("", "saved.txt");
  dictionary.save(saved);
  QN_ASSERT(Dictionary::load(saved).hash() == dictionary.hash(), "a saved dictionary has other words");
}

std::vector<std::string> dictionaries() {
  return {"the 100\nof 50\n, 49\nmadeupword0000 0\n", "<unk> 7 #fairseq:overwrite\na b 3\n\xc3\xa9t\xc3\xa9 2\n",
          std::string("x 1\r\ny 9223372036854775807\n")};
}

/// dict.txt, valid.idx, valid.sum, valid.bin
void read_tokens(Bytes input) {
  const std::vector<std::string> parts = parts_of(input, 4);
  const Dictionary dictionary = Dictionary::load(file_with(parts[0], "tokens/dict.txt"));
  const std::string index = file_with(parts[1], "tokens/valid.idx");
  const std::string sum = file_with(parts[2], "tokens/valid.sum");
  file_with(parts[3], "tokens/valid.bin");
  if (parts[2].empty()) std::filesystem::remove(sum);
  const std::string prefix = index.substr(0, index.rfind('.'));
  const TokenStream stream(prefix);
  stream.verify(dictionary);
  stream.check_vocabulary(dictionary.size());
  stream.counts(dictionary.size());
  for (int64_t s = 0; s < stream.sentences(); ++s) stream.sentence(s);
}

std::vector<std::string> token_streams() {
  const std::string dictionary = file_with("a 3\nb 2\nc 1\n", "seed/dict.txt");
  const std::string prefix = file_with("", "seed/valid");
  std::vector<std::string> seeds;
  for (const int64_t vocabulary : {int64_t{10}, int64_t{1} << 17, int64_t{1} << 33}) {
    write_token_stream(prefix, vocabulary, [](TokenStreamWriter& out) {
      for (const int32_t id : {4, 5, 2, 6, 2, 2}) {
        out.add_token(id);
        if (id == 2) out.end_sentence();
      }
    });
    write_split_checksum(prefix, Dictionary::load(dictionary).hash());
    for (const std::string& sum : {content_of(prefix + ".sum"), std::string()})
      seeds.push_back(joined({content_of(dictionary), content_of(prefix + ".idx"), sum, content_of(prefix + ".bin")}));
  }
  return seeds;
}

/// Which files, then these.
void read_tokenizer(Bytes input) {
  const std::vector<std::string> parts = parts_of(input, 3);
  std::vector<TokenizerFile> files;
  switch (parts[0].empty() ? 0 : parts[0][0] % 4) {
    case 0:
      files = {{"tokenizer.json", parts[2]}};
      break;
    case 1:
      files = {{"vocab.json", parts[1]}, {"merges.txt", parts[2]}};
      break;
    case 2:
      files = {{"encoder.json", parts[1]}, {"vocab.bpe", parts[2]}};
      break;
    default:
      files = {{"vocab.txt", parts[1]}};
      if (!parts[2].empty()) files.push_back({"tokenizer_config.json", parts[2]});
  }
  std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(std::move(files));
  std::vector<std::string_view> words;
  tokenizer->splitter()->split("low lower, wider\xc2\xa0\xe4\xb8\xad\xe6\x96\x87 n\xc3\xa9\xcc\x81 123 [MASK]  !",
                               words);
  tokenizer->join(words);
  for (const std::string_view word : tokenizer->words()) tokenizer->begins_word(word);
  const VocabularyParts stored = qn::parts_of({std::move(tokenizer), Dictionary(), {}});
  vocabulary_of(stored, "stored");
}

/// All characters that stand for bytes in GPT-2's vocabulary, then merges.
std::string byte_pair_vocabulary() {
  std::string json = "{";
  int id = 0;
  const auto add = [&](int c) {
    std::string text = c < 0x80 ? std::string(1, static_cast<char>(c))
                                : std::string{static_cast<char>(0xc0 | c >> 6), static_cast<char>(0x80 | (c & 0x3f))};
    if (c == '"' || c == '\\') text = '\\' + text;
    json += '"' + text + "\":" + std::to_string(id++) + ',';
  };
  for (int c = '!'; c <= '~'; ++c) add(c);
  for (int c = 0xa1; c <= 0xff; ++c)
    if (c != 0xad) add(c);
  for (int c = 256; c < 256 + 68; ++c) add(c);
  return json + "\"lo\":256,\"low\":257,\"er\":258}";
}

std::vector<std::string> tokenizers() {
  const std::string vocabulary = byte_pair_vocabulary(), merges = "l o\nlo w\ne r\n";
  const std::string words = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nlow\n##er\n##e\n##r\nl\n##o\n##w\n,\n!\n1\n##2\n##3\n";
  const std::string json =
      R"({"version":"1.0","added_tokens":[{"id":259,"content":"<|endoftext|>","single_word":false,"lstrip":false,)"
      R"("rstrip":false,"normalized":true,"special":true}],"normalizer":null,"pre_tokenizer":{"type":"ByteLevel",)"
      R"("add_prefix_space":false,"trim_offsets":true},"post_processor":null,"decoder":{"type":"ByteLevel"},)"
      R"("model":{"type":"BPE","dropout":null,"unk_token":null,"fuse_unk":false,"vocab":)" +
      vocabulary.substr(0, vocabulary.size() - 1) + R"(,"<|endoftext|>":259},"merges":["l o","lo w","e r"]}})";
  const std::string pieces =
      R"({"version":"1.0","added_tokens":[],"normalizer":{"type":"BertNormalizer","clean_text":true,)"
      R"("handle_chinese_chars":true,"strip_accents":null,"lowercase":true},"pre_tokenizer":{"type":)"
      R"("BertPreTokenizer"},"post_processor":null,"decoder":{"type":"WordPiece","prefix":"##","cleanup":true},)"
      R"("model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##",)"
      R"("max_input_chars_per_word":100,"vocab":{"[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3,"[MASK]":4,"low":5,"##er":6}}})";
  const auto with = [](char kind, const std::string& a, const std::string& b) {
    return joined({std::string(1, kind), a, b});
  };
  return {with(0, "", json),           with(0, "", pieces),
          with(1, vocabulary, merges), with(2, vocabulary, "#version: 0.2\n" + merges),
          with(3, words, ""),          with(3, words, R"({"do_lower_case": true, "strip_accents": null})")};
}

void read_safetensors(Bytes input) {
  const std::string path = file_with(text_of(input), "weights.safetensors");
  const SafetensorsReader file(path);
  file.verify();
  const TensorFiles files(path);
}

std::vector<std::string> safetensors() {
  std::vector<std::string> seeds;
  for (const bool checksummed : {false, true}) {
    SafetensorsWriter writer;
    writer.add("layer.weight", StoredType::f32, {2, 4}, std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8});
    writer.add("layer.bias", StoredType::f16, {2}, std::vector<uint16_t>{0x3c00, 0});
    writer.add("ids", StoredType::i64, {1}, std::vector<int64_t>{-1});
    writer.set_metadata("format", "pt");
    if (checksummed) writer.set_checksummed();
    const std::string path = file_with("", "seed.safetensors");
    writer.write(path);
    seeds.push_back(content_of(path));
  }
  return seeds;
}

}  // namespace

std::vector<Target> data_targets() {
  return {{"dictionary", read_dictionary, dictionaries},
          {"tokens", read_tokens, token_streams},
          {"tokenizer", read_tokenizer, tokenizers},
          {"safetensors", read_safetensors, safetensors}};
}

}  // namespace qn::fuzz
