"""The fixtures of streams, on both twins: see support/streams.py."""

from support.streams import both, clock, script, stream_twin

__all__ = ["both", "clock", "script", "stream_twin"]
