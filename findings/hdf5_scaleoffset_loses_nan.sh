#!/usr/bin/env bash
# HDF5's scale-offset filter, by which floats are stored as integers of few bits, does not know NaN. A NaN that is not
# the first value of its chunk comes back as the chunk's smallest number: a diverged tensor reads as a healthy one, and
# nothing on the way said a word. A NaN at the start of a chunk makes the chunk unreadable: writing succeeds, every later
# read of it raises OSError. Infinity is no such case: there the filter steps aside and stores the chunk as it is.
#
# Seen with h5py 3.16.0 (HDF5 2.0.0), numpy 2.4.6, Python 3.11; eight values from -1 to 1, scaleoffset=3:
#   NaN at no place: read back, worst change of the others 0.0005 or less
#   NaN at place 3: read back as -1.0
#   NaN at place 0: OSError
#   inf at place 3: read back as inf
# Fails when any of this changes. Needs python3 (3.11 or newer) with pip and access to PyPI.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/show.py" <<'PYTHON'
import sys

import h5py
import numpy as np

path = sys.argv[1]


def stored_and_read(place, value):
    values = np.linspace(-1, 1, 8, dtype=np.float32)
    if place is not None:
        values[place] = value
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=values, chunks=(8,), scaleoffset=3)
    try:
        with h5py.File(path) as file:
            return values, file["x"][:]
    except OSError:
        return values, None


values, read = stored_and_read(None, 0)
print("none", abs(values - read).max() <= 0.0005)
print("NaN at 3", stored_and_read(3, np.nan)[1][3])
print("NaN at 0", "OSError" if stored_and_read(0, np.nan)[1] is None else "read")
print("inf at 3", stored_and_read(3, np.inf)[1][3])
PYTHON

python3 -m pip install --quiet --disable-pip-version-check --target "$folder" h5py==3.16.0 numpy==2.4.6
seen=$(PYTHONPATH=$folder python3 "$folder/show.py" "$folder/x.h5")
echo "$seen"
[[ $seen == $'none True\nNaN at 3 -1.0\nNaN at 0 OSError\ninf at 3 inf' ]] || {
  echo "the behaviour has changed" >&2
  exit 1
}
