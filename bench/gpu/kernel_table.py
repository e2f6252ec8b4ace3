"""Time and bytes by kernel from the CSV of ncu: kernel_table.py FILE prints rows of a markdown table, longest first."""

import csv
import re
import sys
from collections import defaultdict


def short(name):
    name = re.sub(r"\(anonymous namespace\)::|qn::cuda::|void ", "", name)
    return re.sub(r">\(.*", ">", name) if "<" in name else re.sub(r"\(.*", "", name)


def main(path):
    with open(path, errors="replace") as file:
        rows = [line for line in file if line.startswith('"')]  # between them ncu says what it does
    seconds, bytes_moved, launches = defaultdict(float), defaultdict(float), defaultdict(int)
    for entry in csv.DictReader(rows):
        name, value = short(entry["Kernel Name"]), float(entry["Metric Value"].replace(",", "") or 0)
        if entry["Metric Name"].startswith("gpu__time"):
            seconds[name] += value * 1e-9
            launches[name] += 1
        else:
            bytes_moved[name] += value
    total = sum(seconds.values())
    print(f"| all {sum(launches.values())} launches | | {total * 1e3:.2f} ms | | | |")
    for name, time in sorted(seconds.items(), key=lambda item: -item[1])[:30]:
        each = time / launches[name]
        print(f"| `{name[:95]}` | {launches[name]} | {time * 1e6:.0f} µs | {100 * time / total:.1f} % | {each * 1e6:.1f} µs "
              f"| {bytes_moved[name] / time * 1e-9:.0f} GB/s |")


main(sys.argv[1])
