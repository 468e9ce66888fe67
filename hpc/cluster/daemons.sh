# shellcheck shell=bash
# A cluster's folder and its processes, for the scripts beside this file, which source it.
# Whatever a cluster runs carries its SLURM_CONF in its environment, and whatever a node runs SLURMD_NODENAME as well: Slurm
# sets both for jobs, and `start` for daemons, whose steps inherit them. So nothing of anybody else is ever signalled, not
# even when a recorded pid has meanwhile become another process's.

marker=.ptunes-cluster # says that a folder is ours to delete
default_folder=${TMPDIR:-/tmp}/ptunes-cluster-$UID # not XDG_RUNTIME_DIR: the last logout would delete it under the daemons
PATH=${PATH:+$PATH:}/usr/sbin:/sbin # Debian keeps the daemons there, out of a user's way

refuse() {
  echo "hpc/cluster/${0##*/}: $*" >&2
  exit 2
}

# choose_folder [FOLDER]: the one given, that of the cluster which SLURM_CONF belongs to, or the default
choose_folder() {
  [ $# -le 1 ] || refuse "one FOLDER at most, not: $*"
  local conf=${SLURM_CONF:-}
  folder=${1:-}
  if [ -z "$folder" ] && [ -O "${conf%/*}/$marker" ]; then folder=${conf%/*}; fi
  case $folder in -*) refuse "no such option: $folder (settings are variables, see the head of the file)" ;; esac
  folder=$(realpath -m -- "${folder:-$default_folder}")
  if [ "$conf" = "$folder/slurm.conf" ] && [ -n "${SLURMD_NODENAME:-}" ]; then
    refuse "this shell is a job of the cluster in $folder: leave it first"
  fi
  # neither the job around us, on another cluster, nor the user's formats for squeue and sinfo
  unset "${!SLURM@}" "${!SINFO_@}" "${!SQUEUE_@}" "${!SCANCEL_@}"
  export SLURM_CONF=$folder/slurm.conf LC_ALL=C
}

# choose_node NODE [FOLDER]: sets $node and $folder
choose_node() {
  node=${1:-}
  choose_folder "${@:2}"
  is_ours || refuse "no cluster is up in $folder"
  local pids=("$folder"/run/slurmd.n*.pid)
  [[ $node =~ ^n[0-9]+$ && -f $folder/run/slurmd.$node.pid ]] ||
    refuse "no such node: '$node'; the cluster in $folder has n1 to n${#pids[@]}"
}

is_ours() { [ -O "$folder/$marker" ]; }

# lock_folder: one `up` or `down` at a time; false if the folder was deleted while we waited
lock_folder() {
  { exec 9<"$folder/$marker"; } 2>/dev/null || return
  flock -w 120 9 || refuse "another up or down is at work in $folder"
  [ "$folder/$marker" -ef /proc/self/fd/9 ]
}

# within SECONDS COMMAND …: until the command succeeds, but no longer
within() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < end)) || return 1
    sleep 0.05
  done
}

# start NAME [VARIABLE=VALUE …] COMMAND …: in a session and an environment of its own; its pid in run/NAME.pid
start() {
  local name=$1
  shift
  (
    cd "$folder" || exit
    exec setsid env -i PATH="$PATH" HOME="$folder" SLURM_CONF="$SLURM_CONF" "$@" </dev/null >>"log/$name.err" 2>&1 9<&-
  ) &
  echo $! >"$folder/run/$name.pid"
  # until it has become that program, is_alive would not know it
  while kill -0 $! 2>/dev/null && ! is_alive "$name"; do sleep 0.01; done
}

start_node() { start "slurmd.$1" SLURMD_NODENAME="$1" slurmd -D -N "$1"; }

# is_alive NAME: whether that daemon runs; sets $pid
is_alive() {
  pid=$(cat "$folder/run/$1.pid" 2>/dev/null) && [ -n "$pid" ] &&
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "${1%%.*}" ] &&
    grep -qzsFx "SLURM_CONF=$SLURM_CONF" "/proc/$pid/environ"
}

# is_bound NAME PORT: whether that daemon, not another program, listens there. Found without a connection: Slurm would log it.
is_bound() {
  local inode
  inode=$(awk -v port="$(printf ':%04X' "$2")" '$4 == "0A" && substr($2, 9) == port { print $10 }' /proc/net/tcp)
  [ -n "$inode" ] && is_alive "$1" && find "/proc/$pid/fd" -lname "socket:\[$inode\]" 2>/dev/null | grep -q .
}

descendants() {
  local child
  while read -r -d ' ' child; do
    echo "$child"
    descendants "$child"
  done < <(cat "/proc/$1"/task/*/children 2>/dev/null)
}

# processes_of PATTERN: pids of what the nodes of that name run. Daemons first: a step that outlived its tasks, if only for
# a moment, would report them, and a job that lost its node would count as failed.
processes_of() {
  local file process daemons=() tasks=()
  while read -r file; do
    grep -qzsxE "SLURMD_NODENAME=($1)" "$file" || continue
    process=${file//[!0-9]/}
    case $(cat "/proc/$process/comm" 2>/dev/null) in
      slurmd | slurmstepd) daemons+=("$process") ;;
      *) tasks+=("$process") ;;
    esac
  done < <(grep -lzsFx "SLURM_CONF=$SLURM_CONF" /proc/[0-9]*/environ)
  printf '%s\n' "${daemons[@]}" "${tasks[@]}"
  for process in "${daemons[@]}" "${tasks[@]}"; do descendants "$process"; done
}

# kill_once PATTERN: kills what those nodes run; true if there was nothing
kill_once() {
  local pids
  mapfile -t pids < <(processes_of "$1" | sed '/^$/d')
  if [ ${#pids[@]} = 0 ]; then return 0; fi
  kill -KILL "${pids[@]}" 2>/dev/null || true
  return 1
}

# cut_power PATTERN: again until there is nothing: what is being killed may be starting more
cut_power() { within 10 kill_once "$1"; }

are_gone() {
  local name
  for name; do
    if is_alive "$name"; then return 1; fi
  done
}

# stop_daemons PATTERN: all at once; TERM, then KILL, which a slurmd that never reached its slurmctld needs
stop_daemons() {
  local file name signal names=()
  for file in "$folder"/run/$1.pid; do # a pattern it is
    file=${file##*/}
    names+=("${file%.pid}")
  done
  for signal in TERM KILL; do
    for name in "${names[@]}"; do
      if is_alive "$name"; then kill "-$signal" "$pid" 2>/dev/null || true; fi
    done
    if within 5 are_gone "${names[@]}"; then return 0; fi
  done
  return 1
}

# take_down: the folder goes last, and only when all that used it is gone
take_down() {
  if stop_daemons '*' && cut_power 'n[0-9]+'; then
    rm -rf -- "$folder"
  else
    echo "hpc/cluster/${0##*/}: some processes cannot be killed; $folder stays" >&2
    return 1
  fi
}
