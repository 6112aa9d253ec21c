"""ss-govern: a service registry that is both sharded and durable. This package is its client."""

from ssgovern.version import __version__

__all__ = ["__version__"]
