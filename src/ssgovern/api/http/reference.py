"""The open API as a page for people, made from the same description as programs are given.

No script, no image, nothing from elsewhere: it is readable without the internet and under the
strictest policy; its style is allowed by its hash. Knows no request. Invariant: whatever is in
the description is text here, never markup.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from html import escape

from pydantic import BaseModel

from ssgovern.api.http.operations import DOCUMENT_PATH, HEADERS, Operation
from ssgovern.api.http.problems import STATUSES
from ssgovern.version import __version__

REFERENCE_PATH = "/docs"

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--quiet:#777;--get:#0a7;--change:#b60;--remove:#c33}
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.05rem;margin:0}code{font-family:ui-monospace,monospace}
article{border:1px solid var(--line);border-radius:6px;padding:.8rem 1rem;margin:.8rem 0}
table{border-collapse:collapse;width:100%;margin:.4rem 0}
td,th{border-top:1px solid var(--line);padding:.2rem .5rem;text-align:left;vertical-align:top}
th{font-weight:600}td:first-child{white-space:nowrap}
.quiet{color:var(--quiet)}.GET{color:var(--get)}.PUT,.POST,.PATCH{color:var(--change)}
.DELETE{color:var(--remove)}nav a{margin-right:.8rem;white-space:nowrap}
.wide{overflow-x:auto}
"""


def reference_policy() -> str:
    """Return the content security policy of the page."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'; base-uri 'none'"
    )


def reference_page(operations: Iterable[Operation]) -> bytes:
    """Return the page."""
    described = list(operations)
    links = " ".join(f'<a href="#{each.id}">{escape(each.id)}</a>' for each in described)
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>ss-govern open API</title><style>{_STYLE}</style></head><body>"
        f"<h1>ss-govern open API <span class=quiet>{escape(__version__)}</span></h1>"
        "<p>Any node of a cluster answers for all of it. Names in a path are percent-encoded, "
        "slashes in them, too. Errors are <code>application/problem+json</code> with a stable "
        "<code>code</code>. Where access is controlled, send "
        "<code>Authorization: Bearer …</code>. For programs: "
        f'<a href="{DOCUMENT_PATH}">OpenAPI 3.1</a>.</p>'
        f"<nav>{links}</nav>{''.join(map(_article, described))}</body></html>"
    ).encode()


def _article(operation: Operation) -> str:
    head = (
        f"<article id={operation.id}><h2><span class={operation.method}>{operation.method}</span> "
        f"<code>{escape(operation.path)}</code></h2><p>{escape(operation.summary)}. "
        f"<span class=quiet>Takes the right to {_right(operation)}.</span></p>"
    )
    parts = [head, _fields("Parameters", operation.query)]
    if operation.headers:
        rows = [(name, "string", HEADERS[name]) for name in operation.headers]
        parts.append(_table("Headers", rows))
    if operation.body is not None:
        parts.append(_fields("Body", operation.body))
    parts.append(_fields("Answer", operation.answer))
    errors = ", ".join(
        f"{STATUSES[error]} <code>{error.name.lower()}</code> ({int(error)})"
        for error in operation.all_errors
    )
    parts.append(f"<p class=quiet>Errors: {errors}</p></article>")
    return "".join(parts)


def _right(operation: Operation) -> str:
    right = f"<b>{operation.action}</b>"
    if operation.action_as_owner is not None:
        right += f", with the instance's lease to <b>{operation.action_as_owner}</b>"
    return right


def _fields(title: str, model: type[BaseModel]) -> str:
    schema = model.model_json_schema()
    required = schema.get("required", [])
    rows = [
        (
            name,
            _type_of(field) + (", required" if name in required and title == "Body" else ""),
            str(field.get("description", "")),
        )
        for name, field in schema.get("properties", {}).items()
    ]
    return _table(title, rows) if rows else ""


def _type_of(field: dict[str, object]) -> str:
    """Return a type in few words."""
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    several = field.get("anyOf")
    if isinstance(several, list):
        return " or ".join(_type_of(each) for each in several)
    values = field.get("enum")
    if isinstance(values, list):
        return " | ".join(repr(each) for each in values)
    items = field.get("items")
    if isinstance(items, dict):
        return f"list of {_type_of(items)}"
    return str(field.get("type", "any"))


def _table(title: str, rows: Iterable[tuple[str, str, str]]) -> str:
    lines = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td class=quiet>{escape(kind)}</td>"
        f"<td>{escape(text)}</td></tr>"
        for name, kind, text in rows
    )
    return f"<div class=wide><table><tr><th colspan=3>{title}</th></tr>{lines}</table></div>"
