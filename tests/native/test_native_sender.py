# SPDX-License-Identifier: BSD-2-Clause
"""Bulk sending (net/sender.c) to Linux's TCP over a bad wire (tests/native/wire.c) and to receivers of
all kinds. What the iperf3 service sends repeats a buffer of 64 KiB of random bytes without end, so each
byte that arrives is checked: nothing may be missing, doubled or changed."""

import json
import socket
import struct
import time

import pytest

import program
from program import SERVER, PORT, Native, run
from support import wait_for

COOKIE = b"b" * 36 + b"\0"
PERIOD = 65536


@pytest.fixture(scope="module", autouse=True)
def build():
    program.build()


def read_exactly(sock, count):
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        assert more, "closed too early"
        data += more
    return data


class Reader:
    """An iperf3 test in which the service sends on one stream; take() reads and checks the stream."""

    def __init__(self, native, receive_buffer=None, **parameters):
        self.control = native.connect()
        self.control.sendall(COOKIE)
        assert read_exactly(self.control, 1) == b"\x09"
        text = json.dumps({"tcp": True, "parallel": 1, "reverse": True, **parameters}).encode()
        self.control.sendall(struct.pack(">I", len(text)) + text)
        assert read_exactly(self.control, 1) == b"\x0a"
        self.stream = native.enter(lambda: self.connect(receive_buffer))
        self.stream.sendall(COOKIE)
        assert read_exactly(self.control, 2) == b"\x01\x02"
        self.stream.settimeout(20)
        self.pattern, self.bytes = b"", 0

    @staticmethod
    def connect(receive_buffer):
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(20)
        sock.connect((SERVER, PORT))
        return sock

    def take(self, count, size=PERIOD):
        """Reads `count` bytes, at most `size` at a time."""
        end = self.bytes + count
        while self.bytes < end:
            data = self.stream.recv(min(end - self.bytes, size))
            assert data, "closed too early"
            if len(self.pattern) < 2 * PERIOD:
                have = min(PERIOD - self.bytes % PERIOD, len(data)) if self.bytes < PERIOD else 0
                self.pattern += data[:have]
                if len(self.pattern) == PERIOD:
                    self.pattern *= 2
                data, self.bytes = data[have:], self.bytes + have
            at = self.bytes % PERIOD
            assert data == self.pattern[at:at + len(data)], f"wrong bytes after {self.bytes}"
            self.bytes += len(data)

    def close(self):
        self.control.close()
        self.stream.close()


def sender(native):
    return native.stats()["sender"]


@pytest.mark.parametrize("options, megabytes", [
    ("--offload --wire delay=10,loss=1000", 40), ("--offload --wire delay=10,loss=10000", 20),
    ("--offload --wire delay=50,loss=10000", 10), ("--wire delay=10,loss=10000", 10),
    ("--offload --wire delay=10,reorder=10000", 40),
    ("--offload --wire delay=10,duplicate=10000", 40),
    ("--offload --wire delay=5,loss=50000,reorder=50000,duplicate=50000", 1),
    ("--offload --wire delay=10,rate=50000,queue=32", 10),
    ("--offload --wire delay=10,loss=10000 --faults 4", 5),
    ("--offload --reno --wire delay=10,loss=1000", 10), ("--offload --faults 3 --losses 100", 20),
    ("--offload --mtu 9000 --wire delay=10,loss=10000", 20),
])
def test_bytes(build, options, megabytes):
    """All bytes arrive and are the right ones; what was lost was sent again, and little more."""
    native = Native(*options.split(), "--seed", "7")
    try:
        reader = Reader(native)
        reader.take(megabytes << 20)
        reader.close()
        counts = sender(native)
        assert "loss" not in options or counts["resent"] > 0
        assert counts["timeouts"] <= 3 + counts["frames"] / 500
    finally:
        native.close()


def test_neighbour_changes_its_address(build):
    """What goes past lwIP by the headers of the last frame follows soon, and the bytes are right."""
    native = Native("--offload")
    try:
        reader = Reader(native)
        reader.take(1 << 20)
        run(*native.inside, "sysctl", "-qw", "net.ipv4.conf.tap0.arp_notify=1")
        run(*native.inside, "ip", "link", "set", "tap0", "address", "02:00:00:00:77:77")
        reader.take(20 << 20)
        reader.close()
    finally:
        native.close()


@pytest.mark.parametrize("setting", ["tcp_sack=0", "tcp_timestamps=0", "tcp_window_scaling=0",
                                     "tcp_sack=0 tcp_timestamps=0"])
def test_lesser_receivers(build, setting):
    native = Native("--offload", "--wire", "delay=5,loss=5000", "--seed", "7")
    try:
        for one in setting.split():
            run(*native.inside, "sysctl", "-qw", f"net.ipv4.{one}")
        reader = Reader(native)
        reader.take(3 << 20)
        reader.close()
        assert sender(native)["resent"] > 0
    finally:
        native.close()


@pytest.fixture(scope="module")
def server(build):
    native = Native("--offload")
    native.wait_log(rb"address fe80::")  # a second after the start, and takes memory
    idle = native.objects()
    reader = Reader(native)
    reader.take(1_000_000)
    reader.close()
    native.wait_objects(idle + 4, 15)  # what is filled once: the neighbour's address and the like
    yield native
    native.close()


@pytest.mark.parametrize("receive_buffer", [1, 4000, 20000])
def test_small_windows(server, receive_buffer):
    """Windows of less than a segment, and of a few."""
    reader = Reader(server, receive_buffer)
    reader.take(200_000 if receive_buffer == 1 else 2_000_000, 1000)
    reader.close()


def bytes_in(native, seconds):
    before = sender(native)["bytes"]
    time.sleep(seconds)
    return sender(native)["bytes"] - before


@pytest.mark.parametrize("receive_buffer", [None, 4000])
def test_closed_window(server, receive_buffer):
    """The reader sleeps until its window is closed, for longer than a time-out; then all goes on. The
    end of that test while the window is closed leaves nothing behind."""
    before = server.objects()
    reader = Reader(server, receive_buffer)
    for _ in range(2):
        reader.take(100_000)
        time.sleep(1.5)
        wait_for(lambda: bytes_in(server, 0.3) < 5000, 20, "the window is closed")
    reader.take(1_000_000)
    time.sleep(0.5)
    reader.close()
    server.wait_objects(before, 15)


def test_paced_test_and_nagle(server):
    """At a low rate whole segments go out, with nodelay also shorter ones."""
    for nodelay in (False, True):
        before = sender(server)
        reader = Reader(server, bandwidth=4_000_000, nodelay=nodelay)
        reader.take(500_000)
        reader.close()
        after = sender(server)
        assert (after["bytes"] - before["bytes"]) / (after["frames"] - before["frames"]) > 500
