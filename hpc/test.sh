#!/usr/bin/env bash
# All checks: formatting, lint, types, tests. Words given are passed to pytest, for example -m "not slow" or tests/audio.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. hpc/env.sh

ruff format --check .
ruff check .
mypy & # beside the tests, some of which wait
types=$!
# more workers than cores: those that test Slurm mostly wait; a file stays on one, which sets up once what its tests share
python -m pytest -n $(($(nproc) < 6 ? $(nproc) + 2 : 8)) --dist loadfile --no-loadscope-reorder "$@" || { failed=$?; wait "$types"; exit "$failed"; }
wait "$types"
