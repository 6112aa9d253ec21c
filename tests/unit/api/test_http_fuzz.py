"""The open API against requests made from its own description, good ones and bad ones."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlencode

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from schemathesis.core import NotSet
from schemathesis.generation import GenerationMode
from web import Site

from ssgovern.api.http.bodies import Problem
from ssgovern.api.http.openapi import openapi_document
from ssgovern.api.http.operations import OPERATIONS, Operation

DOCUMENT: Any = openapi_document(OPERATIONS)
DESCRIBED = {
    (found.ok().path, found.ok().method.upper()): found.ok()
    for found in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()
}
KNOWN = {"namespace": "prod", "group": "default", "service": "orders", "id": "a"}
HOW = settings(
    max_examples=8,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    verbosity=Verbosity.quiet,
)


async def ask(site: Site, scope: dict[str, Any], body: bytes) -> tuple[int, dict[str, str], bytes]:
    """Ask the application as its server does."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    async with asyncio.timeout(20):
        await site.front(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(each.get("body", b"") for each in sent[1:])


def request_of(case: Any) -> tuple[dict[str, Any], bytes]:
    """Return what a generated case is on the wire."""
    body = b""
    headers = [(b"host", b"127.0.0.1:7421")]
    if case.media_type and not isinstance(case.body, NotSet):
        headers.append((b"content-type", case.media_type.encode()))
        body = case.body if isinstance(case.body, bytes) else json.dumps(case.body).encode()
    for name, value in (case.headers or {}).items():
        if name.lower() not in ("content-type", "accept", "origin"):
            headers.append((name.lower().encode(), str(value).encode("utf-8", "replace")))
    query = dict(case.query or {})
    if "wait" in query:
        query["wait"] = "1ms" if str(query["wait"])[:1].isdigit() else query["wait"]
    scope = {
        "type": "http",
        "method": case.method.upper(),
        "raw_path": case.formatted_path.encode("ascii"),
        "query_string": urlencode(query, doseq=True, errors="replace").encode(),
        "headers": headers,
        "client": ("127.0.0.1", 1),
    }
    return scope, body


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.id)
def test_no_request_makes_the_node_fail(operation: Operation, mode: GenerationMode) -> None:
    """Every answer is one that the description has, in the form it has there; none is a 5xx."""
    takes_any_text = operation.body is None and not operation.query.model_fields
    if mode is GenerationMode.NEGATIVE and takes_any_text:
        pytest.skip("there is nothing that the description does not allow")
    described = DESCRIBED[operation.path, operation.method]
    in_path = {name: value for name, value in KNOWN.items() if f"{{{name}}}" in operation.path}
    # What is well formed is to get far enough to do something; what is not may be anything.
    known = in_path if mode is GenerationMode.POSITIVE else {}
    strategy = described.as_strategy(mode, path_parameters=known or None)
    site = Site()
    site.register("a", metadata={"k": "v"})
    statuses = DOCUMENT["paths"][operation.path][operation.method.lower()]["responses"]

    @HOW
    @given(strategy)
    def fuzz(case: Any) -> None:
        if operation.method != case.method.upper():
            return
        scope, body = request_of(case)
        status, headers, said = asyncio.run(ask(site, scope, body))
        assert status < 500, said
        if status == 404 and b"nothing is here" in said:
            return  # what was made has another number of parts
        assert str(status) in statuses, said
        if status >= 400:
            assert headers["content-type"] == "application/problem+json"
            Problem.model_validate_json(said, strict=True)
        elif status < 300:
            operation.answer.model_validate_json(said, strict=True)

    fuzz()
