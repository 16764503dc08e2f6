# SPDX-License-Identifier: BSD-2-Clause
"""The keys of dunlin.conf have their effect, none at its default here; jumbo frames over a tap; and
a client that vanishes without a word."""

import subprocess
import time

import pytest

from dunlin import address, check_iperf, memory, wait_memory
from hvlib.tapnet import TapNet
from icmp import check_ping
from support import wait_for

CONFIG = """[log]
level = debug
[net]
address = 10.77.0.50/24
gateway = 10.77.0.1
mtu = 9000
[netvsc]
receive-buffer = 256k
send-buffer = 128k
ring = 64k
[iperf3]
port = 5300
[system]
on-panic = restart
"""
GIVEN_UP = 25  # seconds: 10 of silence, then 3 probes 5 s apart (net/services/iperf3/server.c)


@pytest.fixture(scope="module")
def lan():
    with TapNet("settings", mtu=9000, dhcp=False) as net:
        yield net


@pytest.fixture(scope="module")
def vm(module_boot, lan, tmp_path_factory):
    config = tmp_path_factory.mktemp("settings") / "dunlin.conf"
    config.write_text(CONFIG)
    return module_boot.dunlin(config=config, nics=["tap:tap0"], netns=lan.name)


def measure(vm, lan, *options):
    return check_iperf(vm, *options, seconds=2, host=address(vm), port=5300, prefix=lan.command())


def nic(vm):
    return vm.stats()["devices"]["nic0"]


def test_what_it_says(vm):
    # As many sections as fit into 256k and 128k.
    vm.wait_console("nic0: .*, MTU 9000, 28 receive and 21 send sections,", 60)
    console = vm.console()
    assert "dunlin: ready: iperf3 on 10.77.0.50 port 5300" in console
    assert "net: nic0: address 10.77.0.50/24, gateway 10.77.0.1" in console
    assert " debug: " in console
    assert "dunlin.conf:" not in console


def test_what_the_host_sees(vm):
    host = nic(vm)
    assert host["mtu"] == 9014  # with the Ethernet header
    rings = {(channel["ring_from_guest"], channel["ring_to_guest"])
             for channel in host["channels"] if channel["open"]}
    assert rings == {(60 << 10, 60 << 10)}  # the first page of each is its header


def test_ping_of_a_whole_jumbo_frame(vm, lan):
    check_ping(lan, address(vm), size=8972, whole=True)


@pytest.mark.parametrize("options", [[], ["-P", 8], ["-R"], ["-P", 8, "-R"]],
                         ids=lambda o: "".join(map(str, o)) or "to-guest")
def test_jumbo_frames(vm, lan, options):
    way = "tx" if "-R" in options else "rx"
    before = nic(vm)
    measure(vm, lan, *options)
    after = nic(vm)
    size = ((after[f"{way}_bytes"] - before[f"{way}_bytes"]) /
            (after[f"{way}_packets"] - before[f"{way}_packets"]))
    assert size > 6000, f"{size} bytes in a frame"


def test_client_that_vanishes(vm, lan):
    """The cable of the other side is cut in the middle of a test: no word comes any more. The test
    is given up in the time that keep-alive needs, all its memory comes back, the next one runs."""
    before, since, sent = memory(vm), vm.mark(), nic(vm)["tx_bytes"]
    client = lan.popen("iperf3", "-c", address(vm), "-p", 5300, "-t", 120, "-R", "-P", 2,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with client:
        try:
            wait_for(lambda: nic(vm)["tx_bytes"] > sent + 5_000_000, 30, "traffic")
            last = time.monotonic()
            lan.run("ip", "link", "set", "tap0", "down")
            cut = time.monotonic()
            vm.wait_console(r"iperf3: test of 10\.77\.0\.1:\d+ given up: ", GIVEN_UP + 30, since)
            end = time.monotonic()
        finally:
            client.kill()
            lan.run("ip", "link", "set", "tap0", "up")
    # It stands still now and then if the machine is busy.
    assert end - last > GIVEN_UP - 5 and end - cut < GIVEN_UP + 10, f"given up after {end - cut:.1f} s"
    wait_memory(vm, before)
    measure(vm, lan, "-R")


def test_panic_restarts(vm):
    """Last, for it ends the machine: the runner lets no machine start again."""
    vm.send_line("panic")
    assert vm.wait_exit(60) == "guest-reset"
    assert "dunlin: panic: core 0: " in vm.console()
