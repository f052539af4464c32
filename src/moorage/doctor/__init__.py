"""Doctor: what will go wrong with these settings on this machine, found before the start.

Owns      `machine` (what the system says), `finding` (what is found), the checks in `capacity`, `memory`, `network`,
          `deadlines`, `tls` and `files`, and `examination`, which makes all of them.
Promises  every finding names the setting, its place, and the way out; nothing is opened that a server which runs
          here would mind.
"""

from .examination import as_json, as_text, examine, status
from .finding import Finding, Level
from .machine import Machine, read_machine

__all__ = ["Finding", "Level", "Machine", "as_json", "as_text", "examine", "read_machine", "status"]
