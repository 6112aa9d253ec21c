"""Check that no module grew beyond what one can keep in mind: 600 lines."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINES_MAX = 600
GENERATED = ROOT / "src" / "ssgovern" / "wire" / "pb"


def main() -> None:
    faults = []
    for folder in ("src", "scripts", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if GENERATED in path.parents:
                continue
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > LINES_MAX:
                faults.append(f"{path.relative_to(ROOT)}: {lines} lines, at most {LINES_MAX}")
    if faults:
        sys.exit("\n".join([*faults, "Split by aspect."]))


if __name__ == "__main__":
    main()
