"""The native protocol, as the node speaks it."""
