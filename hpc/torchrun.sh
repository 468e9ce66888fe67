#!/usr/bin/env bash
# One node's launcher: bash hpc/torchrun.sh NUM_RANKS JOB key=value …
# Across nodes it runs once on each, under srun, with
#   PT_RENDEZVOUS=HOST:PORT  where all of them meet, on the first node
#   PT_NUM_NODES=N           how many they are: all or none
set -euo pipefail
ranks=$1; shift
# ranks share the cores of this node, or the cores of its allocation
cores=$(env -u OMP_NUM_THREADS nproc)
if [ "${SLURM_CPUS_PER_TASK:-$cores}" -lt "$cores" ]; then cores=$SLURM_CPUS_PER_TASK; fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores / ranks > 0 ? cores / ranks : 1))}
# a dead worker's restart must not meet the old store (torch serves its rendezvous store from the agent otherwise)
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# a training step on a CPU allocates and frees the same large blocks again and again; below these thresholds glibc maps and
# unmaps each of them, and every page of it faults anew
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-4294967296}
export MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-4294967296}
export MALLOC_TOP_PAD_=${MALLOC_TOP_PAD_:-268435456}
if [ -n "${PT_RENDEZVOUS:-}" ]; then
  # the names of nodes need not resolve: each says the address that Slurm knows it by
  address=$(scontrol show node -o "$SLURMD_NODENAME" | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p')
  meet=(--nnodes="$PT_NUM_NODES" --rdzv-backend=c10d --rdzv-endpoint="$PT_RENDEZVOUS" --local-addr="$address"
    --rdzv-id="$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" --rdzv-conf="is_host=0,join_timeout=${PT_JOIN_S:-300}")
else
  meet=(--standalone)
  export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-lo} # ranks of one node talk over loopback, whatever the host is called
fi
# USR1 is for the ranks, which stop after their step; torchrun would die of it, and being ignored outlives exec
trap '' USR1
if [ -n "${SLURM_STEP_ID:-}" ]; then
  # so is the TERM that Slurm gives to all processes of a step; a torchrun that can be told so waits for its ranks in peace
  run=$(python -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])')/distributed/run.py
  if grep -qs -- --signals-to-handle "$run"; then
    trap '' TERM
    meet+=(--signals-to-handle=SIGINT)
  fi
fi
exec python -m parallel_tunes.parallel.torchrun "${meet[@]}" --nproc-per-node="$ranks" --max-restarts="${PT_MAX_RESTARTS:-0}" -m parallel_tunes "$@"
