"""The description of the open API (OpenAPI 3.1), made from what serves it.

Everything in it comes from `operations` and the types in `bodies`; nothing is written twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ssgovern.api.http.asks import Query
from ssgovern.api.http.bodies import Problem
from ssgovern.api.http.operations import Operation
from ssgovern.api.http.problems import PROBLEM_MEDIA_TYPE, STATUSES
from ssgovern.errors import ErrorCode
from ssgovern.version import __version__

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

_REF = "#/components/schemas/{model}"
_IN_BRACES = re.compile(r"\{(\w+)\}")


def openapi_document(operations: Iterable[Operation]) -> dict[str, Json]:
    """Return the document."""
    described = list(operations)
    answers: dict[type[BaseModel], None] = dict.fromkeys([Problem, *(o.answer for o in described)])
    _, schemas = models_json_schema([(a, "serialization") for a in answers], ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ss-govern open API",
            "version": __version__,
            "description": "Read only so far. Answers are what the asked node knows at the moment.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": {operation.path: {"get": _operation(operation)} for operation in described},
        "components": {"schemas": schemas["$defs"]},
    }


def _operation(operation: Operation) -> dict[str, Json]:
    found: dict[str, Json] = {
        "description": operation.summary,
        "content": {"application/json": {"schema": _ref(operation.answer.__name__)}},
    }
    responses: dict[str, Json] = {"200": found}
    if operation.tagged:
        found["headers"] = {
            "ETag": {"description": "changes with the answer", "schema": {"type": "string"}}
        }
        responses["304"] = {"description": "it is what If-None-Match named"}
    responses.update(_problems(operation.all_errors))
    return {
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": [*_path_parameters(operation), *_query_parameters(operation.query)],
        "responses": responses,
    }


def _problems(errors: Iterable[ErrorCode]) -> dict[str, Json]:
    by_status: dict[int, list[str]] = {}
    for error in errors:
        by_status.setdefault(STATUSES[error], []).append(f"{error.name} ({int(error)})")
    return {
        str(status): {
            "description": " or ".join(names),
            "content": {PROBLEM_MEDIA_TYPE: {"schema": _ref("Problem")}},
        }
        for status, names in sorted(by_status.items())
    }


def _path_parameters(operation: Operation) -> list[Json]:
    parameters: list[Json] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": "percent-encoded, also the slashes in it",
            "schema": {"type": "string", "minLength": 1},
        }
        for name in _IN_BRACES.findall(operation.path)
    ]
    if operation.tagged:
        parameters.append(
            {
                "name": "If-None-Match",
                "in": "header",
                "required": False,
                "schema": {"type": "string"},
            }
        )
    return parameters


def _query_parameters(query: type[Query]) -> list[Json]:
    properties: dict[str, dict[str, Json]] = query.model_json_schema().get("properties", {})
    parameters: list[Json] = []
    for name, schema in properties.items():
        described: Json = schema.get("description", "")
        left: dict[str, Json] = {
            key: value for key, value in schema.items() if key not in ("title", "description")
        }
        parameters.append(
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": described,
                "schema": left,
            }
        )
    return parameters


def _ref(model: str) -> dict[str, Json]:
    return {"$ref": _REF.format(model=model)}
