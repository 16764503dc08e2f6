# SPDX-License-Identifier: BSD-2-Clause
"""The host takes a NIC back after each message of its bring-up, and before it answers each, while another
NIC is up, or after each message of another's: the guest lets go of it at once, loses nothing and goes on
serving."""

import pytest

from dunlin import check_iperf, memory, stats, wait_memory
from hvlib import nic


@pytest.fixture(scope="module", params=[1, 4])
def vm(request, module_boot):
    vm = module_boot.dunlin(vcpus=request.param)
    vm.vcpus = request.param
    yield vm
    vm.stop()


def bring_up(vm):
    """Adds a NIC, waits until it is of use, and removes it; returns how many messages it took."""
    since = vm.mark()
    nic.add(vm, name="nic1")
    vm.wait_console(r"info: nic1: [0-9a-f:]{17}, .* link up", 20, since)
    vm.wait_console(r"net: nic1: address 10\.0\.3\.15/24", 20, since)
    count = vm.stats()["devices"]["nic1"]["guest_messages"]
    nic.remove(vm, "nic1")
    return count


@pytest.fixture(scope="module")
def messages(vm):
    """How many messages the guest sends for a NIC until it is up and has an address."""
    count = bring_up(vm)
    assert count > 25 + 8 * (vm.vcpus - 1)
    return count


def check_serves(vm, before, since):
    check_iperf(vm, "-P", vm.vcpus, seconds=1)
    bring_up(vm)
    wait_memory(vm, before)
    vmbus = stats(vm)["vmbus"]
    assert vmbus["leaked_pages"] == vmbus["leaked_requests"] == 0
    assert vmbus["devices"]["opening"] == vmbus["devices"]["closing"] == 0
    assert "error: " not in vm.console(since) and "warn: " not in vm.console(since)


@pytest.mark.parametrize("when", ["after", "before"])
def test_taken_back(vm, messages, when):
    before, since = memory(vm), vm.mark()
    for number in range(1, messages + 1):
        nic.add(vm, name="nic1", options=[f"rescind-{when}={number}"])
        nic.wait_gone(vm, "nic1", 20)
    check_serves(vm, before, since)


def add_and_wait(vm, name, *options):
    """Adds a NIC; returns when it has an address."""
    since = vm.mark()
    nic.add(vm, name=name, options=options)
    vm.wait_console(rf"net: {name}: address 10\.", 20, since)


def test_another_is_coming(vm, messages):
    """The NIC that goes has served; the one that is negotiated meanwhile comes all the same. On one vCPU
    after each message of the other, on four after every fourth."""
    for name in ("nic1", "nic2"):  # the stacks of as many fibers are kept
        add_and_wait(vm, name)
    for name in ("nic1", "nic2"):
        nic.remove(vm, name)
    before, since = memory(vm), vm.mark()
    for number in range(1, messages + 1, vm.vcpus):
        add_and_wait(vm, "nic1")
        add_and_wait(vm, "nic2", f"rescind-after={number}", "rescind-whom=nic1")
        nic.wait_gone(vm, "nic1", 20)
        assert vm.stats()["devices"]["nic2"]["guest_messages"] >= number
        nic.remove(vm, "nic2", 20)
    check_serves(vm, before, since)
