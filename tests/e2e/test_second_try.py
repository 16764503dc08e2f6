# SPDX-License-Identifier: BSD-2-Clause
"""Tests that took too long beside others are tried once more, alone (tests/conftest.py)."""

import os
import re
import subprocess
import sys

import summary
from support import ROOT

TESTS = '''
from pathlib import Path

import pytest

import conftest
from support import TooLate

conftest.LOCKS = Path(__file__).parent
runs = []


def run(name, times):
    runs.append(name)
    if runs.count(name) <= times:
        raise TooLate(f"{name} was slow")


@pytest.fixture(scope="module")
def slow_at_first():
    run("fixture", 1)


def test_fixture(slow_at_first):
    pass


def test_once(slow_at_first):
    run("once", 1)


def test_twice():
    run("twice", 2)


def test_wrong():
    runs.append("wrong")
    assert runs.count("wrong") > 1


@pytest.mark.alone
def test_alone():
    run("alone", 1)


def test_too_many():
    run("too many", 1)


def test_runs():
    assert [runs.count(name) for name in ("fixture", "once", "twice", "wrong", "alone", "too many")] \\
        == [2, 2, 2, 1, 1, 1]
'''


def test_second_try(tmp_path, capsys):
    """Who gets one; each test counts once, and what failed first stays to be seen."""
    (tmp_path / "test_slow.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", ROOT / "tests/pytest.ini", "-p", "conftest", "-n", "1",
         f"--junit-xml={tmp_path}/junit.xml", tmp_path], check=False, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")}, stdout=subprocess.PIPE, timeout=60)
    (tmp_path / "pytest.status").write_text(str(done.returncode))
    assert "4 failed, 3 passed" in done.stdout, done.stdout
    for name in ("fixture", "once"):
        assert re.search(rf"failed beside others: \S+test_{name} ", done.stdout), done.stdout
        assert f"{name} was slow" in done.stdout
    assert summary.pytest_count(tmp_path) == (3, 4)
    said = capsys.readouterr().out.splitlines()
    assert [line.rsplit(" ", 1)[1] for line in said] == ["test_fixture", "test_once", "test_twice"]
    assert [" passed:" in line for line in said] == [True, True, False]
