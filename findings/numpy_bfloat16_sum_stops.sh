#!/usr/bin/env bash
# NumPy's sums over bfloat16 arrays (type of the package ml_dtypes, which safetensors, JAX and TensorFlow hand out) add in
# bfloat16, one element after another: a sum of ones stops at 256, because 256 + 1 rounds to 256, and the mean of 100,000
# ones is 0.0026. float16 arrays do not have this: NumPy adds those pairwise, and takes their mean in float32. Matrix
# products and norms of the same arrays are right, so a wrong mean, standard deviation or sum of squared differences
# stands beside right values. Nothing warns. Who compares or measures bfloat16 weights has to convert them first.
#
# Seen with NumPy 2.3.5, ml_dtypes 0.5.4, Python 3.11:
#   float16    sum of 1000 ones 1000, mean of 100,000 ones 1,       mean square of 1,000,000 normal numbers right to 1 %
#   bfloat16   sum of 1000 ones 256,  mean of 100,000 ones 0.00256, mean square off by more than half
# Fails when this changes. Needs python3 (3.11 or newer) with pip and access to PyPI.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/show.py" <<'PYTHON'
import numpy as np
import ml_dtypes

for name, kind in ("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16):
    few, many = np.ones(1000, kind), np.ones(100000, kind)
    rows = np.ones((1000, 3), kind)
    weights = np.random.default_rng(1).normal(size=1000000).astype(kind)
    truth = np.square(weights.astype(np.float64)).mean()
    print(name, "sum", float(few.sum()), "by columns", float(rows.sum(axis=0)[0]), "mean", f"{float(many.mean()):.6g}",
          "product", float(few @ few), "norm", round(float(np.linalg.norm(few)), 3),
          "mean square right:", abs(float(np.square(weights).mean()) / truth - 1) < 0.01,
          "off by half:", abs(float(np.square(weights).mean()) / truth - 1) > 0.5)
PYTHON

python3 -m pip install --quiet --disable-pip-version-check --target "$folder" numpy==2.3.5 ml_dtypes==0.5.4
seen=$(PYTHONPATH=$folder python3 -W error "$folder/show.py")
echo "$seen"
[[ $seen == 'float16 sum 1000.0 by columns 1000.0 mean 1 product 1000.0 norm 31.625 mean square right: True off by half: False
bfloat16 sum 256.0 by columns 256.0 mean 0.00256348 product 1000.0 norm 31.623 mean square right: False off by half: True' ]] || {
  echo "the behaviour has changed" >&2
  exit 1
}
