# shellcheck shell=bash
# Sourced by launch/run: host files as people have them, and how many ranks a machine gets.

# Prints "name slots" for every line; slots is - where the file does not say. What mpirun would take for a machine's name
# or pass over in silence is an error here.
read_hostfile() {
  awk '
    function stop(text) { printf "%s:%d: %s\n", FILENAME, FNR, text > "/dev/stderr"; failed = 1; exit 1 }
    { sub(/\r$/, ""); sub(/#.*/, "") }
    NF == 0 { next }
    $1 ~ /=/ { stop("the line has to begin with the name of a machine, not with \047" $1 "\047") }
    {
      name = $1
      slots = "-"
      if (split(name, part, ":") == 2) # more: an address of IPv6
        stop("\047" name "\047 is how mpirun --host has it; in a host file: " part[1] " slots=" (part[2] ~ /^[1-9][0-9]*$/ ? part[2] : "K"))
      if (name in seen) stop(name " is named twice; give it one line with all its slots")
      for (i = 2; i <= NF; i++) {
        if ($i !~ /^(slots|max[-_]slots)=[1-9][0-9]*$/) stop("expected slots=NUMBER, not \047" $i "\047")
        if ($i ~ /^slots=/) slots = substr($i, 7)
      }
      seen[name] = 1
      print name, slots
      count++
    }
    END { if (!failed && count == 0) { print FILENAME ": names no machine" > "/dev/stderr"; exit 1 } }' "$1"
}

# Whether mpirun reads a host file as read_hostfile does: it takes a carriage return for part of a name or number.
plain_hostfile() {
  ! grep -q $'\r' "$1"
}

# A line for every machine without an address: mpirun says it less clearly. No error, ssh may know better.
warn_of_unknown() { # "NAME SLOTS" lines on standard input
  local name real
  while read -r name _; do
    real=$(ssh -G "$name" 2>/dev/null | awk '$1 == "hostname" {print $2; exit}') || true
    timeout 5 getent ahosts "${real:-$name}" >/dev/null 2>&1 ||
      echo "launch/run: warning: no address is known for '$name'; is the name right?" >&2
  done
}

# Prints "equal N" where each of $2 machines can take its share N of $1 ranks, or "unequal N" where slots differ so much
# that they have to be filled in turn, up to N on one machine. Fails, with a message, where there are too few slots.
share_out() { # RANKS MACHINES FILE; "NAME SLOTS" lines on standard input
  awk -v ranks="$1" -v machines="$2" -v file="$3" '
    $2 != "-" { if (smallest == "" || $2 < smallest) smallest = $2; if ($2 > largest) largest = $2; total += $2 }
    $2 == "-" { open = 1 }
    END {
      share = int((ranks + machines - 1) / machines)
      if (smallest == "" || smallest >= share) { print "equal", share; exit }
      if (!open && total < ranks) {
        printf "%s has %d slots, too few for %d ranks: start fewer, or add machines or slots\n", file, total, ranks > "/dev/stderr"
        exit 1
      }
      print "unequal", (open || largest > ranks) ? ranks : largest
    }'
}
