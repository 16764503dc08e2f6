# SPDX-License-Identifier: BSD-2-Clause
"""The cost program: every workload runs to its end between the scripted host and its peer, which
refuse what breaks a rule. Its numbers are not judged."""

import json
import subprocess

import pytest

from support import ROOT, make

PROGRAM = ROOT / "build" / "cost" / "dunlin-cost"


@pytest.fixture(scope="module", autouse=True)
def program():
    make("build/cost/dunlin-cost")


@pytest.mark.parametrize("workload, megabytes, mean", [
    ("in", 5, 1448), ("in-large", 20, 44 * 1448), ("out", 5, 1448), ("out-large", 20, 20_000),
    ("udp", 1, 64)])
def test_workload(workload, megabytes, mean):
    """All bytes are moved, in frames of at least that many on average."""
    done = subprocess.run([PROGRAM, workload, str(megabytes)], capture_output=True, text=True,
                          check=True, timeout=60)
    found = json.loads(done.stdout)
    assert found["bytes"] >= megabytes * 1_000_000
    assert found["bytes"] / found["frames"] >= 0.99 * mean
    assert found["ns"] > 0
