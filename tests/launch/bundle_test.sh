#!/usr/bin/env bash
# launch/bundle with a stand-in for apt-get that serves packages made here: what it keeps, repairs and leaves out, and
# that the folder works after it was moved. Then QN_BUNDLE in the other scripts.
set -euo pipefail
source_dir=$1
for tool in dpkg-deb dpkg readelf gcc; do
  type -P "$tool" >/dev/null || { echo "QN_ALL_TESTS_SKIPPED: $tool is not here" && exit 0; }
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() {
  echo "bundle_test: $*" >&2
  exit 1
}
triplet=$(gcc -print-multiarch)
libs=usr/lib/$triplet

# ---- packages --------------------------------------------------------------------------------------------------------

deb() { # NAME: of what is in $folder/tree
  mkdir -p "$folder/tree/DEBIAN" "$folder/archive"
  printf 'Package: %s\nVersion: 1.0-1\nArchitecture: amd64\nMaintainer: nobody\nDescription: for a test\n' "$1" \
    >"$folder/tree/DEBIAN/control"
  dpkg-deb -Znone -b "$folder/tree" "$folder/archive/$1_1.0-1_amd64.deb" >/dev/null
  rm -rf "$folder/tree"
}
library() { # SONAME FILE [LIBRARIES...]
  mkdir -p "$folder/tree/$libs"
  echo "int answer_of_${1//[^a-z]/_}(void) { return 42; }" | gcc -shared -fPIC -x c - -o "$folder/tree/$libs/$2" \
    "-Wl,-soname,$1" -Wl,--no-as-needed "${@:3}" -x none
}

library libneeded.so.1 libneeded.so.1.0
cp "$folder/tree/$libs/libneeded.so.1.0" "$folder/libneeded.so.1.0"
ln -s libneeded.so.1.0 "$folder/tree/$libs/libneeded.so.1"
deb libneeded1
library libfmt.so.9 libfmt.so.9.1 "-L$folder" -l:libneeded.so.1.0
ln -s libfmt.so.9.1 "$folder/tree/$libs/libfmt.so.9"
deb libfmt9
library libunneeded.so.1 libunneeded.so.1.0
deb libunneeded1
mkdir -p "$folder"/tree/{usr/include/fmt,"$libs/pkgconfig",usr/share/doc/libfmt-dev}
echo "// header" >"$folder/tree/usr/include/fmt/core.h"
echo "text" >"$folder/tree/usr/share/doc/libfmt-dev/README"
printf 'prefix=/usr\nlibdir=${prefix}/lib\nName: fmt\nDescription: text\nVersion: 9\nLibs: -L/%s -lfmt\n' "$libs" \
  >"$folder/tree/$libs/pkgconfig/fmt.pc"
ln -s libfmt.so.9 "$folder/tree/$libs/libfmt.so"
ln -s "/$libs/libfmt.so" "$folder/tree/$libs/libfmt_alias.so"
touch "$folder/tree/$libs/libfmt.a" "$folder/tree/$libs/libonly.a"
deb libfmt-dev
mkdir -p "$folder/tree/usr/bin"
printf '#!/bin/sh\n[ "$*" != --version ] || exec echo "mpirun (Open MPI) 4.1.4"\necho "mpirun of the bundle: $OPAL_PREFIX"\n' >"$folder/tree/usr/bin/mpirun.openmpi"
chmod +x "$folder/tree/usr/bin/mpirun.openmpi"
deb openmpi-bin
mkdir -p "$folder/tree/usr/include" && touch "$folder/tree/usr/include/foreign.h"
deb libforeign-dev

mkdir "$folder/fakes"
cat >"$folder/fakes/apt-get" <<TEXT
#!/usr/bin/env bash
if [[ " \$* " == *" install "* ]]; then # a simulation
  for name in libfmt-dev libfmt9 libneeded1 libunneeded1 libforeign-dev openmpi-bin libc6 gfortran-12; do
    echo "Inst \$name (1.0-1 Debian [amd64])"
  done
elif [[ " \$* " == *" download "* ]]; then
  for name in "\$@"; do
    case \$name in -q | download) ;; *) cp "$folder/archive/\${name}_1.0-1_amd64.deb" . || exit 1 ;; esac
  done
fi
TEXT
chmod +x "$folder/fakes/apt-get"

# ---- the bundle ------------------------------------------------------------------------------------------------------

