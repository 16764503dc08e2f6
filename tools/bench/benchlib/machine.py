# SPDX-License-Identifier: BSD-2-Clause
"""What is measured of Dunlin alone: how long it takes from the kernel's entry until it listens, the
size of its image, the memory that it uses; and what machine all was measured on."""

import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

from hvlib import BUILD, ROOT, HvError, counting

from .guests import Session

EFI = BUILD / "BOOTX64.EFI"
ELF = BUILD / "kernel.elf"
ENTRY, LISTENING = "kernel_main", "stack_address_up"  # the functions that begin and end the start
MIB = 1 << 20
PAGE = 4096


def _symbols(*names):
    """Addresses of functions of the kernel."""
    listing = subprocess.run(["nm", ELF], capture_output=True, text=True, check=True).stdout
    found = {words[2]: int(words[0], 16) for words in map(str.split, listing.splitlines())
             if len(words) == 3}
    missing = [name for name in names if name not in found]
    if missing:
        raise HvError(f"{ELF} has no {' '.join(missing)}")
    return [found[name] for name in names]


def _image_bytes():
    """Memory that the kernel's own image takes, which its statistics do not count."""
    headers = subprocess.run(["readelf", "-lW", ELF], capture_output=True, text=True,
                             check=True).stdout
    return sum(int(line.split()[5], 16) for line in headers.splitlines()
               if line.split()[:1] == ["LOAD"])


def _used_mib(guest):
    memory = guest.stats()["memory"]
    return ((memory["pages"] - memory["free_pages"]) * PAGE + _image_bytes()) / MIB


def boots(net, options):
    """Starts Dunlin some times; returns milliseconds and instructions of each start. The time is that
    of a VM that counts instructions, which is a little longer."""
    marks = _symbols(ENTRY, LISTENING)
    samples = []
    for _ in range(options.rounds):
        with Session(["dunlin"], net, options, 1, count=True, marks=marks) as session:
            entry, listening = counting.read(session.guests["dunlin"].vm).marks
        if not entry.instructions or not listening.instructions:
            raise HvError("the guest did not pass its marks")
        samples.append({"ms": (listening.seconds - entry.seconds) * 1000,
                        "instructions": listening.instructions - entry.instructions})
    return samples


def memory(net, options):
    """MiB that Dunlin uses on one vCPU: idle, and while 16 streams run each way."""
    with Session(["dunlin"], net, options, 1) as session:
        guest = session.guests["dunlin"]
        found = {"idle_memory_mib": _used_mib(guest)}
        for key, way in (("receiving_memory_mib", []), ("sending_memory_mib", ["-R"])):
            used = []
            with net.popen("iperf3", "-c", guest.address, "-t", 3, "-P", 16, *way,
                           stdout=subprocess.DEVNULL) as client:
                while client.poll() is None:
                    used.append(_used_mib(guest))
                    time.sleep(0.1)
            if client.returncode:
                raise HvError(f"iperf3 has failed ({client.returncode})")
            found[key] = max(used)
    return found


def of_dunlin(net, options):
    """All of it as one dict, for results.json."""
    samples = boots(net, options)
    return {"efi_bytes": EFI.stat().st_size, "boots": samples,
            "boot_ms": statistics.median(s["ms"] for s in samples),
            "boot_instructions": statistics.median(s["instructions"] for s in samples),
            **memory(net, options)}


def here():
    """What the numbers were measured on."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    models = [line.split(":", 1)[1].strip() for line in info.splitlines()
              if line.startswith("model name")]
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], text=True,
                            check=False, capture_output=True).stdout.strip()
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text(encoding="ascii")
    return {"cpu": models[0] if models else platform.machine(), "cores": os.cpu_count(),
            "kernel": platform.release(), "load_before": os.getloadavg()[0], "commit": commit,
            "congestion": congestion.strip()}
