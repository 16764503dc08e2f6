# SPDX-License-Identifier: BSD-2-Clause
"""The witness of the integration services: Linux's hv_utils and Debian's hv_kvp_daemon do what the
host asks, in each version of each service, and so does the guest as a whole when it is stopped for a
while or its TSC changes."""

import time

import pytest

from hvlib import ic
from linux import Linux, spec_fields
from support import hv, wait_for

# What the host offers at most: version 1.0 of all, 3.0 of all, and its best but for shutdown.
CAPS = {
    "1.0": [f"{service},max-version=0x10000" for service in ic.SERVICES],
    "3.0": [f"{service},max-version=0x30000" for service in ic.SERVICES],
    "3.1": ["shutdown,max-version=0x30001"],
}
NEWEST = {"shutdown": "3.2", "heartbeat": "3.0", "timesync": "4.0", "kvp": "4.0"}
LINUX_NAMES = {"shutdown": "Shutdown", "heartbeat": "Heartbeat", "timesync": "TimeSync",
               "kvp": "KVP"}


def boot_linux(booter, **fields):
    return Linux(booter.start(**spec_fields(vcpus=2, **fields)))


@pytest.fixture(scope="module")
def guest(module_boot):
    linux = boot_linux(module_boot, allow_reboot=True)
    for service in ic.SERVICES:
        ic.wait_ready(linux.vm, service)
    yield linux
    linux.vm.stop()


def tell(vm, *words):
    """A command of tools/hv on the VM."""
    return hv(*words, "--name", vm.name)


def clock_error(guest):
    """Seconds by which the guest's clock is ahead of the time that the host tells."""
    return float(guest.check("date +%s")) - ic.host_time(guest.vm).timestamp()


def check_versions(guest, expected):
    log = guest.check("dmesg")
    for service, version in expected.items():
        assert ic.wait_ready(guest.vm, service) == version
        assert f"hv_utils: {LINUX_NAMES[service]} IC version {version}" in log


def check_time(guest):
    """A step of the host's clock, told as "set your clock"."""
    ic.set_clock(guest.vm, offset=86400)
    ic.send_time(guest.vm)
    wait_for(lambda: abs(clock_error(guest)) < 3, 10, "the guest to set its clock")


def check_pairs(guest):
    ic.kvp_set(guest.vm, "Name", "Wert mit Umlaut: ä")
    ic.kvp_set(guest.vm, "Number", 77, kind="u32")
    # Linux takes 8 for the type of 64-bit numbers, not 11, and so has no value for them.
    ic.kvp_set(guest.vm, "Large", 2 ** 40, kind="u64")
    ic.kvp_set(guest.vm, "Name", "another")
    assert ic.kvp_list(guest.vm, "external") == {"Name": "another", "Number": "77", "Large": ""}
    # Linux's daemon finds the key, but is not told how long a value to copy.
    assert ic.kvp_get(guest.vm, "Name") == ""
    assert ic.kvp_get(guest.vm, "None") is None
    assert ic.kvp_delete(guest.vm, "Number")
    assert not ic.kvp_delete(guest.vm, "Number")
    assert "Number" not in ic.kvp_list(guest.vm, "external")


def test_versions(guest):
    check_versions(guest, NEWEST)


def test_heartbeat(guest):
    beats = ic.stats(guest.vm, "heartbeat")["answers"]
    wait_for(lambda: ic.stats(guest.vm, "heartbeat")["answers"] > beats + 1, 15, "two beats")
    status, text = tell(guest.vm, "heartbeat")
    assert status == 0 and text.startswith("ok, application unknown"), text


def test_time(guest):
    assert abs(clock_error(guest)) < 3
    check_time(guest)
    status, text = tell(guest.vm, "time", "--set", "now", "--sync")
    assert status == 0 and "+0 ppm" in text, text
    wait_for(lambda: abs(clock_error(guest)) < 3, 10, "the guest to set its clock back")


