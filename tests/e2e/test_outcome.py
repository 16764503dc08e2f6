# SPDX-License-Identifier: BSD-2-Clause
"""What the project is for: a stock iperf3 client measures through Dunlin, test after test without a
restart, on 1, 2 and 4 vCPUs and in a small VM."""

import pytest

from dunlin import check_iperf, memory, stats, wait_memory

MACHINES = {"1-vcpu": (1, 512), "2-vcpus": (2, 512), "4-vcpus": (4, 512), "128-MB": (2, 128)}


@pytest.mark.parametrize("machine", MACHINES)
def test_iperf(boot, machine):
    vcpus, megabytes = MACHINES[machine]
    vm = boot.dunlin(vcpus=vcpus, memory=megabytes)
    turns = [core["turns"] for core in stats(vm)["cores"].values()]
    assert len(turns) == vcpus and all(turns), turns
    before = memory(vm)
    for options in ([], ["-R"], ["-P", 8], ["-P", 8, "-R"]):
        check_iperf(vm, *options, seconds=2)
    wait_memory(vm, before)
    assert vm.stats()["devices"]["nic0"]["rx_sections_outstanding"] == 0
