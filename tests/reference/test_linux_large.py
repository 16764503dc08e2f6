# SPDX-License-Identifier: BSD-2-Clause
"""The witness with large frames: Linux in the guest sends them (LSO, its TSO) and takes them (RSC, its
LRO), and stops when told to at run time. Needs root for the tap."""

import re

import pytest

from hvlib import iperf
from linux import Linux, spec_fields


def nic(guest):
    return guest.vm.stats()["devices"]["nic0"]


def counted(guest, names, action):
    """What an action adds to counters of the NIC."""
    before = nic(guest)
    action()
    after = nic(guest)
    return {name: after[name] - before[name] for name in names}


@pytest.fixture(scope="module")
def guest(module_boot, tapnet):
    return Linux(module_boot.start(**spec_fields(
        vcpus=2, nics=["tap:tap0"], netns=tapnet.name)))


def traffic(guest, tapnet, *options):
    guest.check("until netstat -ltn | grep -q :5201; do sleep 0.1; done")
    report = iperf.client(guest.address, "-t", 2, *options, prefix=tapnet.command(),
                          one_off_server=True)
    assert report.received_bytes > 5_000_000
    assert all(report.intervals), f"stalled: {report.intervals}"


def test_offered(guest):
    features = guest.check("ethtool -k eth0")
    for name in ("rx-checksumming", "tx-checksumming", "tx-tcp-segmentation",
                 "tx-tcp6-segmentation", "tcp-segmentation-offload"):
        assert re.search(rf"^\s*{name}: on", features, re.M), features


def test_large_send(guest, tapnet):
    names = ["tx_large", "tx_large_segments", "tx_packets"]
    counts = counted(guest, names, lambda: traffic(guest, tapnet, "-R"))
    assert counts["tx_large_segments"] > 5 * counts["tx_large"] > 500
    assert nic(guest)["tx_large_peak"] > 30000
    guest.check("ethtool -K eth0 tso off")
    counts = counted(guest, names, lambda: traffic(guest, tapnet, "-R"))
    guest.check("ethtool -K eth0 tso on")
    assert counts["tx_large"] == 0
    assert guest.kernel_complaints() == []


def test_coalesced_receive(guest, tapnet):
    names = ["rx_coalesced", "rx_coalesced_segments", "rx_cut"]
    for on in (True, False, True):
        guest.check(f"ethtool -K eth0 lro {'on' if on else 'off'}")
        counts = counted(guest, names, lambda: traffic(guest, tapnet))
        if on:
            assert counts["rx_coalesced_segments"] > 5 * counts["rx_coalesced"] > 500
            assert counts["rx_cut"] == 0
        else:
            assert counts["rx_coalesced"] == 0
    assert nic(guest)["rx_coalesced_peak"] > 30000
    assert guest.kernel_complaints() == []
