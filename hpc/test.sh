#!/usr/bin/env bash
# All checks: formatting, lint, types, tests. Words given are passed to pytest, for example -m "not slow" or tests/audio.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. hpc/env.sh

ruff format --check .
ruff check .
mypy
# more workers than cores: those that test Slurm, or what happens after a while, mostly wait
python -m pytest -n $(($(nproc) < 3 ? $(nproc) * 3 : 8)) --dist worksteal "$@"
