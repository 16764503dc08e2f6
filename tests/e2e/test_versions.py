# SPDX-License-Identifier: BSD-2-Clause
"""Older hosts: Dunlin falls back to what they speak, and works as well, on two cores where there are
subchannels (from NVSP 5)."""

import pytest

from dunlin import check_iperf, stats

VMBUS = {"5.2": 0x50002, "5.1": 0x50001, "5.0": 0x50000, "4.0": 0x40000, "3.0": 0x30000,
         "2.4": 0x20004}
NVSP = {"6": 0x60000, "5": 0x50000, "4": 0x40000, "2": 0x30002, "1": 0x2}


@pytest.mark.parametrize("version", VMBUS)
def test_vmbus(boot, version):
    vm = boot.dunlin(vcpus=2, max_version=VMBUS[version])
    assert f"vmbus: connected, version {version}," in vm.console()
    check_iperf(vm, seconds=1)
    check_iperf(vm, "-R", seconds=1)
    assert len(stats(vm)["netvsc"]["nic0"]["channels"]) == 2


@pytest.mark.parametrize("version", NVSP)
def test_nvsp(boot, version):
    vm = boot.dunlin(vcpus=2, nic_opts=[f"max-nvsp={NVSP[version]:#x}"])
    assert vm.stats()["devices"]["nic0"]["nvsp_version"] == NVSP[version]
    check_iperf(vm, seconds=1)
    check_iperf(vm, "-R", seconds=1)
    assert len(stats(vm)["netvsc"]["nic0"]["channels"]) == (2 if NVSP[version] >= 0x50000 else 1)
