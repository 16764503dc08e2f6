# SPDX-License-Identifier: BSD-2-Clause
"""Hyper-V's integration services of a VM: shutdown, heartbeat, time, key-value pairs, and what else
an administrator does with the whole VM (pause, move to another host, NMI). Used by tools/hv and the
tests; the host's side is in tools/hyperv-host (README.md there)."""

import contextlib
import dataclasses
import datetime
import ipaddress
import time

from . import HvError

SERVICES = ("shutdown", "heartbeat", "timesync", "kvp")
POOLS = ("external", "guest", "auto", "auto-external")
NO_MORE_ITEMS = 0x80070103
EPOCH = datetime.datetime(1601, 1, 1, tzinfo=datetime.timezone.utc)
POLL = 0.05


class NoAnswer(HvError):
    """The guest does not use the service, or does not answer."""
    status = 3  # exit code of tools/hv


class Refused(HvError):
    """The guest has answered that it will not."""
    status = 4


def arguments(spec):
    """The devices, as arguments for the host. spec.ic_opts: "SERVICE,PROPERTY=VALUE..."."""
    options = {service: "" for service in SERVICES}
    for text in spec.ic_opts:
        service, _, rest = text.partition(",")
        if service not in options:
            raise HvError(f"there is no service {service}; there are: {', '.join(SERVICES)}")
        options[service] += f",{rest}"
    return [word for service in SERVICES
            for word in ("-device", f"hv-ic-{service},id=ic-{service}{options[service]}")]


def stats(vm, service):
    """The host's counters of a service."""
    services = vm.stats()["services"]
    if service not in services:
        raise HvError(f"{vm.name} has no {service} service")
    return services[service]


def wait_ready(vm, service, timeout=60):
    """Waits until host and guest have agreed on a version; returns it, e.g. "3.2"."""
    deadline = time.monotonic() + timeout
    while (now := stats(vm, service))["state"] != "ready":
        if time.monotonic() > deadline:
            raise NoAnswer(f"the {service} service is still {now['state']} after {timeout} s")
        time.sleep(POLL)
    return now["version"]


def _path(service):
    return f"/machine/peripheral/ic-{service}"


def _busy(vm, service):
    now = stats(vm, service)
    return now["state"] == "ready" and now["outcome"] == "pending"


def _ask(vm, service, request):
    """Sends a request."""
    now = stats(vm, service)
    if now["state"] != "ready":
        raise NoAnswer({
            "closed": f"the guest does not use the {service} service",
            "negotiating": f"the guest does not answer on the {service} service",
            "refused": f"the guest knows no version of the {service} service that the host offers",
            "failed": f"the guest broke a rule of the {service} service; see the host's log",
        }[now["state"]])
    vm.qmp("qom-set", path=_path(service), property="request", value=request)


def _check(outcome, status, service):
    """Raises unless the guest has answered that all is well."""
    if outcome != "answered":
        raise NoAnswer(f"the guest does not answer on the {service} service" + (
            ": it closed the channel" if outcome == "closed" else ""))
    if status:
        raise Refused(f"the guest refused: status {status:#010x}")


# Shutdown -----------------------------------------------------------------------------------------


def ask_to_end(vm, restart=False, force=False, timeout=60, message=""):
    """Asks the guest to power off or to restart and waits until it has said yes; what it then does
    is for the caller to see. `timeout` (seconds) is told to the guest, too."""
    _ask(vm, "shutdown", {"restart": restart, "force": force, "timeout": round(timeout),
                          "message": message})
    deadline = time.monotonic() + timeout
    while vm.running():
        now = {"outcome": "pending"}
        with contextlib.suppress(HvError, OSError):  # it may be about to end
            now = stats(vm, "shutdown")
        if now["outcome"] == "closed" and force:
            return  # done instead of said
        if now["outcome"] != "pending":
            _check(now["outcome"], now["status"], "shutdown")
            return
        if time.monotonic() > deadline:
            raise NoAnswer(f"the guest has not answered in {timeout:g} s")
        time.sleep(POLL)


def shutdown(vm, restart=False, force=False, timeout=60, message=""):
    """Has the guest power off or restart and waits until it has. Returns what it did: "ended" or
    "restarted"."""
    resets = vm.stats()["resets"]
    begin = time.monotonic()
    ask_to_end(vm, restart, force, timeout, message)
    while vm.running():
        with contextlib.suppress(HvError, OSError):  # it is about to end
            if vm.stats()["resets"] > resets:
                return "restarted"
        if time.monotonic() > begin + timeout:
            raise NoAnswer(f"the guest agreed, but {timeout:g} s after the request it still runs")
        time.sleep(POLL)
    return "ended"


# Time ---------------------------------------------------------------------------------------------


