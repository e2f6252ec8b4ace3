"""The table of bench/vision: two files of one JSON object per turn, ours and PyTorch's."""
import argparse
import json
import statistics

def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ours")
    parser.add_argument("theirs")
    parser.add_argument("--title", default="")
    parser.add_argument("--network", default="EfficientNet-B0")
    args = parser.parse_args()
    turns = [[json.loads(line) for line in open(path)] for path in (args.ours, args.theirs)]
    print(f"# EfficientNet and PyTorch {turns[1][0]['torch']}\n\n{args.title}\n")
    print("| | ours, best (median) | PyTorch, best (median) | ratio of best (of medians) |\n|---|---|---|---|")
    for key in [k for k, v in turns[0][0].items() if isinstance(v, dict)]:
        lite = f"EfficientNet-lite0, evaluation, images: {key.rsplit('_', 1)[-1]}"
        name = f"{args.network}, forward and backward" if key == "step" else lite
        best = [min(t[key]["best"] for t in side) * 1e3 for side in turns]
        median = [statistics.median(t[key]["median"] for t in side) * 1e3 for side in turns]
        print(f"| {name} | {best[0]:.1f} ms ({median[0]:.1f}) | {best[1]:.1f} ms ({median[1]:.1f}) | "
              f"{best[1] / best[0]:.2f} ({median[1] / median[0]:.2f}) |")


if __name__ == "__main__":
    main()
