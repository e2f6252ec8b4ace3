#!/usr/bin/env bash
# bench/gpu/on-gpu with stand-ins for the programs: what it reads from them, that failing and slow ones only cost their
# row, and that nothing that it has started outlives it.
set -euo pipefail
source_dir=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() {
  echo "bench_gpu_test: $*" >&2
  [[ ! -e $folder/result/summary.md ]] || cat "$folder/result/summary.md" >&2
  exit 1
}
program() { # NAME: its text from standard input
  cat >"$folder/$1"
  chmod +x "$folder/$1"
}
# Prints what tells its processes from others', and leaves one behind in a process group of its own, as mpirun does.
program step_bench <<'TEXT'
#!/usr/bin/env bash
case "$*" in
  *precision=fp32*graphs*) echo "12:00:00 E the GPU is | on fire" >&2; exit 3 ;;
  *precision=fp32*) echo '{"tokens_per_second": 12345.6, "seconds": 0.5, "seconds_fastest": 0.25, "gflops": 250.0, "limits": {"matmul_gflops": 1000.0}}' ;;
  *) setsid sleep 987.125 & sleep 987.125 ;;
esac
TEXT
program kernels_bench <<'TEXT'
#!/bin/sh
cat <<'JSON'
    "limit_matmul_gflops": "1000.0",
      "name": "copy/x/iterations:5/manual_time",
      "real_time": 2.5000000000000000e+00,
      "GB/s": 1.2000000000000000e+03,
      "share": 9.0000000000000002e-01
JSON
exit 1
TEXT
program codes_bench <<'TEXT'
#!/bin/sh
case "$*" in
  *--write*) touch "${6}" ;;
  *--products\ 8*) echo "12:00:00 E no such product" >&2; exit 1 ;;
  *--products*) echo '{"codes_milliseconds": 0.25, "codes_gbps": 120.0, "dense_milliseconds": 1.5, "dense_gbps": 2500.0, "speedup": 6.0}' ;;
  *--weights\ dense*) echo '{"weights": "dense", "milliseconds": 2.5, "median_milliseconds": 2.75, "gpu_used_mib": 1500.0}' ;;
esac
TEXT
for test in cuda_ops_test nccl_test backend_test; do
  program $test <<'TEXT'
#!/bin/sh
printf '[  PASSED  ] 7 tests.\n[  SKIPPED ] 2 tests, listed below:\n'
TEXT
done
# Trains without end where it is to be killed or is in the background, else says that it cannot.
program quantnoise <<'TEXT'
#!/usr/bin/env bash
case "$*" in
  --version) echo "quantnoise 0" ;;
  *speed*) echo "no such thing: failed" >&2; exit 1 ;;
  *wikitext2_full*) sleep 987.125 ;;
  prepare*) exit 0 ;;
  *) echo "12:00:00 E no such thing" >&2; exit 1 ;;
esac
TEXT
run() { # OPTIONS...
  local status=0
  "$source_dir/bench/gpu/on-gpu" --device cpu --bin "$folder" --out "$folder/result" "$@" >"$folder/out" 2>&1 || status=$?
  ((status == 0)) || fail "status $status: $(cat "$folder/out")"
  [[ -s $folder/result/logs.tgz ]] || fail "there are no logs"
  ! pgrep -f "sleep 987.125" >/dev/null || fail "something was left running: $(pgrep -af "sleep 987.125")"
}
has() { grep -qF -- "$1" "$folder/result/summary.md" || fail "there is no '$1'"; }

run --budget 60 --parts tests,step,kernels,codes,more_tests
has "| cuda_ops_test | 7 passed, 2 skipped |"
has "| nccl_test, one rank | 7 passed, 2 skipped |"
has "| fp32 | 12346 | 500.00 | 250.00 | 0.25 | 1.00 | 25.0 % |"
has "| copy/x | 2.5 | 1200 GB/s | 90.0 % |"
has "Limits: matmul_gflops 1000.0."
has "| 64 | 0.25 | 1.5 | 6 | 120 | 2500 |"
has "| 8 | failed: 12:00:00 E no such product (status 1) |"
has "| dense | 2.5 | 2.75 | 1500 |"
has "| kmeans_cuda_test | failed:"
mkdir "$folder/text"
begun=$SECONDS
run --budget 14 --parts agree,where,quality,ranks,kmeans --data "$folder/text"
((SECONDS - begun < 30)) || fail "took $((SECONDS - begun)) s"
has "| fp32, graphs off | failed: 12:00:00 E the GPU is / on fire (status 3) |"
has "| bf16, graphs off | failed: not done after"
has "WikiText-2, 6 updates each"
has "left out: no time left"
has "After 1"

# The table of kernels, from what ncu prints.
cat >"$folder/ncu.csv" <<'TEXT'
==PROF== Connected
"ID","Process ID","Kernel Name","Metric Name","Metric Unit","Metric Value"
"0","1","void qn::cuda::(anonymous namespace)::copy_kernel<float>(float *, long)","gpu__time_duration.sum","ns","2,000"
"0","1","void qn::cuda::(anonymous namespace)::copy_kernel<float>(float *, long)","dram__bytes.sum","byte","6,000"
"1","1","plain(int)","gpu__time_duration.sum","ns","6,000"
"1","1","plain(int)","dram__bytes.sum","byte","600"
TEXT
expected='| all 2 launches | | 0.01 ms | | | |
| `plain` | 1 | 6 µs | 75.0 % | 6.0 µs | 0 GB/s |
| `copy_kernel<float>` | 1 | 2 µs | 25.0 % | 2.0 µs | 3 GB/s |'
actual=$(python3 "$source_dir/bench/gpu/kernel_table.py" "$folder/ncu.csv")
[[ $actual == "$expected" ]] || fail "the table of kernels is: $actual"
echo "bench_gpu_test: passed"
