# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by on-gpu: running its parts within their time, and reading what they print. Uses $work (a folder), $table (the
# result), $budget and $started (seconds).

left() { echo $((budget - (SECONDS - started))); }
line() { echo "$*" >>"$table"; }
row() {
  local cell text="|"
  for cell in "$@"; do text+=" $cell |"; done
  line "$text"
}
section() { # TITLE [HEADINGS...]
  line ""
  line "## $1"
  line ""
  shift
  (($# > 0)) || return 0
  row "$@"
  line "|$(printf -- '---|%.0s' "$@")"
}

# attempt NAME LIMIT COMMAND...: output in $work/log/NAME.{out,err}; false, and the reason in `reason`, when it failed. It
# costs LIMIT seconds at most, and what it started ends with it.
attempt() {
  local name=$1 limit=$2 status=0 at=$SECONDS
  shift 2
  ((limit <= $(left))) || limit=$(left)
  reason="left out: no time left"
  ((limit > 2)) || return 1
  background "$name" timeout --kill-after=5 "$limit" "$@"
  wait "$job_process" || status=$?
  end_job "$name"
  echo "  $name: $((SECONDS - at)) s, status $status; $(left) s left" >&2
  case $status in
    0) reason="" ;;
    124 | 137) reason="failed: not done after $limit s" ;;
    *) reason="failed: $(complaint "$name") (status $status)" ;;
  esac
  return "$status"
}

# The last line of a part's output that tells of an error.
complaint() { # NAME
  { grep -hE 'rror|FAILED|failed| E ' "$work/log/$1.err" "$work/log/$1.out" || grep -v 'Run with --help' "$work/log/$1.err"; } |
    sed 's/\x1b\[[0-9;]*m//g' | tail -n 1 | tr '|' '/' | cut -c 1-300
}

# In the background. All that it starts has its name in the environment: launch/run and mpirun make sessions and process
# groups of their own.
background() { # NAME COMMAND...
  local name=$1
  shift
  QN_ON_GPU_JOB=$$.$name setsid "$@" >"$work/log/$name.out" 2>"$work/log/$name.err" &
  job_process=$!
  jobs_left+=("$name")
}
processes_of() { # NAME: their numbers
  grep -lzx "QN_ON_GPU_JOB=$$.$1" /proc/[0-9]*/environ 2>/dev/null | cut -d / -f 3
}
is_running() { [[ -n $(processes_of "$1") ]]; } # NAME
signal_job() {                                 # SIGNAL NAME
  local process
  for process in $(processes_of "$2"); do kill "-$1" "$process" 2>/dev/null; done
}
# What is left of a job has five seconds to end.
end_job() { # NAME
  signal_job TERM "$1"
  for _ in {1..25}; do
    is_running "$1" || return 0
    sleep 0.2
  done
  signal_job KILL "$1"
}
end_jobs() {
  local job
  for job in "${jobs_left[@]}"; do signal_job TERM "$job"; done
  for job in "${jobs_left[@]}"; do end_job "$job"; done
  jobs_left=()
}

number() { # KEY NAME: of the last JSON object in a part's output
  sed -n "s/.*\"$1\": *\([-+.0-9eE]*\).*/\1/p" "$work/log/$2.out" | tail -n 1
}
short() { awk -v x="$1" 'BEGIN {if (x == "") print ""; else printf (x >= 1000 || x <= -1000 ? "%.0f" : "%.4g"), x}'; }
percent() { awk -v a="$1" -v b="$2" 'BEGIN {if (a != "" && b > 0) printf "%.1f %%", 100 * a / b}'; }
# Passed and skipped cases of a Google Test program.
test_counts() { # NAME
  sed 's/\x1b\[[0-9;]*m//g' "$work/log/$1.out" | awk '/^\[  PASSED  \]/ {passed = $4} /^\[  SKIPPED \] [0-9]/ {skipped = $4}
    END {printf "%d passed, %d skipped", passed, skipped}'
}
# "best perplexity / last" of a run's validations.
perplexities() { # FILE
  sed -n 's/.*"kind":"valid".*"ppl":\([-+.0-9e]*\).*/\1/p' "$1" 2>/dev/null |
    awk 'NR == 1 || $1 < best {best = $1} {last = $1; n++} END {if (n) printf "%.2f / %.2f of %d", best, last, n}'
}
