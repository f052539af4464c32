"""Unit tests of `moorage.socketserver.tickets`."""

import gc
import socket

import pytest

from moorage.admission import Gate
from moorage.socketserver.tickets import Held, Tickets


class House:
    """A gate of one ticket, and the tickets of one server."""

    def __init__(self) -> None:
        self.gate = Gate(1)
        self.woken = 0
        self.tickets = Tickets(self.wake)

    def wake(self) -> None:
        self.woken += 1

    def hold(self, request: object) -> Held:
        ticket = self.gate.take()
        assert ticket is not None
        return self.tickets.hold(request, ticket)


@pytest.fixture
def house() -> House:
    return House()


def test_ticket_is_back_when_close_request_ran(house: House) -> None:
    with socket.socket() as request:
        house.hold(request)
        assert house.gate.free == 0
        house.tickets.release(request)
        assert house.gate.free == 1
        house.tickets.release(request)
        assert house.gate.free == 1


def test_ticket_stays_out_when_the_handler_returned_and_the_request_is_open(house: House) -> None:
    with socket.socket() as request:
        house.tickets.settle(house.hold(request))
        house.tickets.sweep()
        assert house.gate.free == 0
        assert house.tickets.has_astray


def test_ticket_is_back_when_the_handler_returned_and_the_request_is_closed(house: House) -> None:
    request = socket.socket()
    held = house.hold(request)
    request.close()
    house.tickets.settle(held)
    assert house.gate.free == 1


def test_ticket_is_back_when_a_request_that_went_astray_is_closed(house: House) -> None:
    request = socket.socket()
    house.tickets.settle(house.hold(request))
    request.close()
    house.tickets.sweep()
    assert house.gate.free == 1
    assert not house.tickets.has_astray


def test_ticket_is_back_when_the_request_is_garbage(house: House) -> None:
    class Request:
        def fileno(self) -> int:
            return 1

    request = Request()
    house.tickets.settle(house.hold(request))
    del request
    gc.collect()
    assert house.woken == 1
    assert house.gate.free == 0, "a finaliser does nothing but leave a note"
    house.tickets.collect()
    assert house.gate.free == 1


def test_ticket_of_a_datagram_is_back_when_the_handler_returned(house: House) -> None:
    with socket.socket() as listener:
        house.tickets.settle(house.hold((b"data", listener)))
        assert house.gate.free == 1


def test_ticket_moves_to_the_object_that_wraps_the_request(house: House) -> None:
    with socket.socket() as request, socket.socket() as wrapper:
        held = house.hold(request)
        house.tickets.move(held, wrapper)
        assert house.tickets.find(request) is None
        assert house.tickets.find(wrapper) is held
        house.tickets.release(request)
        assert house.gate.free == 0
        house.tickets.release(wrapper)
        assert house.gate.free == 1


def test_ticket_taken_over_is_given_back_by_its_new_holder_alone(house: House) -> None:
    with socket.socket() as request:
        ticket = house.tickets.take_over(house.hold(request))
        house.tickets.release(request)
        assert house.gate.free == 0
        ticket.give_back()
        assert house.gate.free == 1
