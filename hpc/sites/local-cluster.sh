# shellcheck shell=bash
# The cluster that hpc/cluster/up makes on one machine: all its nodes are this host, and talk over loopback.
export GLOO_SOCKET_IFNAME=lo NCCL_SOCKET_IFNAME=lo
