#!/usr/bin/env bash
# h5py 3.16.0 (HDF5 2.0.0) writes arrays of most small number types of ml_dtypes (0.6.0) without a word as opaque bytes
# without a tag: bfloat16, float8_e4m3fn and int4 become |V2, |V1, |V1 and come back as bytes objects; nothing in the file
# says which type they were, though HDF5 2.0 has types for bfloat16 and 8-bit floats of its own. One type of the same kind,
# float8_e5m2, is refused with a TypeError. Attributes do the same.
#
# Seen with Python 3.11.7 and numpy 2.4.6, warnings being errors:
#   bfloat16 |V2, float8_e4m3fn |V1, int4 |V1, float8_e5m2 TypeError
# Fails when this changes. Needs python3 (3.11 or newer) with pip and access to PyPI.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/show.py" <<'PYTHON'
import sys
import warnings

import h5py
import ml_dtypes
import numpy as np

warnings.simplefilter("error")
seen = []
for name in ("bfloat16", "float8_e4m3fn", "int4", "float8_e5m2"):
    values = np.arange(4).astype(getattr(ml_dtypes, name))
    path = f"{sys.argv[1]}/{name}.h5"
    try:
        with h5py.File(path, "w") as file:
            file["x"] = values
        with h5py.File(path) as file:
            kind = file["x"].id.get_type()
            opaque = kind.get_class() == h5py.h5t.OPAQUE and kind.get_tag() == b""
            seen.append(f"{name} {file['x'].dtype if opaque else 'a type of its own'}")
    except TypeError:
        seen.append(f"{name} TypeError")
print(", ".join(seen))
PYTHON

python3 -m pip install --quiet --disable-pip-version-check --target "$folder" h5py==3.16.0 ml_dtypes==0.6.0 numpy==2.4.6
seen=$(PYTHONPATH="$folder" python3 "$folder/show.py" "$folder")
expected="bfloat16 |V2, float8_e4m3fn |V1, int4 |V1, float8_e5m2 TypeError"
echo "h5py 3.16.0: $seen"
[[ $seen == "$expected" ]] || { echo "changed: it was $expected" >&2; exit 1; }
