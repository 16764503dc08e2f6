# SPDX-License-Identifier: BSD-2-Clause
"""Dunlin on a LAN: a tap with vnet headers in a network namespace (needs root), with dnsmasq as the
DHCP server; and QEMU's user network."""

import re

import pytest

from dunlin import address, check_bulk, check_iperf, memory, wait_memory
from hvlib.vm import Forward
from icmp import check_ping
from support import check_echo, free_port

# Connects and closes again and again: at once, after sending a cookie, after sending nonsense.
CONNECT_LOOP = """
import socket, sys
for number in range(int(sys.argv[2])):
    with socket.create_connection((sys.argv[1], 5201), timeout=60) as sock:
        if number % 3 == 1:
            sock.sendall(b"0123456789abcdefghijklmnopqrstuvwxyz" + bytes(1))
            sock.recv(1)
        elif number % 3 == 2:
            sock.sendall(b"GET / HTTP/1.0" + bytes([13, 10, 13, 10]))
"""


@pytest.fixture(scope="module")
def vm(module_boot, tapnet):
    return module_boot.dunlin(vcpus=1, memory=128, nics=["tap:tap0,mac=00:15:5d:44:4c:77"], netns=tapnet.name)


def test_dhcp_dnsmasq(vm, tapnet):
    ip = address(vm)
    assert ip.startswith("10.77.0.1"), ip
    assert re.search(rf"DHCPACK\(tap0\) {re.escape(ip)} 00:15:5d:44:4c:77", tapnet.log())


def test_user_network(boot, tmp_path):
    """Another DHCP server; and the host cuts the large frames that go there, so that what arrives is what was
    sent, both ways."""
    config = tmp_path / "dunlin.conf"
    config.write_text("[services]\necho = on\n")
    iperf, echo = free_port(), free_port()
    vm = boot.dunlin(config=config, nics=["user"], forwards=[Forward(iperf, 5201), Forward(echo, 7)])
    assert address(vm) == "10.0.2.15"
    check_echo(None, "127.0.0.1", 4 << 20, port=echo)
    check_bulk("127.0.0.1", tmp_path, port=iperf)
    nic = vm.stats()["devices"]["nic0"]
    assert nic["tx_large_segments"] > 2 * nic["tx_large"] > 200 and nic["tx_large_peak"] > 10000, nic
    assert nic["tx_errors"] == nic["rx_dropped"] == 0


@pytest.mark.parametrize("size", [0, 56, 1400, 1472, 1473, 2000, 4000, 8000])
def test_ping(vm, tapnet, size):
    """Up to and beyond one frame: fragments are put together and sent."""
    check_ping(tapnet, address(vm), size=size)


@pytest.mark.parametrize("options", [[], ["-R"], ["-P", 8], ["-P", 8, "-R"], ["-P", 128],
                                     ["-P", 128, "-R"]],
                         ids=lambda o: "".join(map(str, o)) or "to-guest")
def test_iperf(vm, tapnet, options):
    before = memory(vm)
    check_iperf(vm, *options, seconds=3, host=address(vm), port=5201, prefix=tapnet.command())
    wait_memory(vm, before)


def test_connections_leave_memory(vm, tapnet):
    """1,000 connections one after the other cost nothing that stays."""
    def connect(times):
        done = tapnet.run("/usr/bin/python3", "-c", CONNECT_LOOP, address(vm), times, timeout=240)
        assert done.returncode == 0, done.stdout
    quiet = memory(vm)
    connect(30)  # what is taken once and kept
    check_iperf(vm, seconds=1, host=address(vm), port=5201, prefix=tapnet.command())
    wait_memory(vm, quiet)
    before = memory(vm)
    connect(1000)
    wait_memory(vm, before, reserve=0)
    check_iperf(vm, seconds=1, host=address(vm), port=5201, prefix=tapnet.command())


def test_link_flap(vm, tapnet):
    """The cable out and in again: it says so and goes on."""
    for up, text in ((False, "down"), (True, "up")):
        since = vm.mark()
        vm.qmp("set_link", name="nic0", up=up)
        vm.wait_console(rf"link {text}", 30, since)
    check_iperf(vm, seconds=1, host=address(vm), port=5201, prefix=tapnet.command())
