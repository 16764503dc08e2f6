# SPDX-License-Identifier: BSD-2-Clause
"""What the end-to-end tests ask of a running Dunlin, by its console and by the network."""

import json
import re
import socket
import time

from hvlib import iperf


def stats(vm):
    """The guest's own counters."""
    return json.loads(vm.command("stats", r"^dunlin: stats: (\{.*\})$")[1])


def address(vm):
    """The guest's IP address, from the line that says it is ready."""
    return re.search(r" on ([\d.]+) port", vm.ready)[1]


def check_test(report):
    """What every test has to deliver: totals that agree, and no second without data."""
    assert report.received_bytes > 1_000_000
    assert report.difference <= 0.01, f"{report.sent_bytes} sent, {report.received_bytes} received"
    assert all(report.intervals), f"stalled: {report.intervals}"


def client(vm, *options, **more):
    """A stock iperf3 client of this machine against the guest on user networking."""
    return iperf.client("127.0.0.1", *options, port=vm.port, **more)


def send_to_service(vm, data, timeout=10):
    """Opens a connection to the iperf3 port, sends bytes, returns what came until the end."""
    received = b""
    with socket.create_connection(("127.0.0.1", vm.port), timeout) as sock:
        try:
            sock.sendall(data)
            while chunk := sock.recv(4096):
                received += chunk
        except ConnectionError:
            pass  # a reset is an end, too
    return received


def settle(vm, key, wanted, timeout=90):
    """Waits until a memory number of the guest is back at `wanted`; returns the last one seen."""
    deadline = time.monotonic() + timeout
    while (value := stats(vm)["memory"][key]) != wanted and time.monotonic() < deadline:
        time.sleep(0.5)
    return value
