# SPDX-License-Identifier: BSD-2-Clause
"""IPv6 of the guest on several cores: an address by the advertisements of dnsmasq, all cores carry
traffic both ways, fragments; and an address by hand."""

import re

import pytest

from dunlin import check_iperf, stats
from hvlib.tapnet import TapNet
from icmp import check_ping

CORES = 4
CONFIG = "[net]\naddress6 = fd77:1::50/64\ngateway6 = fd77:1::1\n"


@pytest.fixture(scope="module")
def lan():
    with TapNet("ip6", taps=2, ip6=True) as net:
        yield net


@pytest.fixture(scope="module")
def vm(module_boot, lan):
    return module_boot.dunlin(vcpus=CORES, nics=[f"tap:tap0,queues={CORES},mac=00:15:5d:44:06:01"],
                              netns=lan.name)


@pytest.fixture(scope="module")
def host(vm):
    """The guest's address."""
    found = vm.wait_console(r"ready: iperf3 on (fd77:\S+) port 5201", 60)[1]
    assert found == "fd77::215:5dff:fe44:601", found
    return found


@pytest.mark.parametrize("size", [56, 1452, 1453, 8000])
def test_ping(host, lan, size):
    check_ping(lan, host, size=size)


@pytest.mark.parametrize("options", [["-P", 16], ["-P", 16, "-R", "-w", "256K"]], ids=lambda o: " ".join(map(str, o)))
def test_iperf(vm, host, lan, options):
    way = "tx_bytes" if "-R" in options else "rx_bytes"
    before = stats(vm)["net"]["nic0"]["cores"]
    check_iperf(vm, *options, seconds=3, host=host, port=5201, prefix=lan.command())
    after = stats(vm)["net"]["nic0"]["cores"]
    moved = [after[str(core)][way] - before[str(core)][way] for core in range(CORES)]
    assert min(moved) > 1_000_000, moved


def test_link_flap(vm, host, lan):
    for up, text in ((False, "down"), (True, "up")):
        since = vm.mark()
        vm.qmp("set_link", name="nic0", up=up)
        vm.wait_console(rf"link {text}", 30, since)
    check_iperf(vm, "-P", 8, seconds=1, host=host, port=5201, prefix=lan.command())


def test_nothing_was_lost_between_cores(vm, host):
    numbers = stats(vm)
    assert numbers["net"]["nic0"]["lost"] == 0
    assert numbers["ip6"]["conflicts"] == 0
    assert numbers["tcp"]["bad_checksum"] == 0


def test_by_hand(boot, lan, tmp_path):
    config = tmp_path / "dunlin.conf"
    config.write_text(CONFIG)
    vm = boot.dunlin(config=config, nics=["tap:tap1"], netns=lan.name)
    vm.wait_console(r"ready: iperf3 on fd77:1::50 port 5201", 60)
    check_ping(lan, "fd77:1::50", interval=0.5)  # for longer than an advertised address would take
    assert not re.search(r"address fd77:1::(?!50\b)", vm.console())  # none from advertisements
