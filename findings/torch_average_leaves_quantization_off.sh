#!/usr/bin/env bash
# PyTorch's averaged model (torch.optim.swa_utils.AveragedModel with use_buffers=True) averages the integer buffers of a
# module like its weights and cuts the result off to an integer. Where quantization-aware training switches its fake
# quantization on after some updates, the usual recipe, the switch of the averaged copy (a buffer of type uint8) stays 0
# for ever: 0.99 x 0 + 0.01 x 1 is cut off to 0. So the copy is evaluated in full precision, and what it scores is no
# score of the quantized model. Its zero point (int32) falls behind in the same way, a whole level here, while the moving
# average of the scale is right to five digits. The plain average has the same fault; nothing warns.
#
# Seen with PyTorch 2.15.0 (CPU), Python 3.11; 4 bits, switched on at update 5 of 2000:
#   trained    switch 1, zero point 8
#   averaged   switch 0, zero point 7; scale within 1e-5 of the trained one
#   outputs of the trained model have at most 16 levels, those of the averaged one more
# Fails when this changes. Needs python3 (3.11 or newer) with pip and access to PyPI (PyTorch and what it needs: 3 GB).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/show.py" <<'PYTHON'
import torch
from torch import nn
from torch.ao.quantization import FakeQuantize, MinMaxObserver
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

torch.set_num_threads(1)
for options in {}, {"multi_avg_fn": get_ema_multi_avg_fn(0.99)}:
    torch.manual_seed(0)
    quantized = FakeQuantize(observer=MinMaxObserver, quant_min=0, quant_max=15)
    quantized.disable_fake_quant()
    model = nn.Sequential(nn.Linear(4, 4), quantized)
    averaged = AveragedModel(model, use_buffers=True, **options)
    for update in range(2000):
        if update == 5:
            quantized.enable_fake_quant()
        model(torch.rand(16, 4) * 2 - 1)
        averaged.update_parameters(model)
    copy = averaged.module[1]
    inputs = torch.rand(2000, 4) * 2 - 1
    model.eval(), averaged.eval()
    print("moving" if options else "plain", "switches", quantized.fake_quant_enabled.item(),
          copy.fake_quant_enabled.item(), "zero points", quantized.zero_point.item(), copy.zero_point.item(),
          "scales agree", bool(options) and abs(1 - (copy.scale / quantized.scale).item()) < 1e-5,
          "levels at most 16:", model(inputs).unique().numel() <= 16, averaged(inputs).unique().numel() <= 16)
PYTHON

python3 -m pip install --quiet --disable-pip-version-check --target "$folder" torch==2.15.0
seen=$(PYTHONPATH=$folder python3 -W ignore "$folder/show.py")
echo "$seen"
[[ $seen == 'plain switches 1 0 zero points 8 7 scales agree False levels at most 16: True False
moving switches 1 0 zero points 8 7 scales agree True levels at most 16: True False' ]] || {
  echo "the behaviour has changed" >&2
  exit 1
}
