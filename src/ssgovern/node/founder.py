"""Founds the cluster: the leader of an empty metadata log, once all candidates are there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress

from ssgovern.controller.codec import encode_entry
from ssgovern.controller.controller import decide_founding
from ssgovern.controller.nodes import Registration
from ssgovern.controller.settings import check_settings
from ssgovern.controller.state import Settings
from ssgovern.errors import SsGovernError
from ssgovern.model import NodeId, ShardMap
from ssgovern.node.controller_seams import AgreedLog
from ssgovern.node.founding import Claim, FoundAs, LetFound, Waits, decide_founding_step
from ssgovern.node.metadata import Metadata
from ssgovern.runtime import Runtime

log = logging.getLogger("ssgovern.controller")

_CLUSTER_ID_BYTES = 16


class Founder:
    """Asked again and again by who leads, until there is a cluster."""

    def __init__(
        self,
        me: NodeId,
        agreed: AgreedLog,
        metadata: Metadata,
        runtime: Runtime,
        *,
        settings: Settings,
        claims: Callable[[], Mapping[NodeId, Claim]],
        inherited: Callable[[], tuple[Registration, ShardMap] | None] = lambda: None,
    ) -> None:
        """`settings` are those of the cluster, whose first placement waits for all candidates.

        `claims` tells what each candidate that was heard, this one included, belongs to
        (`founding.claims_of`); `inherited` what this node brings as the first of several: its
        registration and its map, None if it brings nothing or has not read it yet.
        """
        check_settings(settings)
        self.trouble = ""
        """Why there is no cluster yet, for people; empty if there is, or others have to say."""
        self._me = me
        self._log = agreed
        self._metadata = metadata
        self._runtime = runtime
        self._settings = settings
        self._claims = claims
        self._inherited = inherited

    async def maybe_found(self) -> None:
        """Found the cluster, if all its candidates are there and agree that there is none."""
        step = decide_founding_step(
            self._me,
            self._log.candidates,
            self._claims(),
            self._runtime.random_bytes(_CLUSTER_ID_BYTES),
        )
        match step:
            case Waits():
                self._say_trouble(step.why, loud=step.for_ever)
            case LetFound():
                self._say_trouble(
                    f"node {step.node} brings data of its own: it is to found the cluster",
                    loud=False,
                )
                with suppress(SsGovernError):
                    await self._log.transfer(step.node)
            case FoundAs():
                await self._found_as(step)

    async def _found_as(self, step: FoundAs) -> None:
        inherited = self._inherited() if step.inherits else None
        if step.inherits and inherited is None:
            self._say_trouble("waiting for what this node brings to be read", loud=False)
            return
        decision = decide_founding(self._metadata.state, step.cluster_id, self._settings, inherited)
        try:
            body = encode_entry(decision.records, self._runtime.wall_ms())
            await self._log.append(body, after=self._metadata.index)
        except SsGovernError as error:
            self._say_trouble(f"the cluster is not founded yet: {error}", loud=False)
        else:
            self.trouble = ""
            log.info(decision.sentence)

    def _say_trouble(self, why: str, *, loud: bool) -> None:
        if why != self.trouble:
            log.log(logging.ERROR if loud else logging.INFO, "no cluster yet: %s", why)
        self.trouble = why
