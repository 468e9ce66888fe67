# shellcheck shell=bash
# The start of every batch script, sourced with PT_HOME set: the site, the environment, this checkout's package.
trap 'export PT_ASKED_TO_STOP=1' USR1 # Slurm says it once, maybe while the environment is being made
echo "$(date '+%F %T') job $SLURM_JOB_ID${SLURM_RESTART_COUNT:+, restart $SLURM_RESTART_COUNT} on $SLURM_JOB_NODELIST"
. "$PT_HOME/hpc/env.sh" || exit
export PT_HOME PYTHONPATH="$PT_HOME${PYTHONPATH:+:$PYTHONPATH}"
trap '' USR1 # through the exec, until Python listens