def host_time(vm):
    """The time that the guest is told."""
    ticks = stats(vm, "timesync")["host_time"]
    return EPOCH + datetime.timedelta(microseconds=ticks // 10)


def set_clock(vm, offset=None, rate_ppm=None):
    """Moves the host's clock as the guest is told it: seconds from this machine's, and how much
    faster than this it runs."""
    if offset is not None:
        vm.qmp("qom-set", path=_path("timesync"), property="clock-offset-us",
               value=round(offset * 1_000_000))
    if rate_ppm is not None:
        vm.qmp("qom-set", path=_path("timesync"), property="clock-rate-ppm", value=rate_ppm)


def send_time(vm, sync=True):
    """Tells the guest the time now: to be taken over, or as one more sample."""
    deadline = time.monotonic() + 10
    while _busy(vm, "timesync") and time.monotonic() < deadline:
        time.sleep(POLL)
    _ask(vm, "timesync", {"sync": sync})


# Key-value pairs ----------------------------------------------------------------------------------


def kvp(vm, operation, timeout=70, **request):
    """One operation (tools/hyperv-host/README.md). Returns (status, values of the answer)."""
    def result():
        return vm.qmp("qom-get", path=_path("kvp"), property="result")
    deadline = time.monotonic() + timeout
    while _busy(vm, "kvp") and time.monotonic() < deadline:
        time.sleep(POLL)  # the host introduces itself
    _ask(vm, "kvp", {"operation": operation, **request})
    while (now := result())["outcome"] == "pending":
        if time.monotonic() > deadline:
            raise NoAnswer(f"the guest has not answered in {timeout} s")
        time.sleep(POLL / 5)
    if now["outcome"] != "answered":
        _check(now["outcome"], 0, "kvp")
    return now["status"], now["values"]


def _kvp_ok(vm, operation, **request):
    status, values = kvp(vm, operation, **request)
    _check("answered", status, "kvp")
    return values


def kvp_get(vm, key, pool="external"):
    """The value of a key; None if there is none."""
    status, values = kvp(vm, "get", pool=pool, key=key)
    if status == NO_MORE_ITEMS:
        return None
    _check("answered", status, "kvp")
    return values["value"]


def kvp_set(vm, key, value, pool="external", kind="string"):
    _kvp_ok(vm, "set", pool=pool, key=key, value=value, type=kind)


def kvp_delete(vm, key, pool="external"):
    """True if there was such a key."""
    status, _ = kvp(vm, "delete", pool=pool, key=key)
    if status == NO_MORE_ITEMS:
        return False
    _check("answered", status, "kvp")
    return True


def kvp_list(vm, pool="auto"):
    """All keys of a pool with their values."""
    pairs = {}
    for index in range(1024):
        status, values = kvp(vm, "enumerate", pool=pool, index=index)
        if status == NO_MORE_ITEMS:
            break
        _check("answered", status, "kvp")
        pairs[values["key"]] = values["value"]
    return pairs


@dataclasses.dataclass
class Addresses:
    """What a guest says of a NIC, or is to set. Addresses as "A.B.C.D/P" or "X::Y/P"."""
    dhcp: bool = False
    addresses: list = dataclasses.field(default_factory=list)
    gateways: list = dataclasses.field(default_factory=list)
    dns: list = dataclasses.field(default_factory=list)


def _nic_property(vm, nic, name):
    try:
        return vm.qmp("qom-get", path=f"/machine/peripheral/{nic}", property=name)
    except HvError as error:
        raise HvError(f"{vm.name} has no NIC named {nic}") from error


def _split(text):
    return [word for word in text.split(";") if word]


def ip_get(vm, nic):
    """The addresses of a NIC as the guest reports them."""
    values = _kvp_ok(vm, "get-ip", adapter=_nic_property(vm, nic, "mac").upper())
    found = []
    for address, subnet in zip(_split(values["address"]), _split(values["subnet"])):
        if not subnet.startswith("/"):
            subnet = f"/{ipaddress.IPv4Network(f'0.0.0.0/{subnet}').prefixlen}"
        found.append(address + subnet)
    return Addresses(values["dhcp"], found, _split(values["gateway"]), _split(values["dns"]))


def ip_set(vm, nic, wanted):
    """Has the guest set the addresses of a NIC (IP injection)."""
    try:
        interfaces = [ipaddress.ip_interface(a) for a in wanted.addresses]
        for text in (*wanted.gateways, *wanted.dns):
            ipaddress.ip_address(text)
    except ValueError as error:
        raise HvError(str(error)) from error
    versions = {i.version for i in interfaces}
    _kvp_ok(vm, "set-ip", adapter="{" + _nic_property(vm, nic, "instance") + "}",
            dhcp=wanted.dhcp, family=(1 if 4 in versions or not versions else 0) |
            (2 if 6 in versions else 0),
            address=";".join(str(i.ip) for i in interfaces),
            subnet=";".join(str(i.netmask) if i.version == 4 else f"/{i.network.prefixlen}"
                            for i in interfaces),
            gateway=";".join(wanted.gateways), dns=";".join(wanted.dns))


# The whole VM -------------------------------------------------------------------------------------


def pause(vm):
    """Stops the VM's processors and its clocks."""
    vm.qmp("stop")


def resume(vm, leap=0, clocks_run=False):
    """Lets them go on; the guest is told the time. leap: so many seconds are taken to have passed
    more, by the clock that the guest is told; clocks_run: by reference time and TSC, too, as on a
    host that does not freeze them."""
    if leap:
        if vm.qmp("query-status")["running"]:
            raise HvError(f"{vm.name} is not paused")
        offset = vm.qmp("qom-get", path=_path("timesync"), property="clock-offset-us")
        set_clock(vm, offset / 1_000_000 + leap)
        if clocks_run:
            vm.qmp("qom-set", path="/machine/hyperv", property="leap-ms", value=round(leap * 1000))
    vm.qmp("cont")


def migrate(vm, tsc_khz=None, downtime=0.2):
    """What a live migration does to a guest: it stands still for a moment (seconds) and goes on
    with a TSC of another frequency (by default a tenth faster), the reference TSC page following."""
    pause(vm)
    try:
        path = "/machine/hyperv"
        if tsc_khz is None:
            tsc_khz = vm.qmp("qom-get", path=path, property="tsc-khz") * 11 // 10
        time.sleep(downtime)
        vm.qmp("qom-set", path=path, property="tsc-khz", value=tsc_khz)
    finally:
        resume(vm)
    return tsc_khz


def inject_nmi(vm):
    """A non-maskable interrupt for every processor."""
    vm.qmp("inject-nmi")
