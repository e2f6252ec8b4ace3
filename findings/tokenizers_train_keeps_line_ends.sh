#!/usr/bin/env bash
# tokenizers' train(files) counts words with the line ends that files have, and train_from_iterator() without them if lines
# are handed over without, as readers and data sets do: the same text, two vocabularies. With a pre-tokenizer that does not
# cut at line ends (Metaspace, as of SentencePiece's models), the last word of a line and its line end make tokens of their
# own, which encoding line by line never uses, and lines take more tokens. ByteLevel (GPT-2, RoBERTa) loses one token
# where lines end in a space. Nothing warns.
#
# Seen with tokenizers 0.23.3, Python 3.11; BPE, 4,000 lines of 3 of 300 words, 1,000 tokens:
#   Metaspace                       the file: 34 tokens with a line end, 3.542 tokens per line; its lines: 0 and 3.148
#   ByteLevel                       the file: none but the byte's own
#   ByteLevel, a space before ends  the file: 1 and 5.609; its lines: 0 and 5.601
# Fails when this changes. Needs python3 (3.11 or newer) with pip and access to PyPI.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/show.py" <<'PYTHON'
import random
import sys
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

random.seed(1)
letters = "abcdefghijklmnopqrstuvwxyz"
words = sorted({"".join(random.choice(letters) for _ in range(random.randint(3, 7))) for _ in range(300)})
lines = [" ".join(random.choice(words) for _ in range(3)) for _ in range(4000)]

def train(pre, alphabet, path=None, end=""):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre
    trainer = trainers.BpeTrainer(vocab_size=1000, show_progress=False, initial_alphabet=alphabet)
    if path:
        with open(path, "w", encoding="utf-8") as out:
            out.write("".join(line + end + "\n" for line in lines))
        tokenizer.train([path], trainer)
    else:
        tokenizer.train_from_iterator([line + end for line in lines], trainer)
    return tokenizer

def show(name, tokenizer, marks):
    ends = [token for token in tokenizer.get_vocab() if len(token) > 1 and any(mark in token for mark in marks)]
    length = sum(len(tokenizer.encode(line).ids) for line in lines) / len(lines)
    print(f"{name}: {len(ends)} tokens with a line end, {length:.3f} tokens per line")

path = sys.argv[1] + "/text"
show("Metaspace file", train(pre_tokenizers.Metaspace(), [], path), "\n")
show("Metaspace lines", train(pre_tokenizers.Metaspace(), []), "\n")
alphabet = pre_tokenizers.ByteLevel.alphabet()
byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
show("ByteLevel file", train(byte_level, alphabet, path), "\u010a")
show("ByteLevel file, spaces at the ends", train(byte_level, alphabet, path, " "), "\u010a")
show("ByteLevel lines, spaces at the ends", train(byte_level, alphabet, None, " "), "\u010a")
PYTHON

python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install --disable-pip-version-check tokenizers==0.23.3
"$folder/env/bin/python" "$folder/show.py" "$folder" | tee "$folder/seen"
diff - "$folder/seen" <<'SEEN'
Metaspace file: 34 tokens with a line end, 3.542 tokens per line
Metaspace lines: 0 tokens with a line end, 3.148 tokens per line
ByteLevel file: 0 tokens with a line end, 5.601 tokens per line
ByteLevel file, spaces at the ends: 1 tokens with a line end, 5.609 tokens per line
ByteLevel lines, spaces at the ends: 0 tokens with a line end, 5.601 tokens per line
SEEN
echo "as seen: train(files) counts line ends, train_from_iterator() does not"
