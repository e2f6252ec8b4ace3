#!/usr/bin/env bash
# launch/build with stand-ins for cmake and nvidia-smi: when it builds the CUDA backend, what it prints of a build, how
# failures end.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/tree/launch" "$folder/bin"
cp "$1/launch/build" "$1/launch/environment.sh" "$folder/tree/launch"
cp "$1/CMakePresets.json" "$folder/tree"
cat >"$folder/bin/cmake" <<'TEXT'
#!/bin/sh
echo "cmake $*" >>"$STAND_IN/calls"
if [ "$1" = --build ]; then
  cat "$STAND_IN/ninja"
  exit "$(cat "$STAND_IN/status")"
fi
[ ! -e "$STAND_IN/no-configure" ] || { echo "CMake Error: no compiler"; exit 1; }
touch "build/$2/CMakeCache.txt"
TEXT
printf '#!/bin/sh\n[ ! -e "$STAND_IN/gpu" ] || echo "GPU 0: made up"\n' >"$folder/bin/nvidia-smi"
chmod +x "$folder/bin/"*
export PATH=$folder/bin:$PATH STAND_IN=$folder
unset QN_CUDA QN_BUNDLE
printf '[1/2] Building x.cpp.o\n[2/2] Linking y\n' >"$folder/ninja"
echo 0 >"$folder/status"

fail() {
  echo "build_test: $*" >&2
  exit 1
}
build() { # ARGUMENTS...: exit status in `status`, output in `got`, the calls of cmake in `calls`
  : >"$folder/calls"
  status=0
  got=$("$folder/tree/launch/build" "$@" 2>&1) || status=$?
  calls=$(<"$folder/calls")
}
expect() { # STATUS TEXT of output
  ((status == $1)) && [[ $got == *"$2"* ]] || fail "expected status $1 and '$2', got $status: $got"
}
configured() { # ARGUMENTS of the first call
  [[ $calls == "cmake $1"$'\n'* ]] || fail "expected 'cmake $1', got: $calls"
}

build --help
expect 0 "asan-ubsan  Address and undefined-behaviour sanitizers"
expect 0 "QN_CUDA=ON"
build nonsense
expect 2 "there is no preset 'nonsense'; see --help"
build --nonsense
expect 2 "unknown option"
QN_CUDA=yes build
expect 2 "QN_CUDA is ON, OFF or AUTO, not 'yes'"
[[ -z $calls ]] || fail "wrong usage starts something: $calls"

# ---- CUDA ------------------------------------------------------------------------------------------------------------

if ! compgen -G '/dev/nvidia[0-9]*' >/dev/null; then
  build release quantnoise
  expect 0 "no NVIDIA GPU here, so without the CUDA backend"
  configured "--preset release -DQN_CUDA=OFF"
  [[ $calls == *"cmake --build --preset release --target quantnoise --parallel "* ]] || fail "how it builds: $calls"
  build gpu
  configured "--preset gpu"
fi
touch "$folder/gpu"
build debug
configured "--preset debug"
[[ $got != *"no NVIDIA GPU"* ]] || fail "a GPU goes unnoticed: $got"
rm "$folder/gpu"
build debug # configured before: stays as it is
configured "--preset debug"
for choice in ON OFF AUTO; do
  QN_CUDA=$choice build debug
  configured "--preset debug -DQN_CUDA=$choice"
done

# ---- what is printed -------------------------------------------------------------------------------------------------

build
[[ $got != *x.cpp* ]] || fail "a line per step: $got"
printf '[1/2] Building x.cpp.o\nFAILED: x.cpp.o\nx.cpp:1: error: no\n' >"$folder/ninja"
echo 1 >"$folder/status"
build
expect 1 "x.cpp:1: error: no"
touch "$folder/no-configure"
build
expect 1 "CMake Error: no compiler"
# Steps that take their time: every so often a line says how many are done.
rm "$folder/no-configure"
echo 0 >"$folder/status"
sed -i 's/^readonly kSecondsBetween=.*/readonly kSecondsBetween=0/' "$folder/tree/launch/build"
printf '[7/9] Building x.cpp.o\n' >"$folder/ninja"
build
expect 0 "launch/build: 7 of 9 steps in 0 s"
