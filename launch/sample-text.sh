# shellcheck shell=bash
# Sourced by scripts that learn from a small text: makes one, by default of the C++ standard library's headers, into what
# `quantnoise prepare` reads. They define die().

readonly kMostWords=330000 kLeastWords=40000 kLeastLines=200 kMostScoredWords=20000
readonly kSampleVocabulary=6000

# Code of the standard library without its comment lines: every identifier, its parts, and every sign.
standard_headers() {
  local folder
  folder=$(g++ -E -v -x c++ /dev/null 2>&1 | sed -n '/#include <...>/,/End of search/s/^ //p' | head -n 1)
  [[ -e $folder/vector ]] || die "g++ names no folder with the standard headers; give a text with --text FILE"
  find "$folder" "$folder/bits" -maxdepth 1 -type f | LC_ALL=C sort | xargs cat | grep -vE '^ *(//|/\*|\*)'
}

# Words apart from punctuation, parts of identifiers apart from each other; blank lines left out. LC_ALL=C: bytes of
# other scripts stay as they are.
tokenize() {
  LC_ALL=C sed -e 's|[!-/:-@[-^`{-~]| & |g' -e 's/__*/ &/g' -e '/^[[:space:]]*$/d'
}

identify_text() { # FILE, or nothing for the headers: which text it is, its content included
  if [[ -n $1 ]]; then echo "$1 $(cksum <"$1")"; else echo "C++ standard library headers"; fi
}

# FILE (or nothing for the headers) FOLDER: writes all.txt, train.txt, valid.txt and test.txt there. Blocks of lines by
# turns: 90 % train, 5 % valid, 5 % test, with about kMostScoredWords words at most in the latter.
split_text() {
  local file=$1 folder=$2 words lines block
  if [[ -n $file ]]; then tokenize <"$file"; else standard_headers | tokenize; fi |
    LC_ALL=C awk -v most="$kMostWords" 'words < most {words += NF; print}' >"$folder/all.txt"
  read -r lines words < <(LC_ALL=C wc -lw <"$folder/all.txt")
  ((words >= kLeastWords && lines >= kLeastLines)) ||
    die "${file:-the text} has $words words in $lines lines that are not blank; it takes $kLeastWords in $kLeastLines"
  block=$((lines / 200 < 50 ? (lines / 200 > 0 ? lines / 200 : 1) : 50))
  LC_ALL=C awk -v block="$block" -v folder="$folder" -v most="$kMostScoredWords" '
    {
      turn = int((NR - 1) / block) % 20
      split_name = turn == 18 ? "valid" : turn == 19 ? "test" : "train"
      if (split_name != "train" && words[split_name] > most) next
      words[split_name] += NF
      print > (folder "/" split_name ".txt")
    }' "$folder/all.txt"
}

fitting_cutoffs() { # DATA: bands of the adaptive softmax for its dictionary
  local vocabulary=$(($(wc -l <"$1/dict.txt") + 4)) # <s>, <pad>, </s> and <unk> are not in the file
  echo "[$((vocabulary / 6)), $((vocabulary / 2))]"
}
