#!/usr/bin/env bash
# launch/paper-table with a stand-in for the program: rows and who shares what, resumption, rows that fail, seeds, the
# numbers in its tables.
set -euo pipefail
table=$1/launch/paper-table
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/build/bin" "$folder/data"
cp "$1/tests/launch/stand_in_program.sh" "$folder/build/bin/quantnoise"
seq 596 >"$folder/data/dict.txt"
cat >"$folder/perplexities" <<'TEXT'
models/plain.1/checkpoint_last.h5 10 9999
models/plain.2/checkpoint_last.h5 11 9999
models/exact.1/checkpoint_last.h5 10.75 9999
quantized/pq_once_plain.1/model.safetensors 40 200
quantized/pq_25_plain.1/model.safetensors 15.5 200
quantized/pq_once_exact.1/model.safetensors 30 200
quantized/pq_25_exact.1/model.safetensors 15.25 200
models/dense_int4_channel_full.1/checkpoint_last.h5 10.5 9999
quantized/int4_channel_once_int4_channel_full.1/model.safetensors 12 500
quantized/int4_channel_25_int4_channel_full.1/model.safetensors 11.25 500
TEXT
: >"$folder/calls"
export QN_BUILD_DIR=$folder/build STAND_IN=$folder
unset QN_BUNDLE OMP_NUM_THREADS

fail() {
  echo "paper_table_test: $*" >&2
  exit 1
}
run() { # ARGUMENTS...: output in `got`, the program's calls in `calls`
  : >"$folder/calls"
  status=0
  got=$("$table" --scale tiny --data "$folder/data" --ranks 1 --out "$folder/out" "$@" 2>&1) || status=$?
  calls=$(<"$folder/calls")
}
expect() { # STATUS TEXT
  ((status == $1)) && [[ $got == *"$2"* ]] || fail "expected status $1 and '$2', got $status: $got"
}
calls_are() { # NUMBER PATTERN
  local found
  found=$(grep -c -- "$2" <<<"$calls") || true
  [[ $found == "$1" ]] || fail "expected $1 calls like '$2', got $found: $calls"
}
has() { # FILE TEXT
  [[ $(<"$folder/out/$1") == *"$2"* ]] || fail "expected '$2' in $1: $(<"$folder/out/$1")"
}

run --rows nonsense
expect 2 "no row is named 'nonsense'"
run --scale small --seeds 0
expect 2 "--seeds is a number from 1 to 99"
run --list --rows 'ipq_*'
expect 0 "ipq_noise                  iPQ: Quant-Noise"
[[ $got != *fp32* ]] || fail "--rows does not select: $got"
for scale in ptb small full; do
  [[ $("$table" --scale "$scale" --list | wc -l) -gt 30 ]] || fail "--list of scale $scale"
done
run --scale ptb --dry-run --rows ipq_noise
expect 0 "train -c configs/ptb_size.yaml"
expect 0 "embed_proj"

run --dry-run --rows fp32,ipq_plain
expect 0 "train -c configs/demo.yaml"
expect 0 "675 updates of about 0.5 s each: 0.1 hours"
[[ ! -e $folder/out ]] || fail "--dry-run leaves files"

# ---- stopped, then on to the end -------------------------------------------------------------------------------------

# A signal to the script alone ends what it runs, too.
echo plain.1 >"$folder/wait"
"$table" --scale tiny --data "$folder/data" --ranks 1 --out "$folder/out" --rows fp32 >"$folder/got" 2>&1 &
script=$!
for ((i = 0; i < 300; i++)); do [[ ! -e $folder/waits ]] || break && sleep 0.1; done
kill -TERM "$script"
status=0
wait "$script" || status=$?
got=$(<"$folder/got")
expect 3 "stopped; run the same command to go on"
[[ -e $folder/ended ]] || fail "what it ran was not asked to end"
rm "$folder/wait"

echo pq_25_plain.1 >"$folder/stop"
run --rows fp32,ipq_plain,ipq_noise,int4_channel_full
expect 3 "stopped; run the same command to go on"
rm "$folder/stop"
run --rows fp32,ipq_plain,ipq_noise,int4_channel_full
expect 0 "4 of 4 rows"
calls_are 0 "^train .*/models/plain.1 "
calls_are 0 "^quantize .*pq_once_plain.1 "
calls_are 1 "^quantize .*pq_25_plain.1 "
calls_are 1 "^train .*/models/exact.1 "
has table.md "| plain | 4,000 | 1.0 | 10.00 | - | - | 942 | 1.0 | 18.3 (b) |"
has table.md "| plain | 200 | 20.0 | 10.00 | 40.00 | 15.50 | 38 | 24.8 | 25.2 (a) |"
has table.md "| Quant-Noise | 200 | 20.0 | 10.75 | 30.00 | 15.25 | 38 | 24.8 | 20.7 (a) |"
has table.md "| trained fully quantized | 500 | 8.0 | 10.50 | 12.00 | 11.25 | 118 | 8.0 | - |"
has table.html "<circle class=\"s1\""
run --rows fp32,ipq_plain,ipq_noise,int4_channel_full
expect 0 "4 of 4 rows"
[[ -z $calls ]] || fail "finished rows are made again: $calls"

# ---- a row that fails ------------------------------------------------------------------------------------------------

echo /models/zero.1 >"$folder/fail"
run --rows form_zero,form_exact
expect 1 "form_zero, seed 1: FAILED, zero.1: status 1: E made up fault"
expect 1 "1 of 2 rows"
has table.md "Failed: form_zero (zero.1: status 1"
has table.md "exact: nearest centroid, blocks | 200"
rm "$folder/fail"
run --rows form_zero,form_exact
expect 0 "2 of 2 rows"
[[ $(<"$folder/out/table.md") != *Failed* ]] || fail "a failure stays"

# ---- seeds -----------------------------------------------------------------------------------------------------------

run --rows fp32 --seeds 2
expect 0 "2 of 2 rows"
calls_are 1 "^train .*seed=2"
has table.md "| 10.50 ± 0.71 |"
run --scale full
expect 2 "holds the table of another run"
