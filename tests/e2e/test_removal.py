# SPDX-License-Identifier: BSD-2-Clause
"""The NIC goes while all its channels are busy, many or few, and comes back: the guest serves again and
has lost nothing."""

import subprocess
import time

import pytest

from dunlin import check_iperf, memory, plug_again, stats, wait_memory
from hvlib import nic
from support import wait_for

VCPUS = 8


@pytest.fixture(scope="module")
def vm(module_boot):
    return module_boot.dunlin(vcpus=VCPUS)


def nic_bytes(vm):
    device = vm.stats()["devices"]["nic0"]
    return device["rx_bytes"] + device["tx_bytes"]


def unplug(vm, since):
    vm.qmp("device_del", id="nic0")
    vm.wait_console("nic0: removed", 10, since)
    wait_for(lambda: "nic0" not in vm.stats()["devices"], 10, "the host's end of the NIC")


def plug(vm, channels):
    """Plugs the NIC in again; waits until the guest has an address."""
    since = vm.mark()
    plug_again(vm, 10, mac="00:15:5d:44:4c:00", queues=channels)
    vm.wait_console(r"net: nic0: address 10\.0\.2\.15/24", 20, since)
    assert len(stats(vm)["netvsc"]["nic0"]["channels"]) == channels


def stands_still(vm):
    before = nic_bytes(vm)
    time.sleep(0.2)
    return nic_bytes(vm) == before


@pytest.mark.parametrize("channels, paused", [(1, False), (2, False), (4, False), (4, True), (8, False)])
def test_removed_under_traffic(vm, channels, paused):
    """Traffic both ways; `paused`: the host takes and gives nothing any more when it takes the NIC back."""
    unplug(vm, vm.mark())
    plug(vm, channels)
    check_iperf(vm, "-P", 8, seconds=1)
    before, start, since = memory(vm), nic_bytes(vm), vm.mark()
    client = subprocess.Popen(["iperf3", "-c", "127.0.0.1", "-p", str(vm.port), "-t", "60", "-P", "8",
                               "--bidir"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    with client:
        try:
            wait_for(lambda: nic_bytes(vm) > start + 5_000_000, 15, "traffic")
            if paused:
                nic.pause(vm, "nic0")
                wait_for(lambda: stands_still(vm), 5, "the NIC stands still")
            unplug(vm, since)
        finally:
            client.kill()
    plug(vm, channels)
    check_iperf(vm, "-P", 8, "-R", seconds=1)
    wait_memory(vm, before)
    vmbus = stats(vm)["vmbus"]
    assert vmbus["leaked_pages"] == vmbus["leaked_requests"] == 0
    assert "error: " not in vm.console(since)


def test_nothing_is_lost(vm):
    """To the page: the heap has grown as far as it does in the rounds before."""
    before = memory(vm)
    for _ in range(2):
        unplug(vm, vm.mark())
        plug(vm, VCPUS)
    wait_memory(vm, before, reserve=0)