mkdir "$folder/full" && touch "$folder/full/file"
PATH=$folder/fakes:$PATH
! "$source_dir/launch/bundle" >"$folder/out" 2>&1 || fail "it wants no folder"
! "$source_dir/launch/bundle" "$folder/full" >"$folder/out" 2>&1 || fail "it fills a folder of somebody else"
[[ -e $folder/full/file ]] && grep -q "neither empty nor a bundle" "$folder/out" || fail "$(cat "$folder/out")"
! "$source_dir/launch/bundle" "$folder/new" --pack x.zip >"$folder/out" 2>&1 || fail "it packs zip files"

"$source_dir/launch/bundle" "$folder/made" --pack "$folder/made.tar.gz" >"$folder/out" 2>&1 || fail "$(cat "$folder/out")"
rm -rf "$folder/made"
mkdir "$folder/moved" "$folder/a space"
tar -C "$folder/moved" -xf "$folder/made.tar.gz"
tar -C "$folder/a space" -xf "$folder/made.tar.gz"
bundle=$folder/moved/made
root=$bundle/root

has() { [[ -e $1 ]] || fail "there is no ${1#"$bundle"/}"; }
lacks() { [[ ! -e $1 && ! -L $1 ]] || fail "there is ${1#"$bundle"/}"; }
has "$root/usr/include/fmt/core.h"
has "$root/$libs/libfmt.so"
has "$root/$libs/libfmt.so.9"
has "$root/$libs/libonly.a"
has "$root/usr/bin/mpirun"
has "$bundle/spare/libneeded.so.1/libneeded.so.1"
[[ $(readlink -f "$root/$libs/libfmt_alias.so") == "$(readlink -f "$root/$libs/libfmt.so.9.1")" ]] || fail "an absolute link"
lacks "$root/usr/share/doc"
lacks "$root/$libs/libfmt.a"
lacks "$root/usr/include/foreign.h"
lacks "$bundle/parts"
lacks "$bundle/debs"
[[ -z $(find "$bundle" -name 'libunneeded*') ]] || fail "a library that nothing needs"
grep -q '^prefix=${pcfiledir}/../../..$' "$root/$libs/pkgconfig/fmt.pc" || fail "$(cat "$root/$libs/pkgconfig/fmt.pc")"
grep -q "^Libs: -L\${prefix}/lib" "$root/$libs/pkgconfig/fmt.pc" || fail "$(cat "$root/$libs/pkgconfig/fmt.pc")"
grep -q '^libfmt9 1.0-1 amd64' "$bundle/PACKAGES" || fail "$(cat "$bundle/PACKAGES")"

# ---- its environment -------------------------------------------------------------------------------------------------

got=$(bash -c '. "$1/env.sh" && . "$1/env.sh" && mpirun && echo "$LD_LIBRARY_PATH"' - "$bundle")
[[ $got == "mpirun of the bundle: $root/usr"* ]] || fail "$got"
[[ $got == *"$bundle/spare/libneeded.so.1"* ]] || fail "no way to a library that this machine lacks: $got"
[[ $(grep -o "spare/libneeded.so.1" <<<"$got" | wc -l) == 1 ]] || fail "sourcing it twice adds paths twice: $got"

# To another machine: the command runs there with the same environment.
cat >"$folder/fakes/ssh" <<'TEXT'
#!/bin/sh
while [ "$1" != somewhere ]; do shift; done
shift
env -i PATH=/usr/bin:/bin sh -c "$*"
TEXT
chmod +x "$folder/fakes/ssh"
got=$("$bundle/bin/remote-shell" somewhere 'FROM=here ; export FROM ; mpirun && echo "$FROM"')
[[ $got == "mpirun of the bundle: $root/usr"$'\n'here ]] || fail "over ssh: $got"

# ---- the other scripts -----------------------------------------------------------------------------------------------

got=$(QN_BUNDLE=$bundle "$source_dir/launch/setup")
[[ $got == *"from the bundle $bundle"* ]] || fail "$got"
got=$(QN_BUNDLE=$bundle "$source_dir/launch/run" -n 2 --threads 1 program)
[[ $got == "mpirun of the bundle: $root/usr" ]] || fail "$got"
status=0
QN_BUNDLE=$folder/nothing "$source_dir/launch/run" -n 1 true 2>"$folder/out" || status=$?
((status == 2)) && grep -q "there is no bundle; make one with launch/bundle" "$folder/out" || fail "$(cat "$folder/out")"
status=0
QN_BUNDLE="$folder/a space/made" "$source_dir/launch/run" -n 1 true 2>"$folder/out" || status=$?
((status == 2)) && grep -q "takes no path with spaces" "$folder/out" || fail "$(cat "$folder/out")"
grep -qx g++ <("$source_dir/launch/setup" --list) || fail "launch/setup --list"
echo "bundle_test: passed"
