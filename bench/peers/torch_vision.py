"""EfficientNet in PyTorch, channels last: the time of forward and backward of EfficientNet-B0, and of lite0's
evaluation. The other side of vision_bench; prints a JSON object.

    OMP_NUM_THREADS=2 python torch_vision.py [--batch 8] [--size 224] [--seconds 20] [--device cuda --bf16 --compile]
"""
import argparse
import contextlib
import json
import math
import time

import torch
from torch import nn
from torch.nn import functional as F

# expansion, kernel, stride, in, out, repeats
STAGES = [(1, 3, 1, 32, 16, 1), (6, 3, 2, 16, 24, 2), (6, 5, 2, 24, 40, 2), (6, 3, 2, 40, 80, 3),
          (6, 5, 1, 80, 112, 3), (6, 5, 2, 112, 192, 4), (6, 3, 1, 192, 320, 1)]


class ConvNorm(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride=1, groups=1, act=None, same=False):
        super().__init__()
        self.same, self.stride, self.kernel = same and stride > 1, stride, kernel
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, 0 if self.same else kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, 1e-3, 0.01)
        self.act = act

    def forward(self, x):
        if self.same:
            total = [max((-(-s // self.stride) - 1) * self.stride + self.kernel - s, 0) for s in x.shape[2:]]
            x = F.pad(x, (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2))
        x = self.norm(self.conv(x))
        return x if self.act is None else self.act(x)


class Block(nn.Module):
    def __init__(self, expand, kernel, stride, inputs, outputs, act, lite, drop):
        super().__init__()
        wide = inputs * expand
        self.expand = ConvNorm(inputs, wide, 1, act=act) if expand > 1 else nn.Identity()
        self.depthwise = ConvNorm(wide, wide, kernel, stride, wide, act, same=lite)
        self.squeeze = None if lite else nn.Conv2d(wide, max(1, inputs // 4), 1)
        self.excite = None if lite else nn.Conv2d(max(1, inputs // 4), wide, 1)
        self.project = ConvNorm(wide, outputs, 1)
        self.shortcut, self.drop = stride == 1 and inputs == outputs, drop

    def forward(self, x):
        y = self.depthwise(self.expand(x))
        if self.squeeze is not None:
            s = self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(y, 1)), inplace=True))
            y = y * torch.sigmoid(s)
        y = self.project(y)
        if not self.shortcut:
            return y
        if self.training and self.drop > 0:
            keep = 1 - self.drop
            y = y * torch.empty(y.shape[0], 1, 1, 1, device=y.device, dtype=y.dtype).bernoulli_(keep).div_(keep)
        return x + y


def widened(channels, width):
    """A multiple of 8 that is no more than a tenth less than asked for."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


class EfficientNet(nn.Module):
    def __init__(self, lite, width=1.0, depth=1.0):
        super().__init__()
        stages = [(e, k, s, widened(i, width), widened(o, width), math.ceil(r * depth)) for e, k, s, i, o, r in STAGES]
        act = nn.ReLU6(inplace=True) if lite else nn.SiLU(inplace=True)
        blocks, count, total = [], 0, sum(s[-1] for s in stages)
        for expand, kernel, stride, inputs, outputs, repeats in stages:
            for i in range(repeats):
                blocks.append(Block(expand, kernel, stride if i == 0 else 1, inputs if i == 0 else outputs, outputs, act,
                                    lite, 0.2 * count / total))
                count += 1
        self.stem = ConvNorm(3, stages[0][3], 3, 2, act=act, same=lite)
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(stages[-1][4], widened(1280, width), 1, act=act)
        self.classifier = nn.Linear(widened(1280, width), 1000)

    def forward(self, x):
        x = self.head(self.blocks(self.stem(x)))
        return self.classifier(F.dropout(F.adaptive_avg_pool2d(x, 1).flatten(1), 0.2, self.training))


def fastest(step, seconds, wait):
    for _ in range(3):
        step()
    wait()
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end or len(times) < 3:
        start = time.perf_counter()
        step()
        wait()
        times.append(time.perf_counter() - start)
    times.sort()
    return {"best": times[0], "median": times[len(times) // 2], "steps": len(times)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--depth", type=float, default=1.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="autocast to bf16")
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--no-evaluation", action="store_true")
    parser.add_argument("--compile", action="store_true", help="torch.compile the networks")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(1)
    results = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    cuda = args.device != "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32
    torch.backends.cudnn.benchmark = True
    wait = torch.cuda.synchronize if cuda else lambda: None
    placed = {"device": args.device, "memory_format": torch.channels_last}
    images = torch.randn(args.batch, 3, args.size, args.size).to(**placed)
    labels = torch.randint(0, 1000, (args.batch,)).to(args.device)
    precision = (lambda: torch.autocast(args.device, torch.bfloat16)) if args.bf16 else contextlib.nullcontext

    net = EfficientNet(False, args.width, args.depth).train().to(**placed)
    lite0 = EfficientNet(True).eval().to(**placed)
    if args.compile:
        net, lite0 = torch.compile(net), torch.compile(lite0)

    def train():
        net.zero_grad(set_to_none=True)
        with precision():
            loss = F.cross_entropy(net(images), labels, label_smoothing=0.1)
        loss.backward()

    def evaluate(batch):
        with torch.inference_mode(), precision():
            lite0(batch)

    results["step"] = fastest(train, args.seconds, wait)
    if not args.no_evaluation:
        one = images[:1].contiguous(memory_format=torch.channels_last)
        results["lite0_batch_1"] = fastest(lambda: evaluate(one), args.seconds / 2, wait)
        results[f"lite0_batch_{args.batch}"] = fastest(lambda: evaluate(images), args.seconds / 2, wait)
    if args.profile:
        for f in (train, lambda: evaluate(images)):
            with torch.profiler.profile() as profile:
                f()
            print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
