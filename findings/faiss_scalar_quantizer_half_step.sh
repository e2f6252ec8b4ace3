#!/usr/bin/env bash
# The scalar quantizer of faiss (1.15.1; QT_8bit, QT_6bit, QT_4bit and the uniform ones) cuts the range of the training
# values into 2^bits - 1 steps, as if the levels were their ends, but rounds down and decodes to the middle of the step.
# So neither end of the range is a level, the largest value decodes to half a step beyond everything seen in training
# (1/30 of the range with 4 bits), and values that already have only 2^bits evenly spaced levels, such as the output of
# another quantizer, do not survive: each moves by half a step, all in the same direction. Evenly spread values meet the
# usual mean squared error of step^2 / 12, which hides it.
#
# Seen with Python 3.11.7 and numpy 2.4.6, trained on 0, 1, ..., 2^bits - 1 and then encoding and decoding the same:
#   QT_4bit   0 -> 0.5, 15 -> 15.5      smallest and largest change of a value: 0.5 0.5
#   QT_8bit   0 -> 0.5, 255 -> 255.5    smallest and largest change of a value: 0.5 0.5
# Fails when any of this changes. Needs python3 (3.11 or newer) with pip and access to PyPI.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/show.py" <<'PYTHON'
import sys

import faiss
import numpy as np

bits = int(sys.argv[1])
values = np.arange(2**bits, dtype=np.float32)[:, None]
quantizer = faiss.ScalarQuantizer(1, getattr(faiss.ScalarQuantizer, sys.argv[2]))
quantizer.train(values)
decoded = quantizer.decode(quantizer.compute_codes(values))
change = (decoded - values).round(4)
print(f"0 -> {decoded[0, 0]:g}, {values[-1, 0]:g} -> {decoded[-1, 0]:g}, change {change.min():g} {change.max():g}")
PYTHON

python3 -m pip install --quiet --disable-pip-version-check --target "$folder" faiss-cpu==1.15.1 numpy==2.4.6
status=0
check() {  # check BITS TYPE EXPECTED
  local seen
  seen=$(PYTHONPATH="$folder" python3 "$folder/show.py" "$1" "$2")
  echo "faiss-cpu 1.15.1 $2: $seen"
  if [ "$seen" != "$3" ]; then
    echo "  changed: it was $3" >&2
    status=1
  fi
}
check 4 QT_4bit "0 -> 0.5, 15 -> 15.5, change 0.5 0.5"
check 4 QT_4bit_uniform "0 -> 0.5, 15 -> 15.5, change 0.5 0.5"
check 6 QT_6bit "0 -> 0.5, 63 -> 63.5, change 0.5 0.5"
check 8 QT_8bit "0 -> 0.5, 255 -> 255.5, change 0.5 0.5"
check 8 QT_8bit_uniform "0 -> 0.5, 255 -> 255.5, change 0.5 0.5"
exit $status
