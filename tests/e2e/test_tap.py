# SPDX-License-Identifier: BSD-2-Clause
"""Over a tap in a network namespace: DHCP from dnsmasq, ping with large sizes, iperf3, link flap."""

import pytest

from guest import address, check_test
from hvlib import iperf


@pytest.fixture(scope="module")
def vm(module_boot, tapnet):
    return module_boot.dunlin(nics=["tap:tap0"], netns=tapnet.name, vcpus=1)


def test_lease_from_dnsmasq(vm, tapnet):
    assert address(vm).startswith("10.77.0.1")
    assert f"DHCPACK(tap0) {address(vm)}" in tapnet.log()


@pytest.mark.parametrize("size", [0, 56, 1472, 1473, 4000, 8000])
def test_ping(vm, tapnet, size):
    done = tapnet.run("ping", "-c", 10, "-i", "0.02", "-W", 5, "-s", size, address(vm))
    assert done.returncode == 0 and " 0% packet loss" in done.stdout, done.stdout


@pytest.mark.parametrize("options", [("-t", 3), ("-t", 3, "-R"), ("-t", 3, "-P", 8),
                                     ("-t", 3, "-P", 8, "-R")],
                         ids=lambda o: " ".join(map(str, o)))
def test_iperf(vm, tapnet, options):
    check_test(iperf.client(address(vm), *options, prefix=tapnet.command()))


def test_link_flap(vm, tapnet):
    for up in (False, True):
        since = vm.mark()
        vm.qmp("set_link", name="nic0", up=up)
        vm.wait_console(r"link (is )?" + ("up" if up else "down"), 10, since)
    assert tapnet.run("ping", "-c", 3, "-W", 5, address(vm)).returncode == 0
