# SPDX-License-Identifier: BSD-2-Clause
"""What the end-to-end tests ask a running Dunlin: its address, its own numbers."""

import json
import math
import re
import subprocess
import time

from hvlib import HvError, iperf
from support import check_steady, check_totals, wait_for

# As many objects as before may lie in a slab more of each of the heap's 19 sizes (kernel/heap.c).
HEAP_RESERVE = 19 * 16
BUFFER = 65536  # what iperf3 sends repeats after so many bytes (net/services/iperf3/stream.c)


def address(vm):
    """The IPv4 address that the guest has announced."""
    return re.search(r"iperf3 on ([\d.]+) port", vm.ready)[1]


def stats(vm):
    """The guest's own statistics, by its console command."""
    return json.loads(vm.command("stats", r"^dunlin: stats: (\{.*\})$")[1])


def memory(vm):
    """The guest's memory in use: heap objects, heap bytes, pages outside the heap, pages of the heap."""
    vm.wait_console(r"address fe80::", 60)  # a second after the start it has joined a group for it
    numbers = stats(vm)["memory"]
    return numbers["heap_objects"], numbers["heap_bytes"], (
        numbers["pages"] - numbers["free_pages"] - numbers["heap_pages"]), numbers["heap_pages"]


def wait_memory(vm, before, timeout=120, reserve=HEAP_RESERVE):
    """Waits until the guest has given back all that it has taken since `before`, to the page; only the
    heap may keep up to `reserve` pages more for no more objects. (A closed connection stays for seconds,
    one whose other end says nothing more for 20. Printing its numbers keeps core 0 busy: not too often.
    Stacks of fibers are kept for ever: there must have been as many devices at once before.)"""
    deadline, pause = time.monotonic() + timeout, 0.2
    while True:
        now = memory(vm)
        most = (*before[:3], before[3] + reserve)
        if all(number <= limit for number, limit in zip(now, most)):
            return
        assert time.monotonic() < deadline, (
            f"memory (heap objects, heap bytes, other pages, heap's pages) was {before}, is {now}")
        time.sleep(pause)
        pause = min(pause * 1.5, 2)


def received(vm):
    """Bytes that the host has given to the guest's first NIC."""
    return vm.stats()["devices"]["nic0"]["rx_bytes"]


def transmitted(vm):
    """Bytes that the host has taken from the guest's NICs."""
    return sum(device.get("tx_bytes", 0) for device in vm.stats()["devices"].values())


def wait_traffic(vm, megabytes=1):
    """Waits until so much more has reached the guest: a test is running."""
    start = received(vm)
    wait_for(lambda: received(vm) > start + megabytes * 1_000_000, 30, "traffic into the guest")


def plug_again(vm, timeout, **properties):
    """A NIC in place of nic0, which is going: the host may still be busy with taking that apart."""
    def add():
        try:
            vm.qmp("device_add", driver="hv-net", id="nic0", netdev="net0", **properties)
        except HvError as error:
            assert "Duplicate" in str(error) or "in use" in str(error), error
            return False
        return True
    wait_for(add, timeout, "the host lets go of the NIC")


def check_bulk(address, folder, port=5201, prefix=()):
    """What a client receives from the iperf3 service is the service's one buffer over and over."""
    got = folder / "received"
    subprocess.run([*prefix, "iperf3", "-c", address, "-p", str(port), "-R", "-n", "32M", "-F", got],
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=120, check=True)
    data = got.read_bytes()
    assert len(data) >= 16 << 20
    assert len(set(data[:BUFFER])) == 256
    whole = len(data) // BUFFER
    assert data[:whole * BUFFER] == data[:BUFFER] * whole
    assert data[whole * BUFFER:] == data[:len(data) - whole * BUFFER]


def check_iperf(vm, *options, seconds, **client):
    """One iperf3 test that must be right at the first try: both totals are plausible, no second and no
    stream without data. client: more arguments of iperf.client(). vm: None if it is not known."""
    before = vm and transmitted(vm)
    report = iperf.client(client.pop("host", "127.0.0.1"), "-t", seconds, *options,
                          port=client.pop("port", None) or vm.port, **client)
    carried = None
    if "-R" in options:
        carried = transmitted(vm) - before if vm else math.inf
    check_totals(report.sent_bytes, report.received_bytes, len(report.streams), carried)
    check_steady(report, seconds, 20 if "-R" in options or "--bidir" in options else 50)
    return report
