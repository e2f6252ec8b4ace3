"""The best fp32 (or bf16) matrix product rate of PyTorch on the shapes of bench/limits.cpp; prints one JSON object."""
import argparse
import json
import time

import torch

SHAPES = [(768, 768, 768), (1024, 1024, 1024), (1536, 1024, 2048), (2048, 2048, 1024)]


def fastest(call, seconds):
    call()
    best, start = float("inf"), time.perf_counter()
    while True:
        begin = time.perf_counter()
        call()
        now = time.perf_counter()
        best = min(best, now - begin)
        if now - start > seconds:
            return best


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.15, help="per shape")
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dtype = torch.bfloat16 if args.bf16 else torch.float32
    best = 0.0
    for m, n, k in SHAPES:
        a, b = torch.full((m, k), 0.5, dtype=dtype), torch.full((k, n), 0.25, dtype=dtype)
        c = torch.empty(m, n, dtype=dtype)
        best = max(best, 2.0 * m * n * k / fastest(lambda: torch.mm(a, b, out=c), args.seconds) * 1e-9)
    print(json.dumps({"program": "torch_matmul", "torch": torch.__version__,
                      "simd": torch.backends.cpu.get_cpu_capability(), "threads": args.threads,
                      "bf16": args.bf16, "matmul_gflops": best}))


if __name__ == "__main__":
    main()
