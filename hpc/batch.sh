# shellcheck shell=bash
# The start of every batch script, sourced with PT_HOME set: the site, the environment, this checkout's package.
trap '' USR1 # early ones: until the job listens there is nothing to save, and the shell would die of it
echo "$(date '+%F %T') job $SLURM_JOB_ID${SLURM_RESTART_COUNT:+, restart $SLURM_RESTART_COUNT} on $SLURM_JOB_NODELIST"
. "$PT_HOME/hpc/env.sh" || exit
export PT_HOME PYTHONPATH="$PT_HOME${PYTHONPATH:+:$PYTHONPATH}"
