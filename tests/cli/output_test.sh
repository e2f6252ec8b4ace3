#!/usr/bin/env bash
# Output that cannot be written never ends with status 0, whatever the command; a closed pipe ends it without a word.
# usage: output_test.sh SOURCE_FOLDER PROGRAM
set -euo pipefail
program=$2
. "$1/bench/drills/corpus.sh"
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
[[ -w /dev/full ]] || { echo "QN_ALL_TESTS_SKIPPED: no /dev/full here" && exit 0; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
drill_corpus "$program"
"$program" train -c model.yaml --set checkpoint.dir=run --set train.max_updates=2 2>log
"$program" quantize -c model.yaml --from run/checkpoint_last.h5 --set checkpoint.dir=ipq --set ipq.updates_per_stage=1 2>log

fail() {
  echo "output_test: $*" >&2
  exit 1
}
commands=(
  "--help" "--version" "train --help" "train --help-config" "quantize -c model.yaml --dry-run"
  "quantize -c model.yaml --dry-run --json" "inspect run/checkpoint_last.h5" "inspect run/checkpoint_last.h5 --json"
  "inspect ipq/model.safetensors" "explain run" "explain model.yaml --json"
  "eval run/checkpoint_last.h5 --data data --split valid" "eval ipq/model.safetensors --data data --split valid --json"
  "export ipq/model.safetensors -o plain.safetensors")
for command in "${commands[@]}"; do
  "$program" $command >out 2>err || fail "$command: status $?"
  [[ -s out ]] || fail "$command prints nothing"
  status=0
  "$program" $command >/dev/full 2>err || status=$?
  ((status == 1)) || fail "$command on a full disk: status $status"
  grep -q 'could not be written: No space left on device' err || fail "$command: $(cat err)"
  status=0
  "$program" $command >&- 2>err || status=$?
  ((status == 1)) || fail "$command without an output: status $status"
done
{ sleep 0.3 && "$program" train --help-config 2>err; } | true && status=0 || status=$?
((status == 141)) || fail "a closed pipe: status $status"
[[ ! -s err ]] || fail "a closed pipe: $(cat err)"
