# SPDX-License-Identifier: BSD-2-Clause
"""The outcome: a stock iperf3 client measures through the guest, one test after the other, without
a restart in between; on 1, 2 and 4 vCPUs, and by `make run` with 128 MB."""

import os
import re
import signal
import subprocess
import time

import pytest

from guest import check_test, client
from hvlib import iperf
from support import ROOT, free_port

RUNS = [("-t", "5"), ("-t", "5", "-R"), ("-t", "5", "-P", "8"), ("-t", "5", "-P", "8", "-R")]


@pytest.mark.parametrize("vcpus", [1, 2, 4])
def test_outcome(boot, vcpus):
    vm = boot.dunlin(vcpus=vcpus)
    for options in RUNS:
        check_test(client(vm, *options))


@pytest.mark.parametrize("how", ["group", "make"])
def test_make_run(how):
    """The fixed interface: the last line of the start says what to type, no escape codes; a signal
    to the process group (a terminal's Ctrl-C) or to make alone ends the VM."""
    port = free_port()
    command = ["make", "run", "VCPUS=1", "MEMORY=128", f"PORT={port}", "HEADLESS=1"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, start_new_session=True, bufsize=0) as make:
        try:
            output = b""
            deadline = time.monotonic() + 120
            while b"ready, type:" not in output or not output.endswith(b"\n"):
                chunk = os.read(make.stdout.fileno(), 4096)
                assert chunk and time.monotonic() < deadline, output.decode()
                output += chunk
            assert b"\x1b" not in output
            typed = re.search(r"type: (iperf3 .*)", output.decode().splitlines()[-1])[1]
            assert typed == f"iperf3 -c 127.0.0.1 -p {port}"
            for options in RUNS if how == "group" else RUNS[:1]:
                check_test(iperf.client("127.0.0.1", *options, port=port))
        finally:
            if how == "group":
                os.killpg(make.pid, signal.SIGINT)
            else:
                make.send_signal(signal.SIGINT)
            rest = make.stdout.read().decode()  # ends when the last process of the run has
    assert "ending the VM" in rest
    with pytest.raises(iperf.IperfError, match="refused"):
        iperf.client("127.0.0.1", "-t", 1, port=port, busy_timeout=0)
