#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Adds up what the test runs left in build/test: pytest's junit.xml and its exit status in
pytest.status, the unit tests' unit.log. Prints "N passed, N failed" and fails if anything did; a
skipped test and a run that did not come to its end have failed. Called by `make test` and .ci/run."""

import argparse
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

RESULTS = Path(__file__).resolve().parent.parent / "build" / "test"


def pytest_count(folder):
    """(passed, failed) of pytest. A run that found nothing, was interrupted, broke off by an error of
    its own (exit status 2 to 5) or left no status or report counts as one failed test more."""
    passed = failed = 0
    try:
        root = ElementTree.parse(folder / "junit.xml").getroot()
        for suite in root.iter("testsuite"):
            bad = sum(int(suite.get(k, "0")) for k in ("errors", "failures", "skipped"))
            failed += bad
            passed += max(int(suite.get("tests", "0")) - bad, 0)
        for case in root.iter("testcase"):
            if case.find("properties/property[@name='failed beside others']") is not None:
                word = "passed" if len(case) == 1 else "failed again"
                print(f"tests: tried a second time, alone, and {word}: "
                      f"{case.get('classname')} {case.get('name')}")
        status = (folder / "pytest.status").read_text().strip()
    except (OSError, ElementTree.ParseError) as error:
        print(f"tests: {error}")
        return passed, failed + 1
    if status not in ("0", "1") or (status == "1" and not failed):
        print(f"tests: pytest ended with exit status {status}, {failed} failed in its report")
        failed += 1
    return passed, failed


def unit_count(folder):
    """(passed, failed) of the unit tests, by the last line that tests/unit/run has written."""
    try:
        match = re.search(r"^(\d+) passed, (\d+) failed\s*\Z",
                          (folder / "unit.log").read_text(errors="replace"), re.M)
    except OSError as error:
        print(f"tests: {error}")
        return 0, 1
    if not match:
        print("tests: the unit tests did not come to their end")
        return 0, 1
    passed, failed = map(int, match.groups())
    return passed, failed + (passed + failed == 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", nargs=2, type=int, default=(0, 0), metavar=("OK", "FAILED"))
    steps = parser.parse_args().steps
    counts = [steps, pytest_count(RESULTS), unit_count(RESULTS)]
    passed, failed = map(sum, zip(*counts))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
