# SPDX-License-Identifier: BSD-2-Clause
"""The iperf3 service with the stock client's options, with bad company, and without leaks."""

import signal
import socket
import subprocess
import time

import pytest

from guest import check_test, client, send_to_service, settle, stats
from hvlib import iperf


@pytest.fixture(scope="module")
def vm(module_boot):
    machine = module_boot.dunlin(vcpus=1, memory=256)
    client(machine, "-t", 1)  # what is allocated once and kept, is now
    return machine


@pytest.mark.parametrize("options", [
    ("-t", 2, "-P", 128), ("-t", 2, "-P", 128, "-R"), ("-n", "20M"), ("-n", "20M", "-R"),
    ("-k", 200), ("-t", 3, "-O", 1), ("-t", 3, "-O", 1, "-R"), ("-t", 2, "-i", "0.5"),
    ("-t", 2, "-w", "64K"), ("-t", 2, "-M", 1000), ("-t", 2, "-l", 4000),
    ("-t", 2, "-l", 4000, "-R")], ids=lambda o: " ".join(map(str, o)))
def test_options(vm, options):
    report = client(vm, *options)
    assert report.received_bytes > 1_000_000
    if "-P" not in options:  # 128 streams in 2 s: what is under way at the end is over 1 %
        assert report.difference <= 0.01 or "-k" in options
    if "-n" in options:
        assert report.sent_bytes >= 20 << 20


def test_second_client_is_denied(vm):
    first = subprocess.Popen(["iperf3", "-c", "127.0.0.1", "-p", str(vm.port), "-t", "4", "-J"],
                             stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 3
        while True:  # until the first one holds the service
            try:
                client(vm, "-n", "1K", busy_timeout=0)
            except iperf.IperfError as error:
                assert "server is busy" in error.reason
                break
            assert time.monotonic() < deadline
    finally:
        output = first.communicate(timeout=30)[0]
    check_test(iperf.parse(output))


def test_udp_is_refused(vm):
    with pytest.raises(iperf.IperfError):
        client(vm, "-u", "-t", 1)
    check_test(client(vm, "-t", 1))


@pytest.mark.parametrize("direction", [(), ("-R",)], ids=["send", "receive"])
def test_killed_client_frees_everything(vm, direction):
    before = stats(vm)["memory"]
    victim = subprocess.Popen(["iperf3", "-c", "127.0.0.1", "-p", str(vm.port), "-t", "60",
                               "-P", "8", *direction], stdout=subprocess.DEVNULL)
    time.sleep(2)  # in the middle of its test
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert settle(vm, "heap_objects", before["heap_objects"]) == before["heap_objects"]
    check_test(client(vm, "-t", 1))


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n" * 4, b"\0" * 4096, b"x", b""],
                         ids=["http", "zeros", "short", "nothing"])
def test_garbage_is_dropped_with_a_log_line(vm, garbage):
    since = vm.mark()
    if len(garbage) >= 37:
        send_to_service(vm, garbage, 90)
        vm.wait_console(r"warn.*iperf3", 30, since)
    else:  # not even a cookie, then gone
        with socket.create_connection(("127.0.0.1", vm.port), 10) as sock:
            sock.sendall(garbage)
    check_test(client(vm, "-t", 1, busy_timeout=30))


def test_thousand_connections_leave_memory_as_before(vm):
    """A short test is two connections; 500 of them, one after the other."""
    for _ in range(5):
        client(vm, "-n", "16K")
    before = stats(vm)["memory"]
    for _ in range(500):
        client(vm, "-n", "16K")
    for key in ("heap_objects", "heap_bytes", "free_pages"):
        assert settle(vm, key, before[key]) == before[key], key
