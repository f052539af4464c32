"""A flood exhausts nothing: never more handlers than allowed, everybody served, memory as before."""

from collections.abc import Callable

import pytest

from support.programs import CrowdServer, crowd, crowd_server

LIMIT = 100
KIB_EACH = 256

Record = Callable[[str, object], None]


def look(server: CrowdServer, record: Record, name: str, result: dict[str, object]) -> int:
    """Check what always holds; returns the memory above idle, in KiB."""
    report = server.report()
    above = int(report["VmHWM"]) - int(server.idle["VmRSS"])
    record(name, {**result, **report, "KiB_above_idle": above})
    print(f"{name}: {result}, server {report}, {above} KiB above idle, CPU {server.cpu_seconds():.2f} s")
    assert report["most"] <= LIMIT
    assert above <= LIMIT * KIB_EACH
    return above


def test_flood_of_five_thousand_is_served_within_the_limits(record_property: Record) -> None:
    with crowd_server(max_connections=LIMIT) as server:
        result = crowd(server, good=5000)
        look(server, record_property, "flood", result)
        assert result["served"] == 5000
        assert result["most"] > 4000, "that was no flood"
        assert server.report()["served"] >= 5000
    assert len(server.log) < 20, server.log


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("mute", "good"), [(500, 50), pytest.param(4000, 200, marks=pytest.mark.full)])
def test_mute_clients_do_not_keep_good_ones_out(record_property: Record, mute: int, good: int) -> None:
    with crowd_server(max_connections=LIMIT, idle_timeout=1) as server:
        result = crowd(server, good=good, mute=mute)
        look(server, record_property, "mute", result)
        assert result["served"] == good
    assert len(server.log) < 20, server.log
