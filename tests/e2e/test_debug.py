# SPDX-License-Identifier: BSD-2-Clause
"""What `make debug` runs: a VM that waits for gdb."""

import os
import re
import signal
import socket
import subprocess

from hvlib import BUILD
from hvlib.vm import Vm
from support import ROOT, free_port, wait_for


def test_gdb():
    """The VM waits before its first instruction, gdb's protocol answers, the kernel has symbols."""
    name, port = f"test-{os.getpid()}-gdb", free_port()
    command = [ROOT / "tools" / "hv", "run", "--headless", "--name", name, "--gdb", port, "--symbols",
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
