# shellcheck shell=bash
# Any machine: nothing to load, nothing to choose. A cluster of your own is a copy of this file, hpc/sites/<name>.sh, with
# what it needs of the lines below; PT_SITE=<name> chooses it, or a line `# hosts:` with patterns of its host names.
#
#   # hosts: login*.cluster.example gpu[0-9]*
#   module load python/3.12 cuda/12.8                          # then PT_VENV=none if the module brings torch
#   export SBATCH_PARTITION=gpu SBATCH_ACCOUNT=music           # sbatch reads these; a word on its command line wins
#   export GLOO_SOCKET_IFNAME=ib0 NCCL_SOCKET_IFNAME=ib0       # the network that the ranks talk over
#   export TMPDIR=/scratch/$USER PT_VENV=/project/music/venv   # scratch, and where the environment lies
