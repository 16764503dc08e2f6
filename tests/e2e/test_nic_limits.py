# SPDX-License-Identifier: BSD-2-Clause
"""As many NICs as Dunlin takes, in little memory: all serve, one more waits until another goes, and
when they go all of their memory is back."""

import pytest

from dunlin import memory, stats, wait_memory
from hvlib import nic
from support import wait_for

NICS = 8
VCPUS = 4


@pytest.fixture(scope="module")
def vm(module_boot):
    return module_boot.dunlin(vcpus=VCPUS, memory=128)


def wait_address(vm, name, since):
    vm.wait_console(rf"net: {name}: address \d+\.\d+\.\d+\.\d+/", 20, since)


def add_all(vm):
    since = vm.mark()
    for number in range(1, NICS):
        nic.add(vm, name=f"nic{number}")
    for number in range(1, NICS):
        wait_address(vm, f"nic{number}", since)


def remove_all(vm):
    for name in nic.names(vm):
        if name != "nic0":
            nic.remove(vm, name)
    wait_for(lambda: len(stats(vm)["netvsc"]) == 1, 10, "the NICs are gone")


def test_eight_and_one_more(vm):
    add_all(vm)  # once: the memory of an interface and the stack of a fiber are kept for the next
    nic.add(vm, name="nic8")
    remove_all(vm)
    before = memory(vm)
    add_all(vm)
    nics = stats(vm)["netvsc"]
    assert len(nics) == NICS and all(len(n["channels"]) == VCPUS for n in nics.values())
    all_memory = stats(vm)["memory"]
    assert all_memory["free_pages"] > all_memory["pages"] / 8
    assert sum(n["pages"] for n in nics.values()) < all_memory["pages"] - all_memory["free_pages"]

    since = vm.mark()
    nic.add(vm, name="nic8")
    vm.wait_console("there are 8 NICs already: not used until one goes", 10, since)
    since = vm.mark()
    nic.remove(vm, "nic3")
    wait_address(vm, "nic3", since)  # the guest's name for what took its place
    remove_all(vm)
    wait_memory(vm, before)
