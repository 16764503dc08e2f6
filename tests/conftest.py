# SPDX-License-Identifier: BSD-2-Clause
"""What all tests share: booting VMs, and the rule that no guest breaks a rule of Hyper-V.

A VM is started by the `boot` factory of a test or module and stopped by pytest. After each test the
host's log is read: a violation line that the test did not announce (marker breaks_rule) fails it.

`make test` runs the files side by side, in one process for each CPU."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from hvlib import HvTimeout  # noqa: E402
from hvlib.tapnet import TapNet  # noqa: E402
from hvlib.vm import READY, RUN, Forward, Spec, Vm  # noqa: E402
from support import TooLate, free_port  # noqa: E402

EFI = ROOT / "build" / "BOOTX64.EFI"

# A test that only took too long may have been short of CPU: it is tried once more, alone. But not many of
# them: a machine where more fail is no machine to test on, or something is slow.
TOO_LATE = (TooLate, HvTimeout, TimeoutError, subprocess.TimeoutExpired)
SECOND_TRIES = 3  # of each process
BESIDE = "failed beside others"

CRASHED = [-number for number in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL)]

LOCKS = ROOT / "build" / "test"
_watched = {}  # VM -> violations that were reported already


def _new_violations(vm, allowed):
    lines = vm.violations()[_watched.get(vm, 0):]
    _watched[vm] = _watched.get(vm, 0) + len(lines)
    return [line for line in lines if not any(f" {rule}:" in line for rule in allowed)]


def _allowed_rules(request):
    return {marker.args[0] for marker in request.node.iter_markers("breaks_rule")}


class Booter:
    """Starts VMs for one fixture and ends them with it."""
    count = 0

    def __init__(self, allowed):
        self.vms = []
        self.allowed = allowed

    def start(self, **fields):
        """Starts a VM described by fields of hvlib's Spec; does not wait for the guest."""
        Booter.count += 1
        vm = Vm.start(Spec(name=f"test-{os.getpid()}-{Booter.count}", **fields))
        self.vms.append(vm)
        _watched[vm] = 0
        return vm

    def dunlin(self, timeout=120, **fields):
        """Boots Dunlin and waits until it serves. vm.port leads to its iperf3 (user NIC)."""
        port = free_port()
        if "nics" not in fields:
            fields["forwards"] = [Forward(port, 5201)]
        if not fields.keys() & {"disk", "cdrom"}:
            fields.setdefault("efi", EFI)
        vm = self.start(**fields)
        vm.port = port
        try:
            vm.ready = vm.wait_console(READY, timeout)[0]
        except HvTimeout:
            vm.stop()  # it holds its taps, which the next try needs
            raise
        return vm

    def close(self):
        broken = []
        for vm in self.vms:
            vm.stop()
            broken += _new_violations(vm, self.allowed)
            del _watched[vm]
            if vm.process.returncode in CRASHED:
                broken.append(f"{vm.name}: the host crashed: {vm.host_text()[-1000:]}")
        assert not broken, f"the guest broke a rule of Hyper-V, or the host crashed: {broken}"


# The files that take long, which go first: otherwise one of them goes on by itself at the end.
LONG = ("native/test_native_iperf3.py", "e2e/test_boot.py", "e2e/test_cores.py", "e2e/test_hotplug.py",
        "e2e/test_bench.py", "e2e/test_outcome.py", "e2e/test_wire.py", "reference/test_linux.py")


def pytest_collection_modifyitems(items):
    """Sorts files, and leaves the order in each."""
    def place(item):
        name = os.path.relpath(item.path, ROOT / "tests")
        return LONG.index(name) if name in LONG else len(LONG)
    items.sort(key=place)


def _run(item, nextitem, alone):
    """Runs a test, beside others or when no other runs; returns the reports."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    with open(LOCKS / "gate.lock", "w", encoding="ascii") as gate, \
            open(LOCKS / "run.lock", "w", encoding="ascii") as run:
        fcntl.flock(gate, fcntl.LOCK_EX)  # whoever waits here comes before who has just run
        fcntl.flock(run, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        return runtestprotocol(item, nextitem=nextitem, log=False)


_second_tries = []


def _again(item, nextitem, first):
    """The reports of a second run, alone, with what failed in the first one in their properties."""
    _second_tries.append(item)
    for fixtures in item._fixtureinfo.name2fixturedefs.values():
        for fixture in fixtures:
            if fixture.cached_result and fixture.cached_result[2]:
                fixture.cached_result = None  # it failed, and is to be made again
    reports = _run(item, nextitem, True)
    text = "\n".join("\n".join([report.longreprtext, *map("\n".join, report.sections)])
                     for report in first if report.failed)
    reports[-1].user_properties.append((BESIDE, text))
    return reports


def pytest_runtest_protocol(item, nextitem):
    """A test marked `alone` waits until no other test runs, and they wait for its end. One that only
    took too long is tried once more, alone; what came out wrong has failed."""
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    alone = item.get_closest_marker("alone") is not None
    reports = _run(item, nextitem, alone)
    failed = [report for report in reports if report.failed]
    if failed and not alone and all(report.too_late for report in failed) and \
            len(_second_tries) < SECOND_TRIES:
        reports = _again(item, nextitem, reports)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_terminal_summary(terminalreporter):
    """What failed in the first run of a test."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, text in getattr(report, "user_properties", ()):
                if name == BESIDE and report.when == "teardown":
                    terminalreporter.section(f"{BESIDE}: {report.nodeid}")
                    terminalreporter.line(text)


def pytest_sessionstart():
    """Removes what VMs of earlier test runs left (it is kept until then, to look at)."""
    for folder in RUN.glob("test-*-*"):
        if not Path("/proc", folder.name.split("-")[1]).exists():
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def boot(request):
    """Booter for VMs of one test."""
    booter = Booter(_allowed_rules(request))
    yield booter
    booter.close()


@pytest.fixture(scope="module")
def module_boot():
    """Booter for VMs that the tests of a file share."""
    booter = Booter(set())
    yield booter
    booter.close()


@pytest.fixture(scope="module")
def tapnet(request):
    """A network namespace with tap0 and a DHCP server. Root is needed: no silent skip. A module with
    MULTI_QUEUE = True gets a tap of several queues, one with IP6 = True a router."""
    name = request.module.__name__.rsplit(".", 1)[-1].replace("test_", "")
    with TapNet(name, multi_queue=getattr(request.module, "MULTI_QUEUE", False),
                ip6=getattr(request.module, "IP6", False)) as net:
        yield net


@pytest.fixture(autouse=True)
def no_violations(request):
    """Fails a test during which a guest broke a rule that the test did not announce."""
    yield
    allowed = _allowed_rules(request)
    broken = [line for vm in list(_watched) for line in _new_violations(vm, allowed)]
    assert not broken, f"the guest broke a rule of Hyper-V: {broken}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Shows the consoles and host logs of the VMs that lived when a test failed."""
    outcome = yield
    report = outcome.get_result()
    error = call.excinfo and call.excinfo.value
    late = isinstance(error, TOO_LATE) or isinstance(getattr(error, "__cause__", None), TOO_LATE)
    report.too_late = late and not any(vm.process.returncode in CRASHED or
                                       "dunlin: panic:" in vm.console() for vm in _watched)
    if report.failed and call.when in ("setup", "call"):
        for vm in _watched:
            report.sections.append((f"{vm.name} console", vm.console_tail(40)))
            report.sections.append((f"{vm.name} host log", vm.host_text()[-3000:]))
