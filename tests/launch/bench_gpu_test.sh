#!/usr/bin/env bash
# bench/gpu with stand-ins for the programs: what it reads from them, and that failing and slow ones only cost their row.
set -euo pipefail
source_dir=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() {
  echo "bench_gpu_test: $*" >&2
  [[ ! -e $folder/table.md ]] || cat "$folder/table.md" >&2
  exit 1
}
program() { # NAME: its text from standard input
  cat >"$folder/$1"
  chmod +x "$folder/$1"
}
program step_bench <<'TEXT'
#!/bin/sh
case "$*" in
  *precision=bf16*) echo '{"tokens_per_second": 12345.6, "seconds": 0.5, "gflops": 250.0, "limits": {"matmul_gflops": 1000.0}}' ;;
  *precision=tf32*) echo "12:00:00 E the GPU is | on fire" >&2; exit 3 ;;
  *) sleep 60 ;;
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
program cuda_ops_test <<'TEXT'
#!/bin/sh
printf '[  PASSED  ] 7 tests.\n[  SKIPPED ] 2 tests, listed below:\n'
TEXT
program quantnoise <<'TEXT'
#!/bin/sh
echo "12:00:00 E no such thing" >&2
exit 1
TEXT
"$source_dir/bench/gpu" --device cpu --bin "$folder" --seconds 5 --parts tests,kernels,ranks,step --out "$folder/table.md" \
  >"$folder/out" 2>&1 || fail "$(cat "$folder/out")"
has() { grep -qF -- "$1" "$folder/table.md" || fail "there is no '$1'"; }
has "| cuda_ops_test | 7 passed, 2 skipped |"
has "| quantnoise, bf16 | 12346 | 0.5 | 250 | 1000 | 25.0 % |"
has "| quantnoise, tf32 | failed: 12:00:00 E the GPU is / on fire (status 3) |"
has "| quantnoise, fp32 | failed: not done after"
has "failed: no time left"
status=0
"$source_dir/bench/gpu" --device cpu --bin "$folder" --parts kernels,ranks --out "$folder/table.md" >"$folder/out" 2>&1 || status=$?
((status == 0)) || fail "$(cat "$folder/out")"
has "| copy/x | 2.5 | 1200 GB/s | 90.0 % |"
has "Limits: matmul_gflops 1000.0."
has "failed: 12:00:00 E no such thing (status 1)"
echo "bench_gpu_test: passed"
