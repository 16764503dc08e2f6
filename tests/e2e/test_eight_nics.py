# SPDX-License-Identifier: BSD-2-Clause
"""Eight NICs at once on several cores: each with its own addresses and MTU, served by itself and by no
other; and a cable that is out for a moment while it is in use."""

import concurrent.futures
import contextlib
import os
import re
import socket
import time

import pytest

from dunlin import check_iperf, stats
from hvlib import iperf, nic
from hvlib.tapnet import TapNet
from support import wait_for

NICS = 8
CORES = 2
CONFIG = """[services]
echo = on
[nic 00:15:5d:44:4c:01]
lso = off
rsc = off
[nic 00:15:5d:44:4c:03]
address = 10.77.3.50/24
mtu = 1400
[nic 00-15-5D-44-4C-02]
mtu = 9000
[nic 00155d444c05]
mtu = 9000
checksum = off
"""
# The host allows nic2 no jumbo frames; nic4 is told by DHCP.
MTU = {2: 1500, 3: 1400, 4: 1300, 5: 9000}


@pytest.fixture(scope="module")
def lan():
    with TapNet("eight", taps=NICS, dhcp_options=["tag:tap4,26,1300"]) as net:
        for tap in ("tap2", "tap5"):
            net.run("ip", "link", "set", tap, "mtu", 9000)
        yield net


@pytest.fixture(scope="module")
def vm(module_boot, lan, tmp_path_factory):
    config = tmp_path_factory.mktemp("eight") / "dunlin.conf"
    config.write_text(CONFIG)
    return module_boot.dunlin(vcpus=CORES, memory=256, config=config, netns=lan.name,
                              nics=[f"tap:tap{n}" + (",max-mtu=1514" if n == 2 else "")
                                    for n in range(NICS)])


@pytest.fixture(scope="module")
def addresses(vm):
    """Of each NIC; their numbers are those of the taps."""
    found = {}
    for number in range(NICS):
        name = vm.wait_console(rf"(nic\d): 00:15:5d:44:4c:0{number}, ", 20)[1]
        assert name == f"nic{number}"
        found[number] = vm.wait_console(rf"net: {name}: address ([\d.]+)/24", 20)[1]
        assert found[number].startswith(f"10.77.{number}.")
    return found


def echo(lan, address, size=50000):
    """What is sent comes back; returns how long the segments were that could be sent."""
    data, back = os.urandom(size), b""
    with lan.enter(lambda: socket.create_connection((address, 7), timeout=15)) as sock:
        longest = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        sock.sendall(data)
        while len(back) < size:
            part = sock.recv(1 << 20)
            assert part, "closed"
            back += part
    assert back == data
    return longest


@contextlib.contextmanager
def running(lan, address, *options):
    """An iperf3 client in the background; what it gives has the client's report as result()."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        yield pool.submit(iperf.client, address, *options, prefix=lan.command())


def test_each_serves(vm, lan, addresses):
    """By its own NIC, with its own MTU: the least of the host's, of dunlin.conf and of DHCP."""
    for number, address in addresses.items():
        before = vm.stats()["devices"][f"nic{number}"]["tx_bytes"]
        assert echo(lan, address) == MTU.get(number, 1500) - 40 - 12  # headers, time stamps
        assert vm.stats()["devices"][f"nic{number}"]["tx_bytes"] > before + 50000
    assert addresses[3] == "10.77.3.50"


def test_all_at_once(vm, lan, addresses):
    """A test by one NIC while the others echo; and each NIC's channels are its own."""
    with running(lan, addresses[7], "-t", 3, "-P", 4) as client:
        for address in addresses.values():
            echo(lan, address)
        assert client.result().received_bytes > 0
    check_iperf(vm, "-R", seconds=1, host=addresses[4], port=5201, prefix=lan.command())
    nics = stats(vm)["netvsc"]
    assert [len(nics[f"nic{number}"]["channels"]) for number in range(NICS)] == [CORES] * NICS


def test_own_offloads(vm, lan, addresses):
    """Each NIC cuts, puts together and sums up as its own section says, or as all do."""
    for number in (0, 1, 5):
        before = stats(vm)["netvsc"][f"nic{number}"]
        for options in ([], ["-R"]):
            with running(lan, addresses[number], "-t", 1, *options) as client:
                assert client.result().received_bytes > 0
        after = stats(vm)["netvsc"][f"nic{number}"]
        grown = {key: after[key] > before[key] for key in ("tx_large", "rx_coalesced", "rx_csum_ok")}
        assert grown == {"tx_large": number == 0, "rx_coalesced": number == 0, "rx_csum_ok": number != 5}


def test_speed(vm, lan, addresses):
    """The guest hears of another speed of the link, and nothing else changes."""
    since = vm.mark()
    nic.set_speed(vm, "nic6", 2500)
    vm.wait_console("nic6: link speed 2500 Mbit/s", 10, since)
    echo(lan, addresses[6])
    stats(vm)  # all that was logged before has come when its answer has
    assert "net: nic6" not in vm.console(since)


