"""9,000 connections of one client that stop in the middle of the handshake: nobody was served."""

import resource
import socket
import time
from contextlib import ExitStack

import pytest
from visitor import Visitor

NUMBER = 9000


@pytest.fixture
def _many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_many_files")
def test_9000_unfinished_handshakes_leave_connections_for_others(attacked):
    (nginx,) = attacked.inspect("nginx")
    # Not by the published port, to which this machine connects through a process of Docker's.
    address = nginx["NetworkSettings"]["Networks"][f"{attacked.name}_edge"]["IPAddress"]
    with (
        ExitStack() as held,
        Visitor(attacked, ("GET", "/diagnostics/hello", 0), pause=0.02) as visitor,
    ):
        for _ in range(NUMBER):
            connection = held.enter_context(socket.create_connection((address, 8443), timeout=5))
            connection.sendall(b"\x16\x03\x01")
        time.sleep(2)  # in which all of them are held
    assert {visit.status for visit in visitor.visits} == {200}
    assert max(visit.seconds for visit in visitor.visits) < 3
    (after,) = attacked.inspect("nginx")
    assert after["State"]["StartedAt"] == nginx["State"]["StartedAt"]
