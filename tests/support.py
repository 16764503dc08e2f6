# SPDX-License-Identifier: BSD-2-Clause
"""Small things that several test files use."""

import socket
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def free_port():
    """A TCP port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def check_steady(report, seconds):
    """A report of the iperf3 client over so many seconds: it tells of each of them, data arrived in
    each, and no stream was left without its share. (More than 8 share less evenly.)"""
    assert len(report.intervals) >= max(seconds - 1, 1), f"{len(report.intervals)} intervals"
    assert all(report.intervals), f"stalled: {report.intervals}"
    share = sum(report.streams) / len(report.streams)
    least = share / (10 if len(report.streams) <= 8 else 50)
    assert min(report.streams) > least, f"a stream stalled: {report.streams}"
