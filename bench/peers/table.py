"""Turns the lines that bench/compare collected into a markdown table of medians; the first of a task is the baseline."""
import argparse
import datetime
import json
import platform
import statistics

KMEANS = [("simd", "instructions"), ("iterations", "iterations"), ("milliseconds_per_iteration", "ms per iteration"),
          ("gflops", "GFLOP/s"), ("objective", "objective"), ("extra_mib", "extra MiB")]

# Per task: title, the figure that is compared, its unit, whether more is better, further columns (key, heading).
TASKS = {
    "step": ("Training updates", "tokens_per_second", "tokens/s", True,
             [("gflops", "GFLOP/s"), ("share_of_matmul_peak", "share of matmul peak"),
              ("peak_mib_all_ranks", "peak MiB"), ("loss_bits", "loss, bits"), ("simd", "instructions")]),
    "ranks": ("Training updates by ranks", "tokens_per_second", "tokens/s", True,
              [("gflops", "GFLOP/s"), ("peak_mib_all_ranks", "peak MiB, all ranks"), ("simd", "instructions")]),
    "kmeans": ("k-means, 524288 sub-vectors of 8, K = 256, 15 iterations", "seconds", "s", False,
               KMEANS),
    "kmeans-avx2": ("The same with no more than AVX2", "seconds", "s", False, KMEANS),
    "codes": ("One token, 247 million parameters", "milliseconds", "ms", False,
              [("simd", "instructions"), ("model_mib", "model, MiB"), ("peak_mib", "peak MiB"), ("engine", "engine")]),
    "text": ("A text of 3072 tokens, 247 million parameters", "tokens_per_second", "tokens/s", True,
             [("simd", "instructions"), ("model_mib", "model, MiB"), ("peak_mib", "peak MiB")]),
    "matmul": ("Best matrix product", "matmul_gflops", "GFLOP/s", True, [("simd", "instructions")]),
}


def median(results, key):
    values = [r[key] for r in results if key in r]
    if values and isinstance(values[0], str):
        return values[0]
    return statistics.median(values) if values else None


def number(value):
    return value or "" if value is None or isinstance(value, str) else f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def task_table(task, lines):
    title, key, unit, more_is_better, columns = TASKS[task]
    by_who = {}
    for line in lines:
        by_who.setdefault(line["who"], []).append(line["result"])
    headings = ["", f"{unit}, median", "range", "against the first", *[heading for _, heading in columns], "runs"]
    rows = [f"## {title}", "", "| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    baseline = None
    for who, results in by_who.items():
        done = [r for r in results if r]
        if not done:
            rows.append(f"| {who} | failed |" + " |" * (len(headings) - 2))
            continue
        value, values = median(done, key), [r[key] for r in done]
        baseline = baseline or value
        ratio = value / baseline if more_is_better else baseline / value
        cells = [who, number(value), f"{number(min(values))} - {number(max(values))}", f"{ratio:.2f}x",
                 *[number(median(done, extra)) for extra, _ in columns], f"{len(done)} of {len(results)}"]
        rows.append("| " + " | ".join(cells) + " |")
    return rows + [""]


def versions(lines):
    found = {f"Python {platform.python_version()}"}
    for line in lines:
        for key, name in (("torch", "PyTorch"), ("faiss", "faiss")):
            if line["result"] and key in line["result"]:
                found.add(f"{name} {line['result'][key]}")
    return ", ".join(sorted(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("results", "spec", "processor", "instructions", "threads", "cores", "commit", "config"):
        parser.add_argument("--" + name, required=True)
    args = parser.parse_args()
    with open(args.results, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    with open(args.spec, encoding="utf-8") as file:
        spec = json.load(file)
    shape = (f"{spec['layers']} layers, width {spec['width']}, feed-forward {spec['ffn']}, {spec['heads']} heads, "
             f"vocabulary {spec['vocabulary']}, {spec['micro_batches']} x {spec['rows']} x {spec['time']} tokens per "
             f"update, {spec['optimizer']}")
    if spec["noise"] > 0:
        shape += f", noise {spec['noise']} on {', '.join(spec['noise_groups'])}"
    print(f"# {args.config.strip()}, {datetime.date.today()}\n")
    print(f"{args.processor} ({args.instructions}); {args.threads} threads on cores {args.cores}; "
          f"quantnoise {args.commit}; "
          f"{versions(lines)}. Medians; programs took turns. \"Against the first\" above 1: faster than the first.\n")
    print(f"Model: {shape}.\n")
    for task in TASKS:
        of_task = [line for line in lines if line["task"] == task]
        if of_task:
            print("\n".join(task_table(task, of_task)))


if __name__ == "__main__":
    main()
