# SPDX-License-Identifier: BSD-2-Clause
"""The wire between a VM's NIC and its backend: delay, rate, loss, reordering, duplication. Settings
are properties of the hv-net device (tools/hyperv-host/README.md). Used by tools/hv and the tests;
the VM has to run."""

import dataclasses

from . import HvError
from .nic import path_of

SIDES = ("to-guest", "from-guest")
QUEUE_KIB = 65536
SEED = "wire-seed"


@dataclasses.dataclass(frozen=True)
class Setting:
    """How people write a property of the wire, and how the host does."""
    unit: str
    scale: int  # the host's number for 1 unit
    highest: int  # in units, inclusive
    name: str  # of the property, after the side


SETTINGS = {
    "delay": Setting("ms", 1000, 10_000, "delay-us"),
    "rate": Setting("Mbit/s", 1000, 400_000, "rate-kbit"),
    "loss": Setting("%", 10_000, 100, "loss-ppm"),
    "reorder": Setting("%", 10_000, 100, "reorder-ppm"),
    "duplicate": Setting("%", 10_000, 100, "duplicate-ppm"),
}


def scaled(what, value):
    """The host's number for a value in people's units; HvError if there is none."""
    setting = SETTINGS[what]
    if not 0 <= value <= setting.highest:  # also refuses NaN
        raise HvError(f"{what}: 0 to {setting.highest} {setting.unit}")
    number = round(value * setting.scale)
    if value and not number:
        raise HvError(f"{what}: {value:g} {setting.unit} is less than the smallest step, "
                      f"{1 / setting.scale:g}")
    return number


def impair(vm, nic="nic0", sides=SIDES, queue_kib=None, seed=None, **settings):
    """Changes settings (see SETTINGS) of the given sides; others stay as they are. `seed` starts
    the random choices again, so that they repeat."""
    path = path_of(vm, nic)
    wanted = {f"{side}-{SETTINGS[what].name}": scaled(what, value)
              for side in sides for what, value in settings.items()}
    if queue_kib is not None:
        wanted |= {f"{side}-queue-kib": queue_kib for side in sides}
    if seed is not None:
        wanted[SEED] = seed
    for name, value in wanted.items():
        vm.qmp("qom-set", path=path, property=name, value=value)


def off(vm, nic="nic0", sides=SIDES):
    """Makes the wire perfect again, at once; frames that are on it arrive."""
    impair(vm, nic, sides, queue_kib=QUEUE_KIB, **dict.fromkeys(SETTINGS, 0))


def describe(vm, nic="nic0"):
    """The wire's settings, a line for each side."""
    path = path_of(vm, nic)

    def get(side, name):
        return vm.qmp("qom-get", path=path, property=f"{side}-{name}")
    lines = []
    for side in SIDES:
        values = {what: get(side, setting.name) / setting.scale
                  for what, setting in SETTINGS.items()}
        words = [f"{what} {value:g} {SETTINGS[what].unit}"
                 for what, value in values.items() if value]
        if words:
            words.append(f"queue {get(side, 'queue-kib')} KiB")
        lines.append(f"{nic} {side}: {', '.join(words) or 'off'}")
    return lines
