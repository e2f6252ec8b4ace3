#!/usr/bin/env bash
# GCC 12.2 (the compiler of Debian 12) at -O2 drops a rounding: of two neighbouring doubles in memory that are each
# rounded to float and back (`s->a = static_cast<float>(s->a * x)`), both stay unrounded. The conversion to float is
# required by the language (a cast has to discard excess precision, [expr.pre]), and no option here allows more.
#
# SLP vectorization (-O2 since GCC 12, -O3 before) makes one vector conversion to float and one back of the two; the
# simplification in a later pass (fre5; another one if that is off) removes the pair, as would be right for a wider type
# and back.
# - Hit: two values, members or elements, with SSE2 and with AVX; three; four with AVX; also when the
#   rounded value goes on (times 1.3) and when the float is stored as well. A loop over pairs is hit at -O2.
# - Not hit: one value; loops over consecutive elements, which pack and unpack instead; __builtin_convertvector; sums;
#   float -> _Float16 -> float; narrowing of integers; results kept as floats.
# - Right: -O1, -fno-tree-slp-vectorize. No help: -ffloat-store, -frounding-math, -ffp-contract=off, -ftrapping-math,
#   -fno-tree-forwprop, -fno-tree-fre; -fno-trapping-math makes no difference.
# - Right from -O1 to -O3: GCC 12.4.0, 13.3.0 and 14.2.0 (Debian 13), clang 14.0.6.
#
# Seen (what a conforming compiler prints is what 12.4.0 prints):
#   bookworm 12.2.0-14+deb12u1 -O1: 0x1.99999ap-4 0x1.99999ap-4
#   bookworm 12.2.0-14+deb12u1 -O2: 0x1.999999999999ap-4 0x1.999999999999ap-4
#   bookworm 12.2.0-14+deb12u1 -O2 -fno-tree-slp-vectorize: 0x1.99999ap-4 0x1.99999ap-4
#   bookworm 11.3.0-12 -O2: 0x1.99999ap-4 0x1.99999ap-4
#   bookworm 11.3.0-12 -O3: 0x1.999999999999ap-4 0x1.999999999999ap-4
#   trixie 12.4.0-5 -O2: 0x1.99999ap-4 0x1.99999ap-4
# Fails when any of this changes. Runs on x86-64; needs apt with Debian's keyring, dpkg-deb, any C compiler to assemble
# and link, and access to deb.debian.org. Installs nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/program.cpp" <<'CPP'
extern "C" int printf(const char*, ...);
struct S { double a, b; };
__attribute__((noinline)) void round_both(S* s, double x) {
  s->a = static_cast<float>(s->a * x);
  s->b = static_cast<float>(s->b * x);
}
int main() {
  S s{1, 1};
  round_both(&s, 0.1);
  printf("%a %a\n", s.a, s.b);
}
CPP

fetch() {  # fetch SUITE PACKAGE...: unpacks the packages of a Debian release into $folder/SUITE
  local suite=$1 state=$folder/apt_$1
  shift
  mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/packages" "$folder/$suite"
  touch "$state/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main" \
    > "$state/sources.list"
  local options=(-qq -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=-
    -o "Dir::Cache=$state/cache" -o "Dir::State::lists=$state/lists" -o "Dir::State::status=$state/status"
    -o APT::Sandbox::User= -o APT::Architecture=amd64)
  apt-get "${options[@]}" update
  (cd "$state/packages" && apt-get "${options[@]}" download "$@")
  local package
  for package in "$state"/packages/*.deb; do dpkg-deb -x "$package" "$folder/$suite"; done
}

status=0
check() {  # check SUITE VERSION OPTIONS EXPECTED
  local root=$folder/$1 major=${2%%.*} loader options seen
  local libraries=$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu
  loader=$(find "$root" -path '*/lib64/ld-linux-x86-64.so.2')
  read -ra options <<< "$3"
  # The compiler proper, with the C library of its own release.
  "$loader" --library-path "$libraries" "$root/usr/lib/gcc/x86_64-linux-gnu/$major/cc1plus" -quiet "${options[@]}" \
    "$folder/program.cpp" -o "$folder/program.s"
  cc "$folder/program.s" -o "$folder/program"
  seen=$("$folder/program")
  echo "$1 $2 $3: $seen"
  if [ "$seen" != "$4" ]; then
    echo "  changed: it was $4" >&2
    status=1
  fi
}
rounded="0x1.99999ap-4 0x1.99999ap-4" not_rounded="0x1.999999999999ap-4 0x1.999999999999ap-4"
needed=(libc6 libgmp10 libisl23 libmpc3 libmpfr6 libzstd1 zlib1g)
fetch bookworm g++-12=12.2.0-14+deb12u1 g++-11=11.3.0-12 "${needed[@]}"
fetch trixie g++-12=12.4.0-5 "${needed[@]}"
check bookworm 12.2.0-14+deb12u1 -O1 "$rounded"
check bookworm 12.2.0-14+deb12u1 -O2 "$not_rounded"
check bookworm 12.2.0-14+deb12u1 "-O2 -fno-tree-slp-vectorize" "$rounded"
check bookworm 11.3.0-12 -O2 "$rounded"
check bookworm 11.3.0-12 -O3 "$not_rounded"
check trixie 12.4.0-5 -O2 "$rounded"
exit $status
