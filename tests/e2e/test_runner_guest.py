# SPDX-License-Identifier: BSD-2-Clause
"""tools/hv with a guest that runs: detached, its list, statistics, console, end; and stopped for
gdb."""

import json
import os
import re
import signal
import socket
import subprocess

import pytest

from dunlin import check_iperf, wait_for
from hvlib import BUILD
from hvlib.vm import Vm
from support import ROOT, free_port

HV = ROOT / "tools" / "hv"


def hv(*arguments, text=""):
    """Runs tools/hv with text as its input; returns what it printed. It must succeed."""
    done = subprocess.run([HV, *map(str, arguments)], input=text, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def detached():
    """A VM that outlives the command that started it: its name and the port of its service."""
    name, port = f"test-{os.getpid()}-detached", free_port()
    output = hv("run", "--headless", "--detach", "--name", name, "--forward", f"{port}:5201")
    assert f"iperf3 -c 127.0.0.1 -p {port}" in output.splitlines()[-1]
    yield name, port
    Vm(name).stop()


def test_commands(detached):
    name, port = detached
    assert name in hv("list")
    check_iperf(None, seconds=1, port=port)
    stats = json.loads(hv("stats", "--name", name))
    assert stats["devices"]["nic0"]["rx_bytes"] > 1_000_000
    assert stats["violations"] == {}
    console = hv("console", "--name", name, text="help\n")
    assert "dunlin: ready: iperf3" in console and "poweroff" in console
    again = subprocess.run([HV, "run", "--headless", "--name", name, "--forward",
                            f"{free_port()}:5201"], capture_output=True, text=True, check=False)
    assert again.returncode == 1 and "is running already" in again.stderr
    hv("stop", "--name", name)
    assert not Vm(name).running() and name not in hv("list")


def test_gdb():
    """The VM waits before its first instruction, gdb's protocol answers, the kernel has symbols."""
    name, port = f"test-{os.getpid()}-gdb", free_port()
    command = [HV, "run", "--headless", "--name", name, "--gdb", port, "--symbols",
               BUILD / "kernel.elf", "--forward", f"{free_port()}:5201"]
    with subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as runner:
        try:
            line = next(text for text in runner.stdout if "gdb " in text)
            symbols, target = re.search(r"gdb (\S+) -ex 'target remote :(\d+)'", line).groups()
            assert int(target) == port and os.path.exists(symbols)
            assert Vm(name).console() == ""
            with socket.create_connection(("127.0.0.1", port), 10) as gdb:
                gdb.sendall(b"$?#3f")
                answer = b""
                while b"#" not in answer:
                    answer += gdb.recv(100)
                assert answer.startswith(b"+$T05"), answer  # stopped by a trap
                gdb.sendall(b"+$c#63")
                wait_for(lambda: "dunlin: ready" in Vm(name).console(), 60, "the guest's start")
        finally:
            runner.send_signal(signal.SIGTERM)
            runner.communicate()
        assert runner.returncode == 0
