"""Observe: what the operator sees of a server, and how it is asked for more.

Owns      the log (`logs`, `limiter`, `formats`, `logfile`, `supervising`), which subscribes to events; the metrics and
          `/ready` (`metrics`, `endpoint`), which read the scoreboard; the control socket (`control`, `control_path`),
          which calls what it is given.  `answering` serves the clients of the last two.
Promises  each is given its events, numbers or calls, and knows nobody who makes them.
"""