def test_pairs(guest):
    check_pairs(guest)
    status, text = tell(guest.vm, "kvp", "get", "Nothing")
    assert status == 1 and "no key Nothing" in text, text


def test_host_introduces_itself(guest):
    names = ic.kvp_list(guest.vm, "auto-external")
    assert names["VirtualMachineName"] == guest.vm.name and names["HostName"]


def test_guest_says_what_it_is(guest):
    auto = ic.kvp_list(guest.vm, "auto")
    assert auto["OSName"] == "Linux" and auto["ProcessorArchitecture"] == "x86_64"
    assert auto["NetworkAddressIPv4"] == guest.address


def test_addresses(guest):
    """What Hyper-V Manager shows of a NIC, and the injection of addresses."""
    found = ic.ip_get(guest.vm, "nic0")
    assert "10.0.2.15/24" in found.addresses and "10.0.2.2" in found.gateways
    status, text = tell(guest.vm, "kvp", "ip", "set", "nic0", "--address", "10.0.2.77/24",
                      "--gateway", "10.0.2.2", "--dns", "10.0.2.3")
    assert status == 0, text
    assert "10.0.2.77/24" in guest.check("ip -4 address show eth0")
    assert "10.0.2.77/24" in ic.ip_get(guest.vm, "nic0").addresses
    ic.ip_set(guest.vm, "nic0", ic.Addresses(dhcp=True))
    assert "10.0.2.15/24" in guest.check("ip -4 address show eth0")


def test_pause(guest):
    """A stopped guest's clocks stand still; it is told the time when it goes on."""
    syncs = ic.stats(guest.vm, "timesync")["syncs"]
    before = float(guest.check("cut -d' ' -f1 /proc/uptime"))
    ic.pause(guest.vm)
    time.sleep(8)
    ic.resume(guest.vm)
    assert float(guest.check("cut -d' ' -f1 /proc/uptime")) - before < 6
    assert ic.stats(guest.vm, "timesync")["syncs"] == syncs + 1
    wait_for(lambda: abs(clock_error(guest)) < 3, 10, "the guest to set its clock")
    assert ic.stats(guest.vm, "heartbeat")["contact"] == "ok"


@pytest.mark.parametrize("clocks_run", [False, True], ids=["clocks-stand", "clocks-run"])
def test_pause_of_minutes(guest, clocks_run):
    """Ten minutes that need not be waited for: the clock is right, uptime is as the host wants it."""
    status, text = tell(guest.vm, "resume", "--leap", "600")
    assert status == 1 and "is not paused" in text, text
    before = float(guest.check("cut -d' ' -f1 /proc/uptime"))
    assert tell(guest.vm, "pause") == (0, "")
    try:
        options = ["--clocks-run"] if clocks_run else []
        assert tell(guest.vm, "resume", "--leap", "600", *options) == (0, "")
        passed = float(guest.check("cut -d' ' -f1 /proc/uptime")) - before
        assert 600 <= passed < 660 if clocks_run else passed < 60
        wait_for(lambda: abs(clock_error(guest)) < 3, 10, "the guest to set its clock")
        beats = ic.stats(guest.vm, "heartbeat")["answers"]
        wait_for(lambda: ic.stats(guest.vm, "heartbeat")["answers"] > beats, 10, "a beat")
    finally:
        ic.set_clock(guest.vm, offset=0)
        ic.send_time(guest.vm)
    wait_for(lambda: abs(clock_error(guest)) < 3, 10, "the guest to set its clock back")
    assert guest.kernel_complaints() == []


