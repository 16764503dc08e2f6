# SPDX-License-Identifier: BSD-2-Clause
"""Reads what the host's plugin has counted of a VM started with count=True: the instructions that
each vCPU has executed. The layout is that of tools/hyperv-host/plugin/insn-count.c."""

import bisect
import dataclasses
import struct
import subprocess

from . import HvError

FILE = "instructions"
MAGIC = 0x31636e73696e7564
HEADER = struct.Struct("<8Q")
VCPU = struct.Struct("<8Q")
MARK = struct.Struct("<4Q")
BLOCK = struct.Struct("<3Q")


@dataclasses.dataclass
class Mark:
    """When a vCPU got to an address for the first time."""
    address: int
    instructions: int  # of that vCPU until then; 0: it did not
    seconds: float
    vcpu: int


@dataclasses.dataclass
class Counts:
    """Of each vCPU; a repeated string instruction is one instruction, and its repetitions after the
    first are in `repetitions`."""
    instructions: list
    repetitions: list
    marks: list


def read(vm):
    """The counts of a running VM just now."""
    data = (vm.folder / FILE).read_bytes()
    magic, max_vcpus, max_marks, *_ = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise HvError(f"{vm.folder / FILE}: not what insn-count.so writes")
    vcpus = [VCPU.unpack_from(data, HEADER.size + i * VCPU.size) for i in range(max_vcpus)]
    start = HEADER.size + max_vcpus * VCPU.size
    marks = [MARK.unpack_from(data, start + i * MARK.size) for i in range(max_marks)]
    return Counts([v[0] for v in vcpus], [v[1] for v in vcpus],
                  [Mark(m[0], m[1], m[2] / 1e9, m[3]) for m in marks if m[0]])


def blocks(vm):
    """{(address, instructions in it): how often it was entered} of a VM with profile=True."""
    data = (vm.folder / FILE).read_bytes()
    _, max_vcpus, max_marks, max_blocks, *_ = HEADER.unpack_from(data)
    start = HEADER.size + max_vcpus * VCPU.size + max_marks * MARK.size
    table = data[start:start + max_blocks * BLOCK.size]
    return {(address, size): entered for address, size, entered in BLOCK.iter_unpack(table)
            if entered}


def by_function(before, after, elf):
    """[(instructions, name)] between two answers of blocks(), most first. Code outside the ELF file's
    functions is "elsewhere"."""
    listing = subprocess.run(["nm", "-n", "--defined-only", elf], capture_output=True, text=True,
                             check=True).stdout
    symbols = [(int(line[0], 16), line[2]) for line in map(str.split, listing.splitlines())
               if len(line) == 3 and line[1] in "tTwW"]
    starts = [address for address, _ in symbols]
    counts = {}
    for (address, size), entered in after.items():
        index = bisect.bisect_right(starts, address) - 1
        name = symbols[index][1] if index >= 0 else "elsewhere"
        grown = (entered - before.get((address, size), 0)) * size
        counts[name] = counts.get(name, 0) + grown
    return sorted(((count, name) for name, count in counts.items() if count), reverse=True)
