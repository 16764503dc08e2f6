# SPDX-License-Identifier: BSD-2-Clause
"""Every core its own stack: connections are served on all of them, evenly; what the host cannot sort by
flow reaches the right one. One machine of each size; the host offers a NIC of many queues."""

import socket
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from dunlin import address, stats, wait_for

LOAD = Path(__file__).with_name("echo_load.py")
CONFIG = "[services]\necho = on\ndiscard = on\n"


@pytest.fixture(scope="module", params=[1, 2, 4, 8], ids=lambda n: f"{n}-vcpu")
def vm(request, module_boot, tapnet, tmp_path_factory):
    config = tmp_path_factory.mktemp("cores") / "dunlin.conf"
    config.write_text(CONFIG)
    vm = module_boot.dunlin(vcpus=request.param, memory=512, nics=["tap:tap0"], netns=tapnet.name,
                            nic_opts=["queues=64"], config=config)
    vm.cores = request.param
    yield vm
    vm.stop()


@contextmanager
def connections(vm, tapnet, count, size):
    """So many echo connections at once, all open, after every byte came back right."""
    load = subprocess.Popen([*tapnet.command(), "/usr/bin/python3", LOAD, address(vm), str(count),
                             str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)
    try:
        said = load.stdout.readline()
        assert said == "open\n", said
        said = load.stdout.readline()
        assert said == "echoed\n", said
        yield
    finally:
        load.stdin.close()
        load.wait(30)


def per_core(vm):
    return stats(vm)["net"]["nic0"]["cores"]


def test_ping(vm, tapnet):
    """Fragments are put together on whatever core they arrive."""
    done = tapnet.run("ping", "-n", "-q", "-c", 5, "-i", "0.2", "-W", 5, "-s", 8000, address(vm))
    assert " 0% packet loss" in done.stdout, done.stdout


def test_spread(vm, tapnet):
    """64 connections: all cores carry traffic, and none much more than the others."""
    before = per_core(vm)
    assert len(before) == vm.cores
    with connections(vm, tapnet, 64, 20_000):
        cores = per_core(vm)
        counts = [cores[core]["connections"] for core in cores] if vm.cores > 1 else [64]
        assert sum(counts) == 64
        assert max(counts) <= 1.3 * 64 / vm.cores + 1, counts
        for core, numbers in cores.items():
            assert numbers["rx_frames"] > before[core]["rx_frames"] + 8, (before, cores)
    assert stats(vm)["net"]["nic0"]["lost"] == 0
