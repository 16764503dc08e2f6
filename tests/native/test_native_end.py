# SPDX-License-Identifier: BSD-2-Clause
"""The end of all connections before the machine's own (net/drain.c): no new ones, those that are there
go on, then they are reset on every core, and nothing of them is left."""

import re
import subprocess
import time

import pytest

import program
from program import SERVER, Native

ECHO = 7


@pytest.fixture(scope="module", autouse=True)
def build():
    program.build()


def end(native, step):
    """Takes a step of the end, or just looks; how many connections there are after it."""
    start = len(native.log)
    native.type(f"end {step}")
    return int(native.wait_log(rb"dunlin: (\d+) left", start=start)[1])


def wait_connections(native, wanted):
    deadline = time.monotonic() + 15
    while True:
        there = end(native, "look")
        if there == wanted:
            return
        assert time.monotonic() < deadline, there
        time.sleep(0.1)


@pytest.mark.parametrize("cores", [1, 3])
def test_end(cores):
    native = Native("--offload", "--cores", cores)
    try:
        native.iperf3("-t", "1", "--bidir", "-P", "3")  # fills what is filled once
        native.wait_objects(150, 15)
        before = native.objects()
        client = subprocess.Popen(
            [*native.inside, "iperf3", "-c", SERVER, "-t", "60", "--bidir", "-P", "3"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        wait_connections(native, 7)  # 6 streams and the control connection
        with native.connect(ECHO) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            assert end(native, "begin") == 8
            with pytest.raises(ConnectionRefusedError):
                native.connect(ECHO)
            sock.sendall(b"y")
            assert sock.recv(1) == b"y"
            assert end(native, "abandon") == 0
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        output = client.communicate(timeout=20)[0].decode()
        assert client.returncode != 0 and re.search("error|reset", output), output
        native.wait_objects(before, 15)
    finally:
        native.close()
        client.kill()
