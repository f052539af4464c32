"""The fixtures of loops and of the streams that wait in them, on both twins: see support/loops.py."""

from support.loops import turned
from support.streams import stream_twin

__all__ = ["stream_twin", "turned"]
