# SPDX-License-Identifier: BSD-2-Clause
"""A NIC without one of its abilities: each protocol version and each offload is taken away once, and
what is sent to the echo service comes back byte for byte, by TCP and UDP, over IPv4 and IPv6; iperf3
has the guest send in bulk. One VM, whose NIC is exchanged. Then large and odd MTUs. Needs root for the
tap."""

import os
import socket

import pytest

from dunlin import address, plug_again
from hvlib import iperf
from icmp import check_ping
from support import check_echo

IP6 = True
MAC = "00:15:5d:44:4c:00"
GUEST6 = "fd77::215:5dff:fe44:4c00"
LARGE = ("tx_large", "rx_coalesced")
# Properties of the NIC, and which counters of the host stay 0 over IPv4, over IPv6.
SENDS = ("tx_large", "tx_csum_offloaded")
CASES = [
    ({}, (), ()),
    *(({"max-nvsp": version}, ("rx_coalesced",), ("rx_coalesced",))
      for version in (0x60000, 0x50000, 0x40000, 0x30002, 0x2)),
    ({"csum": False}, SENDS, SENDS),
    ({"csum-tx4": False}, SENDS, ()),
    ({"csum-tx6": False}, (), SENDS),
    ({"csum-rx4": False}, (), ()),
    ({"csum-rx6": False}, (), ()),
    ({"lso": False}, ("tx_large",), ("tx_large",)),
    ({"lso4": False}, ("tx_large",), ()),
    ({"lso6": False}, (), ("tx_large",)),
    ({"rsc": False}, ("rx_coalesced",), ("rx_coalesced",)),
    ({"lso": False, "rsc": False, "csum": False, "queues": 1}, (*LARGE, *SENDS), (*LARGE, *SENDS)),
    ({"batch-ranges": 1}, (), ()),
    ({"rss-udp": False}, (), ()),
]


@pytest.fixture(scope="module")
def vm(module_boot, tapnet, tmp_path_factory):
    config = tmp_path_factory.mktemp("poorer") / "dunlin.conf"
    config.write_text("[services]\necho = on\n")
    return module_boot.dunlin(vcpus=2, nics=["tap:tap0"], netns=tapnet.name, config=config)


def exchange(vm, properties):
    """Another NIC for the same port; waits until the guest has its address."""
    since = vm.mark()
    vm.qmp("device_del", id="nic0")
    plug_again(vm, 30, mac=MAC, **{"queues": 2, **properties})
    vm.wait_console(r"net: nic0: address 10\.77\.", 60, since)


def check_datagrams(tapnet, guest):
    """Whole ones, and of 3 fragments each, one after the other."""
    family = socket.AF_INET6 if ":" in guest else socket.AF_INET
    with tapnet.enter(lambda: socket.socket(family, socket.SOCK_DGRAM)) as sock:
        sock.settimeout(30)
        sock.connect((guest, 7))
        for size in [1, 500, 4000] * 7:
            data = os.urandom(size)
            sock.send(data)
            assert sock.recv(65536) == data


def case_name(properties):
    return ",".join(f"{name}={value:#x}" if name == "max-nvsp" else f"{name}={value}"
                    for name, value in properties.items()) or "all"


def check_traffic(vm, tapnet, guest, none=()):
    """The counters of the NIC that are in `none` stay as they are; returns all of them afterwards."""
    before = vm.stats()["devices"]["nic0"]
    check_echo(tapnet, guest, 2 << 20)
    check_datagrams(tapnet, guest)
    report = iperf.client(guest, "-n", "8M", "-R", prefix=tapnet.command())
    assert report.received_bytes >= 8 << 20
    nic = vm.stats()["devices"]["nic0"]
    assert nic["tx_errors"] == nic["rx_dropped"] == 0
    assert {name: nic[name] - before[name] for name in none} == dict.fromkeys(none, 0)
    return nic


@pytest.mark.parametrize("properties, none, none6", CASES, ids=[case_name(case[0]) for case in CASES])
def test_ability(vm, tapnet, properties, none, none6):
    since = vm.mark()
    exchange(vm, properties)
    nic = check_traffic(vm, tapnet, address(vm), none)
    version = properties.get("max-nvsp", 0x60001)
    assert nic["nvsp_version"] == version
    channels = 2 if version >= 0x50000 and "queues" not in properties else 1
    assert sum(channel["open"] for channel in nic["channels"]) == channels
    vm.wait_console(rf"net: nic0: address {GUEST6}", 60, since)
    nic = check_traffic(vm, tapnet, GUEST6, none6)
    if not properties:
        assert all(nic[name] > 0 for name in LARGE), nic


@pytest.mark.parametrize("mtu", [9000, 4001])
def test_mtu(boot, vm, tapnet, tmp_path, mtu):
    """The last tests of this file: they take the tap from the VM of the others."""
    vm.stop()
    config = tmp_path / "dunlin.conf"
    config.write_text(f"[net]\nmtu = {mtu}\n[services]\necho = on\n")
    tapnet.run("ip", "link", "set", "tap0", "mtu", mtu)
    jumbo = boot.dunlin(vcpus=1, nics=["tap:tap0"], netns=tapnet.name, config=config)
    assert check_traffic(jumbo, tapnet, address(jumbo))["mtu"] == mtu + 14
    check_ping(tapnet, address(jumbo), size=mtu - 28, whole=True)
