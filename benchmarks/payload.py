"""What every server is asked to keep: one instance of 8 fields and 4 metadata pairs.

The bytes look as protocol buffers would make them. Whoever has the real encoder passes its
bytes instead (`benchmarks.plugins.value`), so that all servers store exactly the same.
"""

from collections.abc import Iterator

PARENT = "/registry/prod/DEFAULT"
NUMBER_DIGITS = 8
"""Numbers in keys have a fixed width, so that requests of one connection differ in place."""

_METADATA = (
    ("lane", "gray"),
    ("owner", "team-payments"),
    ("protocol", "grpc"),
    ("build", "2024-11-05T10:22:31Z"),
)


def key_prefix(service: int) -> bytes:
    """Return all of a key but its number: `/registry/prod/DEFAULT/orders-<n>/10.1.2.3:8080-`."""
    return f"{PARENT}/orders-{service}/10.1.2.3:8080-".encode()


def sample_value() -> bytes:
    """Return about 170 bytes: id, host, port, weight, flags, zone, version, metadata."""
    return b"".join(_fields())


def varint(number: int) -> bytes:
    """Encode an unsigned number as protocol buffers do."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field_bytes(number: int, body: bytes) -> bytes:
    """Encode a length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(body)) + body


def field_varint(number: int, value: int) -> bytes:
    """Encode a varint protobuf field."""
    return varint(number << 3) + varint(value)


def _fields() -> Iterator[bytes]:
    yield field_bytes(1, b"orders-10.1.2.3-8080-7f3a91c2")
    yield field_bytes(2, b"10.1.2.3")
    yield field_varint(3, 8080)
    yield field_varint(4, 100)
    yield field_varint(5, 1)
    yield field_varint(6, 1)
    yield field_bytes(7, b"cn-east-1a")
    yield field_bytes(8, b"2.14.0")
    for name, value in _METADATA:
        pair = field_bytes(1, name.encode()) + field_bytes(2, value.encode())
        yield field_bytes(9, pair)
