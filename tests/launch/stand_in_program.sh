#!/usr/bin/env bash
# Stands in for quantnoise in tests of scripts: makes the files that it is asked for, and appends its arguments to
# STAND_IN/calls. Perplexity and bytes of a model below STAND_IN/out are those of its line in STAND_IN/perplexities, or
# 12.5 and 300. A run whose folder ends with the text of STAND_IN/stop is stopped, with that of STAND_IN/fail it fails. One
# whose folder ends with that of STAND_IN/wait waits until it is asked to end.
printf '%s\n' "$*" >>"$STAND_IN/calls"
value_of() { # OPTION ARGUMENTS...
  local option=$1 previous=""
  for argument in "${@:2}"; do
    [[ $previous != "$option" ]] || echo "$argument"
    previous=$argument
  done
}
ends_as_in() { # FILE FOLDER
  [[ -e $STAND_IN/$1 && $2 == *$(<"$STAND_IN/$1") ]]
}
case $1 in
  prepare)
    out=$(value_of --out "$@")
    mkdir -p "$out"
    seq 596 >"$out/dict.txt"
    touch "$out/test.idx"
    ;;
  train | quantize)
    [[ " $* " != *" --check "* ]] || { echo "time: about 0.5 s per update (made up)" && exit; }
    dir=$(value_of --set "$@" | sed -n 's/^checkpoint.dir=//p')
    ! ends_as_in stop "$dir" || exit 3
    if ends_as_in wait "$dir"; then
      trap 'echo "$$" >"$STAND_IN/ended" && exit 3' TERM USR1
      echo "$$" >"$STAND_IN/waits"
      for ((i = 0; i < 600; i++)); do sleep 0.1; done
    fi
    ! ends_as_in fail "$dir" || { echo "E made up fault" >&2 && exit 1; }
    mkdir -p "$dir" && touch "$dir/checkpoint_last.h5"
    out=$(value_of --out "$@")
    [[ -z $out ]] || touch "$out"
    ;;
  eval)
    name=${2#"$STAND_IN/out/"}
    numbers=$(sed -n "s|^$name ||p" "$STAND_IN/perplexities")
    read -r perplexity bytes <<<"${numbers:-12.5 300}"
    echo "{\"perplexity\":$perplexity,\"bytes\":$bytes,\"parameters\":1000,\"ratio\":1}"
    ;;
esac
