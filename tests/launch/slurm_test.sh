#!/usr/bin/env bash
# launch/slurm.sbatch with stand-ins for srun and scontrol: what it starts, and what it does with each exit status.
set -euo pipefail
script=$1/launch/slurm.sbatch
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/srun" <<'TEXT'
#!/bin/sh
echo "threads $OMP_NUM_THREADS: $*" >"$(dirname "$0")/srun.log"
[ -z "${SRUN_WAITS:-}" ] || exec sh -c 'trap "exit 3" USR1; touch "$1"; while :; do sleep 0.1; done' - "$SRUN_WAITS"
exit "$SRUN_STATUS"
TEXT
cat >"$folder/scontrol" <<'TEXT'
#!/bin/sh
echo "$*" >"$(dirname "$0")/scontrol.log"
TEXT
printf '#!/bin/sh\n' >"$folder/program"
chmod +x "$folder/srun" "$folder/scontrol" "$folder/program"
export PATH=$folder:$PATH QN_PROGRAM=$folder/program SLURM_SUBMIT_DIR=$folder SLURM_CPUS_PER_TASK=4

fail() {
  echo "slurm_test: $*" >&2
  exit 1
}
job() { # SRUN_STATUS ARGUMENTS...: its exit status in `status`
  rm -f "$folder"/*.log
  status=0
  SLURM_JOB_ID=17 SRUN_STATUS=$1 "$script" "${@:2}" >"$folder/out" 2>&1 || status=$?
}

job 0 train -c some.yaml
((status == 0)) || fail "a finished job ends with $status"
grep -q -- "threads 4: --mpi=pmix .* $folder/program train -c some.yaml" "$folder/srun.log" || fail "$(cat "$folder/srun.log")"
[[ ! -e $folder/scontrol.log ]] || fail "a finished job was queued again"
job 3 train -c some.yaml
((status == 0)) || fail "a stopped job ends with $status"
[[ $(cat "$folder/scontrol.log") == "requeue 17" ]] || fail "a stopped job was not queued again"
for signal in TERM USR1; do # to the script itself
  rm -f "$folder"/*.log "$folder/waits"
  SLURM_JOB_ID=17 SRUN_WAITS=$folder/waits "$script" train >"$folder/out" 2>&1 &
  pid=$!
  for ((i = 0; i < 400; i++)); do [[ ! -e $folder/waits ]] || break; sleep 0.025; done
  kill -"$signal" "$pid"
  status=0
  wait "$pid" || status=$?
  ((status == 0)) && [[ $(cat "$folder/scontrol.log") == "requeue 17" ]] || fail "SIG$signal to the script: status $status"
done
job 1 train -c some.yaml
((status == 1)) || fail "a failed job ends with $status"
[[ ! -e $folder/scontrol.log ]] || fail "a failed job was queued again"
export QN_RESTART_SECONDS=0
QN_MAX_RESTARTS=2 job 137 train -c some.yaml
((status == 137)) && [[ $(grep -c "restart . of 2" "$folder/out") == 2 ]] || fail "crashes: status $status, $(<"$folder/out")"
QN_MAX_RESTARTS=2 job 3 train -c some.yaml
((status == 0)) && [[ -e $folder/scontrol.log ]] || fail "a stopped job with restarts: status $status"
for code in 1 2; do
  QN_MAX_RESTARTS=2 job "$code" train -c some.yaml
  ((status == code)) && ! grep -q restart "$folder/out" || fail "status $code is started again"
done
QN_MAX_RESTARTS=2 job 0 train --fresh
((status == 2)) && grep -q "would begin anew" "$folder/out" || fail "--fresh with restarts: status $status"
QN_MAX_RESTARTS=x job 0 train
((status == 2)) && grep -q "QN_MAX_RESTARTS is 'x'" "$folder/out" || fail "QN_MAX_RESTARTS=x: status $status"
job 0
((status == 2)) && grep -q "no command given" "$folder/out" || fail "a job without a command ends with $status"
status=0
"$script" train >"$folder/out" 2>&1 || status=$?
((status == 2)) && grep -q "start it with: sbatch" "$folder/out" || fail "outside of Slurm it ends with $status"
echo "slurm_test: passed"
