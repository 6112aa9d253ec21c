"""Entry point of the command. Works without the extra `[cli]`, if only to ask for it."""

from __future__ import annotations

import sys

from ssgovern.cli.exits import EXIT_USAGE


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        import click  # noqa: F401
    except ModuleNotFoundError:
        print(
            "The command line needs two more packages. Get them with:\n"
            "  pip install 'ss-govern[cli]'      to talk to a server\n"
            "  pip install 'ss-govern[server]'   to run one as well",
            file=sys.stderr,
        )
        sys.exit(EXIT_USAGE)
    from ssgovern.cli.app import app

    app()


if __name__ == "__main__":
    main()
