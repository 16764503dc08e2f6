# SPDX-License-Identifier: BSD-2-Clause
"""Starts, watches and ends virtual machines on the emulated Hyper-V (tools/hyperv-host).

Used by tools/hv, the tests and the benchmark. Standard library only; never needs root for user
networking. All state of a VM is in build/run/NAME/.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build"


class HvError(Exception):
    """Something the user can act on; the text says what to do."""
    status = 1  # exit code of tools/hv


class HvTimeout(HvError):
    """Something that was waited for did not come in time."""
