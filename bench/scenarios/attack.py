"""Crowds that mean no good, and what a good client notices of them.

The deadlines are shorter than by default, so that a run takes half a minute; each that drips a byte every ten seconds
has at least one to drip before its message is overdue.  The limits of connections leave room for everybody: where they
do not, a good client waits in the backlog until the first attackers are gone, which is what a limit is for.
"""

from bench.model import Attack, AttackScenario, Group

DRIP, UNREAD = ("message_timeout", "message_deadline"), ("write_timeout", "write_stalled")
MESSAGE = {"message_timeout": 15.0, "write_timeout": 10.0}
#: what the kernel keeps of a reply that nobody takes; by default it would be up to 4 MiB for each of 1,000 attackers
ROOM = {"max_connections": 17_000, "send_buffer": 64 * 1024}
POOL = {"wait_for_data": True, "threads": 1_000}
SETUP = ("setup_timeout", "setup_deadline")


def plain(name: str, *, is_unix: bool = False) -> tuple[Attack, Attack]:
    """Clients that are connected, and no more."""
    return (
        Attack(
            f"fibers, {name}",
            "fibers",
            # idle_timeout is above `drip_every`: what ends the drips is their message's deadline
            (
                Group("mute", 10_000, "idle_timeout", "idle"),
                Group("drip", 5_000, *DRIP),
                Group("unread", 1_000, *UNREAD),
            ),
            MESSAGE | {"idle_timeout": 12.0},
            ROOM,
            is_unix,
        ),
        Attack(
            f"threads, {name}",
            "threads",
            (
                Group("mute", 10_000, "first_data_timeout", "first_data"),
                Group("drip", 500, *DRIP),
                Group("unread", 300, *UNREAD),
            ),
            MESSAGE | {"first_data_timeout": 10.0},
            ROOM | POOL,
            is_unix,
        ),
    )


def tls(name: str, *, is_unix: bool = False) -> tuple[Attack, Attack]:
    """Clients that owe us a handshake; both kinds at once."""
    groups = (Group("mute", 2_000, *SETUP), Group("hello", 2_000, *SETUP))
    return (
        Attack(f"fibers, {name}", "fibers", groups, {"setup_timeout": 10.0}, ROOM, is_unix, tls=True),
        Attack(f"threads, {name}", "threads", groups, {"setup_timeout": 10.0}, ROOM | POOL, is_unix, tls=True),
    )


SCENARIO = AttackScenario(
    question="how long does a good client wait for a reply beside a crowd that means no good, and when is the crowd gone?",
    attacks=(*plain("TCP"), *plain("Unix", is_unix=True), *tls("TLS"), *tls("TLS, Unix", is_unix=True)),
)
