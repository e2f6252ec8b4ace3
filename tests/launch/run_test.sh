#!/usr/bin/env bash
# launch/run with a stand-in for mpirun: what it is given for one machine, for several, and for GPUs; and launch/near-gpu
# on a made-up machine with two GPUs.
set -euo pipefail
launch=$1/launch
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/mpirun" <<'TEXT'
#!/bin/sh
echo "threads $OMP_NUM_THREADS: $*"
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
refuse "gives node1 8 slots, but 17 ranks on 2 machines are up to 9"
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
echo "run_test: passed"
