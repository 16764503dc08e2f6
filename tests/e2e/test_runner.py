# SPDX-License-Identifier: BSD-2-Clause
"""tools/hv: its errors say what to do, and its commands reach a VM that runs on its own."""

import json
import os
import socket

from support import free_port, hv

NAME = f"test-{os.getpid()}-runner"


def test_help_everywhere():
    status, text = hv("--help")
    assert status == 0
    for command in ("run", "linux", "stats", "console", "stop"):
        assert command in text
        assert hv(command, "--help")[0] == 0


def test_taken_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        status, text = hv("run", "--name", NAME, "--headless", "--efi", "/bin/true",
                          "--forward", f"{port}:5201")
    assert status == 1 and f"port {port}" in text and "PORT=" in text


def test_missing_file():
    status, text = hv("run", "--name", NAME, "--headless", "--efi", "/nowhere",
                      "--forward", "0.0.0.0:1:1/udp")
    assert status == 1 and "/nowhere: no such file" in text


def test_nothing_runs():
    status, text = hv("stats", "--name", "test-nobody")
    assert status == 1 and "no VM named test-nobody" in text


def test_bad_words():
    for arguments in (["--forward", "5201"], ["--nic", "wifi"], ["--vcpus", "0"],
                      ["--name", "../x"]):
        status, text = hv("run", "--headless", "--name", NAME, "--efi", "/bin/true",
                          *arguments)
        assert status == 1 and text.splitlines()[-1].startswith("hv: error: "), text


def test_a_vm_on_its_own():
    """--detach leaves it running; stats, console, list and stop find it by name."""
    name = ["--name", NAME]
    status, text = hv("run", *name, "--headless", "--detach", "--forward", f"{free_port()}:5201")
    try:
        assert status == 0, text
        assert text.splitlines()[-1].startswith("hv: ready, type: iperf3 -c 127.0.0.1 -p ")
        status, text = hv("run", *name, "--headless", "--forward", f"{free_port()}:5201")
        assert status == 1 and "running already" in text
        status, text = hv("stats", *name)
        assert status == 0 and json.loads(text)["devices"]["nic0"]["rx_packets"] > 0
        status, text = hv("console", *name, typed="stats\n")
        assert status == 0 and 'dunlin: stats: {"uptime_ms"' in text, text
        assert f"{NAME}  pid " in hv("list")[1]
    finally:
        status, text = hv("stop", *name)
    assert status == 0 and "has ended" in text
    assert NAME not in hv("list")[1]


def test_program_that_is_not_efi(tmp_path):
    """The guest never gets ready: the reason, the last console lines, a failing exit status."""
    program = tmp_path / "BOOTX64.EFI"
    program.write_bytes(b"this is no program")
    status, text = hv("run", "--headless", "--name", NAME, "--efi", program, "--nic",
                      "none", "--timeout", "5")
    assert status == 1 and "was not ready in 5 s" in text and "console" in text
