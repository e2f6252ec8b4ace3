#!/usr/bin/env bash
# safetensors 0.8.0 saves numpy arrays in Fortran order as other arrays, without a word. A transposed matrix is such an
# array. The documentation of save() asks for contiguous tensors; numpy calls these contiguous ("F_CONTIGUOUS"), and
# 0.7.0 saves them rightly. 0.8.0 writes the bytes as they lie in memory under the shape of the array. Readers take them
# in C order, as the format says, and get a shuffled matrix: its shape is right, and so are sum, norm and histogram.
#
# Seen with Python 3.11.7 and numpy 2.4.6, the matrix [[0, 3], [1, 4], [2, 5]] in Fortran order, saved and loaded:
#   safetensors 0.7.0   [[0, 3], [1, 4], [2, 5]]
#   safetensors 0.8.0   [[0, 1], [2, 3], [4, 5]]
# With numpy.ascontiguousarray() before save() both give the former.
# Fails when any of this changes. Needs python3 (3.11 or newer) with pip and access to PyPI.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/show.py" <<'PYTHON'
import numpy as np
from safetensors.numpy import load, save

matrix = np.arange(6, dtype=np.float32).reshape(2, 3).T
for array in (matrix, np.ascontiguousarray(matrix)):
    assert array.flags["C_CONTIGUOUS"] or array.flags["F_CONTIGUOUS"]
    print(load(save({"matrix": array}))["matrix"].astype(int).tolist(), end=" ")
PYTHON

status=0
check() {  # check PACKAGE EXPECTED
  python3 -m pip install --quiet --disable-pip-version-check --target "$folder/$1" "$1" numpy==2.4.6
  local seen
  seen=$(PYTHONPATH="$folder/$1" python3 -W error "$folder/show.py")
  echo "$1: $seen"
  if [ "${seen% }" != "$2" ]; then
    echo "  changed: it was $2" >&2
    status=1
  fi
}
check safetensors==0.7.0 "[[0, 3], [1, 4], [2, 5]] [[0, 3], [1, 4], [2, 5]]"
check safetensors==0.8.0 "[[0, 1], [2, 3], [4, 5]] [[0, 3], [1, 4], [2, 5]]"
exit $status
