"""Measure ss-govern beside etcd and ZooKeeper: `make bench`, or `python -m benchmarks`.

Every server runs on one core with the load on the other, durable, on the disk that holds
this checkout; every figure is the median of rounds in which the servers take turns, so
that what the machine does meanwhile falls on all of them alike.

Knows nothing of the package `ssgovern`: what measures our own node is plugged in
(see `benchmarks.plugins`).
"""
