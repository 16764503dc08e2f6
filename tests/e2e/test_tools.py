# SPDX-License-Identifier: BSD-2-Clause
"""tools/image, the tap namespaces, the control socket: what they make, refuse and leave behind."""

import select
import socket
import subprocess
import sys
import threading

import pytest

from hvlib import HvError
from hvlib.sockets import Qmp
from hvlib.tapnet import TapNet
from support import ROOT


def tool(name, *arguments):
    """Runs a tool; returns (exit status, all it printed)."""
    done = subprocess.run([ROOT / "tools" / name, *map(str, arguments)], text=True, check=False,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=200)
    return done.returncode, done.stdout


def namespaces():
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True,
                          check=True).stdout


@pytest.fixture
def program(tmp_path):
    """Stands in for an EFI program: the images' contents are not looked at here."""
    path = tmp_path / "program.efi"
    path.write_bytes(b"MZ" + bytes(5000))
    return path


def test_disk_is_gpt_with_an_esp(program, tmp_path):
    config = tmp_path / "dunlin.conf"
    config.write_text("[log]\nlevel = debug\n")
    assert tool("image/build", program, tmp_path, "--config", config)[0] == 0
    raw = tmp_path / "disk.img"
    subprocess.run(["qemu-img", "convert", "-O", "raw", tmp_path / "dunlin.vhdx", raw], check=True)
    table = subprocess.run(["/sbin/sfdisk", "--dump", raw], capture_output=True, text=True,
                           check=True).stdout
    assert "label: gpt" in table
    assert "start=        2048" in table and "C12A7328-F81F-11D2-BA4B-00A0C93EC93B" in table
    for name, content in (("EFI/BOOT/BOOTX64.EFI", program), ("dunlin.conf", config)):
        found = subprocess.run(["mtype", "-i", f"{raw}@@1M", f"::/{name}"], capture_output=True,
                               check=True).stdout
        assert found == content.read_bytes()


def test_cd_is_bootable_by_uefi(program, tmp_path):
    assert tool("image/build", program, tmp_path)[0] == 0
    report = subprocess.run(["xorriso", "-indev", tmp_path / "dunlin.iso", "-report_el_torito",
                             "plain"], capture_output=True, text=True, check=True).stdout
    assert "UEFI" in report and "/efi.img" in report


def test_image_refuses(program, tmp_path):
    text = tmp_path / "text"
    text.write_text("hello")
    big = tmp_path / "big.efi"
    big.write_bytes(b"MZ" + bytes(1 << 20))
    for arguments, reason in (((tmp_path / "none", tmp_path), "No such file"),
                              ((text, tmp_path), "not an EFI program"),
                              ((big, tmp_path), "more than the limit"),
                              ((program, tmp_path, "--config", tmp_path / "none"), "no such file")):
        status, output = tool("image/build", *arguments)
        assert status == 1 and reason in output
    assert not list(tmp_path.glob("dunlin.*"))


@pytest.mark.alone
def test_namespaces_of_killed_processes_go():
    """Nobody cleans up after kill -9 but the next one who starts."""
    script = (f"import sys, time; sys.path.insert(0, {str(ROOT / 'tools')!r})\n"
              "from hvlib.tapnet import TapNet\n"
              "with TapNet('victim') as net: print(net.name, flush=True); time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE,
                          text=True) as victim:
        name = victim.stdout.readline().strip()
        assert name in namespaces()
        victim.kill()
    assert name in namespaces()
    with TapNet("next", dhcp=False) as net:
        assert name not in namespaces()
        assert net.name in namespaces()
    assert net.name not in namespaces()


def test_host_that_ends_while_it_is_called(tmp_path):
    """Its control socket goes with a connection that it has not taken yet."""
    path = tmp_path / "socket"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def end_when_called():
        select.select([listener], [], [], 30)
        listener.close()
    threading.Thread(target=end_when_called).start()
    with pytest.raises(HvError, match="closed its control socket"):
        Qmp(path)
