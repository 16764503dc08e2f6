# SPDX-License-Identifier: BSD-2-Clause
"""What the probes (EFI programs that keep and break the host's rules) have in common: a table of trials,
{name: (result, rule that the host must name in its log, or None)}, in the order they are made."""

import re

import pytest

from support import ROOT, make


def rules(expected):
    """The rules that are broken on purpose."""
    return sorted({rule for _, rule in expected.values() if rule})


def breaks_rules(expected):
    """Decorates the test that runs the probe."""
    def mark(test):
        for rule in rules(expected):
            test = pytest.mark.breaks_rule(rule)(test)
        return test
    return mark


def start(boot, program, **fields):
    """Builds a probe and boots it as a VM."""
    make("-f", "tests/host/host.mk")
    return boot.start(efi=ROOT / "build/test" / program, direct=True, memory=128, **fields)


def check(vm, expected):
    """Each trial had its result, and the host named the rules that were broken, in their order."""
    results = dict(re.findall(r"^probe: (.*): (\S+)$", vm.console(), re.MULTILINE))
    assert results == {name: result for name, (result, _) in expected.items()}
    broken = [re.search(r"violation: ([\w-]+):", line)[1] for line in vm.violations()]
    assert broken == [rule for _, rule in expected.values() if rule]
