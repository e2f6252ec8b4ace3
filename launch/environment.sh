# shellcheck shell=bash
# Sourced by the scripts of this folder, before they change folders: with QN_BUNDLE=DIR the packages come from a bundle
# (see launch/bundle).
if [[ -n ${QN_BUNDLE:-} ]]; then
  if [[ ! -r $QN_BUNDLE/env.sh ]]; then
    echo "QN_BUNDLE=$QN_BUNDLE: there is no bundle; make one with launch/bundle, or unset QN_BUNDLE" >&2
    exit 2
  fi
  . "$QN_BUNDLE/env.sh" || exit 2
fi
