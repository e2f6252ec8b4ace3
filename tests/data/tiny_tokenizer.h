// A vocabulary like GPT-2's, with six merges: for tests that must run without the real one.
#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

namespace qn::test {

/// encoder.json and vocab.bpe: 256 bytes, l+o, lo+w, e+r, blank+low, blank low+er, w+e, <|endoftext|>.
inline void write_tiny_pairs(const std::filesystem::path& folder) {
  nlohmann::json vocabulary;
  const auto add = [&](const std::string& token) { vocabulary[token] = vocabulary.size(); };
  const auto character = [](int c) {
    return c < 0x80 ? std::string(1, static_cast<char>(c))
                    : std::string{static_cast<char>(0xc0 | c >> 6), static_cast<char>(0x80 | (c & 0x3f))};
  };
  for (int c = '!'; c <= '~'; ++c) add(character(c));
  for (int c = 0xa1; c <= 0xff; ++c)
    if (c != 0xad) add(character(c));
  for (int c = 256; c < 256 + 68; ++c) add(character(c));
  const std::string blank = character(0x120);
  for (const std::string& token : {std::string("lo"), std::string("low"), std::string("er"), blank + "low",
                                   blank + "lower", std::string("we"), std::string("<|endoftext|>")})
    add(token);
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "encoder.json") << vocabulary.dump();
  std::ofstream(folder / "vocab.bpe") << "#version: 0.2\nl o\nlo w\ne r\n" + blank + " low\n" + blank + "low er\nw e\n";
}

}  // namespace qn::test
