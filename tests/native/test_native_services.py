# SPDX-License-Identifier: BSD-2-Clause
"""The echo and discard services, built for Linux with sanitizers, on a TAP device: what comes back is
compared byte by byte, what clients leave behind is given back."""

import os
import resource
import select
import socket
import struct
import threading
import time

import pytest

import program
from program import SERVER, Native
from support import wait_for

ECHO, DISCARD = 7, 9


@pytest.fixture(scope="module", autouse=True)
def build():
    program.build()


@pytest.fixture(scope="module", params=[["--offload"], ["--faults", "3"]], ids=["plain", "faults"])
def server(build, request):
    native = Native(*request.param)
    yield native
    native.close()


@pytest.fixture
def native(server):
    with server.connect(ECHO) as sock:  # fills what is filled once
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
    server.wait_objects(96, 10)
    before = server.objects()
    yield server
    server.wait_objects(before, 10)
    assert server.stats()["echo"]["connections"] == 0
    assert server.stats()["discard"]["connections"] == 0


def receive_all(sock, parts):
    while data := sock.recv(65536):
        parts.append(data)


def udp(native, port):
    sock = native.enter(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sock.connect((SERVER, port))
    sock.settimeout(5)
    return sock


@pytest.mark.parametrize("size", [1, 1000, 5 << 20])
def test_echo(native, size):
    """All of it comes back, and the end after the last byte."""
    data, parts = os.urandom(size), []
    with native.connect(ECHO) as sock:
        reader = threading.Thread(target=receive_all, args=(sock, parts))
        reader.start()
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        reader.join(30)
    assert b"".join(parts) == data


@pytest.mark.parametrize("options", [[], ["--faults", "3"]], ids=["pieces", "of-any-size"])
def test_echo_of_what_comes_out_of_order(options):
    """Large frames, of many pieces each, wait in lwIP's queue for what was lost before them: cut to
    what is missing, put together, read once."""
    lossy = Native("--offload", "--rx-losses", 12, "--seed", 3, *options)
    data, parts = os.urandom(3 << 20), []
    before = lossy.objects()
    try:
        with lossy.connect(ECHO) as sock:
            reader = threading.Thread(target=receive_all, args=(sock, parts))
            reader.start()
            sock.sendall(data)
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            sock.shutdown(socket.SHUT_WR)
            reader.join(60)
        assert b"".join(parts) == data
        assert struct.unpack_from("I", info, 100)[0] > 0  # were sent again
        lossy.wait_objects(before + 20, 20)
        assert lossy.stats()["net"]["nic0"]["rx_on_loan"] == 0
    finally:
        lossy.close()


def test_echo_one_by_one(native):
    """Requests and answers of one byte do not wait for each other's acknowledgements."""
    with native.connect(ECHO) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        took = []
        for number in range(200):
            start = time.monotonic()
            sock.sendall(bytes([number]))
            assert sock.recv(10) == bytes([number])
            took.append(time.monotonic() - start)
        assert sorted(took)[20] < 0.02  # a delayed acknowledgement takes 0.04 s, each time


def test_echo_to_a_client_that_does_not_read(native):
    """It is stopped by its window, costs a bounded amount of memory, and loses nothing."""
    data = os.urandom(8 << 20)
    with native.connect(ECHO) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sock.setblocking(False)
        sent, quiet = 0, 0
        while quiet < 5 and sent < len(data):
            try:
                sent += sock.send(data[sent:sent + 65536])
                quiet = 0
            except BlockingIOError:
                quiet += not select.select([], [sock], [], 0.1)[1]
        assert sent < len(data), "the client was never stopped"
        assert native.stats()["memory"]["heap_bytes"] < 1 << 20
        sock.setblocking(True)
        sock.shutdown(socket.SHUT_WR)
        parts = []
        receive_all(sock, parts)
    assert b"".join(parts) == data[:sent]


def test_echo_to_a_client_that_resets(native):
    with native.connect(ECHO) as sock:
        sock.settimeout(0.5)
        try:
            sock.sendall(bytes(8 << 20))
        except TimeoutError:
            pass
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_thousand_connections(native):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limit[0], 4096), limit[1]))
    socks = [native.connect(ECHO) for _ in range(1000)]
    assert native.stats()["echo"]["connections"] == 1000
    for turn in range(3):
        for number, sock in enumerate(socks):
            sock.sendall(struct.pack(">II", turn, number) * 8)
        for number, sock in enumerate(socks):
            assert sock.recv(64, socket.MSG_WAITALL) == struct.pack(">II", turn, number) * 8
    for sock in socks:
        sock.close()
    wait_for(lambda: native.stats()["echo"]["connections"] == 0, 10, "the connections are closed")
    native.wait_objects(96, 20)


@pytest.mark.parametrize("size", [0, 1, 64, 240, 1472, 1473, 9000])
def test_echo_datagrams(native, size):
    """Also those that come and go in fragments."""
    data = os.urandom(size)
    with udp(native, ECHO) as sock:
        for _ in range(5):
            sock.send(data)
            try:
                assert sock.recv(65536) == data
                return
            except TimeoutError:  # the NIC was full: that loses datagrams
                pass
    raise AssertionError("no answer")


def test_echo_does_not_answer_services(native):
    """From a port below 1024, where another echo service may sit."""
    before = native.stats()["echo"]
    with native.enter(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        native.enter(lambda: sock.bind(("", 19)))
        sock.sendto(b"x", (SERVER, ECHO))
        wait_for(lambda: native.stats()["echo"]["dropped"] == before["dropped"] + 1, 10,
                 "the datagram is dropped")
        assert not select.select([sock], [], [], 0.2)[0]


def test_echo_does_not_answer_a_broadcast(native):
    before = native.stats()["echo"]
    with native.enter(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.sendto(b"x", ("10.77.0.255", ECHO))
        wait_for(lambda: native.stats()["echo"]["dropped"] == before["dropped"] + 1, 10,
                 "the datagram is dropped")
        assert not select.select([sock], [], [], 0.2)[0]


def test_discard(native):
    before = native.stats()["discard"]
    with native.connect(DISCARD) as sock:
        sock.sendall(bytes(5 << 20))
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    assert native.stats()["discard"]["bytes"] == before["bytes"] + (5 << 20)


def test_discard_datagrams(native):
    before = native.stats()["discard"]
    with udp(native, DISCARD) as sock:
        for number in range(100):
            sock.send(bytes(64))
            if number % 20 == 19:
                time.sleep(0.02)  # the queue of the TAP device is short
    wait_for(lambda: native.stats()["discard"]["datagrams"] == before["datagrams"] + 100, 10,
             "all datagrams are counted")
    assert native.stats()["discard"]["datagram_bytes"] == before["datagram_bytes"] + 6400
