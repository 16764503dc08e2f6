# SPDX-License-Identifier: BSD-2-Clause
"""NICs are added and removed while the machine works: under load, and as administrators do it. Needs root
for the tap."""

import contextlib
import socket
import subprocess
import time

import pytest

import hotplug
from dunlin import check_iperf
from hvlib import iperf, nic
from hvlib.vm import Forward
from support import check_steady, free_port, hv, wait_for

ROUNDS = 200
PARTS, MOST_PARTS = 4, 8  # of 25 rounds, in each direction: more where it is not clear yet


@pytest.mark.alone
def test_under_load(boot, tapnet):
    """The load hardly notices 200 NICs that come and go, and nothing stays of them. It is compared with
    quiet times in between. First it goes to the guest, then it comes from there. (By itself it is up to a
    third faster in one second than in another.)"""
    vm, before = hotplug.start(boot, tapnet)
    rounds = hotplug.Rounds(vm, seed=1)
    for direction in ("to the guest", "from the guest"):
        busy, quiet = [], []
        with hotplug.Load(vm, tapnet, direction) as load:
            quiet.append(load.rate_of(lambda: time.sleep(3)))
            while len(busy) < PARTS or len(busy) < MOST_PARTS and hotplug.share(busy, quiet) < 0.92:
                busy.append(load.rate_of(lambda: rounds.run(ROUNDS // 2 // PARTS)))
                quiet.append(load.rate_of(lambda: time.sleep(3)))
        print(f"{direction}: {rounds.count} rounds, {rounds.served} with an address, slowest removal "
              f"{rounds.slowest:.2f} s; MB/s with and without: {[f'{n / 1e6:.0f}' for n in busy]} "
              f"{[f'{n / 1e6:.0f}' for n in quiet]}")
        assert hotplug.share(busy, quiet) > 0.9, (direction, busy, quiet)
    assert rounds.count >= ROUNDS
    assert rounds.served > ROUNDS / 10 and rounds.count - rounds.served > ROUNDS / 20
    assert rounds.slowest < 5
    hotplug.check_whole(vm, before)


# ---- Administrators ----

def hv_nic(vm, action, *arguments):
    """tools/hv nic ... for this VM, which has to succeed; returns what it printed."""
    status, text = hv("nic", action, *arguments, "--vm", vm.name)
    assert status == 0, text
    return text


def unreachable(port):
    """True if no test can be run by that port."""
    try:
        iperf.client("127.0.0.1", "-t", 1, port=port, timeout=10)
    except iperf.IperfError:
        return True
    return False


def seconds_to_serve(vm):
    """Adds a NIC and removes it; how long it took from device_add until the iperf3 service answered by it."""
    port = free_port()

    def answers():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.3) as sock:
            sock.sendall(b"c" * 36 + b"\0")  # how an iperf3 client begins
            return sock.recv(1)
        return None
    quick = nic.prepare(vm, name="quick", forwards=[Forward(port, 5201)])
    start = time.monotonic()
    nic.plug(vm, quick)
    wait_for(answers, 10, "an answer of the service")
    seconds = time.monotonic() - start
    nic.remove(vm, "quick")
    return seconds


def test_lost_access(boot):
    """The only NIC is gone. Another one is added, and the service is there again, by its address, within a
    second (of several tries, for the machine may be busy)."""
    vm = boot.dunlin(vcpus=2)
    check_iperf(vm, seconds=1)
    hv_nic(vm, "remove", "nic0")
    assert unreachable(vm.port)
    times = [seconds_to_serve(vm) for _ in range(5)]
    print(f"served after {', '.join(f'{t:.2f}' for t in times)} s")
    assert min(times) < 1
    port, since = free_port(), vm.mark()
    hv_nic(vm, "add", "--name", "office", "--forward", f"{port}:5201")
    vm.wait_console(r"net: nic\d: address 10\.0\.", 10, since)
    for options in ([], ["-R"]):
        check_iperf(vm, *options, seconds=1, port=port)
    assert "office" in hv_nic(vm, "list")


def test_move_a_service(boot):
    """A second NIC; clients are sent there; when the last one of the first NIC is done, that is removed
    under the eyes of 8 streams on the second, which do not notice."""
    vm = boot.dunlin(vcpus=4)
    port, since = free_port(), vm.mark()
    last = subprocess.Popen(["iperf3", "-c", "127.0.0.1", "-p", str(vm.port), "-t", "3", "-J"],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    hv_nic(vm, "add", "--name", "nic1", "--forward", f"{port}:5201")
    vm.wait_console(r"net: nic1: address 10\.0\.3\.15/24", 10, since)
    check_steady(iperf.parse(last.communicate(timeout=30)[0]), 3)
    client = subprocess.Popen(["iperf3", "-c", "127.0.0.1", "-p", str(port), "-t", "5", "-P", "8", "-J"],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    start = vm.stats()["devices"]["nic1"]["rx_bytes"]
    wait_for(lambda: vm.stats()["devices"]["nic1"]["rx_bytes"] > start + 1_000_000, 15, "8 streams")
    hv_nic(vm, "remove", "nic0")
    report = iperf.parse(client.communicate(timeout=30)[0])
    check_steady(report, 5)
    assert len(report.streams) == 8
    assert unreachable(vm.port)
    check_iperf(vm, seconds=1, port=port)
