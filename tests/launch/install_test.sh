#!/usr/bin/env bash
# The installed library: examples/wrap_your_model, built with nothing but the package, trains, quantizes, packs and runs
# what it has packed. With MNIST's files in QN_DATA_DIR/mnist or ../shared/data/mnist it learns from these as well.
# Arguments: folder of the sources, build folder, its build type, the compiler.
set -euo pipefail
source_dir=$1 build_dir=$2 build_type=$3 compiler=$4
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() {
  echo "install_test: $*" >&2
  exit 1
}
quietly() { # COMMAND...: its output only when it fails
  "$@" >"$folder/log" 2>&1 || fail "'$*' failed: $(cat "$folder/log")"
}

# ---- the package -----------------------------------------------------------------------------------------------------

prefix=$folder/prefix
quietly cmake --install "$build_dir" --prefix "$prefix" --component library
headers=$prefix/include/quantnoise
[[ -e $headers/quantnoise.h && -e $headers/detail/nn/module.h ]] || fail "headers are missing"
[[ ! -e $headers/detail/ops/cpu ]] || fail "headers of the kernels are installed"
! grep -rnE '#include "' "$headers" || fail "an installed header is looked for among the program's own"
! grep -rnE --include='*.cmake' "Werror|march|$source_dir|$build_dir" "$prefix" || fail "that is no business of other programs"
cp -r "$source_dir/examples/wrap_your_model" "$folder/example"
# A program's own header of a name that the library has, too, is none of the library's business.
mkdir "$folder/example/core" && echo "#error not this one" >"$folder/example/core/error.h"
quietly cmake -S "$folder/example" -B "$folder/build" "-DCMAKE_BUILD_TYPE=$build_type" "-DCMAKE_CXX_COMPILER=$compiler" \
  "-DCMAKE_PREFIX_PATH=$prefix" "-DCMAKE_CXX_FLAGS=-I$folder/example -Wall -Wextra -Wshadow -Werror"
quietly cmake --build "$folder/build" --parallel 2

# ---- the example -----------------------------------------------------------------------------------------------------

number() { sed -n "s/^$1: \([0-9.]*\).*/\1/p" "$folder/out"; }
above() { # NUMBER LIMIT
  awk -v x="$1" -v limit="$2" 'BEGIN {exit !(x > limit)}' || fail "$1 is not above $2 in: $(cat "$folder/out")"
}
check() { # LIMIT ARGUMENTS...: a run, and the least that the accuracies have to be
  (cd "$folder" && build/wrap_your_model "${@:2}") >"$folder/out" 2>&1 || fail "$(cat "$folder/out")"
  above "$(number "accuracy dense")" "$1"
  above "$(number "accuracy packed")" "$1"
  [[ $(number "accuracy packed") == "$(number "accuracy after stage 2")" ]] || fail "packing: $(cat "$folder/out")"
  local dense predicted packed
  read -r dense predicted packed < <(sed -n 's/^bytes: \([0-9]*\) dense, \([0-9]*\) predicted, \([0-9]*\) packed$/\1 \2 \3/p' "$folder/out")
  [[ $predicted == "$packed" && $packed == "$(stat -c %s "$folder/wrapped.safetensors")" ]] || fail "$(cat "$folder/out")"
  above "$dense" "$((packed * 10))"
  echo "install_test: accuracy $(number "accuracy dense") dense, $(number "accuracy packed") packed in $packed of $dense bytes"
}
check 0.9
for data in "${QN_DATA_DIR:-}" "$source_dir/../shared/data"; do
  [[ -n $data && -e $data/mnist/train-images-idx3-ubyte.gz ]] || continue
  mkdir "$folder/mnist"
  for file in {train,t10k}-{images-idx3,labels-idx1}-ubyte; do gunzip -c "$data/mnist/$file.gz" >"$folder/mnist/$file"; done
  check 0.95 "$folder/mnist"
  break
done
echo "install_test: passed"
