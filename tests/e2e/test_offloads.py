# SPDX-License-Identifier: BSD-2-Clause
"""Offloads, all of them and without each by the guest's configuration, and with little memory
shared with the host: every byte arrives right both ways, in large frames where those are to be."""

import subprocess
from pathlib import Path

import pytest

from dunlin import address, check_bulk, check_iperf, stats
from support import wait_for

LOAD = Path(__file__).with_name("echo_load.py")
SMALL = "receive-buffer = 128k\nsend-buffer = 64k\nring = 16k"
SETTINGS = ["", "lso = off", "rsc = off", "checksum = off", SMALL]


@pytest.fixture(scope="module", params=SETTINGS,
                ids=["all", "no-lso", "no-rsc", "no-checksum", "small"])
def vm(request, module_boot, tapnet, tmp_path_factory):
    config = tmp_path_factory.mktemp("offloads") / "dunlin.conf"
    config.write_text(f"[services]\necho = on\n[netvsc]\n{request.param}\n")
    vm = module_boot.dunlin(vcpus=2, nics=["tap:tap0"], netns=tapnet.name, config=config)
    vm.without = request.param.partition(" ")[0]
    yield vm
    vm.stop()


def test_echo(vm, tapnet):
    load = subprocess.run(tapnet.command("/usr/bin/python3", LOAD, address(vm), 4, 2 << 20),
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
                          check=False)
    assert load.returncode == 0, load.stdout + load.stderr
    nic = vm.stats()["devices"]["nic0"]
    assert (nic["rx_coalesced"] > 0) == (vm.without not in ("rsc", "checksum"))
    # Where the host does not put segments together we do, if it vouches for their checksums.
    merged = stats(vm)["net"]["nic0"]["rx_merged"]
    if vm.without in ("rsc", "checksum"):
        assert (merged > 0) == (vm.without == "rsc"), merged


def test_send(vm, tapnet, tmp_path):
    check_bulk(address(vm), tmp_path, prefix=tapnet.command())
    nic = vm.stats()["devices"]["nic0"]
    assert (nic["tx_large"] > 0) == (vm.without not in ("lso", "checksum"))
    assert (nic["tx_csum_offloaded"] > 0) == (vm.without != "checksum")


@pytest.mark.parametrize("vm", [SMALL], ids=["small"], indirect=True, scope="module")
def test_back_pressure(vm, tapnet):
    """Many connections at once, with little memory shared: sections are held, all goes on, all is given
    back. (Whether the ring to the host fills up depends on who gets the CPU; tests/unit and tests/native
    make it full.)"""
    check_iperf(vm, "-P", 16, "--bidir", seconds=3, host=address(vm), port=5201,
                prefix=tapnet.command())
    nic = stats(vm)["netvsc"]["nic0"]
    assert nic["rx_pinned_peak"] > nic["rx_sections"] / 4
    wait_for(lambda: all(stats(vm)["netvsc"]["nic0"][name] == 0
                         for name in ("rx_held", "rx_pinned", "tx_outstanding")), 30, "all back")
