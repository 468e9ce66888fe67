#!/usr/bin/env bash
# One node's launcher: bash hpc/torchrun.sh NUM_RANKS JOB key=value …
set -euo pipefail
ranks=$1; shift
# ranks share the cores of this node, or the cores of its allocation
cores=$(nproc)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores / ranks > 0 ? cores / ranks : 1))}
# a dead worker's restart must not meet the old store (torch serves its rendezvous store from the agent otherwise)
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# one node: ranks talk over loopback, whatever the host is called
export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-lo}
# a training step on a CPU allocates and frees the same large blocks again and again; below these thresholds glibc maps and
# unmaps each of them, and every page of it faults anew
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-4294967296}
export MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-4294967296}
export MALLOC_TOP_PAD_=${MALLOC_TOP_PAD_:-268435456}
exec torchrun --standalone --nproc-per-node="$ranks" -m parallel_tunes "$@"