def test_pause(vm, lan, addresses):
    """While the host takes and gives nothing on one NIC the others serve; then its streams go on."""
    def carried():
        device = vm.stats()["devices"]["nic6"]
        return device["rx_bytes"], device["tx_bytes"]

    def moves():
        before = carried()
        time.sleep(0.3)
        return [now > then for now, then in zip(carried(), before)]
    with running(lan, addresses[6], "-t", 12, "-P", 4, "--bidir") as client:
        start = carried()
        wait_for(lambda: min(now - then for now, then in zip(carried(), start)) > 5_000_000, 15, "traffic")
        since = vm.mark()
        nic.pause(vm, "nic6")
        wait_for(lambda: moves() == [False, False], 10, "the NIC stands still")
        still = carried()
        echo(lan, addresses[0])
        assert carried() == still
        nic.pause(vm, "nic6", False)
        wait_for(lambda: min(now - then for now, then in zip(carried(), still)) > 5_000_000, 15,
                 "traffic again")
        report = client.result()
    assert all(report.streams)
    stats(vm)
    assert not re.search(r"given up|error: |nic6: ", vm.console(since))
    wait_for(lambda: vm.stats()["devices"]["nic6"]["rx_sections_outstanding"] == 0, 30,
             "all sections are back")


def test_strong_host(vm, lan, addresses):
    """The address of one NIC on the link of another: no answer to ARP, nor to a packet that comes all the
    same."""
    target, mac = addresses[5], "00:15:5d:44:4c:00"
    before = stats(vm)["net"]["nic0"]["rx_not_mine"]
    lan.run("ip", "route", "add", f"{target}/32", "dev", "tap0", "src", "10.77.0.1")
    try:
        ping = ["ping", "-n", "-q", "-c", 2, "-i", "0.2", "-W", 1, "-I", "tap0", target]
        assert " 0 received" in lan.run(*ping).stdout
        assert stats(vm)["net"]["nic0"]["rx_not_mine"] == before
        lan.run("ip", "neigh", "replace", target, "lladdr", mac, "dev", "tap0", "nud", "permanent")
        assert " 0 received" in lan.run(*ping).stdout
        assert stats(vm)["net"]["nic0"]["rx_not_mine"] >= before + 2
    finally:
        lan.run("ip", "neigh", "del", target, "dev", "tap0")
        lan.run("ip", "route", "del", f"{target}/32", "dev", "tap0")
    echo(lan, target)


def test_way_out(vm, lan, addresses):
    """Connections from here: to the link where the destination is; far away by the first gateway."""
    lan.run("ip", "address", "add", "192.0.2.1/32", "dev", "lo")
    for target, number in (("10.77.6.1", 6), ("192.0.2.1", 0)):
        since, before = vm.mark(), vm.stats()["devices"][f"nic{number}"]["rx_packets"]
        vm.send_line(f"connect {target} 9999")
        for core in range(CORES):
            vm.wait_console(rf"connect: core {core}: refused", 10, since)
        assert vm.stats()["devices"][f"nic{number}"]["rx_packets"] >= before + CORES


def test_short_flap(vm, lan, addresses):
    """Nothing but time is lost: the lease is asked about, not given up; the streams go on."""
    address = addresses[6]
    discovered = lan.log().count("DHCPDISCOVER")
    requested = lan.log().count(f"DHCPREQUEST(tap6) {address}")

    def carried():
        return vm.stats()["devices"]["nic6"]["rx_bytes"]
    with running(lan, address, "-t", 12, "-P", 4) as client:
        start = carried()
        wait_for(lambda: carried() > start + 5_000_000, 15, "traffic")
        since = vm.mark()
        nic.set_link(vm, "nic6", False)
        vm.wait_console("net: nic6: link down", 5, since)
        time.sleep(1)  # as long as the cable is out
        nic.set_link(vm, "nic6", True)
        vm.wait_console("net: nic6: link up", 10, since)
        start = carried()
        report = client.result()
    assert carried() > start + 5_000_000
    assert len(report.streams) == 4 and all(report.streams)
    assert lan.log().count(f"DHCPREQUEST(tap6) {address}") == requested + 1
    assert lan.log().count("DHCPDISCOVER") == discovered
    assert not re.search(r"given up|error: ", vm.console(since))


def test_another_network(vm, lan, addresses):
    """The host says that there is another network behind the NIC. It is the same one: what there was goes
    on once the server has said so."""
    address = addresses[7]
    requested = lan.log().count(f"DHCPREQUEST(tap7) {address}")
    with lan.enter(lambda: socket.create_connection((address, 7), timeout=15)) as sock:
        since = vm.mark()
        nic.change_network(vm, "nic7")
        vm.wait_console("net: nic7: link up", 10, since)
        wait_for(lambda: lan.log().count(f"DHCPREQUEST(tap7) {address}") > requested, 10, "a question")
        sock.sendall(b"still there?")
        assert sock.recv(100) == b"still there?"
