#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Adds up what the test runs left in build/test: pytest's *.xml (JUnit) and the unit tests' unit.log.
Prints "N passed, N failed" and fails if anything did. Called by `make test` and .ci/run."""

import argparse
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

RESULTS = Path(__file__).resolve().parent.parent / "build" / "test"


def count():
    """(passed, failed) of all runs; a run that left nothing counts as failed."""
    passed = failed = 0
    files = sorted(RESULTS.glob("*.xml"))
    for file in files:
        for suite in ElementTree.parse(file).getroot().iter("testsuite"):
            number = {k: int(suite.get(k, "0")) for k in ("tests", "errors", "failures", "skipped")}
            bad = number["errors"] + number["failures"]
            failed += bad
            passed += max(number["tests"] - bad - number["skipped"], 0)
    log = RESULTS / "unit.log"
    lines = re.findall(r"^(\d+) passed, (\d+) failed", log.read_text(errors="replace"), re.M) \
        if log.exists() else []
    for good, bad in lines:
        passed += int(good)
        failed += int(bad)
    return passed, failed + (not files) + (not lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", nargs=2, type=int, default=(0, 0), metavar=("OK", "FAILED"))
    steps = parser.parse_args().steps
    passed, failed = count()
    print(f"{passed + steps[0]} passed, {failed + steps[1]} failed")
    return 1 if failed + steps[1] else 0


if __name__ == "__main__":
    sys.exit(main())
