#!/usr/bin/env bash
# launch/demo with a stand-in for the program: what it asks of it, the table it makes of its answers, what it says of
# noise that wins, loses or does nothing.
set -euo pipefail
demo=$1/launch/demo story=$1/launch/demo-story.awk
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/build/bin"
cp "$1/tests/launch/stand_in_program.sh" "$folder/build/bin/quantnoise"
cat >"$folder/perplexities" <<'TEXT'
plain/checkpoint_last.h5 10.5 5000
plain_at_once/model.safetensors 40.25 210
plain_ipq/model.safetensors 15.5 200
noise/checkpoint_last.h5 11.5 5000
noise_at_once/model.safetensors 30.5 210
noise_ipq/model.safetensors 15.25 201
TEXT
LC_ALL=C awk 'BEGIN {for (line = 1; line <= 400; line++) {for (i = 1; i <= 110; i++) printf "w%d ", (line * i) % 97; print ""}}' \
  >"$folder/text"
export QN_BUILD_DIR=$folder/build STAND_IN=$folder
unset QN_BUNDLE OMP_NUM_THREADS

fail() {
  echo "demo_test: $*" >&2
  exit 1
}
run() { # ARGUMENTS...
  status=0
  got=$("$demo" --ranks 1 --text "$folder/text" --out "$folder/out" "$@" 2>&1) || status=$?
}
expect() { # STATUS TEXT
  ((status == $1)) && [[ $got == *"$2"* ]] || fail "expected status $1 and '$2', got $status: $got"
}

run --seed x
expect 2 "--seed is a whole number"
run --sead 3
expect 2 "unknown argument '--sead'"
run --build-only
[[ $status == 0 && ! -e $folder/out ]] || fail "--build-only does more: $got"

echo /plain >"$folder/stop"
run --seed 7
expect 3 "stopped and saved; run the same command to go on"
rm "$folder/stop"
run --seed 7
expect 0 "without noise         10.50        40.25        15.50         4000          200   20.00x"
expect 0 "with noise            11.50        30.50        15.25         4000          201   19.90x"
expect 0 "quantized at once, perplexity is 24 % lower with noise (30.50 against 40.25)"
[[ $(tr -d '\n' <"$folder/out/table.json") == '{"plain": {"dense": 10.5, "quantized": 40.25, "packed": 15.5, "bytes": 200}, "noise": {"dense": 11.5, "quantized": 30.5, "packed": 15.25, "bytes": 201}}' ]] ||
  fail "table.json: $(<"$folder/out/table.json")"
# The same updates for both: no option of one is missing from the other, but where they are saved.
[[ $(grep -c '^train .*seed=7' "$folder/calls") == 3 ]] || fail "trainings: $(<"$folder/calls")"
[[ $(grep '^quantize .*at_once' "$folder/calls" | grep -c 'ipq.updates_per_stage=0') == 2 ]] || fail "at once: $(<"$folder/calls")"
[[ $(grep -c 'cutoffs=\[100, 300\]' "$folder/calls") == 7 ]] || fail "cutoffs do not fit: $(<"$folder/calls")"
run --seed 8
expect 1 "holds the demo of another text or seed"

# ---- the story -------------------------------------------------------------------------------------------------------

tells() { # NUMBERS TEXT
  got=$(awk -f "$story" <<<"$1")
  [[ $got == *"$2"* ]] || fail "expected '$2' of $1, got: $got"
}
tells "10 40 15 4000 200 11 50 16 4000 200" "packed, it is 6.7 % higher with noise"
tells "10 40 15 4000 200 11 50 16 4000 200" "So noise lost, at once and after finetuning"
tells "10 40 15 4000 200 11 30 16 4000 200" "So noise won at once, and lost after finetuning"
tells "10 40 15 4000 200 10 30 14 4000 200" "So noise won, at once and after finetuning"
tells "10 40 15 4000 200 10 40 15 4000 200" "So noise bought nothing, at once and after finetuning"
tells "10 40 15 4000 200 10 40 15.1 4000 200" "packed, it is the same but for 0.7 % (15.10 with noise, 15.00 without)"
