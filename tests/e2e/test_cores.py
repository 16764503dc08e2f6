# SPDX-License-Identifier: BSD-2-Clause
"""Every core its own stack: connections are served on all of them, evenly; what the host cannot sort by
flow reaches the right one. One machine of each size; the host offers a NIC of many queues."""

import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from dunlin import address, memory, stats, wait_memory
from hvlib import iperf
from icmp import check_ping
from support import wait_for

LOAD = Path(__file__).with_name("echo_load.py")
CONFIG = "[services]\necho = on\ndiscard = on\n"

# vCPUs, queues that the host has: as many channels as the smaller number.
MACHINES = [(1, 64), (2, 64), (4, 2), (4, 64), (8, 64), (16, 64)]

# Datagrams in fragments from many ports, each with its own bytes.
UDP_LOOP = """
import os, socket, sys
socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(100)]
for sock in socks:
    sock.settimeout(30)
    sock.connect((sys.argv[1], 7))
for size in (1000, 1473, 5000, 20000, 60000):
    for sock in socks:
        data = os.urandom(size)
        sock.send(data)
        assert sock.recv(65536) == data, size
"""

SERVER = """
import socket, sys
with socket.create_server((sys.argv[1], 9000)) as server:
    print("listens", flush=True)
    while True:
        server.accept()[0].close()
"""


@pytest.fixture(scope="module", params=MACHINES, ids=lambda m: f"{m[0]}-vcpus-{m[1]}-queues")
def vm(request, module_boot, tapnet, tmp_path_factory):
    config = tmp_path_factory.mktemp("cores") / "dunlin.conf"
    config.write_text(CONFIG)
    vcpus, queues = request.param
    vm = module_boot.dunlin(vcpus=vcpus, memory=512, nics=["tap:tap0"], netns=tapnet.name,
                            nic_opts=[f"queues={queues}"], config=config)
    vm.cores, vm.channels = vcpus, min(vcpus, queues)
    yield vm
    vm.stop()


@contextmanager
def connections(vm, tapnet, count, size):
    """So many echo connections at once, all open, after every byte came back right."""
    load = subprocess.Popen(tapnet.command("/usr/bin/python3", LOAD, address(vm), count, size),
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)
    try:
        for word in ("open", "echoed"):
            said = load.stdout.readline()
            assert said == f"{word}\n", said + load.stdout.read()
        yield
    finally:
        load.stdin.close()
        load.wait(30)


def nic(vm):
    return stats(vm)["net"]["nic0"]


def open_connections(vm):
    return [core["connections"] for core in nic(vm)["cores"].values()]


def test_ping(vm, tapnet):
    """Fragments are put together on whatever core they arrive."""
    check_ping(tapnet, address(vm), size=8000)


def test_fragmented_udp(vm, tapnet):
    """The datagram goes to the core of its ports, which no fragment but the first tells."""
    before = nic(vm)
    done = tapnet.run("/usr/bin/python3", "-c", UDP_LOOP, address(vm), timeout=120)
    assert done.returncode == 0, done.stdout
    after = nic(vm)
    assert after["lost"] == before["lost"]
    if vm.channels > 1:
        assert after["handed_over"] > before["handed_over"]


def test_spread(vm, tapnet):
    """64 connections: all cores carry traffic, and none much more than the others."""
    before = nic(vm)["cores"]
    assert len(before) == vm.channels
    wait_for(lambda: sum(open_connections(vm)) == 0, 60, "no connection left from before")
    with connections(vm, tapnet, 64, 20_000):
        after, counts = nic(vm)["cores"], open_connections(vm)
    if vm.channels > 1:
        assert sum(counts) == 64
        assert max(counts) * vm.channels <= 64 * 1.5, counts
    for core, numbers in after.items():
        assert numbers["rx_frames"] > before[core]["rx_frames"] + 8, (before, after)


def test_thousand_connections(vm, tapnet):
    """At once, every byte of each right, and nothing stays."""
    before = memory(vm)
    with connections(vm, tapnet, 1000, 3000):
        assert vm.channels == 1 or sum(open_connections(vm)) == 1000
        assert stats(vm)["echo"]["connections"] == 1000
    wait_for(lambda: stats(vm)["echo"]["connections"] == 0, 60, "the connections are closed")
    wait_memory(vm, before)


@pytest.mark.parametrize("options, counter, most", [((), "rx_bytes", 1.5), (("-R",), "tx_bytes", 2)],
                         ids=["to-guest", "from-guest"])
def test_iperf(vm, tapnet, options, counter, most):
    """Streams on all cores, one result, no core with much more than its share. What a core sends also
    depends on when its vCPU runs, and this machine may have fewer CPUs."""
    before = nic(vm)["cores"]
    report = iperf.client(address(vm), "-t", 2, "-P", 64, *options, prefix=tapnet.command())
    assert len(report.streams) == 64 and all(report.streams), report.streams
    loads = [numbers[counter] - before[core][counter]
             for core, numbers in nic(vm)["cores"].items()]
    if len(loads) > 8:  # few streams for each, and many cores on each CPU
        most = 3
    assert max(loads) * len(loads) <= sum(loads) * most, loads


def test_connect_out(vm, tapnet):
    """From every core that has a channel, by ports whose answers come back to it."""
    server = tapnet.popen("/usr/bin/python3", "-c", SERVER, tapnet.here(), stdout=subprocess.PIPE,
                          text=True)
    try:
        assert server.stdout.readline() == "listens\n"
        for _ in range(5):
            since = vm.mark()
            vm.send_line(f"connect {tapnet.here()} 9000")
            for core in range(vm.cores):
                said = "connected" if core < vm.channels else "no interface leads there"
                vm.wait_console(rf"connect: core {core}: {said}", 30, since)
    finally:
        server.kill()
        server.wait()
