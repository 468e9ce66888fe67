#!/usr/bin/env bash
# All checks: formatting, lint, types, tests. Words given are passed to pytest, for example -m "not slow" or tests/audio.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. hpc/env.sh

ruff format --check .
ruff check .
mypy & # beside the tests, some of which wait
types=$!
# more workers than cores: those that test Slurm mostly wait
python -m pytest -n $(($(nproc) < 4 ? $(nproc) + 3 : 7)) --dist worksteal "$@" || { failed=$?; wait "$types"; exit "$failed"; }
wait "$types"
