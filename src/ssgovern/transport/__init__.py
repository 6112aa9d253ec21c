"""Framed connections over asyncio: bounded, with deadlines, the same on node and client."""
