#!/usr/bin/env bash
# Opening cuBLASLt 13 costs a process some 150 MiB of resident memory before anything is called and on machines without a
# GPU: its relocations and constructors write to 90 MiB of the file's pages, which every process then has of its own, and
# read others. A shared library is usually taken for free until it is used, and NCCL's is. Whoever links with cuBLASLt
# pays with every rank, tool and worker.
#
# Seen with nvidia-cublas 13.4.1.3 and nvidia-nccl-cu13 2.30.7, Python 3.11, Linux 6.18, x86-64, no GPU:
#   libcublasLt.so.13: resident +156 MiB, private +97 MiB (13.0 of the toolkit: 147, 91)
#   libnccl.so.2: resident +3 MiB, private +1 MiB
# Fails when this changes. Needs python3 (3.11 or newer) with pip and access to PyPI (0.9 GB).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/show.py" <<'PYTHON'
import ctypes
import glob
import sys


def memory():
    fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return [int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon")]


(path,) = glob.glob(sys.argv[1] + "/nvidia/**/" + sys.argv[2], recursive=True)
before = memory()
ctypes.CDLL(path)
resident, private = (after - first for after, first in zip(memory(), before))
print("%s: resident +%.0f MiB, private +%.0f MiB" % (sys.argv[2], resident, private), file=sys.stderr)
print(sys.argv[2], "large" if resident > 130 and private > 80 else "small" if resident < 20 else "neither")
PYTHON

python3 -m pip install --quiet --no-deps --target "$folder/packages" nvidia-cublas==13.4.1.3 nvidia-nccl-cu13==2.30.7
for library in libcublasLt.so.13 libnccl.so.2; do
  python3 "$folder/show.py" "$folder/packages" "$library"
done | tee "$folder/seen"
diff "$folder/seen" - <<'SEEN'
libcublasLt.so.13 large
libnccl.so.2 small
SEEN
