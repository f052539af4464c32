"""The fixtures of fibers and threads side by side: see support/strands.py."""

from support.strands import hub, strands

__all__ = ["hub", "strands"]
