"""Acceptor: the accept loop of one listener.

Owns      whether the listener is waited for, and if not, why.
Promises  a ticket is taken before `accept` and given back when it fails; accept errors never end the
          loop, spin or flood the log: see verdict; `admit` owns socket and ticket from its call on.
Refuses   to wait: everything here runs in the thread that turns the Watch, as do all its methods.
Why       every accept loop that we read gets one of these wrong: it dies of ECONNABORTED, spins on
          EMFILE, logs each failure (a 107 GB log), or accepts what it cannot serve.
How many  the kernel tells how many clients wait (TCP_INFO, 0.7 us); accepting until it says EAGAIN costs
          5 us each time, since it makes a file before it looks; one client a turn of the Watch costs 8 us
          under load instead of 5 (measured, Linux 6.18, CPython 3.11).
"""

import _socket
import errno
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from .accepting import ACCEPTING, MOVES, State
from .deadline import Clock, monotonic
from .errors import InternalError
from .events import AcceptFailed, Address, Events
from .pace import Pace
from .refusal import Overflow, Refusal
from .screening import Door, Screening
from .shedding import Shedding
from .shortage import PAUSE_SECONDS, Shortage, Timer
from .verdict import Verdict, judge

#: clients taken in one go before other work of the Watch gets its turn (nginx: one, or all of them)
AT_ONCE = 64
#: after a lone client so many are taken unlooked, one a turn, before the next look at how many wait
UNLOOKED = 7
#: how long clients are left to a less busy worker, which may be computing; up to twice as long by the clock of `poll`
SPREAD_SECONDS = 0.002
#: an error that leaves its client in the backlog would spin; after so many in a row it is a pause
ODD_IN_A_ROW = 16


class Ticket(Protocol):
    """The right of one connection; see admission."""

    def give_back(self) -> None: ...


class Gate(Protocol):
    """Who counts; see admission."""

    def take(self) -> Ticket | None: ...
    def when_free(self, callback: Callable[[], None]) -> None: ...


class Watch(Protocol):
    """Who waits for us; see watch."""

    def listen(self, fd: int, call: Callable[[], None]) -> None: ...
    def unlisten(self, fd: int) -> None: ...
    def call_at(self, when: float, call: Callable[[], None]) -> Timer: ...
    def call_sharply_at(self, when: float, call: Callable[[], None]) -> Timer: ...
    def call_soon(self, call: Callable[[], None]) -> None: ...
    def linger(self, sock: _socket.socket, release: Callable[[], None]) -> None: ...


class Listener(Protocol):
    """Where clients wait; see listener."""

    @property
    def backlog(self) -> int: ...
    def accept(self) -> tuple[_socket.socket, Address]: ...
    def backlog_length(self) -> int | None: ...
    def fileno(self) -> int: ...


#: takes over socket and ticket, of this address, from this listener; must not raise
Admit = Callable[[_socket.socket, Address, Any, Any], None]


