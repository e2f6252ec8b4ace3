#!/usr/bin/env bash
# launch/run with a stand-in for mpirun: what it is given for one machine, for several, and for GPUs; and launch/near-gpu
# on a made-up machine with two GPUs.
set -euo pipefail
launch=$1/launch
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/mpirun" <<'TEXT'
#!/bin/sh
if [ "$*" = --version ]; then
  echo "mpirun (Open MPI) ${STAND_IN_VERSION:-4.1.4}"
else
  echo "threads $OMP_NUM_THREADS: $*"
  previous=""
  for argument; do
    [ "$previous" != --hostfile ] || [ ! -r "$argument" ] || cat -A "$argument"
    previous=$argument
  done
  # SIGUSR1 is ignored until mpirun has its handler; shells cannot catch what is ignored when they start.
  [ -z "${STAND_IN_JOB:-}" ] || exec env --default-signal=USR1,TERM sh "$STAND_IN_JOB"
fi
TEXT
chmod +x "$folder/mpirun"
export PATH=$folder:$PATH
unset OMP_NUM_THREADS OMP_WAIT_POLICY QN_BUNDLE QN_BIND QN_ROOT CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER
unset "${!SLURM_@}" "${!OMPI_@}" "${!NCCL_@}"

fail() {
  echo "run_test: $*" >&2
  exit 1
}
run() { # ARGUMENTS...: exit status in `status`, output in `got`
  status=0
  got=$("$launch/run" "$@" 2>&1) || status=$?
}
expect() { # TEXT: in the output of a run that succeeded
  ((status == 0)) && [[ $got == *"$1"* ]] || fail "expected '$1', got (status $status): $got"
}
refuse() { # TEXT
  ((status == 2)) && [[ $got == *"$1"* ]] || fail "expected an error with '$1', got (status $status): $got"
}
without() { # TEXT
  [[ $got != *"$1"* ]] || fail "unexpected '$1' in: $got"
}

# ---- one machine -----------------------------------------------------------------------------------------------------

run -n 1 echo direct --device cpu
[[ $got == "direct --device cpu" ]] || fail "one rank does not start the program itself: $got"
run -n 2 --threads 1 program --flag
expect "threads 1: -n 2 --"
expect "--mca plm isolated"
expect " program --flag"
without "near-gpu"
run -n 2 --threads 100000 program
expect "--oversubscribe --bind-to none"
run -n 0 program
refuse "-n needs a positive number"
run -n 2
refuse "no program given"
STAND_IN_VERSION=5.0.3 run -n 2 --threads 1 program
expect "--mca btl self,sm program"
without "plm isolated"
without vader
STAND_IN_VERSION="of another kind" run -n 2 --threads 1 program
refuse "is not Open MPI's"
for threads in abc 1.5 0 -1 "2," "2,x"; do
  OMP_NUM_THREADS=$threads run -n 2 program
  refuse "OMP_NUM_THREADS is '$threads'"
done
OMP_NUM_THREADS=2,1 run -n 2 program
expect "threads 2: "

# ---- several machines ------------------------------------------------------------------------------------------------

printf 'node1 slots=8 # first\n\n# comment\nnode2 slots=8 max_slots=8\n' >"$folder/hosts"
NCCL_DEBUG=INFO OTHER=1 run -n 16 --gpus --hostfile "$folder/hosts" program
expect "--map-by ppr:8:node --bind-to none"
expect "--hostfile $folder/hosts"
expect "-x NCCL_DEBUG"
expect "-x OMP_NUM_THREADS"
expect "$launch/near-gpu program"
without "-x OTHER"
without "plm isolated"
run -n 4 --hostfile "$folder/hosts" --threads 1 program
expect "-n 4 --"
run -n 17 --hostfile "$folder/hosts" program
refuse "has 16 slots, too few for 17 ranks"
printf 'node1 slots=2\nnode2 slots=1\n' >"$folder/hosts"
run -n 3 --hostfile "$folder/hosts" --threads 1 program
expect "-n 3 --map-by slot:PE=1 --bind-to core"
run -n 3 --hostfile "$folder/hosts" --gpus program
expect "-n 3 --map-by slot --bind-to none"
run -n 2 --hostfile "$folder/hosts" --threads 1 program
expect "-n 2 --map-by ppr:1:node:PE=1 --bind-to core"
run -n 4 --hostfile "$folder/hosts" program
refuse "has 3 slots, too few for 4 ranks"
printf 'node1 slots=2\r\nnode2\r\n' >"$folder/hosts"
run -n 4 --hostfile "$folder/hosts" program
expect $'node1 slots=2$\nnode2$'
printf 'localhost\nno-such-machine.invalid\n' >"$folder/hosts"
run -n 2 --hostfile "$folder/hosts" program
expect "no address is known for 'no-such-machine.invalid'"
without "known for 'localhost'"
printf 'node1:2\n' >"$folder/hosts"
run -n 2 --hostfile "$folder/hosts" program
refuse "in a host file: node1 slots=2"
printf 'node1 slots=8\nnode2 slot=8\n' >"$folder/hosts"
run -n 4 --hostfile "$folder/hosts" program
refuse "hosts:2: expected slots=NUMBER, not 'slot=8'"
printf 'node1 slots=4\nnode1 slots=4\n' >"$folder/hosts"
run -n 4 --hostfile "$folder/hosts" program
refuse "node1 is named twice"
printf 'slots=4\n' >"$folder/hosts"
run -n 4 --hostfile "$folder/hosts" program
refuse "hosts:1: the line has to begin with the name of a machine"
printf '# nothing\n' >"$folder/hosts"
run -n 4 --hostfile "$folder/hosts" program
refuse "names no machine"
mkfifo "$folder/pipe"
run -n 4 --hostfile "$folder/pipe" program
refuse "cannot read host file"
run -n 4 --hostfile "$folder/nowhere" program
refuse "cannot read host file"

