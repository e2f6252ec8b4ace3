"""One token through the matrices of a Transformer language model in PyTorch, in fp32 or int8 by dynamic quantization.

Reads what `step_bench --describe` wrote; prints one JSON object. Left out is what is no product of a weight (attention,
the embedding), which is in this project's figures.
"""
import argparse
import json
import resource
import statistics
import time

import torch
import torch.nn as nn


class Model(nn.Module):
    def __init__(self, spec):
        super().__init__()
        d, f = spec["width"], spec["ffn"]
        self.layers = nn.ModuleList(
            nn.ModuleDict({"norm1": nn.LayerNorm(d), "qkv": nn.Linear(d, 3 * d), "out": nn.Linear(d, d),
                           "norm2": nn.LayerNorm(d), "fc1": nn.Linear(d, f), "fc2": nn.Linear(f, d)})
            for _ in range(spec["layers"]))
        ends = [c for c in spec["cutoffs"] if c < spec["vocabulary"]] + [spec["vocabulary"]]
        self.head = nn.Linear(d, ends[0] + len(ends) - 1, bias=False)
        self.tails = nn.ModuleList(
            nn.Sequential(nn.Linear(d, int(d / spec["factor"] ** i), bias=False),
                          nn.Linear(int(d / spec["factor"] ** i), ends[i] - ends[i - 1], bias=False))
            for i in range(1, len(ends)))

    def forward(self, x):
        d = x.shape[-1]
        for layer in self.layers:
            x = x + layer["out"](layer["qkv"](layer["norm1"](x))[..., 2 * d:])  # one key: attention is its value
            x = x + layer["fc2"](torch.relu(layer["fc1"](layer["norm2"](x))))
        return [torch.log_softmax(part(x), -1) for part in [self.head, *self.tails]]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--spec", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--fp32", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with open(args.spec) as file:
        model = Model(json.load(file)).eval()
    x = torch.randn(1, model.layers[0]["norm1"].normalized_shape[0])
    best = {}
    for engine in ["fp32"] if args.fp32 else [e for e in torch.backends.quantized.supported_engines if e in ("x86", "fbgemm", "onednn")]:
        net = model
        if not args.fp32:
            torch.backends.quantized.engine = engine
            net = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
        seconds, processor = [], []
        with torch.inference_mode():
            for i in range(args.repeats + 3):
                start, used = time.perf_counter(), time.process_time()
                net(x)
                if i >= 3:
                    seconds.append(time.perf_counter() - start)
                    processor.append(time.process_time() - used)
        best[engine] = (min(seconds), statistics.median(seconds), min(processor))
    engine = min(best, key=lambda e: best[e][0])
    print(json.dumps({"torch": torch.__version__,
                      "simd": torch.backends.cpu.get_cpu_capability(), "engine": engine, "milliseconds": 1e3 * best[engine][0],
                      "median_milliseconds": 1e3 * best[engine][1],
                      "processor_milliseconds": 1e3 * best[engine][2],
                      "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