class Acceptor:
    """Accepts the clients of one listener.

    `failed` is called with the error that made the listener useless.  `at_once` is 1 where `admit` runs
    the handler itself.  `door` is asked about each client after `accept`, `pace` before it or after it, and `room`
    is to make some where there is none.  `share` is asked how many of those who wait (None: the kernel does not
    tell) to take now; 0 leaves them to a less busy worker for a pause, after which they are taken whatever it
    says, once: nobody waits for ever.  `intake`, where nothing else is asked about a client, takes up to so many in one
    go and returns how many it took: fewer, where anything was out of the ordinary, which accepting one then finds.
    """

    def __init__(
        self, listener: Listener, gate: Gate, watch: Watch, admit: Admit, events: Events, *,
        failed: Callable[[OSError], None], overflow: Overflow = "wait", overflow_message: bytes = b"",
        door: Door | None = None, pace: Pace | None = None, room: Shedding | None = None,
        share: Callable[[int | None], int] | None = None, intake: Callable[[int], int] | None = None, at_once: int = AT_ONCE, clock: Clock = monotonic,
    ) -> None:  # fmt: skip
        self.state = State.NEW
        self._listener = listener
        self._fd = listener.fileno()  # kept: a closed listener no longer tells
        self._accept = listener.accept
        self._gate = gate
        self._watch = watch
        self._refusal = Refusal(overflow, overflow_message, watch, events)
        # What is asked is chosen here, so that who asks nothing makes no call more for each client.
        self._pace, self._room = pace, room
        self._take = gate.take if pace is None or not pace.waits else partial(pace.turn_with, gate.take)
        self._admit, self._intake = admit, intake
        if pace is not None or door is not None:
            self._admit, self._intake = Screening(pace, door, self._refusal, admit).admit, None
        self._ready = self._take_waiting
        if share is not None:
            self._share, self._ready = share, self._take_share
        self._events = events
        self._failed = failed
        self._at_once = at_once
        self._clock = clock
        self._waits = overflow == "wait"
        self._is_patient = self._waits or room is not None
        self._shortage = Shortage(watch, events, clock)
        self._unlooked = UNLOOKED  # turns without a look at how many wait
        self._was_aside = False  # and takes now, whatever `share` says
        self._odd = 0  # errors of single clients in a row
        self._is_queued = False  # the gate will call back
        self._retry: Timer | None = None
        self._done: list[Callable[[], None]] = []  # not empty while the backlog is being emptied
        self._left = 0  # clients of that backlog still to come

    @property
    def is_stopped(self) -> bool:
        """Whether no client is accepted any more, for good."""
        return self.state is State.STOPPED

    def start(self) -> None:
        """Accept clients from now on."""
        self._refusal.open()
        self._open()

    def suspend(self) -> None:
        """Leave new clients in the backlog; does nothing unless accepting for good."""
        if self.state in ACCEPTING and not self._done:
            self._close(State.SUSPENDED)

    def resume(self) -> None:
        """Accept clients again; does nothing unless suspended."""
        if self.state is State.SUSPENDED:
            self._open()

    def finish_backlog(self, done: Callable[[], None]) -> None:
        """Accept those who wait now, through the gate and at its pace, then stop and call `done`.

        `done` is called exactly once, at the latest by `stop`.
        """
        if self.state is State.STOPPED:
            done()
            return
        self._done.append(done)
        if len(self._done) > 1:
            return
        self._left = self._count_backlog()
        self._watch.unlisten(self._fd)
        if self.state in (State.NEW, State.SUSPENDED):
            self._move(State.OPEN)
        if self.state is State.OPEN:
            self._empty_backlog()

    def stop(self) -> None:
        """Accept nobody any more; the listener may be closed.  A second call does nothing."""
        if self.state is State.STOPPED:
            return
        self._close(State.STOPPED)
        self._shortage.forget()
        self._refusal.close()
        while self._done:
            self._done.pop()()

    # The loop

    def _take_waiting(self) -> None:
        """Clients wait, or something is wrong with the listener, which accept will tell."""
        if self._unlooked > 0:
            self._unlooked -= 1
            self._take_up_to(1)
            return
        wanted = self._wanted()
        left = self._take_up_to(wanted)
        self._unlooked = 0 if wanted - left > 1 else UNLOOKED

    def _wanted(self) -> int:
        """How many clients to take now: those who wait, as many as fit where the kernel does not tell."""
        try:
            waiting = self._listener.backlog_length()
        except OSError:
            return 1
        return self._at_once if waiting is None else min(max(waiting, 1), self._at_once)

    def _take_share(self) -> None:
        """As `_take_waiting`, where other workers take clients of the same listener."""
        try:
            waiting = self._listener.backlog_length()
        except OSError:
            waiting = 1
        wanted = self._share(waiting)  # asked even if others were faster: so it knows that we are not aside any more
        was_aside, self._was_aside = self._was_aside, False
        if waiting == 0:
            return
        if wanted == 0 and not was_aside:
            self._step_aside()
            return
        self._take_up_to(min(wanted or waiting or self._at_once, self._at_once))

    def _take_up_to(self, left: int) -> int:
        """Accept so many clients, if so many wait; returns how many did not."""
        if self._intake is not None and not self._shortage.is_on:
            while left and (taken := self._intake(left)):
                self._odd = 0
                left -= taken
                if self.state is not State.OPEN:  # who was told of them may have suspended us
                    return left
        while left and self._accept_one():
            left -= 1
        return left

    def _step_aside(self) -> None:
        self._was_aside = True
        self._close(State.ASIDE)
        self._retry = self._watch.call_sharply_at(self._clock() + SPREAD_SECONDS, self._pause_is_over)

    def _empty_backlog(self) -> None:
        """As `_ready`, but out of the poll set, and on to the end of what was there."""
        for _ in range(self._at_once):
            if not self._accept_one():
                return
        self._watch.call_soon(self._go_on_emptying)

    def _count_backlog(self) -> int:
        """How many clients wait; where the kernel does not tell, how many may."""
        try:
            return self._listener.backlog_length() or self._listener.backlog
        except OSError:  # accept will tell what is wrong
            return 1

    def _go_on_emptying(self) -> None:
        if self.state is State.OPEN:
            self._empty_backlog()

    def _accept_one(self) -> bool:
        """Accept one client; whether to try the next at once."""
        ticket = self._take()
        if ticket is None and self._is_patient and self._wait():
            return False
        try:
            sock, addr = self._accept()
        except BaseException as error:  # not only OSError: a signal handler may raise here
            if ticket is not None:
                self._give_back(ticket)
            if isinstance(error, OSError):
                return self._cope(error)
            raise
        self._odd = 0
        if self._shortage.is_on:
            self._shortage.over()
        of_the_backlog = bool(self._done)  # asked before: the end may begin while `admit` runs the handler
        if ticket is not None:
            self._admit(sock, addr, ticket, self._listener)
        else:
            self._refusal.refuse(sock, addr)
        if of_the_backlog:
            self._count_down()
        return self.state is State.OPEN  # `admit` may have suspended or stopped us

    def _give_back(self, ticket: Ticket) -> None:
        ticket.give_back()
        if self._pace is not None:
            self._pace.nobody_came()

    def _count_down(self) -> None:
        self._left -= 1
        if self._left <= 0:
            self.stop()

    def _cope(self, error: OSError) -> bool:
        """Do what the table says; whether to try again at once."""
        verdict = judge(error)
        if verdict is Verdict.GO_ON:
            self._odd += 1
            if self._odd < ODD_IN_A_ROW:
                return True
            self._pause(error)
        elif verdict is Verdict.PAUSE:
            self._pause(error)
        elif verdict is Verdict.FAIL:
            self._fail(error)
        else:
            self._found_nobody()
        return False

    def _found_nobody(self) -> None:
        if self._shortage.is_on:  # the kernel looks for a free descriptor before it looks for a client
            self._shortage.over()
        if self._done:
            self.stop()

    def _wait(self) -> bool:
        """There is no ticket, or it is too early for one: leave those who wait in the backlog, unless they do better."""
        if self._pace is not None and self._pace.delay:
            self._close(State.PACED)
            self._retry = self._watch.call_sharply_at(self._clock() + self._pace.delay, self._pause_is_over)
            return True
        if self._room is not None and not self._room.make_room(self._listener) and not self._waits:
            return False
        self._close(State.FULL)
        if self._room is not None:
            self._retry = self._watch.call_at(self._room.again_at, self._look_again)
        if not self._is_queued:
            self._is_queued = True
            self._gate.when_free(self._ticket_came_free)
        return True

    def _look_again(self) -> None:
        """Perhaps somebody is idle by now: whoever still waits has the listener ask for room."""
        self._retry = None
        if self.state is State.FULL and self._done:
            self._go_on()
        elif self.state is State.FULL:
            self._open()

    def _ticket_came_free(self) -> None:
        """In the thread that gave the ticket back."""
        self._watch.call_soon(self._try_gate)

    def _try_gate(self) -> None:
        self._is_queued = False
        if self.state is State.FULL:
            self._go_on()

    def _pause(self, error: OSError) -> None:
        self._odd = 0
        self._close(State.PAUSED)
        self._shortage.met(error)
        has_no_fd = error.errno in (errno.EMFILE, errno.ENFILE)
        if has_no_fd and (self._room is None or not self._room.make_room(self._listener)):
            self._refusal.use_reserve(self._accept)
        self._retry = self._watch.call_at(self._clock() + PAUSE_SECONDS, self._pause_is_over)

    def _pause_is_over(self) -> None:
        self._retry = None
        if self.state in (State.PAUSED, State.PACED, State.ASIDE):
            self._go_on()

    def _fail(self, error: OSError) -> None:
        if AcceptFailed in self._events.wanted:
            self._events.emit(AcceptFailed(error))
        self.stop()
        self._failed(error)

    # Moves between the states

    def _go_on(self) -> None:
        """Leave a state of waiting, and try at once: a client may be waiting."""
        self._forget_retry()
        if self._done:
            self._move(State.OPEN)
            self._empty_backlog()
        else:
            self._open()
            self._unlooked = 0
            self._ready()

    def _open(self) -> None:
        self._move(State.OPEN)
        self._watch.listen(self._fd, self._ready)

    def _close(self, state: State) -> None:
        self._move(state)
        self._watch.unlisten(self._fd)
        self._forget_retry()

    def _forget_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _move(self, state: State) -> None:
        if state not in MOVES[self.state]:
            raise InternalError(f"an acceptor cannot go from {self.state.name} to {state.name}")
        self.state = state
