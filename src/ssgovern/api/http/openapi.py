"""The description of the open API (OpenAPI 3.1), made from what serves it.

Everything in it comes from `operations` and the types in `bodies`; nothing is written twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ssgovern.api.http.asked import EVENTS_MEDIA_TYPE, JSON_MEDIA_TYPE, PATCH_MEDIA_TYPE
from ssgovern.api.http.asks import Query
from ssgovern.api.http.bodies import Problem
from ssgovern.api.http.operations import HEADERS, Operation
from ssgovern.api.http.problems import PROBLEM_MEDIA_TYPE, STATUSES
from ssgovern.version import __version__

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

_REF = "#/components/schemas/{model}"
_IN_BRACES = re.compile(r"\{(\w+)\}")


_TAG: dict[str, Json] = {
    "ETag": {"description": "changes with what it is the tag of", "schema": {"type": "string"}}
}


def openapi_document(operations: Iterable[Operation]) -> dict[str, Json]:
    """Return the document."""
    described = list(operations)
    answers: dict[type[BaseModel], None] = dict.fromkeys([Problem, *(o.answer for o in described)])
    bodies = dict.fromkeys(o.body for o in described if o.body is not None)
    _, schemas = models_json_schema(
        [*((a, "serialization") for a in answers), *((b, "validation") for b in bodies)],
        ref_template=_REF,
    )
    paths: dict[str, Json] = {}
    for operation in described:
        methods = paths.setdefault(operation.path, {})
        assert isinstance(methods, dict), "made here"
        methods[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ss-govern open API",
            "version": __version__,
            "description": (
                "Any node of a cluster answers for all of it. Errors are application/problem+json "
                "with a stable code."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "where access is controlled",
                }
            },
        },
        "security": [{}, {"token": []}],
    }


def _operation(operation: Operation) -> dict[str, Json]:
    content: dict[str, Json] = {
        "application/json": {"schema": _ref(operation.answer.__name__)},
    }
    if operation.streams:
        content[EVENTS_MEDIA_TYPE] = {"schema": {"type": "string"}}
    found: dict[str, Json] = {"description": operation.summary, "content": content}
    if operation.tagged:
        found["headers"] = _TAG
    responses: dict[str, Json] = {"200": found}
    if operation.made:
        responses["201"] = {**found, "description": "It was not there before"}
    if operation.tagged and operation.method == "GET":
        responses["304"] = {"description": "It is what If-None-Match or `after` named"}
    responses.update(_problems(operation))
    described: dict[str, Json] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": [
            *_path_parameters(operation),
            *_query_parameters(operation.query),
            *map(_header_parameter, _headers_of(operation)),
        ],
        "responses": responses,
        "x-action": operation.action,
    }
    if operation.body is not None:
        needed = any(field.is_required() for field in operation.body.model_fields.values())
        media_types = [JSON_MEDIA_TYPE]
        if operation.method == "PATCH":
            media_types.append(PATCH_MEDIA_TYPE)
        schema = _ref(operation.body.__name__)
        described["requestBody"] = {
            "required": needed or operation.method == "PATCH",
            "content": {media_type: {"schema": schema} for media_type in media_types},
        }
    return described


def _headers_of(operation: Operation) -> Iterable[tuple[str, str]]:
    if operation.tagged and operation.method == "GET":
        yield "If-None-Match", "an earlier ETag: 304 if it is still that"
    for name in operation.headers:
        yield name, HEADERS[name]


def _header_parameter(header: tuple[str, str]) -> Json:
    name, description = header
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
    }


def _problems(operation: Operation) -> dict[str, Json]:
    by_status: dict[int, list[str]] = {}
    for error in operation.all_errors:
        by_status.setdefault(STATUSES[error], []).append(f"{error.name} ({int(error)})")
    if "If-Match" in operation.headers or "If-None-Match" in operation.headers:
        by_status[412] = ["what If-Match or If-None-Match asks for is not so"]
    if operation.body is not None:
        by_status[413] = ["the body is too long"]
        by_status[415] = ["the body is no JSON"]
    return {
        str(status): {
            "description": " or ".join(names),
            "content": {PROBLEM_MEDIA_TYPE: {"schema": _ref("Problem")}},
        }
        for status, names in sorted(by_status.items())
    }


def _path_parameters(operation: Operation) -> list[Json]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": "percent-encoded, also the slashes in it",
            "schema": {"type": "string", "minLength": 1},
        }
        for name in _IN_BRACES.findall(operation.path)
    ]


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
