#!/usr/bin/env bash
# PyYAML 6.0.4 joins the maps of a merge list (`<<: [*a, *b]`) the other way round than 6.0.3 and every version before it.
# The merge key's specification (yaml.org/type/merge.html) lets the earlier map win, as 6.0.3 does. In 6.0.4 the later map
# wins, unless the key has one character: entries already seen are recognised by the identity of the key's Python string,
# and CPython shares only strings of one character. ruamel.yaml 0.18.6 lets the earlier map win in both cases.
# The order of the resulting dict changes as well, which decides what fairseq's fuzzy_name finds first.
#
# Seen with Python 3.11.7 (block sizes of a quantization file):
#   PyYAML 6.0.3   {'fc': 8, 'attn': 4} {'e': 8} ['emb', 'fc']
#   PyYAML 6.0.4   {'fc': 2, 'attn': 1} {'e': 8} ['fc', 'emb']
#   ruamel 0.18.6  {'fc': 8, 'attn': 4} {'e': 8}
# Fails when any of this changes. Needs python3 with pip and access to PyPI.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/show.py" <<'PYTHON'
import sys

SAME = "a: &a {fc: 8, attn: 4}\nb: &b {fc: 2, attn: 1}\nsizes: {<<: [*a, *b]}\n"
SHORT = "a: &a {e: 8}\nb: &b {e: 2}\nsizes: {<<: [*a, *b]}\n"
ORDER = "a: &a {fc: 8}\nb: &b {emb: 4}\nsizes: {<<: [*a, *b]}\n"
if sys.argv[1] == "ruamel":
    from ruamel.yaml import YAML

    def load(text):
        return dict(YAML(typ="safe", pure=True).load(text)["sizes"])

    print(load(SAME), load(SHORT))
else:
    import yaml

    def load(text):
        return yaml.safe_load(text)["sizes"]

    print(load(SAME), load(SHORT), list(load(ORDER)))
PYTHON

status=0
check() {  # check PACKAGE LIBRARY EXPECTED
  python3 -m pip install --quiet --disable-pip-version-check --target "$folder/$1" "$1"
  local seen
  seen=$(PYTHONPATH="$folder/$1" python3 "$folder/show.py" "$2")
  echo "$1: $seen"
  if [ "$seen" != "$3" ]; then
    echo "  changed: it was $3" >&2
    status=1
  fi
}
check pyyaml==6.0.3 pyyaml "{'fc': 8, 'attn': 4} {'e': 8} ['emb', 'fc']"
check pyyaml==6.0.4 pyyaml "{'fc': 2, 'attn': 1} {'e': 8} ['fc', 'emb']"
check ruamel.yaml==0.18.6 ruamel "{'fc': 8, 'attn': 4} {'e': 8}"
exit $status
