"""The registries ss-govern is measured against, each with a load generator of its own."""

from benchmarks.contender import Contender
from benchmarks.peers.etcd import Etcd
from benchmarks.peers.zookeeper import ZooKeeper

PEERS: tuple[Contender, ...] = (Etcd(), ZooKeeper())
