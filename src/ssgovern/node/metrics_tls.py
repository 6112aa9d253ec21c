"""What a node tells Prometheus of its TLS. Knows no more than what is counted anyway."""

from __future__ import annotations

from ssgovern.node.metrics import Families, counter, gauge
from ssgovern.node.tls import NodeTls


class TlsMetrics:
    """Of a node with TLS; without it there are none of these."""

    def __init__(self, tls: NodeTls) -> None:
        self._tls = tls

    def __call__(self) -> Families:
        """Yield what there is."""
        tls = self._tls
        yield gauge(
            "tls_certificate_expiry_timestamp_seconds",
            "When the certificate in use ends, since 1970",
            tls.material.facts.not_after.timestamp(),
        )
        yield counter("tls_reloads", "Times that new certificates were taken up", tls.reloads)
        yield counter(
            "tls_reloads_failed",
            "Times that changed files could not be used, and the old ones were kept",
            tls.reloads_failed,
        )
        yield counter("tls_handshakes", "Handshakes done, on all ports", tls.listener.handshakes)
        yield counter(
            "tls_handshakes_failed",
            "Handshakes that failed, and connections without TLS",
            tls.listener.handshakes_failed,
        )
