# SPDX-License-Identifier: BSD-2-Clause
"""The Linux reference guest as the tests use it: boots tests/reference/initramfs.py's image and
runs shell commands over the serial console (protocol: see `init`)."""

import re
import subprocess
from pathlib import Path

from hvlib import BUILD

HERE = Path(__file__).resolve().parent
APPEND = "console=ttyS0 panic=-1"


def spec_fields(append="", **fields):
    """Fields of hvlib's Spec that boot the reference guest; builds its initramfs if needed."""
    subprocess.run(["/usr/bin/python3", HERE / "initramfs.py"], check=True)
    return dict(fields, kernel=BUILD / "reference" / "vmlinuz",
                initrd=BUILD / "reference" / "initrd.img", append=f"{APPEND} {append}")


class CommandFailed(Exception):
    """A command in the guest ended with an error."""


class Linux:
    """A running reference guest."""

    def __init__(self, vm, timeout=180):
        self.vm = vm
        self.sequence = 0
        self.address = vm.wait_console(r"reference: ready ip=(\S*)", timeout)[1].split("/")[0]

    def run(self, command, timeout=60):
        """Runs a shell command (one line); returns (exit status, output)."""
        self.sequence += 1
        tag = f"{self.sequence}"
        match = self.vm.command(f"{tag} {command}",
                                rf"@@begin {tag}\n((?:.*\n)*?)@@end {tag} (\d+)$", timeout)
        return int(match[2]), match[1]

    def check(self, command, timeout=60):
        """Runs a shell command that must succeed; returns its output without line end."""
        status, output = self.run(command, timeout)
        if status:
            raise CommandFailed(f"{command}: exit status {status}\n{output}")
        return output.rstrip("\n")

    def kernel_complaints(self):
        """Kernel messages of Hyper-V drivers at level warning or worse, and every oops."""
        lines = self.check("dmesg -r", 60).splitlines()
        pattern = re.compile(r"hv_|hyperv|hyper-v|vmbus|netvsc|clocksource|call trace|BUG|WARNING",
                             re.IGNORECASE)
        return [line for line in lines
                if re.match(r"<[0-4]>", line) and pattern.search(line)]
