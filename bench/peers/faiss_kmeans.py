"""faiss.Kmeans on the matrix that kmeans_bench --write-matrix wrote, without subsampling; prints one JSON object.

FAISS_SIMD_LEVEL (AVX2, AVX512, ...) chooses the instructions of faiss itself, OPENBLAS_CORETYPE (Haswell, SkylakeX, ...)
those of its matrix products. faiss ends when the objective no longer falls: `iterations` counts those that it did."""
import argparse
import json
import math
import time

import faiss
import numpy as np


def memory(name):
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(name):
                return int(line.split()[1]) / 1024
    return 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--matrix", required=True)
    parser.add_argument("--block", type=int, default=8)
    parser.add_argument("--centroids", type=int, default=256)
    parser.add_argument("--iterations", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    faiss.omp_set_num_threads(args.threads)
    x = np.fromfile(args.matrix, dtype=np.float32).reshape(-1, args.block)
    kmeans = faiss.Kmeans(args.block, args.centroids, niter=args.iterations, verbose=False,
                          max_points_per_centroid=10**9, min_points_per_centroid=1)
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # forgets the peak so far
    before = memory("VmRSS")
    start = time.perf_counter()
    kmeans.train(x, init_centroids=x[:args.centroids].copy())
    seconds = time.perf_counter() - start
    extra = memory("VmHWM") - before
    distances, _ = kmeans.index.search(x, 1)
    iterations = len(kmeans.obj)
    flops = 2.0 * x.size * args.centroids * iterations
    print(json.dumps({"program": "faiss_kmeans", "faiss": faiss.__version__, "threads": args.threads,
                      "simd": faiss.SIMDConfig.get_level_name(), "sub_vectors": x.shape[0],
                      "iterations": iterations, "seconds": seconds,
                      "milliseconds_per_iteration": 1e3 * seconds / iterations, "gflops": flops / seconds * 1e-9,
                      "objective": math.sqrt(float(distances.sum(dtype=np.float64))), "extra_mib": extra}))


if __name__ == "__main__":
    main()
