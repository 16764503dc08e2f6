# SPDX-License-Identifier: BSD-2-Clause
"""A host that offers less than usual: no TSC page, no direct timers, no checksum offload."""

import time

import pytest

from dunlin import check_iperf

LESSER = ["hyperv-tsc-page=off", "hyperv-stimer-direct=off", "hyperv-auto-eoi=off"]


@pytest.fixture(scope="module")
def vm(module_boot):
    return module_boot.dunlin(vcpus=2, cpu_opts=LESSER, nic_opts=["csum=off"])


@pytest.mark.parametrize("options", [[], ["-P", 8, "-R"]],
                         ids=lambda o: "".join(map(str, o)) or "to-guest")
def test_iperf(vm, options):
    check_iperf(vm, *options, seconds=2)


def test_does_without(vm):
    """Time comes from an MSR, timers come as messages, checksums are its own, and none of it keeps
    the guest awake."""
    assert "checksums 0," in vm.console()
    before, used, start = vm.stats(), vm.cpu_seconds(), time.monotonic()
    time.sleep(4)  # timers of the stack expire by themselves
    after, used = vm.stats(), vm.cpu_seconds() - used
    for counter in ("msr_reads", "timers", "messages"):
        assert after["vps"][0][counter] > before["vps"][0][counter], counter
    assert after["devices"]["nic0"]["tx_csum_offloaded"] == 0
    assert used / (time.monotonic() - start) < 0.05, f"{used:.2f} s of CPU time while idle"
