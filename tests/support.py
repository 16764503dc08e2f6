# SPDX-License-Identifier: BSD-2-Clause
"""Small things that several test files use."""

import fcntl
import os
import select
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def make(*arguments):
    """Builds what a test needs. Tests run side by side, and make does not expect another one."""
    (ROOT / "build/test").mkdir(parents=True, exist_ok=True)
    with open(ROOT / "build/test/make.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["make", "-s", "-j2", "-C", ROOT, *arguments], check=True)


def free_port():
    """A TCP port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def hv(*arguments, typed=""):
    """Runs tools/hv with `typed` as its input; returns (exit status, all it printed)."""
    done = subprocess.run([ROOT / "tools/hv", *map(str, arguments)], input=typed, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=200, check=False)
    return done.returncode, done.stdout


class TooLate(AssertionError):
    """Something has not happened in time, which a slow machine may be the reason for (conftest.py)."""


def wait_for(condition, timeout, what):
    """Polls until condition() is true; what it returned. Fails the test after timeout seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TooLate(f"not within {timeout} s: {what}")
        time.sleep(0.1)


def check_steady(report, seconds, uneven=50):
    """A report of the iperf3 client over so many seconds: it tells of each of them, data arrived in
    each, and no stream was left without its share. More than 8 share less evenly: by up to `uneven`."""
    assert len(report.intervals) >= max(seconds - 1, 1), f"{len(report.intervals)} intervals"
    if not all(report.intervals):
        raise TooLate(f"stalled: {report.intervals}")
    share = sum(report.streams) / len(report.streams)
    least = share / (10 if len(report.streams) <= 8 else uneven)
    if min(report.streams) <= least:
        raise TooLate(f"a stream stalled: {report.streams}")


def check_totals(sent, received, streams, carried=None, part=0.01):
    """Fails if the totals of an iperf3 test's two sides cannot both be true.

    What the client sends Dunlin waits for, so both count the same; but not for ever, so a part may be
    missing on a bad wire. What Dunlin sends (carried: bytes that its NICs sent meanwhile) the client
    counts only until its time is over, and what it has not read by then may be much: its socket alone
    holds up to net.ipv4.tcp_rmem, 32 MB on some machines. There Dunlin may not claim what never left,
    and the client cannot have got more than that."""
    assert 0 < received <= sent, f"{sent} bytes sent, {received} received"
    if carried is None:
        assert sent - received <= max(part * sent, 300_000, 100_000 * streams), (
            f"{sent} bytes sent, {received} received")
    else:
        assert sent <= carried, f"{sent} bytes sent, {carried} left"


def check_echo(tapnet, address, size, port=7):
    """Sends noise to a guest's echo service by TCP, from inside a namespace (None: from here); all of it
    has to come back as it was."""
    data, back, sent = os.urandom(size), bytearray(), 0
    deadline = time.monotonic() + 120

    def connect():
        return socket.create_connection((address, port), timeout=60)
    with tapnet.enter(connect) if tapnet else connect() as sock:
        sock.setblocking(False)
        while len(back) < size:
            assert time.monotonic() < deadline, f"{sent} sent, {len(back)} came back"
            readable, writable, _ = select.select([sock], [sock] if sent < size else [], [], 5)
            if writable:
                sent += sock.send(data[sent:sent + (256 << 10)])
            if readable:
                part = sock.recv(1 << 20)
                assert part, f"closed after {len(back)} bytes"
                back += part
    assert back == data
