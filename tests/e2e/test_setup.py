# SPDX-License-Identifier: BSD-2-Clause
"""tools/setup: says what to type where it may not install, and nothing when all is done."""

import os
import resource
import subprocess

import pytest

from support import ROOT


def run_setup(what, **environment):
    """Runs tools/setup without a terminal; returns (exit status, all it printed)."""
    done = subprocess.run([ROOT / "tools" / "setup", what], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, timeout=60, env=dict(os.environ, **environment))
    return done.returncode, done.stdout


def test_not_root_and_packages_missing(tmp_path):
    """A user who may not use sudo, on a machine with no package: all by name, as a command."""
    for name, text in (("dpkg-query", "exit 0"), ("id", "echo 1000"), ("sudo", "exit 1")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    status, text = run_setup("run", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert status == 1
    command = text.splitlines()[-1]
    assert "apt-get install --no-install-recommends" in command
    assert {"gcc", "gnu-efi", "ovmf", "mtools", "ninja-build"} <= set(command.split())


@pytest.mark.alone
def test_nothing_to_do():
    """What `make` calls each time costs nothing once all is there."""
    def used():
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime
    start = used()
    assert run_setup("test") == (0, "")
    assert used() - start < 1  # 0.1 s of CPU time
