# SPDX-License-Identifier: BSD-2-Clause
"""The rules of the integration components (tools/hyperv-host/RULES.md), each broken by an EFI program
(ic_probe.c): what the guest gets for it, and that the host names the rule. And time, while the guest
moves to hosts with another TSC."""

import time

import trials
from hvlib import ic

# Name of the trial: (result, rule that the host must name in its log). "fatal": the channel is not
# served any more.
EXPECTED = {
    "offer's flags": ("0x10", None),
    "pipe mode": ("0x4", None),
    "versions offered": ("0x20002", None),
    "first framework": ("0x1", None),
    "nothing wrong": ("served", None),
    "completion": ("fatal", "ic-packet"),
    "with completion": ("fatal", "ic-packet"),
    "short": ("fatal", "ic-header"),
    "pipe type 2": ("fatal", "ic-header"),
    "pipe beyond": ("fatal", "ic-header"),
    "pipe without header": ("fatal", "ic-header"),
    "body beyond": ("fatal", "ic-header"),
    "request": ("served", "ic-unasked"),
    "transaction of nobody": ("served", "ic-transaction"),
    "type 4": ("served", "ic-type"),
    "no body": ("fatal", "ic-negotiate"),
    "two versions": ("fatal", "ic-negotiate"),
    "framework 9.9": ("fatal", "ic-negotiate"),
    "version 9.9": ("fatal", "ic-negotiate"),
    "no version known": ("fatal", "ic-unasked"),
    "beat": ("yes", "ic-transaction"),
    "beat after two seconds": ("yes", "ic-unasked"),
    "beat after a late answer": ("yes", "ic-late"),
    "silence": ("begins", None),
    "beat after silence": ("yes", None),
    "beat after a wrong one": ("no", "ic-heartbeat"),
    "beat with application 4": ("fatal", "ic-heartbeat"),
    "beat of eight bytes": ("fatal", "ic-heartbeat"),
    "time": ("yes", None),
    "flags of the first time": ("0x1", None),
    "reference time is of now": ("yes", None),
    "pair of another operation": ("fatal", "ic-kvp"),
    "pair cut off": ("fatal", "ic-kvp"),
    "host introduces itself": ("0x301", None),
    "and goes on": ("yes", None),
    "moves": ("begin", None),
    "page is invalid for a moment": ("yes", None),
    "pages": ("0x3", None),
    "page and MSR disagree": ("0x0", None),
    "time goes back": ("0x0", None),
    "end": ("yes", None),
}


@trials.breaks_rules(EXPECTED)
def test_rules(boot):
    vm = trials.start(boot, "ic_probe.efi", vcpus=1, nics=[], ic_opts=["heartbeat,reply-timeout-ms=500"])
    vm.wait_console(r"^probe: silence: begins", 90)
    assert ic.stats(vm, "heartbeat")["contact"] == "ok"
    deadline = time.monotonic() + 30
    while ic.stats(vm, "heartbeat")["contact"] != "lost":
        assert time.monotonic() < deadline, "contact was not lost"
        time.sleep(0.2)
    vm.wait_console(r"^probe: moves: begin", 90)
    for factor in (3, 1):
        khz = vm.qmp("qom-get", path="/machine/hyperv", property="tsc-khz")
        ic.migrate(vm, khz * factor // 2, downtime=0.2)
        time.sleep(1)
    assert vm.wait_exit(90) == "guest-shutdown"
    trials.check(vm, EXPECTED)
