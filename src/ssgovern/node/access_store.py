"""Users, tokens and roles of a node by itself: one file in its data directory.

Written aside, synced and renamed, so that it is there whole or as it was. In a cluster the same
is part of the metadata log, and this file is read once: by the node that founds it.
"""

from __future__ import annotations

import binascii

from ssgovern.controller.access import NOBODY_YET, AccessState, ChangeAccess, decide_access
from ssgovern.controller.access_codec import change_from_wire, change_to_wire
from ssgovern.errors import (
    CorruptionError,
    DiskFullError,
    InvalidArgumentError,
    StorageFailedError,
    UnsupportedVersionError,
)
from ssgovern.runtime import Disk
from ssgovern.storage.files import is_disk_full
from ssgovern.wire.codec import decode, encode
from ssgovern.wire.pb import access_pb2

FILE = "access"
_TEMPORARY = FILE + ".tmp"
_MAGIC = b"ss-govern access "
_FORMAT = b"1"


def load(disk: Disk) -> AccessState:
    """Return what the file says; nobody, if there is none.

    Raises CorruptionError, UnsupportedVersionError: to go on without it would be to let anybody
    in, or nobody.
    """
    if FILE not in disk.names():
        return NOBODY_YET
    content = disk.read(FILE)
    head, _, rest = content.partition(b"\n")
    if not head.startswith(_MAGIC):
        raise _corrupt("not a file of access")
    if head != _MAGIC + _FORMAT:
        raise UnsupportedVersionError(
            f"the file {FILE} was written by a newer version: start that one"
        )
    checksum, _, body = rest.partition(b"\n")
    if checksum != _checksum(body):
        raise _corrupt("its checksum is wrong")
    try:
        return NOBODY_YET.changed(change_from_wire(decode(access_pb2.AccessChanged, body)))
    except InvalidArgumentError as error:
        raise _corrupt(error.message) from error


async def save(disk: Disk, state: AccessState) -> None:
    """Put a state in the place of what the file says. Raises DiskFullError, StorageFailedError."""
    body = encode(change_to_wire(state.whole()))
    content = b"\n".join((_MAGIC + _FORMAT, _checksum(body), body))
    try:
        if _TEMPORARY in disk.names():
            await disk.remove(_TEMPORARY)
        await disk.append(_TEMPORARY, [content], sync=True)
        await disk.rename(_TEMPORARY, FILE)
        await disk.sync_directory()
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(f"no space for the file {FILE}: nothing was changed") from error
        raise StorageFailedError(f"cannot write the file {FILE}: {error.strerror}") from error


class AccessStore:
    """Decides and keeps changes, one at a time; its caller sees to that."""

    def __init__(self, disk: Disk, state: AccessState) -> None:
        self._disk = disk
        self.state = state

    async def change(self, wanted: ChangeAccess) -> str:
        """Decide a command, and return a sentence when it is on disk."""
        change, sentence = decide_access(self.state, wanted.command, wanted.time_ms)
        if change is not None:
            changed = self.state.changed(change)
            await save(self._disk, changed)
            self.state = changed
        return sentence


def _checksum(body: bytes) -> bytes:
    return b"%08x" % binascii.crc32(body)


def _corrupt(why: str) -> CorruptionError:
    return CorruptionError(why, segment=FILE, offset=0, shard=None)
