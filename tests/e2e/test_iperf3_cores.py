# SPDX-License-Identifier: BSD-2-Clause
"""One iperf3 test over several cores: wherever its control connection and its streams arrive, it is one
test with one result, and nothing of it stays on any core."""

import json
import re
import socket
import subprocess

import pytest

from dunlin import address, check_iperf, stats
from hvlib import iperf, nic
from support import check_steady, wait_for

CORES = 4
ACCESS_DENIED = b"\xff"


@pytest.fixture(scope="module")
def vm(module_boot, tapnet):
    return module_boot.dunlin(vcpus=CORES, nics=["tap:tap0"], netns=tapnet.name)


def client(vm, tapnet, *options):
    """A client that runs by itself, with a report."""
    return tapnet.popen("iperf3", "-c", address(vm), "-J", *options, stdout=subprocess.PIPE, text=True)


def report(process):
    return json.loads(process.communicate(timeout=120)[0])


def connections(vm):
    """TCP connections that live now, of all cores."""
    return sum(core["connections"] for core in stats(vm)["net"]["nic0"]["cores"].values())


def first_answer(vm, tapnet):
    """What the server tells one who would like to begin a test. A client takes longer to start than this,
    and the test that runs meanwhile may be over."""
    with tapnet.enter(lambda: socket.create_connection((address(vm), 5201), timeout=30)) as sock:
        sock.sendall(b"c" * 36 + bytes(1))
        return sock.recv(1)


def spread(vm, tapnet, *options):
    """Runs a test; returns how many of its streams each core had."""
    since = vm.mark()
    check_iperf(vm, *options, host=address(vm), port=5201, prefix=tapnet.command(), seconds=3)
    line = vm.wait_console(r"iperf3: streams of each core, Mbit/s: (.*)", 60, since)[1]
    return {int(core): int(count) for core, count in re.findall(r"c(\d+) (\d+) at", line)}


@pytest.mark.parametrize("direction", [[], ["-R"]], ids=["to-guest", "from-guest"])
def test_128_streams(vm, tapnet, direction):
    counts = spread(vm, tapnet, "-P", 128, *direction)
    assert len(counts) == CORES and sum(counts.values()) == 128, counts


def test_another_send_table(vm, tapnet):
    """The host wants to be sent to by two channels only: what is there goes on where it is, what comes from
    now on lives on those cores and leaves by them. Then by all of them again."""
    def ask(channels):
        before = stats(vm)
        nic.set_send_table(vm, "nic0", channels)
        wait_for(lambda: stats(vm)["netvsc"]["nic0"]["send_tables"] >
                 before["netvsc"]["nic0"]["send_tables"], 30, "the guest to hear of it")

    def sent():
        return [channel["tx_packets"] for channel in vm.stats()["devices"]["nic0"]["channels"]]
    wait_for(lambda: connections(vm) == 0, 60, "no connection left from before")
    running = client(vm, tapnet, "-t", 4, "-P", 8, "-R")
    wait_for(lambda: connections(vm) == 9, 30, "all streams connected")
    ask([1, 2])
    check_steady(iperf.parse(running.communicate(timeout=60)[0]), 4)
    wait_for(lambda: connections(vm) == 0, 60, "no connection left from before")
    before = sent()
    assert spread(vm, tapnet, "-P", 16, "-R").keys() == {1, 2}
    assert [now - then > 100 for now, then in zip(sent(), before)] == [False, True, True, False]
    tables_set = stats(vm)["steer"]["tables_set"]
    ask(range(CORES))
    counts = spread(vm, tapnet, "-P", 16, "-R")
    assert len(counts) == CORES and max(counts.values()) <= 8, counts
    assert stats(vm)["steer"]["tables_set"] > tables_set
    assert stats(vm)["steer"]["tables_refused"] == 0


def test_one_after_the_other(vm, tapnet):
    """The next client comes, to any core, before the last one's end has been seen on its core."""
    since = vm.mark()
    for _ in range(20):
        assert "error" not in report(client(vm, tapnet, "-n", "100K", "-P", 3))

    def homes():
        return re.findall(r"(c\d+) info: iperf3: test of .* done", vm.console(since))
    # more: the line of the test before may have come late
    wait_for(lambda: len(homes()) >= 20, 30, "a line of each test")
    assert len(set(homes())) > 1, "all of them on one core"


def test_second_client_is_refused_on_any_core(vm, tapnet):
    wait_for(lambda: connections(vm) == 0, 60, "no connection left from before")
    first = client(vm, tapnet, "-t", 4, "-P", 2)
    wait_for(lambda: connections(vm) == 3, 30, "all streams connected")
    for _ in range(12):
        assert first_answer(vm, tapnet) == ACCESS_DENIED
    assert "busy running a test" in report(client(vm, tapnet, "-t", 1))["error"]
    check_steady(iperf.parse(first.communicate(timeout=60)[0]), 4)


@pytest.mark.parametrize("direction", [[], ["-R"]], ids=["to-guest", "from-guest"])
def test_killed_client(vm, tapnet, direction):
    """All cores let go of its streams, and the next one is served at once."""
    wait_for(lambda: connections(vm) == 0, 60, "no connection left from before")
    since = vm.mark()
    victim = client(vm, tapnet, "-t", 60, "-P", 16, *direction)
    wait_for(lambda: connections(vm) == 17, 30, "all streams connected")
    victim.kill()
    victim.communicate()
    vm.wait_console(r"iperf3: test of .* given up: ", 30, since)
    check_iperf(vm, "-P", 2, seconds=1, host=address(vm), port=5201, prefix=tapnet.command())
    wait_for(lambda: connections(vm) == 0, 60, "no connection left")


@pytest.mark.parametrize("direction", [[], ["-R"]], ids=["to-guest", "from-guest"])
def test_udp(vm, tapnet, direction):
    # So few that what comes while somebody does not get the CPU for half a second finds room.
    end = report(client(vm, tapnet, "-u", "-b", "1M", "-l", 1000, "-t", 2, "-P", 8, *direction))
    assert "error" not in end, end["error"]
    streams = [stream["udp"] for stream in end["end"]["streams"]]
    assert len(streams) == 8
    for stream in streams:
        assert 100 < stream["packets"] < 400 and stream["lost_percent"] < 5, stream
