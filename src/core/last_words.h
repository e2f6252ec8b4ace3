// What is to be left behind when one of the process's own threads ends it, without destructors.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <utility>

namespace qn {

using LastWords = std::function<void(const std::string& why)>;

struct LastWordsPlace {
  std::mutex mutex;
  LastWords words;
};
inline LastWordsPlace last_words_place;

/// Called with the reason before the process ends; an empty function: nothing. One at a time.
inline void set_last_words(LastWords words) {
  const std::lock_guard lock(last_words_place.mutex);
  last_words_place.words = std::move(words);
}

/// For whoever ends the process. May wait for a disk: set a limit.
inline void say_last_words(const std::string& why) {
  const std::lock_guard lock(last_words_place.mutex);
  if (last_words_place.words) last_words_place.words(why);
}

}  // namespace qn