def test_tsc_changes(guest):
    """A TSC of another frequency and the page that follows it: time goes on as before."""
    def uptime():
        return float(guest.check("cut -d' ' -f1 /proc/uptime"))
    first = guest.vm.qmp("qom-get", path="/machine/hyperv", property="tsc-khz")
    for khz in (first * 3 // 2, first // 2, first):
        assert ic.migrate(guest.vm, khz, downtime=0) == khz
        begin, guest_begin = time.monotonic(), uptime()
        time.sleep(3)
        passed, guest_passed = time.monotonic() - begin, uptime() - guest_begin
        # The shell is slow and not always the same; a wrong scale is far beyond that.
        assert abs(passed - guest_passed) < 1, f"{khz} kHz: {guest_passed} s in {passed} s"
    wait_for(lambda: abs(clock_error(guest)) < 3, 10, "the clock to be right")


def test_nmi(guest):
    """Linux reports an NMI that it knows no reason for and goes on; hv_vmbus's handler keeps the
    other processors out of it."""
    assert tell(guest.vm, "nmi") == (0, "")
    wait_for(lambda: "NMI received for unknown reason" in guest.check("dmesg"), 10, "the report")


def test_service_goes_and_comes(guest):
    """Services may be taken away and offered again while the guest runs."""
    for service in ic.SERVICES:
        guest.vm.qmp("device_del", id=f"ic-{service}")
        wait_for(lambda s=service: s not in guest.vm.stats()["services"], 10, f"{service} to go")
        guest.vm.qmp("device_add", driver=f"hv-ic-{service}", id=f"ic-{service}")
        if service == "kvp":  # the daemon does not outlive its device
            guest.check("while [ ! -e /dev/vmbus/hv_kvp ]; do sleep 0.1; done; "
                        "killall hv_kvp_daemon; hv_kvp_daemon")
        assert ic.wait_ready(guest.vm, service) == NEWEST[service]
    assert ic.kvp_list(guest.vm, "auto")["OSName"] == "Linux"


def test_restart(guest):
    assert tell(guest.vm, "shutdown", "--restart", "--message", "restart it") == \
        (0, f"hv: {guest.vm.name} has restarted\n")
    since = guest.vm.mark()
    guest.vm.wait_console(r"reference: ready", 90, since)
    check_versions(guest, NEWEST)
    assert guest.kernel_complaints() == []


def test_shutdown(guest):
    """Last of the shared guest."""
    assert tell(guest.vm, "shutdown") == (0, f"hv: {guest.vm.name} has ended\n")
    assert guest.vm.wait_exit(5) == "guest-shutdown"


@pytest.mark.parametrize("cap", CAPS)
def test_older_versions(boot, cap):
    guest = boot_linux(boot, ic_opts=CAPS[cap])
    expected = dict.fromkeys(ic.SERVICES, cap) if cap != "3.1" else NEWEST | {"shutdown": "3.1"}
    check_versions(guest, expected)
    assert ic.stats(guest.vm, "shutdown")["framework"] == ("1.0" if cap == "1.0" else "3.0")
    check_time(guest)
    check_pairs(guest)
    if cap != "3.1":
        with pytest.raises(ic.HvError, match="addresses need version 4.0"):
            ic.ip_get(guest.vm, "nic0")
    wait_for(lambda: ic.stats(guest.vm, "heartbeat")["contact"] == "ok", 10, "a beat")
    assert guest.kernel_complaints() == []
    assert ic.shutdown(guest.vm, force=True) == "ended"


def test_what_is_missing(boot):
    """The host says which service the guest does not use; KVP needs the daemon besides the driver."""
    guest = boot_linux(boot, append="modules=hv_vmbus,hv_netvsc")
    for words in (("shutdown",), ("kvp", "list"), ("heartbeat",), ("time", "--sync")):
        status, text = tell(guest.vm, *words)
        assert status == 3, text
    guest.check("modprobe hv_utils")
    ic.wait_ready(guest.vm, "shutdown")
    status, text = tell(guest.vm, "kvp", "list")
    assert status == 3 and "does not answer on the kvp service" in text, text
    guest.check("hv_kvp_daemon")
    ic.wait_ready(guest.vm, "kvp")
    assert tell(guest.vm, "kvp", "get", "None")[0] == 1
