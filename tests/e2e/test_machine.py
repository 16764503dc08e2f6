# SPDX-License-Identifier: BSD-2-Clause
"""The machine around the service: boot media, refusal, panic, power-off, idle, configuration."""

import time

import pytest

from guest import address, check_test, client, stats
from hvlib import BUILD

EFI = BUILD / "BOOTX64.EFI"


def test_efi_file_is_small():
    assert EFI.stat().st_size <= 1 << 20


@pytest.mark.parametrize("medium", ["vhdx", "iso", "direct"])
def test_boot_media(boot, medium):
    fields = {"vhdx": {"disk": BUILD / "dunlin.vhdx"}, "iso": {"cdrom": BUILD / "dunlin.iso"},
              "direct": {"direct": True}}[medium]
    vm = boot.dunlin(vcpus=1, memory=128, **fields)
    check_test(client(vm, "-t", 1))


def test_refuses_other_machines(boot):
    vm = boot.start(efi=EFI, hyperv=False, nics=[])
    vm.wait_console(r"dunlin: not Hyper-V", 60)
    assert vm.wait_exit(20) == "guest-shutdown"


def test_panic_reports(boot):
    """Registers, a backtrace with names, and the crash registers of Hyper-V."""
    vm = boot.dunlin(vcpus=2)
    vm.send_line("panic")
    for pattern in (r"panic", r"rip[ =:]*[0-9a-fx]+", r"\w+\+0x[0-9a-f]+"):
        vm.wait_console(pattern, 20)
    deadline = time.monotonic() + 10
    while "hyperv-host: guest crash:" not in vm.host_text():
        assert time.monotonic() < deadline, vm.host_text()
        time.sleep(0.05)


def test_power_off(boot):
    vm = boot.dunlin(vcpus=2)
    vm.send_line("poweroff")
    assert vm.wait_exit(20) == "guest-shutdown"


def test_idle_guest_uses_no_host_cpu(boot):
    """With all cores up and the network running the whole host process needs next to nothing."""
    vm = boot.dunlin(vcpus=4)
    time.sleep(1)
    before = vm.cpu_seconds()
    time.sleep(5)
    assert vm.cpu_seconds() - before < 0.25
    assert len(stats(vm)["cores"]) == 4


def test_configuration(boot, tmp_path):
    """Static address and port from dunlin.conf; a bad line is reported and does no other harm."""
    config = tmp_path / "dunlin.conf"
    config.write_text("[net]\naddress = 10.0.2.77/24\nmtu = banana\n")
    vm = boot.start(efi=EFI, config=config)
    assert vm.wait_console(r"dunlin.conf:3: .*", 60)
    vm.ready = vm.wait_console(r"dunlin: ready: .*", 60)[0]
    assert address(vm) == "10.0.2.77"
