"""What was lost is remembered until the cluster knows, through any number of starts."""

from __future__ import annotations

import pytest
from stopped import DATA, OTHER, SHARD, StoppedMachine, run

from ssgovern.errors import CorruptionError
from ssgovern.node import marks
from ssgovern.node.damages import Damages
from ssgovern.node.marks import Damaged, read_damaged, write_damaged


def test_each_part_goes_when_it_is_settled() -> None:
    """Shards when the controller answered, votes when the others agreed; one not with the other."""
    machine = StoppedMachine()
    root = machine.open_disk(DATA)
    run(write_damaged(root, Damaged((SHARD, OTHER), votes=True)))
    damages = Damages(root)
    assert (damages.shards, damages.votes) == ((SHARD, OTHER), True)
    run(damages.told())
    assert read_damaged(root) == Damaged(votes=True)
    again = Damages(root)
    assert (again.shards, again.votes) == ((), True)
    run(again.not_voting())
    assert marks.DAMAGED not in root.names()
    assert not Damages(root).votes


@pytest.mark.parametrize("content", [b"", b"[]", b'{"shards": [256]}', b'{"votes": 1}'])
def test_a_mark_that_makes_no_sense_is_not_ignored(content: bytes) -> None:
    """The node does not start as if nothing had been lost."""
    machine = StoppedMachine()
    machine.image(DATA).append(marks.DAMAGED, [content])
    with pytest.raises(CorruptionError):
        Damages(machine.open_disk(DATA))
