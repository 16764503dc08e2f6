# SPDX-License-Identifier: BSD-2-Clause
"""The NIC goes while all its channels are busy and comes back: the guest serves again and has lost
nothing."""

import subprocess

import pytest

from dunlin import check_iperf, memory, stats, wait_memory
from hvlib import HvError
from support import wait_for


CHANNELS = 4


@pytest.fixture(scope="module")
def vm(module_boot):
    vm = module_boot.dunlin(vcpus=4, nic_opts=[f"queues={CHANNELS}"])
    check_iperf(vm, seconds=1)
    return vm


def nic_bytes(vm):
    nic = vm.stats()["devices"]["nic0"]
    return nic["rx_bytes"] + nic["tx_bytes"]


def plug(vm):
    """Plugs the NIC in again; waits until the guest has an address. The host may still be busy
    with taking the one before apart."""
    def add():
        try:
            vm.qmp("device_add", driver="hv-net", id="nic0", netdev="net0", mac="00:15:5d:44:4c:00",
                   queues=CHANNELS)
        except HvError as error:
            assert "Duplicate" in str(error) or "in use" in str(error), error
            return False
        return True
    since = vm.mark()
    wait_for(add, 10, "the host lets go of the NIC")
    vm.wait_console(r"net: nic0: address 10\.0\.2\.15/24", 20, since)
    assert len(stats(vm)["netvsc"]["nic0"]["channels"]) == CHANNELS


@pytest.mark.parametrize("options", [[], ["-P", 8, "-R"]],
                         ids=lambda o: "".join(map(str, o)) or "to-guest")
def test_removed_under_traffic(vm, options):
    before = memory(vm)
    start, since = nic_bytes(vm), vm.mark()
    client = subprocess.Popen(["iperf3", "-c", "127.0.0.1", "-p", str(vm.port), "-t", "60",
                               *map(str, options)], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with client:
        try:
            wait_for(lambda: nic_bytes(vm) > start + 5_000_000, 15, "traffic")
            vm.qmp("device_del", id="nic0")
            vm.wait_console("nic0: removed", 10, since)
            wait_for(lambda: "nic0" not in vm.stats()["devices"], 10, "the host's end of the NIC")
        finally:
            client.kill()
    plug(vm)
    check_iperf(vm, *options, seconds=1)
    wait_memory(vm, before)
    vmbus = stats(vm)["vmbus"]
    assert vmbus["leaked_pages"] == vmbus["leaked_requests"] == 0
    assert "error: " not in vm.console(since)


def test_nothing_is_lost(vm):
    """To the page: the heap has grown as far as it does in the rounds before."""
    before = memory(vm)
    for _ in range(2):
        vm.qmp("device_del", id="nic0")
        wait_for(lambda: "nic0" not in vm.stats()["devices"], 10, "the host's end of the NIC")
        plug(vm)
    wait_memory(vm, before, reserve=0)
