# SPDX-License-Identifier: BSD-2-Clause
"""What the end-to-end tests ask a running Dunlin: its address, its own numbers."""

import json
import re
import time

from hvlib import iperf


def address(vm):
    """The IPv4 address that the guest has announced."""
    return re.search(r"iperf3 on ([\d.]+) port", vm.ready)[1]


def stats(vm):
    """The guest's own statistics, by its console command."""
    return json.loads(vm.command("stats", r"^dunlin: stats: (\{.*\})$")[1])


def wait_for(condition, timeout, what):
    """Polls until condition() is true; what it returned. Fails the test after timeout seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.1)


def memory(vm):
    """(free pages, heap objects) of the guest."""
    numbers = stats(vm)["memory"]
    return numbers["free_pages"], numbers["heap_objects"]


def wait_memory(vm, before, timeout):
    """Waits until the guest has given back all that it has taken since `before`."""
    wait_for(lambda: memory(vm)[0] >= before[0] and memory(vm)[1] <= before[1], timeout,
             f"memory as before: {before} (free pages, objects), now {memory(vm)}")


def received(vm):
    """Bytes that the host has given to the guest's first NIC."""
    return vm.stats()["devices"]["nic0"]["rx_bytes"]


def wait_traffic(vm, megabytes=1):
    """Waits until so much more has reached the guest: a test is running."""
    start = received(vm)
    wait_for(lambda: received(vm) > start + megabytes * 1_000_000, 15, "traffic into the guest")


def check_iperf(vm, *options, seconds=None, **client):
    """One iperf3 test that must be right: both totals agree, no second without data."""
    if seconds:
        options = ("-t", seconds, *options)
    report = iperf.client(client.pop("host", "127.0.0.1"), *options,
                          port=client.pop("port", None) or vm.port, **client)
    assert report.received_bytes > 0
    assert report.difference < 0.01, (
        f"{report.sent_bytes} bytes sent, {report.received_bytes} received")
    assert all(report.intervals), f"stalled: {report.intervals}"
    return report
