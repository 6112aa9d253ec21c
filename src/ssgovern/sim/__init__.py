"""The deterministic simulator: whole clusters in one process, on virtual time, from one seed.

Bottom up:

- `trace`, `world`: virtual time, the heap of events, streams of chance, the digest of a run;
- `streams`, `tcp`, `handshake`, `network`, `machine`, `disk`: what a kernel and its hardware do,
  with every fault that is injected;
- `sockets`, `transport`, `loop_network`, `loop`: asyncio on top of that kernel;
- `process`, `runtime`: what runs production code, and what ends it.

Fidelity ends at: congestion control, TLS, UDP, contention for the processor between processes,
memory pressure, and reads that fail. What depends on those is tested with real processes.
"""
