# shellcheck shell=bash
# Sourced by launch/run, launch/demo and launch/paper-table: a job that is asked to end gets the time to save. Signals must not reach mpirun as they are: for
# SIGINT and SIGTERM it ends the ranks with SIGKILL after a second or less (Open MPI 5: 0.2 s) and itself with status 1.
# SIGUSR1 it passes on to the ranks of all machines, in Open MPI 4 and 5.

# What is ignored when bash starts cannot be caught, and shells start background jobs with SIGINT ignored: starts this
# script anew without that. Call it with the script's arguments.
heed_signals() {
  local ignored
  ignored=$(awk '/^SigIgn/ {print $2}' "/proc/$$/status" 2>/dev/null) || return 0
  (((0x${ignored:-0} & (1 << 1 | 1 << 14 | 1 << 9 | 1 << 11)) != 0)) || return 0 # INT, TERM, USR1, USR2
  env --default-signal=INT true 2>/dev/null || return 0                          # coreutils before 8.31
  exec env --default-signal=INT,TERM,USR1,USR2 "$BASH" "$0" "$@"
}

job="" asked="" asked_at=0 cut_short=0

microseconds() {
  local now=${EPOCHREALTIME:-$SECONDS.000000}
  echo "${now//[!0-9]/}"
}

on_signal() { # NAME
  if [[ -z $asked ]]; then
    asked=$1 asked_at=$(microseconds)
    echo "launch/${0##*/}: SIG$1: asked the ranks to save and end; a second Ctrl-C ends them at once" >&2
    [[ -z $job ]] || ask_ranks
  elif [[ $1 == INT && -n $job ]] && (($(microseconds) - asked_at >= 1000000)); then
    cut_short=1 # what follows within a second is the same Ctrl-C: some send it to a process and to its group
    kill -TERM "$job" 2>/dev/null || true
  fi
}

# Again and again, because mpirun passes nothing on before its ranks run.
ask_ranks() {
  (
    trap - INT TERM HUP USR1 USR2
    while kill -USR1 "$job"; do sleep 1; done
  ) 2>/dev/null &
  asker=$!
}

# Open MPI 4.1's mpirun can deadlock when a rank dies while it connects; then nobody collects the dead rank either. Ends
# an mpirun that leaves one lying about for long.
end_if_stuck() { # PID
  local child state before=" " now
  while sleep "${QN_STUCK_SECONDS:-20}" >/dev/null 2>&1 && kill -0 "$1" 2>/dev/null; do
    now=" "
    for child in $(cat "/proc/$1/task/"*/children 2>/dev/null); do
      state=$(sed 's/.*) //; s/ .*//' "/proc/$child/stat" 2>/dev/null) || continue
      [[ $state != Z ]] || now+="$child "
      [[ $state != Z || $before != *" $child "* ]] || [[ $(sed 's/.*) //; s/ .*//' "/proc/$1/stat") == [Tt] ]] || {
        echo "launch/${0##*/}: mpirun does not react to the death of a rank: ending it" >&2
        kill -KILL "$1"
        return
      }
    done
    before=$now
  done
}

# Runs mpirun, or launch/run, in a session of its own, out of reach of the terminal's keys. Should the script be killed,
# the ranks are asked to save and end as well. Returns the ranks' status, or 128 + the signal where they had nothing to save.
run_job() { # COMMAND...
  local signal code status=127 asker="" watcher="" guard=()
  for signal in INT TERM HUP USR1 USR2; do
    trap "on_signal $signal" "$signal" # SIGHUP stays ignored under nohup
  done
  ! setpriv --pdeathsig USR1 true 2>/dev/null || guard=(setpriv --pdeathsig USR1)
  # Ignored until mpirun has its handler. Standard input is not the default, /dev/null, of background commands.
  (trap '' USR1 && exec setsid "${guard[@]}" "$@") <&0 &
  job=$!
  [[ -z $asked ]] || ask_ranks
  if [[ $1 == mpirun ]]; then
    end_if_stuck "$job" &
    watcher=$!
  fi
  while :; do
    code=0 # a signal ends `wait` early; 127: an earlier call has returned the status
    wait "$job" || code=$?
    ((code == 127)) || status=$code
    kill -0 "$job" 2>/dev/null || break
  done
  code=0
  wait "$job" 2>/dev/null || code=$?
  ((code == 127)) || status=$code
  [[ -z $asker ]] || kill "$asker" 2>/dev/null || true
  [[ -z $watcher ]] || kill "$watcher" 2>/dev/null || true
  job="" # from now on there is nobody to ask
  ((!cut_short)) || return 130
  if [[ -n $asked ]] && ((status == 128 + $(kill -l USR1))); then return $((128 + $(kill -l "$asked"))); fi
  return "$status"
}
