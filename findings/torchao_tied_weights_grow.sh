#!/usr/bin/env bash
# quantize_() of torchao (0.18.0) cuts the tie between a token table and an output layer that share one weight, without a
# word: the Linear gets a quantized copy, the Embedding keeps the float table. A model whose size is mostly that table (small
# language models) is larger after quantization to 8 or 4 bits than before, because a file now holds both.
#
# Seen with Python 3.11.7 and torch 2.15.0: a table of 1000 x 64 tied to the output, two layers of 64 x 100. torch.save of the
# state: 310 kB before; 344 kB after Int8WeightOnlyConfig and after IntxWeightOnlyConfig with int4 per row (which
# saves a byte per number). Fails when this changes. Needs python3 (3.11 or newer) with pip and access to PyPI (3 GB).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/show.py" <<'PYTHON'
import io
import logging
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
import torch
from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerAxis


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(1000, 64)
        self.up, self.down = torch.nn.Linear(64, 100), torch.nn.Linear(100, 64)
        self.output = torch.nn.Linear(64, 1000, bias=False)
        self.output.weight = self.table.weight


def saved_bytes(model):
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()


seen = []
for name, config in (("int8", Int8WeightOnlyConfig()), ("int4", IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerAxis(0)))):
    model = Tied()
    before = saved_bytes(model)
    quantize_(model, config)
    tied = model.output.weight is model.table.weight
    seen.append(f"{name}: {'tied' if tied else 'tie cut'}, {'larger' if saved_bytes(model) > before else 'smaller'} than before")
print("; ".join(seen))
PYTHON

python3 -m pip install --quiet --disable-pip-version-check --target "$folder" torch==2.15.0 torchao==0.18.0 numpy==2.4.6
seen=$(PYTHONPATH="$folder" python3 "$folder/show.py" 2>/dev/null)
expected="int8: tie cut, larger than before; int4: tie cut, larger than before"
echo "torchao 0.18.0: $seen"
[[ $seen == "$expected" ]] || { echo "changed: it was $expected" >&2; exit 1; }
