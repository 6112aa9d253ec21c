"""Where our own node joins: the only module here that may import from outside.

To put our node into the rows that have peers, append a `Contender` named `bench.OURS`
to `CONTENDERS`: it starts the node in an empty directory (see `contender.running`) and
builds `ClosedLoop` connections for it. It then takes its turn in every round.

To add rows of our own, append `Case(name, run)` to `CASES`:

    async def fan_out(bench: Bench) -> list[Result]:
        bench.say("10,000 subscribers")
        ...
        return [Result("one change to 10,000 subscribers, last told, p99",
                       {OURS: Figure(seconds, "s")}, wanted="≤ 300 ms", met=seconds <= 0.3)]

    CASES.append(Case("fan-out", fan_out))

`VALUE` is what peers store for one instance; set it to the bytes our own encoder makes of
the instance that our contender registers.
"""

from benchmarks import cases
from benchmarks.bench import Case
from benchmarks.contender import Contender
from benchmarks.ours import OurNode
from ssgovern.cli.load import sample_instance

CONTENDERS: list[Contender] = [OurNode()]
CASES: list[Case] = [*cases.CASES]
VALUE: bytes = sample_instance("10.1.2.3-00000001").SerializeToString()