# ---- cores next to a GPU ---------------------------------------------------------------------------------------------

run -n 1 --gpus echo direct
[[ $got == direct ]] || fail "one rank with --gpus: $got"
first=$(taskset -cp $$ | sed 's/.*: //; s/[-,].*//') # a core that this process may use
mkdir -p "$folder"/root/proc/driver/nvidia/gpus/{0000:1A:00.0,0000:8b:00.0} \
  "$folder"/root/sys/bus/pci/devices/{0000:1a:00.0,0000:8b:00.0}
echo "$first" >"$folder/root/sys/bus/pci/devices/0000:1a:00.0/local_cpulist"
echo 99999 >"$folder/root/sys/bus/pci/devices/0000:8b:00.0/local_cpulist" # not ours: has to be left alone
export QN_ROOT=$folder/root
cores() { "$launch/near-gpu" awk '/^Cpus_allowed_list/ {print $2}' /proc/self/status; }
all=$(awk '/^Cpus_allowed_list/ {print $2}' /proc/self/status)
[[ $(OMPI_COMM_WORLD_LOCAL_RANK=0 cores) == "$first" ]] || fail "rank 0 is not next to GPU 0"
[[ $(OMPI_COMM_WORLD_LOCAL_RANK=2 cores) == "$first" ]] || fail "rank 2 of two GPUs is not next to GPU 0"
[[ $(OMPI_COMM_WORLD_LOCAL_RANK=1 cores) == "$all" ]] || fail "rank 1 lost its cores to those it may not use"
[[ $(OMPI_COMM_WORLD_LOCAL_RANK=1 CUDA_VISIBLE_DEVICES=1,0 cores) == "$first" ]] || fail "CUDA_VISIBLE_DEVICES=1,0"
[[ $(OMPI_COMM_WORLD_LOCAL_RANK=0 CUDA_VISIBLE_DEVICES=GPU-1234 cores) == "$all" ]] || fail "a GPU by name"
[[ $(OMPI_COMM_WORLD_LOCAL_RANK=0 QN_BIND=none cores) == "$all" ]] || fail "QN_BIND=none"
[[ $(QN_ROOT=$folder/nothing OMPI_COMM_WORLD_LOCAL_RANK=0 cores) == "$all" ]] || fail "a machine without GPUs"
[[ $("$launch/near-gpu" sh -c 'echo $CUDA_DEVICE_ORDER') == PCI_BUS_ID ]] || fail "the order of GPUs"

# ---- signals ---------------------------------------------------------------------------------------------------------

# Ranks that take STAND_IN_SAVE seconds (two) to save, and go on for ever when they are not asked.
cat >"$folder/job" <<'TEXT'
trap 'trap "" USR1; sleep ${STAND_IN_SAVE:-2} & wait $!; echo saved >"$STAND_IN_JOB.log"; exit 3' USR1
trap 'exit 1' TERM
echo $$ >"$STAND_IN_JOB.pid"
while :; do sleep 0.1; done
TEXT
export STAND_IN_JOB=$folder/job
start() { # process id in `launcher`; the stand-in runs by then
  rm -f "$folder"/job.*
  "$launch/run" -n 2 --threads 1 program >"$folder/out" 2>&1 &
  launcher=$!
  for ((i = 0; i < 400; i++)); do [[ ! -s $folder/job.pid ]] || break; sleep 0.025; done
}
end() { # exit status in `status`
  status=0
  wait "$launcher" || status=$?
}
for signal in TERM INT USR1 USR2 HUP; do # INT is ignored in background jobs of this script
  start
  kill -"$signal" "$launcher"
  end
  ((status == 3)) && [[ -e $folder/job.log ]] || fail "after SIG$signal: status $status, $(<"$folder/out")"
  grep -q "SIG$signal: asked the ranks to save and end" "$folder/out" || fail "SIG$signal: $(<"$folder/out")"
