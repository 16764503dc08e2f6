# SPDX-License-Identifier: BSD-2-Clause
"""From every medium into the service; and the ends that a boot can come to instead."""

import re
import subprocess
import time

import pytest

from dunlin import address, check_iperf
from hvlib import BUILD
from hvlib.vm import CRASH
from support import ROOT, wait_for

EFI = BUILD / "BOOTX64.EFI"


def test_program_is_small():
    assert EFI.stat().st_size <= 1 << 20


@pytest.mark.parametrize("medium", [{"disk": BUILD / "dunlin.vhdx"},
                                    {"cdrom": BUILD / "dunlin.iso"},
                                    {"efi": EFI, "direct": True}],
                         ids=["vhdx", "iso", "loaded-directly"])
def test_media(boot, medium):
    vm = boot.dunlin(**medium)
    check_iperf(vm, seconds=1)


def test_configuration(boot, tmp_path):
    """dunlin.conf on the boot volume is used; a bad line is named and does not stop the boot."""
    config = tmp_path / "dunlin.conf"
    config.write_text("[net]\naddress = 10.0.2.77/24\nmtu = cow\n[iperf3]\nport = 5201\n")
    vm = boot.dunlin(config=config)
    assert address(vm) == "10.0.2.77"
    assert "dunlin.conf:3: " in vm.console()


def test_configuration_of_readme(boot, tmp_path):
    """Every line of the README's example is understood."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.search(r"^    \[log\]\n(?:    .*\n)*", readme, re.M)[0]
    config = tmp_path / "dunlin.conf"
    config.write_text(re.sub(r"(?m)^    ", "", lines))
    assert "dunlin.conf:" not in boot.dunlin(config=config).console()


def test_refuses_other_machines(boot):
    """Not Hyper-V: it says so and switches the machine off."""
    vm = boot.start(efi=EFI, hyperv=False)
    vm.wait_console("not Hyper-V", 60)
    assert vm.wait_exit(20) == "guest-shutdown"


def test_power_off(boot):
    vm = boot.dunlin()
    vm.send_line("poweroff")
    assert vm.wait_exit(20) == "guest-shutdown"


def test_power_button(boot):
    """What a host does to stop a guest: the same as the command."""
    vm = boot.dunlin(vcpus=2)
    vm.qmp("system_powerdown")
    assert vm.wait_exit(20) == "guest-shutdown"
    assert "power off" in vm.console()


def test_restart(boot):
    """The runner lets no machine start again: it ends with the reset."""
    vm = boot.dunlin()
    vm.send_line("restart")
    assert vm.wait_exit(20) == "guest-reset"


@pytest.mark.parametrize("command, report", [("panic fault", "page fault .*address 8"),
                                             ("panic overflow", "stack overflow"),
                                             ("panic write", r"page fault .*error 3, "),
                                             ("panic execute", r"page fault .*error 11, ")])
def test_page_protection(boot, command, report):
    """Page 0, the page below a stack, code written to and data executed (error bits: present 1,
    write 2, fetch 10 hex) end the guest with a report."""
    vm = boot.dunlin()
    vm.send_line(command)
    vm.wait_console("panic: core 0: " + report, 10)
    vm.wait_console("dunlin: stopped", 10)


def wait_report(vm):
    """What the guest tells the host when it crashes."""
    deadline = time.monotonic() + 10
    while CRASH not in vm.host_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    return vm.host_text().split(CRASH)[1]


@pytest.fixture(name="busy")
def busy_guest(boot):
    """Four cores that send and receive (three at least: which flows come by which is chance)."""
    vm = boot.dunlin(vcpus=4)
    with subprocess.Popen(["iperf3", "-c", "127.0.0.1", "-p", str(vm.port), "-t", "600", "-P", "8",
                           "--bidir"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        try:
            wait_for(lambda: sum(channel["rx_packets"] > 100 and channel["tx_packets"] > 100
                                 for channel in vm.stats()["devices"]["nic0"]["channels"]) >= 3, 30,
                     "traffic on most cores")
            yield vm
        finally:
            client.kill()


def check_all_stopped(vm):
    """VMBus was let go of, and no core does anything any more."""
    def done():
        now = vm.stats()
        return [[vp[what] for what in ("hypercalls", "interrupts", "msr_reads", "msr_writes")]
                for vp in now["vps"]], now["devices"]["nic0"]["tx_packets"]
    vm.wait_console("dunlin: stopped", 10)
    before = done()
    now = vm.stats()
    for device in (now["devices"] | now["services"]).values():
        assert not any(channel["open"] for channel in device["channels"])
    time.sleep(1)
    assert done() == before


def test_nmi(busy):
    """A host that asks a guest for a report gets one, whichever core takes it, and whatever it does."""
    vm = busy
    vm.qmp("inject-nmi")
    vm.wait_console("panic: core [0-3]: NMI", 10)
    check_all_stopped(vm)
    assert vm.console().count("dunlin: panic") == 1  # it comes to all of them
    assert wait_report(vm).count("NMI") >= 1 and vm.stats()["crash"]["reports"] == 1


def test_panic(busy):
    """A panic on any core ends what all do, and reports registers and a backtrace with names, to the
    console and to the host, which is also told five numbers and what was logged before."""
    vm = busy
    vm.send_line("panic 3")
    for pattern in ("panic: core 3", r"^rip [0-9a-f]{16} rsp [0-9a-f]{16}",
                    r"^ *[0-9a-f]{16} loop_run\+0x"):
        vm.wait_console(pattern, 10)
    check_all_stopped(vm)
    report = wait_report(vm)
    assert "asked for by the console" in report and "loop_run+0x" in report
    assert 0 < report.index("dunlin: ready") < report.index("dunlin: panic")
    crash = vm.stats()["crash"]
    assert (crash["reports"], crash["p0"]) == (1, 0)
    assert crash["p1"] & (1 << 64) - 1 == 0xC400000100000000  # who we are
    rip = re.search(r"rip ([0-9a-f]{16})", report)[1]
    assert crash["p2"] & (1 << 64) - 1 == int(rip, 16)
    assert crash["p3"] and crash["p4"] > len("dunlin: panic")  # where the text lay, and its bytes


def test_idle_costs_nothing(boot):
    """A guest with nothing to do leaves the machine alone."""
    vm = boot.dunlin(vcpus=4)
    time.sleep(2)  # the last of the start-up, not waited for by anything else
    before, start = vm.cpu_seconds(), time.monotonic()
    time.sleep(5)
    used = (vm.cpu_seconds() - before) / (time.monotonic() - start)
    assert used < 0.05, f"{used:.1%} of a CPU while idle"
