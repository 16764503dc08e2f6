# SPDX-License-Identifier: BSD-2-Clause
"""Older hosts: Dunlin falls back to the VMBus that they speak, and works as well. (The NIC's protocol:
test_poorer_nic.py.)"""

import pytest

from dunlin import check_iperf, stats

VMBUS = {"5.2": 0x50002, "5.1": 0x50001, "5.0": 0x50000, "4.0": 0x40000, "3.0": 0x30000,
         "2.4": 0x20004}


@pytest.mark.parametrize("version", VMBUS)
def test_vmbus(boot, version):
    vm = boot.dunlin(vcpus=2, max_version=VMBUS[version])
    assert f"vmbus: connected, version {version}," in vm.console()
    check_iperf(vm, seconds=1)
    check_iperf(vm, "-R", seconds=1)
    assert len(stats(vm)["netvsc"]["nic0"]["channels"]) == 2