done
export STAND_IN_SAVE=60 # longer than this takes on any machine
start
unset STAND_IN_SAVE
kill -INT "$launcher"
sleep 1.3
kill -TERM "$launcher" # is no second Ctrl-C
sleep 0.5               # bash loses a SIGINT that arrives together with another signal
kill -INT "$launcher"
end
((status == 130)) && [[ ! -e $folder/job.log ]] || fail "a second Ctrl-C: status $status, $(<"$folder/out")"
if setpriv --pdeathsig USR1 true 2>/dev/null; then
  start
  kill -KILL "$launcher"
  end 2>/dev/null
  for ((i = 0; i < 400; i++)); do [[ ! -e $folder/job.log ]] || break; sleep 0.025; done
  [[ -e $folder/job.log ]] || fail "ranks go on without their launcher"
fi
echo 'exit 4' >"$folder/job"
run -n 2 program
((status == 4)) || fail "the ranks end with 4, launch/run with $status"
echo 'kill -USR1 $PPID; sleep 0.5; trap - USR1; kill -USR1 $$' >"$folder/job" # ranks with nothing to save
run -n 2 program
((status == 138)) || fail "ranks that SIGUSR1 ends: status $status"

# ---- restarts --------------------------------------------------------------------------------------------------------

export QN_RESTART_SECONDS=0
ends_with() { # STATUS...: of one start after the other, the last one again and again
  printf '%s\n' "$@" >"$folder/statuses"
  cat >"$folder/job" <<'TEXT'
status=$(head -n 1 "$STAND_IN_JOB.statuses")
[ "$(wc -l <"$STAND_IN_JOB.statuses")" = 1 ] || sed -i 1d "$STAND_IN_JOB.statuses"
exit "$status"
TEXT
  cp "$folder/statuses" "$folder/job.statuses"
}
restarts() { # NUMBER STATUS: what the last run must have had
  ((status == $2)) && [[ $(grep -c "restart . of" <<<"$got") == "$1" ]] || fail "expected $1 restarts, status $2, got (status $status): $got"
}
for crash in 4 134 137 139; do
  ends_with "$crash" 0
  run -n 2 --max-restarts 3 program
  restarts 1 0
done
ends_with 137
run -n 2 --max-restarts 2 program
restarts 2 137
run -n 2 program
restarts 0 137
for end in 0 1 2 3; do
  ends_with "$end"
  run -n 2 --max-restarts 3 program
  restarts 0 "$end"
done
printf 'localhost slots=1\n127.0.0.1 slots=1\n' >"$folder/hosts"
ends_with 1 0
run -n 2 --hostfile "$folder/hosts" --max-restarts 3 program
restarts 1 0
ends_with 137 0
run -n 1 --max-restarts 3 sh "$folder/job"
restarts 1 0
run -n 2 --max-restarts 3 program train --fresh
refuse "every restart would begin anew"
run -n 2 --max-restarts many program
refuse "--max-restarts needs a whole number"
ends_with 137
QN_RESTART_SECONDS=1000 "$launch/run" -n 2 --max-restarts 3 program >"$folder/out" 2>&1 &
launcher=$!
for ((i = 0; i < 400; i++)); do ! grep -q "restart 1 of 3 in 1000 s" "$folder/out" || break; sleep 0.025; done
kill -TERM "$launcher"
end
((status == 143)) || fail "a signal in the pause before a restart: status $status, $(<"$folder/out")"

echo 'sh -c "exit 1" & exec sleep 1000' >"$folder/job" # nobody collects the dead one
QN_STUCK_SECONDS=1 run -n 2 program
((status == 137)) && [[ $got == *"does not react to the death of a rank"* ]] || fail "mpirun is stuck: status $status, $got"

echo 'cat' >"$folder/job"
[[ $(echo input | "$launch/run" -n 2 program) == *input ]] || fail "standard input does not reach mpirun"
echo "run_test: passed"
