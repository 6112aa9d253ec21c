"""Generate `ssgovern.wire.pb` from `proto/`. With --check: fail if it is not up to date."""

from __future__ import annotations

import argparse
import filecmp
import re
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
TARGET = ROOT / "src" / "ssgovern" / "wire" / "pb"


def generate(target: Path) -> list[Path]:
    """Write the modules and their stubs into `target`; return them."""
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        code = protoc.main(
            ["protoc", f"-I{PROTO}", f"--python_out={scratch}", f"--pyi_out={scratch}", *sources]
        )
        if code:
            raise SystemExit(code)
        written = []
        for path in sorted(Path(scratch).rglob("*_pb2.py*")):
            # protoc imports by the path of the .proto file; ours live in a package of their own.
            text = re.sub(
                r"from ssgovern\.v1 import", "from ssgovern.wire.pb import", path.read_text()
            )
            (target / path.name).write_text(text)
            written.append(target / path.name)
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare")
    if not parser.parse_args().check:
        for path in generate(TARGET):
            print(path.relative_to(ROOT))
        return
    with tempfile.TemporaryDirectory() as scratch:
        fresh = generate(Path(scratch))
        stale = [
            path.name
            for path in fresh
            if not (TARGET / path.name).exists()
            or not filecmp.cmp(path, TARGET / path.name, shallow=False)
        ]
    if stale:
        sys.exit(f"not generated from the current proto/: {', '.join(stale)}; run `make proto`")


if __name__ == "__main__":
    main()
