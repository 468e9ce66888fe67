# shellcheck shell=bash
# The configuration of a cluster of $NODES nodes on this machine, sourced by `up`, which sets what is capital here, and more:
# shellcheck disable=SC2153,SC2154 # folder, user

# write_config PORT: its files, with the ports from PORT on: slurmdbd if there is one, slurmctld, the nodes
write_config() {
  local port=$1 nodes="n[1-$NODES]" gpus="" accounting listen=""
  if [ "$LISTEN" = loopback ]; then listen="CommunicationParameters=NoCtldInAddrAny,NoInAddrAny"; fi
  accounting="JobCompType=jobcomp/filetxt
JobCompLoc=$folder/log/jobcomp.log"
  : >"$folder/gres.conf"
  if [ "$GPUS" != 0 ]; then
    gpus="Gres=gpu:$GPUS"
    printf 'AutoDetect=off\nNodeName=%s Name=gpu File=%s\n' "$nodes" "$folder/dev/nvidia[0-$((GPUS - 1))]" >"$folder/gres.conf"
  fi
  if [ "$ACCOUNTING" = 1 ]; then
    write_slurmdbd_config "$port"
    accounting="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=$port
AccountingStoragePass=$folder/run/munge.socket
${gpus:+AccountingStorageTRES=gres/gpu}"
    port=$((port + 1))
  fi
  cat >"$folder/slurm.conf" <<CONF
ClusterName=local-cluster
# localhost is whatever this host is called today
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$port
$listen
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
CredType=cred/munge
# a requeued job waits until its credential has expired: 120 s unless told; below 5 Slurm takes 120
AuthInfo=socket=$folder/run/munge.socket,cred_expire=5

StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/state/slurmctld.pid
SlurmdPidFile=$folder/state/slurmd.%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.%n.log
SlurmctldDebug=info
SlurmdDebug=info

ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
MailProg=/bin/true
PropagateResourceLimitsExcept=ALL
$accounting

# memory is not shared out: jobs need not say how much they want
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
${gpus:+GresTypes=gpu}
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0,requeue_setup_env_fail
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=$KILL_WAIT
OverTimeLimit=0
MinJobAge=600
InactiveLimit=0
BatchStartTimeout=10
UnkillableStepTimeout=30
SlurmdTimeout=10
SlurmctldTimeout=30
MessageTimeout=$MESSAGE_TIMEOUT

# more CPUs and memory than this machine may have; a node that comes back is taken back
SlurmdParameters=config_overrides
ReturnToService=2
NodeName=$nodes NodeHostname=localhost NodeAddr=127.0.0.1 Port=$((port + 1))-$((port + NODES)) CPUs=$CPUS \
  Boards=1 SocketsPerBoard=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$MEMORY_MIB $gpus State=UNKNOWN
PartitionName=debug Nodes=$nodes Default=YES DefaultTime=5 MaxTime=30 PriorityTier=1 PreemptMode=REQUEUE
PartitionName=gpu Nodes=$nodes MaxTime=60 PriorityTier=1 PreemptMode=REQUEUE
PartitionName=cpu Nodes=$nodes MaxTime=60 PriorityTier=1 PreemptMode=REQUEUE
PartitionName=cancels Nodes=$nodes DefaultTime=5 MaxTime=30 PriorityTier=1 PreemptMode=CANCEL
PartitionName=urgent Nodes=$nodes DefaultTime=5 MaxTime=30 PriorityTier=10 PreemptMode=REQUEUE
CONF
}

write_slurmdbd_config() {
  cat >"$folder/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$folder/run/munge.socket
$listen
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$1
SlurmUser=$user
PidFile=$folder/state/slurmdbd.pid
LogFile=$folder/log/slurmdbd.log
DebugLevel=info
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
CONF
  chmod 600 "$folder/slurmdbd.conf" # slurmdbd insists
}
