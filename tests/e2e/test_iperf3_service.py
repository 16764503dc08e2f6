# SPDX-License-Identifier: BSD-2-Clause
"""The iperf3 service against the stock client: its options, and clients that misbehave."""

import os
import socket
import subprocess

import pytest

from dunlin import check_iperf, memory, wait_memory, wait_traffic
from hvlib import iperf
from support import check_steady

KB, MB = 1 << 10, 1 << 20


@pytest.fixture(scope="module")
def vm(module_boot):
    return module_boot.dunlin()


@pytest.fixture
def client():
    """Starts iperf3 clients in the background; ends those that still run."""
    running = []

    def start(*command):
        process = subprocess.Popen(["iperf3", *map(str, command)], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.append(process)
        return process
    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("direction", [[], ["-R"]], ids=["to-guest", "from-guest"])
@pytest.mark.parametrize("options", [["-w", "64K"], ["-M", 600], ["-l", 1000],
                                     ["-O", 1], ["-i", "0.5"]],
                         ids=lambda o: "".join(map(str, o)))
def test_options(vm, options, direction):
    report = iperf.client("127.0.0.1", "-t", 2, *options, *direction, port=vm.port)
    assert report.received_bytes > 1_000_000


@pytest.mark.parametrize("direction", [[], ["-R"]], ids=["to-guest", "from-guest"])
def test_bytes(vm, direction):
    """-n: so many bytes, and all of them arrive."""
    report = iperf.client("127.0.0.1", "-n", 8 * MB, *direction, port=vm.port)
    assert report.received_bytes >= 8 * MB - 128 * KB
    # What is under way when the client has enough counts as sent.
    under_way = 4 * MB if direction else 0
    assert 0 <= report.sent_bytes - report.received_bytes <= under_way


def test_blocks(vm):
    """-k: so many blocks of -l bytes. (With -R the client counts what it reads, not blocks.)"""
    report = iperf.client("127.0.0.1", "-k", 64, "-l", 64 * KB, port=vm.port)
    assert report.sent_bytes == report.received_bytes == 64 * 64 * KB


def test_blocks_back(vm):
    report = iperf.client("127.0.0.1", "-k", 64, "-l", 64 * KB, "-R", port=vm.port)
    assert 0 < report.received_bytes <= report.sent_bytes


def test_second_client(vm, client):
    """While a test runs another client is told so, and the test is not disturbed."""
    first = client("-c", "127.0.0.1", "-p", vm.port, "-t", 4, "-J")
    wait_traffic(vm)
    with pytest.raises(iperf.IperfError, match="server is busy"):
        iperf.client("127.0.0.1", "-t", 1, port=vm.port)
    output = first.communicate(timeout=60)[0]
    check_steady(iperf.parse(output), seconds=4)


@pytest.mark.parametrize("direction", [[], ["-R"]], ids=["to-guest", "from-guest"])
def test_killed_client(vm, client, direction):
    """A client that dies in the middle frees everything; the next one is served."""
    before = memory(vm)
    victim = client("-c", "127.0.0.1", "-p", vm.port, "-t", 60, "-P", 8, *direction)
    if direction:
        vm_sends = vm.stats()["devices"]["nic0"]["tx_bytes"]
        while vm.stats()["devices"]["nic0"]["tx_bytes"] < vm_sends + MB:
            assert victim.poll() is None, "the client has ended by itself"
    else:
        wait_traffic(vm)
    victim.kill()
    victim.wait()
    check_iperf(vm, seconds=1, busy_timeout=30)  # the user network tells the guest a little later
    wait_memory(vm, before)


GARBAGE = {"http": b"GET / HTTP/1.0\r\n\r\n" * 3, "zeros": bytes(4096), "random": os.urandom(8192),
           "huge-length": b"A" * 36 + b"\0" + b"\xff\xff\xff\xff{}",
           "not-json": b"B" * 36 + b"\0" + b"\0\0\0\x08nonsense"}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage(vm, garbage):
    """What is no iperf3 client is dropped with a line in the log, and nobody else suffers."""
    before = memory(vm)
    since = vm.mark()
    with socket.create_connection(("127.0.0.1", vm.port), timeout=60) as sock:
        try:
            sock.sendall(GARBAGE[garbage])
            while sock.recv(4096):
                pass
        except ConnectionError:
            pass  # a reset is a way to be dropped
    vm.wait_console(r"iperf3: ", 30, since)
    check_iperf(vm, seconds=1)
    wait_memory(vm, before)
