# SPDX-License-Identifier: BSD-2-Clause
"""The witness on a tap with vnet headers (needs root)."""

import pytest

from hvlib import iperf
from icmp import check_ping
from linux import Linux, spec_fields
from support import check_steady, wait_for


@pytest.fixture(scope="module")
def guest(module_boot, tapnet):
    return Linux(module_boot.start(**spec_fields(
        vcpus=1, nics=["tap:tap0,mac=00:15:5d:44:4c:78"], netns=tapnet.name)))


def nic(guest):
    return guest.vm.stats()["devices"]["nic0"]


def test_lease(guest, tapnet):
    assert f"DHCPACK(tap0) {guest.address} 00:15:5d:44:4c:78" in tapnet.log()


@pytest.mark.parametrize("size", [56, 1472, 1473, 8000])
def test_ping(guest, tapnet, size):
    check_ping(tapnet, guest.address, size=size)


@pytest.mark.parametrize("options", [[], ["-R"], ["-P", 8], ["-P", 8, "-R"]],
                         ids=lambda o: "".join(map(str, o)) or "to-guest")
def test_iperf(guest, tapnet, options):
    report = iperf.client(guest.address, "-t", 2, *options, prefix=tapnet.command(),
                          one_off_server=True)
    assert report.received_bytes > 1_000_000
    check_steady(report, seconds=2)


def test_nothing_is_left(guest):
    """Checksums were left to the host, no frame was lost in it, and all receive sections are back
    once the guest is quiet."""
    def quiet():
        now = nic(guest)  # Linux gives sections back in batches
        return now["tx_pending"] == 0 and now["rx_sections_outstanding"] <= 64
    wait_for(quiet, 30, "a quiet guest")
    after = nic(guest)
    assert after["tx_csum_offloaded"] > 1000
    assert after["tx_errors"] == 0
    assert guest.kernel_complaints() == []
