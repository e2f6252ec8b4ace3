#!/usr/bin/env bash
# torch.optim.swa_utils.update_bn, which estimates the statistics of batch normalisations anew in one pass over a data
# set (after averaging or quantizing weights), does not estimate those of the data set: it takes the mean of the batches'
# variances, so that what differs from batch to batch is missing, and every batch counts alike, however few samples the last
# one has. The result depends on how the same data are cut into batches. Where images differ from each other more than the
# pixels within them, batches of two give 0.59 of the variance, and one odd image alone in the last batch moves the mean.
#
# Seen with PyTorch 2.15.0 (CPU), Python 3.11; 513 images of 8 x 8 pixels, offset of an image of variance 1, pixels of 0.25,
# the last image 100 higher. Variance without that image 1.25 up to sampling; of a batch of all 512: the same.
#   batches of 512 (without it)   ratio to the variance of the data 1.00
#   batches of 2                  ratio 0.59
#   batches of 1                  ratio 0.20
#   mean with it, batches of 512  50 instead of 0.2: half of it is that one image
# Fails when this changes. Needs python3 (3.11 or newer) with pip and access to PyPI (PyTorch and what it needs: 3 GB).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/show.py" <<'PYTHON'
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

torch.set_num_threads(1)
torch.manual_seed(0)
images = torch.randn(512, 1, 1, 1) + 0.5 * torch.randn(512, 1, 8, 8)
odd = torch.cat([images, images[:1] + 100])


def measured(data, batch):
    norm = nn.BatchNorm2d(1)
    update_bn(torch.split(data, batch), nn.Sequential(norm))
    return norm.running_mean.item(), norm.running_var.item()


for batch in 512, 2, 1:
    print("batches of", batch, "ratio %.2f" % (measured(images, batch)[1] / images.var().item()))
mean = measured(odd, 512)[0]
print("one of 513 counts half:", abs(mean - 50) < 2, "mean of the data is small:", abs(odd.mean().item()) < 0.3)
PYTHON

python3 -m pip install --quiet --disable-pip-version-check --target "$folder" torch==2.15.0
seen=$(PYTHONPATH=$folder python3 -W ignore "$folder/show.py")
echo "$seen"
[[ $seen == 'batches of 512 ratio 1.00
batches of 2 ratio 0.59
batches of 1 ratio 0.20
one of 513 counts half: True mean of the data is small: True' ]] || {
  echo "the behaviour has changed" >&2
  exit 1
}
