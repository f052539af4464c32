"""Engine: the native twins of Stream, File, Lifecycle, Gate, Guests, Loop, Crew and Wheel, and how a client comes in.

Owns      the one extension; each .pxi file beside it is one twin.
Promises  what the pure twin promises, with the same names: the same tests run on both.
Refuses   to decide which twin is used: `twins` does.
Why       at 6 us in the kernel per message, what Python spends around it is what can be saved.
"""

include "greenlets.pxi"
include "system.pxi"
include "timers.pxi"
include "gate.pxi"
include "guests.pxi"
include "loop.pxi"
include "crew.pxi"
include "stream.pxi"
include "tls.pxi"
include "fastcall.pxi"
include "file.pxi"
include "accepted.pxi"
include "lifecycle.pxi"
include "intake.pxi"
