"""One token through the matrices of a Transformer language model with numpy, which multiplies by OpenBLAS's GEMV.

Reads what `step_bench --describe` wrote; prints one JSON object. Left out is all that is no product of a weight. Set
OPENBLAS_NUM_THREADS for the number of threads, OPENBLAS_CORETYPE (Haswell: AVX2) for the instructions.
"""
import argparse
import ctypes
import json
import resource
import statistics
import time

import numpy as np


def core():
    """The processor that OpenBLAS has chosen its kernels for; None where numpy multiplies by something else."""
    with open("/proc/self/maps") as maps:
        path = next((line.split()[-1] for line in maps if "openblas" in line), None)
    for name in ("scipy_openblas_get_corename64_", "openblas_get_corename64_", "openblas_get_corename"):
        ask = getattr(ctypes.CDLL(path), name, None) if path else None
        if ask is not None:
            ask.restype = ctypes.c_char_p
            return ask().decode()
    return None


def shapes(spec):
    """[out, in] of every matrix in the order of a pass."""
    d, f = spec["width"], spec["ffn"]
    yield from [(3 * d, d), (d, d), (f, d), (d, f)] * spec["layers"]
    ends = [c for c in spec["cutoffs"] if c < spec["vocabulary"]] + [spec["vocabulary"]]
    yield ends[0] + len(ends) - 1, d
    for i in range(1, len(ends)):
        inner = int(d / spec["factor"] ** i)
        yield from [(inner, d), (ends[i] - ends[i - 1], inner)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--spec", required=True)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    with open(args.spec) as file:
        sizes = list(shapes(json.load(file)))
    random = np.random.default_rng(1)
    inputs = {cols: random.standard_normal(cols, dtype=np.float32) for _, cols in sizes}
    pairs = [(random.standard_normal(size, dtype=np.float32), inputs[size[1]]) for size in sizes]
    seconds, processor = [], []
    for i in range(args.repeats + 3):
        start, used = time.perf_counter(), time.process_time()
        for weight, x in pairs:
            weight @ x
        if i >= 3:
            seconds.append(time.perf_counter() - start)
            processor.append(time.process_time() - used)
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    print(json.dumps({"numpy": np.__version__, "blas": blas["name"], "blas_version": blas["version"], "core": core(),
                      "parameters": sum(weight.size for weight, _ in pairs),
                      "milliseconds": 1e3 * min(seconds), "median_milliseconds": 1e3 * statistics.median(seconds),
                      "processor_milliseconds": 1e3 * min(processor),
                      "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
