# SPDX-License-Identifier: BSD-2-Clause
"""What a guest costs the host: the host's counters of a VM, CPU time of its vCPUs, and, where the VM
counts them, instructions."""

import dataclasses
import time
from pathlib import Path

from hvlib import counting


@dataclasses.dataclass
class View:
    """Everything that is counted of a VM, at one moment."""
    hypercalls: int
    signals: int  # the rings' doorbells; each is one of the hypercalls
    interrupts: int
    moment: float
    host_seconds: float  # of the thread that moves the frames between tap and rings
    vcpu_seconds: list
    rx_bytes: list  # of each channel
    tx_bytes: list
    sections_peak: int
    sections: int
    instructions: list  # of each vCPU, empty if not counted
    repetitions: list
    blocks: dict  # what hvlib.counting.blocks() tells of a VM that profiles


def _thread_seconds(vm, thread):
    """CPU time that the machine has spent in a thread of the VM."""
    stat = Path(f"/proc/{vm.pid()}/task/{thread}/schedstat")
    return int(stat.read_text(encoding="ascii").split()[0]) / 1e9


def view(guest):
    """Looks at the VM of a running guest."""
    vm, count = guest.vm, guest.session.count
    stats = vm.stats()
    nic = stats["devices"]["nic0"]
    channels = [c for device in stats["devices"].values() for c in device.get("channels", ())]
    counts = counting.read(vm) if count else None
    processors = len(stats["vps"])
    return View(
        hypercalls=sum(n for vp in stats["vps"] for n in vp["hypercalls"].values()),
        signals=sum(c["signals_from_guest"] for c in channels),
        interrupts=sum(vp["interrupts"] for vp in stats["vps"]),
        moment=time.monotonic(),
        host_seconds=_thread_seconds(vm, vm.pid()),
        vcpu_seconds=[_thread_seconds(vm, vcpu["thread-id"])
                      for vcpu in vm.qmp("query-cpus-fast")],
        rx_bytes=[c["rx_bytes"] for c in nic["channels"]],
        tx_bytes=[c["tx_bytes"] for c in nic["channels"]],
        sections_peak=nic["rx_sections_peak"], sections=nic["rx_sections"],
        instructions=counts.instructions[:processors] if count else [],
        repetitions=counts.repetitions[:processors] if count else [],
        blocks=counting.blocks(vm) if guest.session.profile else {})


def spread(before, after, places):
    """How unevenly something grew over so many places: the largest share by the mean one."""
    grown = [b - a for a, b in zip(before, after)]
    mean = sum(grown) / places
    return max(grown) / mean if mean > 0 else 0


def costs(guest, before, after, units, direction):
    """What happened between two views for each of `units` (MB, packets, requests)."""
    vcpus = guest.session.vcpus
    guest.seen = before, after  # for the profiler

    def per_unit(name):
        old, new = getattr(before, name), getattr(after, name)
        grown = sum(new) - sum(old) if isinstance(new, list) else new - old
        return grown / units
    found = {name: per_unit(name) for name in ("hypercalls", "signals", "interrupts")}
    # A signal is a hypercall already.
    found["events"] = found["hypercalls"] + found["interrupts"]
    found["vcpu_us"] = per_unit("vcpu_seconds") * 1e6
    seconds = after.moment - before.moment
    found["vcpu_busy"] = 100 * found["vcpu_us"] * units / 1e6 / seconds
    found["host_busy"] = 100 * (after.host_seconds - before.host_seconds) / seconds
    found["sections_peak"] = after.sections_peak
    found["sections"] = after.sections
    data = "tx_bytes" if direction == "out" else "rx_bytes"
    found["spread"] = spread(getattr(before, data), getattr(after, data), vcpus)
    found["vcpu_spread"] = spread(before.vcpu_seconds, after.vcpu_seconds, vcpus)
    if after.instructions:
        found["instructions"] = per_unit("instructions")
        found["repetitions"] = per_unit("repetitions")
    return found
