#!/usr/bin/env bash
# Formatting, lint, types and tests. Further words go to pytest, for example tests/audio or -k decode.
#   bash hpc/test.sh            the default tier: quick tests that need nothing but this environment
#   bash hpc/test.sh --all      all tests: the slow ones, a real Slurm, a browser, real data, too
#   bash hpc/test.sh --stress   all tests in random order, beside one busy loop per core
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. hpc/env.sh

tier=() loops=()
case ${1:-} in
  --all) shift; tier=(-m "not extras") ;;
  --stress) shift; tier=(-m "not extras" --random-order)
    for _ in $(seq "$(nproc)"); do
      while :; do :; done &
      loops+=("$!")
    done
    trap 'kill "${loops[@]}"' EXIT ;;
esac
ruff format --check .
ruff check .
mypy & # beside the tests, some of which wait
types=$!
# more workers than cores, since some tests wait; those of one file, and all that need Slurm, run on one worker
failed=0
python -m pytest -n $(($(nproc) < 6 ? $(nproc) + 2 : 8)) --dist loadfile --no-loadscope-reorder "${tier[@]}" "$@" || failed=$?
wait "$types"
exit "$failed"
