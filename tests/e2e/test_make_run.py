# SPDX-License-Identifier: BSD-2-Clause
"""`make run` as people and programs use it: VCPUS, MEMORY, PORT, HEADLESS, and a signal to end."""

import os
import re
import select
import signal
import subprocess
import time

import pytest

from dunlin import check_iperf
from hvlib import iperf
from support import ROOT, free_port, hv, wait_for


def heed_interrupts():
    """A shell that starts the tests in the background has them ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def check_another_nic():
    """tools/hv finds this VM without being told its name: a NIC comes, serves and goes."""
    port = free_port()

    def serves():
        try:
            return iperf.client("127.0.0.1", "-t", 1, port=port, timeout=6)
        except iperf.IperfError:
            return None  # it has no address yet
    status, text = hv("nic", "add", "--forward", f"{port}:5201")
    assert status == 0, text
    wait_for(serves, 40, "the new NIC serves")
    check_iperf(None, seconds=1, port=port)
    assert "nic1: " in hv("nic", "list")[1]
    status, text = hv("nic", "remove", "nic1")
    assert status == 0, text
    assert "nic1: " not in hv("nic", "list")[1]


@pytest.mark.parametrize("how", ["group", "make"])
def test_make_run(how):
    """The last line of the start says what to type, without escape codes; a signal to the process
    group (what Ctrl-C sends) or to make alone ends the VM."""
    port = free_port()
    command = ["make", "run", "VCPUS=1", "MEMORY=128", f"PORT={port}", "HEADLESS=1"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, start_new_session=True, bufsize=0,
                          preexec_fn=heed_interrupts) as make:
        try:
            output = b""
            deadline = time.monotonic() + 120
            while b"ready, type:" not in output or not output.endswith(b"\n"):
                chunk = os.read(make.stdout.fileno(), 4096)
                assert chunk and time.monotonic() < deadline, output.decode()
                output += chunk
            assert not select.select([make.stdout], [], [], 1)[0], "more comes after the last line"
            assert b"\x1b" not in output
            typed = re.search(r"type: (iperf3 .*)", output.decode().splitlines()[-1])[1]
            assert typed == f"iperf3 -c 127.0.0.1 -p {port}"
            for options in ([], ["-R"], ["-P", 8], ["-P", 8, "-R"]):
                check_iperf(None, *options, seconds=1, port=port)
            check_another_nic()
        finally:
            if how == "group":
                os.killpg(make.pid, signal.SIGINT)
            else:
                make.send_signal(signal.SIGINT)
            rest = make.stdout.read().decode()  # ends when the last process of the run has
    assert "ending the VM" in rest
    with pytest.raises(iperf.IperfError, match="refused"):
        iperf.client("127.0.0.1", "-t", 1, port=port)
