# SPDX-License-Identifier: BSD-2-Clause
"""One iperf3 test over several cores: wherever its control connection and its streams arrive, it is one
test with one result, and nothing of it stays on any core."""

import json
import re
import subprocess

import pytest

from dunlin import address, check_iperf, stats
from hvlib import iperf
from support import check_steady, wait_for

CORES = 4


@pytest.fixture(scope="module")
def vm(module_boot, tapnet):
    return module_boot.dunlin(vcpus=CORES, nics=["tap:tap0"], netns=tapnet.name)


def client(vm, tapnet, *options):
    """A client that runs by itself, with a report."""
    return tapnet.popen("iperf3", "-c", address(vm), "-J", *options, stdout=subprocess.PIPE, text=True)


def report(process):
    return json.loads(process.communicate(timeout=60)[0])


def connections(vm):
    """TCP connections that live now, of all cores."""
    return sum(core["connections"] for core in stats(vm)["net"]["nic0"]["cores"].values())


@pytest.mark.parametrize("direction", [[], ["-R"]], ids=["to-guest", "from-guest"])
def test_128_streams(vm, tapnet, direction):
    since = vm.mark()
    check_iperf(vm, "-P", 128, *direction, seconds=3, host=address(vm), port=5201,
                prefix=tapnet.command())
    line = vm.wait_console(r"iperf3: streams of each core, Mbit/s: (.*)", 5, since)[1]
    counts = [int(count) for count in re.findall(r"c\d+ (\d+) at", line)]
    assert len(counts) == CORES and sum(counts) == 128, line


def test_one_after_the_other(vm, tapnet):
    """The next client comes, to any core, before the last one's end has been seen on its core."""
    since = vm.mark()
    for _ in range(20):
        assert "error" not in report(client(vm, tapnet, "-n", "100K", "-P", 3))
    homes = set(re.findall(r"(c\d+) info: iperf3: test of .* done", vm.console(since)))
    assert len(homes) > 1, "all of them on one core"


def test_second_client_is_refused_on_any_core(vm, tapnet):
    wait_for(lambda: connections(vm) == 0, 30, "no connection left from before")
    first = client(vm, tapnet, "-t", 4, "-P", 2)
    wait_for(lambda: connections(vm) == 3, 10, "all streams connected")
    for _ in range(12):
        assert "busy running a test" in report(client(vm, tapnet, "-t", 1))["error"]
    check_steady(iperf.parse(first.communicate(timeout=20)[0]), 4)


@pytest.mark.parametrize("direction", [[], ["-R"]], ids=["to-guest", "from-guest"])
def test_killed_client(vm, tapnet, direction):
    """All cores let go of its streams, and the next one is served at once."""
    wait_for(lambda: connections(vm) == 0, 30, "no connection left from before")
    since = vm.mark()
    victim = client(vm, tapnet, "-t", 60, "-P", 16, *direction)
    wait_for(lambda: connections(vm) == 17, 10, "all streams connected")
    victim.kill()
    victim.communicate()
    vm.wait_console(r"iperf3: test of .* given up: ", 10, since)
    check_iperf(vm, "-P", 2, seconds=1, host=address(vm), port=5201, prefix=tapnet.command())
    wait_for(lambda: connections(vm) == 0, 30, "no connection left")


@pytest.mark.parametrize("direction", [[], ["-R"]], ids=["to-guest", "from-guest"])
def test_udp(vm, tapnet, direction):
    end = report(client(vm, tapnet, "-u", "-b", "4M", "-l", 1000, "-t", 2, "-P", 8, *direction))
    assert "error" not in end, end["error"]
    streams = [stream["udp"] for stream in end["end"]["streams"]]
    assert len(streams) == 8
    for stream in streams:
        assert 500 < stream["packets"] < 1500 and stream["lost_percent"] < 5, stream
