# SPDX-License-Identifier: BSD-2-Clause
"""Runs the stock iperf3 client and reads its JSON report. Used by the benchmark and the tests."""

import dataclasses
import json
import subprocess
import time

from . import HvError


class IperfError(HvError):
    """The client ended with an error; `reason` is the client's own text."""

    def __init__(self, command, status, reason):
        # With -J the client 3.12 exits with 0 even if it could not connect.
        super().__init__(f"{' '.join(command)}: {reason}" + (f" (exit {status})" if status else ""))
        self.status = status
        self.reason = reason


@dataclasses.dataclass
class Report:
    """What one test moved. Bytes and seconds as the two sides counted them."""
    sent_bytes: int
    received_bytes: int
    seconds: float  # of the receiver
    intervals: list  # bytes of each interval of the client, the unfinished last one left out
    streams: list  # bytes that arrived of each stream, in both directions
    retransmits: int  # -1 if the sender does not tell
    raw: dict

    @property
    def gbit_s(self):
        """Payload that arrived, in 10^9 bits a second."""
        return self.received_bytes * 8 / self.seconds / 1e9

    @property
    def difference(self):
        """How far the totals of the two sides are apart, as a part of the larger one."""
        return abs(self.sent_bytes - self.received_bytes) / max(self.sent_bytes,
                                                                self.received_bytes, 1)


def parse(text):
    """A client's -J report as a Report; raises ValueError or KeyError if it is not one."""
    raw = json.loads(text)
    if "error" in raw:
        raise ValueError(raw["error"])
    sent, received = raw["end"]["sum_sent"], raw["end"]["sum_received"]
    arrived = [stream["receiver"]["bytes"] for stream in raw["end"]["streams"]]
    whole = [i["sum"] for i in raw["intervals"] if i["sum"]["seconds"] > 0.9]
    return Report(sent["bytes"], received["bytes"], received["seconds"],
                  [i["bytes"] for i in whole], arrived, sent.get("retransmits", -1), raw)


# What a client says that came while one `iperf3 -s -1` ended and the next was not there yet; a port
# forward accepts first and resets then.
_GONE = ("Connection reset", "closed unexpectedly", "Bad file descriptor")


def _try_again(reason, output, one_off_server):
    if "Connection refused" in reason or "server is busy" in reason:
        return True
    return one_off_server and '"connected":\t[]' in output and any(g in reason for g in _GONE)


def client(address, *options, port=5201, prefix=(), timeout=60, busy_timeout=None,
           one_off_server=False):
    """Runs one test with -J to its end. `prefix` is put before the command (ip netns exec ...).

    It has to succeed at the first try, as a person expects, unless busy_timeout is given: so many
    seconds it is tried again while the server does not listen or is busy with another test.
    one_off_server (the Linux guest: a new process for each test) means 5 s, and repeats also
    when the server went away before the test began. Raises IperfError if the client fails."""
    if busy_timeout is None:
        busy_timeout = 5 if one_off_server else 0
    command = ["iperf3", "-c", str(address), "-p", str(port), "-J", *map(str, options)]
    deadline = time.monotonic() + busy_timeout
    while True:
        try:
            done = subprocess.run([*prefix, *command], text=True, check=False, timeout=timeout,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE)
        except subprocess.TimeoutExpired as error:
            raise IperfError(command, None, f"it did not end in {timeout} s") from error
        try:
            report = parse(done.stdout)
            if done.returncode == 0:
                return report
            reason = done.stderr.strip()
        except (ValueError, KeyError) as error:
            reason = str(error) or done.stderr.strip()
        if not _try_again(reason, done.stdout, one_off_server) or time.monotonic() >= deadline:
            raise IperfError(command, done.returncode, reason)
        time.sleep(0.2)
