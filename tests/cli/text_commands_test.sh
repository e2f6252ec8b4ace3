#!/usr/bin/env bash
# predict, embed and generate on several ranks, and outputs that are no inputs.
# usage: text_commands_test.sh SOURCE_FOLDER PROGRAM
set -euo pipefail
source=$1 program=$2
. "$source/bench/drills/corpus.sh"
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
drill_corpus "$program"
"$program" train -c model.yaml --set checkpoint.dir=lm --set train.max_updates=2 2>log

table() { # NAME LINES
  printf 'sentence\tlabel\n' >"$1"
  head -n "$2" train.txt | awk '{ print $0 "\t" (NR % 3 ? "yes" : "no") }' >>"$1"
}
table train.tsv 60
table valid.tsv 20
"$program" prepare --table --dict data/dict.txt --train train.tsv --valid valid.tsv --out table 2>log
cat >encoder.yaml <<'YAML'
model: {type: roberta, layers: 1, embed_dim: 16, ffn_dim: 32, heads: 2, max_positions: 40}
optimizer: {name: adam}
schedule: {name: fixed, lr: 0.002}
train: {max_updates: 2, validate_every_epochs: 0}
YAML
"$program" train -c encoder.yaml --set task.type=sentence_prediction --set data.path=table --set checkpoint.dir=classes \
  --set data.tokens_per_sample=40 2>log
"$program" train -c encoder.yaml --set task.type=masked_lm --set data.path=data --set checkpoint.dir=words \
  --set data.tokens_per_sample=40 2>log
"$program" train -c encoder.yaml --set task.type=sentence_embedding --set data.path=data --set checkpoint.dir=vectors \
  --set task.teacher=words/checkpoint_last.h5 --set data.tokens_per_sample=40 2>log
head -n 3 valid.txt >lines

fail() {
  echo "text_commands_test: $*" >&2
  exit 1
}
commands=("predict classes/checkpoint_last.h5 --text lines" "embed vectors/checkpoint_last.h5 --text lines"
  "generate lm/checkpoint_last.h5 --text lines --max-length 5 --profile profile.json")
for command in "${commands[@]}"; do
  "$program" $command >alone 2>log || fail "$command: $(cat log)"
  timeout 60 "$source/launch/run" -n 2 --threads 1 "$program" $command >together 2>log ||
    fail "$command on two ranks: status $?, $(cat log)"
  [[ -s alone ]] && cmp -s alone together || fail "$command prints something else on two ranks"
done

refused() { # MESSAGE ARGUMENTS...
  local message=$1 status=0
  shift
  "$program" "$@" >out 2>log || status=$?
  ((status == 2)) || fail "$*: status $status, $(cat log)"
  grep -q -e "$message" log || fail "$*: $(cat log)"
}
cp vectors/checkpoint_last.h5 model.h5
refused 'this is the file to read from' embed model.h5 --text lines --npy lines
refused 'this is the file to read from' embed model.h5 --text lines --npy model.h5
refused 'for the translations of a split' generate lm/checkpoint_last.h5 --text lines --out out.txt
refused 'leave no length' generate lm/checkpoint_last.h5 --text lines --min-length 10 --max-length 5
printf 'w1 \xff\n' >latin1
"$program" generate lm/checkpoint_last.h5 --text latin1 >out 2>log && fail "bad UTF-8 is taken"
grep -q "line 1: byte 0xff at position 4 is not valid UTF-8.*'iconv -f latin1 -t utf-8'" log || fail "$(cat log)"
QN_FAULTS='no.such.point:2=kill' "$program" inspect lm/checkpoint_last.h5 >out 2>log
grep -q '^QN_FAULTS: no.such.point did not happen .* 0 times$' log || fail "a fault that never happens: $(cat log)"
QN_FAULTS='file.write/status.json:1+=ENOSPC' "$program" train -c model.yaml --set checkpoint.dir=silent \
  --set train.max_updates=2 2>log
(($(grep -c 'status.json.*No space left.*quantnoise status' log) == 1)) || fail "status.json cannot be written: $(cat log)"
"$program" status lm >out
grep -q 'checkpoint  update 2, .*(checkpoint_last.h5)$' out || fail "status: $(cat out)"
# Behind a run that is over the newest file counts, in text and in JSON, and not what the run has told.
cp lm/checkpoint_last.h5 lm/checkpoint9.h5
touch -d '+1 minute' lm/checkpoint9.h5
"$program" status lm >out
grep -q '(checkpoint9.h5)$' out || fail "status with a newer checkpoint: $(cat out)"
"$program" status --json lm | grep -q '"checkpoint":{"file":"checkpoint9.h5"' || fail "status --json with a newer checkpoint"
touch imported.h5
refused 'holds an imported model' prepare --train train.txt --out .
