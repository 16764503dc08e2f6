# SPDX-License-Identifier: BSD-2-Clause
"""What the framebuffer shows, read back from the host's screen dump; and that the guest takes its
leave of the host (VMBus UNLOAD) before it powers off or stops."""

import gzip
import json
import re

import pytest

from dunlin import check_iperf, stats
from hvlib import BUILD
from support import wait_for

FONT = "/usr/share/consolefonts/Unifont-APL8x16.psf.gz"
BLACK, GREY = b"\0\0\0", b"\xc8\xc8\xc8"


@pytest.fixture(scope="module")
def glyphs():
    """Maps the 16 bytes of a glyph to its character."""
    with gzip.open(FONT) as file:
        font = file.read()
    assert font[:2] == b"\x36\x04" and font[3] == 16
    count = 512 if font[2] & 1 else 256
    bitmaps, table = font[4:4 + count * 16], font[4 + count * 16:]
    found, glyph = {}, 0
    for at in range(0, len(table), 2):
        code = int.from_bytes(table[at:at + 2], "little")
        if code == 0xffff:
            glyph += 1
        elif 0x20 <= code < 0x7f:
            found[bitmaps[glyph * 16:glyph * 16 + 16]] = chr(code)
    return found


@pytest.fixture
def screen(glyphs, tmp_path):
    """Reads the text on a VM's screen; every pixel has to belong to a character."""
    def read(vm):
        vm.qmp("screendump", filename=str(tmp_path / "screen.ppm"))
        magic, size, depth, pixels = (tmp_path / "screen.ppm").read_bytes().split(b"\n", 3)
        assert magic == b"P6" and depth == b"255"
        width, height = map(int, size.split())

        def cell(x, y):
            rows = []
            for line in range(y, y + 16):
                at = (line * width + x) * 3
                dots = [pixels[at + dot:at + dot + 3] for dot in range(0, 24, 3)]
                assert set(dots) <= {BLACK, GREY}, f"a colour of its own at {x}, {line}"
                rows.append(int("".join("01"[dot == GREY] for dot in dots), 2))
            return glyphs.get(bytes(rows), "\0")  # caught while it was drawn
        return "\n".join("".join(cell(x, y) for x in range(0, width - 7, 8)).rstrip()
                         for y in range(0, height - 15, 16))
    return read


def unwrapped(text):
    """Text without line ends: the screen's lines are shorter."""
    return text.replace("\n", "")


def connected(vm):
    """True if the guest has a channel open: after UNLOAD none is."""
    return any(channel["open"] for channel in vm.stats()["devices"]["nic0"]["channels"])


def wait_shutdown(vm):
    """Waits until the guest has switched the machine off; -no-shutdown leaves it to look at."""
    wait_for(lambda: vm.watch.reason() == "guest-shutdown", 60, "the guest's power-off")


def test_screen_and_power_off(boot, screen):
    """The screen shows all that COM1 does; a power-off closes everything at the host."""
    vm = boot.dunlin(extra=["-no-shutdown"])
    printed = vm.console()[vm.console().index("dunlin: starting"):]
    wait_for(lambda: unwrapped(printed) in unwrapped(screen(vm)), 20, "all of it on the screen")
    assert connected(vm)
    vm.send_line("poweroff")
    wait_shutdown(vm)
    assert not connected(vm)
    assert "dunlin: power off" in screen(vm)


def test_screen_of_other_machines(boot, screen):
    """Not Hyper-V: the screen says so, too."""
    vm = boot.start(efi=BUILD / "BOOTX64.EFI", hyperv=False, extra=["-no-shutdown"])
    wait_shutdown(vm)
    assert "dunlin: not Hyper-V: " in screen(vm)


def test_eight_cores_and_panic(boot, screen):
    """As many vCPUs as the host is made for serve, and a panic stops them all: the report is on the
    screen, behind what still waited to be printed, and the host let go of everything."""
    vm = boot.dunlin(vcpus=8)
    for options in ([], ["-P", 8, "-R"]):
        check_iperf(vm, *options, seconds=1)
    turns = [core["turns"] for core in stats(vm)["cores"].values()]
    assert len(turns) == 8 and all(turns), turns
    assert connected(vm)
    vm.send_line("stats\npanic")
    vm.wait_console("dunlin: stopped", 60)
    printed = vm.console()
    assert json.loads(re.findall(r"dunlin: stats: (\{.*\})\n", printed)[-1])["cores"]
    assert printed.rindex("dunlin: stats:") < printed.index("dunlin: panic: ")
    assert not connected(vm)
    text = screen(vm)
    assert "dunlin: panic: core 0: " in text and "loop_run+0x" in text
