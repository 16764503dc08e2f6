# SPDX-License-Identifier: BSD-2-Clause
"""Reads what the host's plugin has counted of a VM started with count=True: the instructions that
each vCPU has executed. The layout is that of tools/hyperv-host/plugin/insn-count.c."""

import dataclasses
import struct

from . import HvError

FILE = "instructions"
MAGIC = 0x31636e73696e7564
HEADER = struct.Struct("<8Q")
VCPU = struct.Struct("<8Q")
MARK = struct.Struct("<4Q")


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
