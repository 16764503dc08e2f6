# SPDX-License-Identifier: BSD-2-Clause
"""NICs come and go while another one is under load: what the test of 200 rounds and `make soak`
share. A round adds a NIC at a random moment and takes it away at another one, which may be before the
guest has brought it up."""

import random
import subprocess
import time

from dunlin import address, memory, stats, wait_memory
from hvlib import nic
from support import wait_for

STREAMS = 16
NAME = "nic1"  # of the NIC that comes and goes; nic0 is the one under load
DIRECTIONS = {"to the guest": [], "from the guest": ["-R"], "both ways": ["--bidir"]}


class Load:
    """16 streams by nic0 (both ways: 16 each way), until the `with` block ends."""

    def __init__(self, vm, tapnet, direction):
        self.vm, self.tapnet, self.options = vm, tapnet, DIRECTIONS[direction]

    def __enter__(self):
        self.client = self.tapnet.popen("iperf3", "-c", address(self.vm), "-P", STREAMS, "-t", 86400,
                                        *self.options, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        start = self.bytes()
        wait_for(lambda: self.bytes() > start + 50_000_000, 60, "traffic of the load")
        return self

    def __exit__(self, *_):
        self.client.kill()
        self.client.wait()

    def bytes(self):
        nic0 = self.vm.stats()["devices"]["nic0"]
        return nic0["rx_bytes"] + nic0["tx_bytes"]

    def rate_of(self, action):
        """Bytes a second by nic0 while action() runs."""
        begin, start = time.monotonic(), self.bytes()
        action()
        end = self.bytes()
        assert self.client.poll() is None, "the load has ended"
        return (end - start) / (time.monotonic() - begin)


def share(busy, quiet):
    """What part of the load was left in busy times, each compared with the quiet one before and the one
    after: this machine itself may be faster at one time than at another."""
    assert len(quiet) == len(busy) + 1
    return sum(2 * now / (before + after)
               for before, now, after in zip(quiet, busy, quiet[1:])) / len(busy)


class Rounds:
    """Adds and removes NICs; knows what became of them. How long a NIC lives at most goes by
    what the first one needed for its address: some get one and some do not, on any machine."""

    def __init__(self, vm, seed):
        self.vm, self.random = vm, random.Random(seed)
        self.longest = min(max(0.6 * vm.seconds_to_address, 0.1), 0.5)
        self.count = self.served = 0
        self.slowest = 0

    def run(self, count):
        since = self.vm.mark()
        for _ in range(count):
            nic.add(self.vm, "user", NAME)
            time.sleep(self.random.uniform(0, self.longest))
            self.slowest = max(self.slowest, nic.remove(self.vm, NAME, timeout=20))
            self.count += 1
            time.sleep(self.random.uniform(0, 1))
        # Lines may come late, so not after each; what the last round has to say may be missing.
        self.served += self.vm.console(since).count(f"net: {NAME}: address 10.")


def check_whole(vm, before):
    """All memory is back, all sections are with whom they belong to, and a NIC may come and serve."""
    wait_memory(vm, before)
    vmbus = stats(vm)["vmbus"]
    assert vmbus["leaked_pages"] == vmbus["leaked_requests"] == 0, vmbus
    assert vm.stats()["devices"]["nic0"]["rx_sections_outstanding"] == 0
    held = stats(vm)["netvsc"]["nic0"]
    assert held["rx_held"] == held["rx_pinned"] == held["tx_outstanding"] == 0, held
    since = vm.mark()
    nic.add(vm, "user", NAME)
    vm.wait_console(rf"net: {NAME}: address 10\.0\.3\.15/24", 20, since)
    nic.remove(vm, NAME)


def start(booter, tapnet, vcpus=4):
    """A machine with a NIC on the tap that has seen others come and go. Returns it and its memory."""
    vm = booter.dunlin(vcpus=vcpus, memory=512, nics=["tap:tap0"], netns=tapnet.name)
    with Load(vm, tapnet, "both ways"):
        since, names = vm.mark(), [NAME, "nic2"]  # of two: one may come while another is still going
        begin = time.monotonic()
        for name in names:
            nic.add(vm, "user", name)
        for name in names:
            vm.wait_console(rf"net: {name}: address 10\.", 20, since)
            if name == NAME:
                vm.seconds_to_address = time.monotonic() - begin
            nic.remove(vm, name)
    wait_for(lambda: sum(core["connections"] for core in
                         stats(vm)["net"]["nic0"]["cores"].values()) == 0, 30, "an idle machine")
    return vm, memory(vm)
