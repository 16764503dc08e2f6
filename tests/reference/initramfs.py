#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Builds build/reference/initrd.img: busybox, iperf3, ethtool, peer.c, and the Hyper-V modules and
daemon of Debian's unmodified kernel (unpacked by tools/setup). Called by the reference tests, the benchmark and
`tools/hv linux`; does nothing when the image is up to date. Needs no root: it writes the archive
itself, device nodes included."""

import fcntl
import hashlib
import re
import stat
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REFERENCE = HERE.parent.parent / "build" / "reference"
# virtio_net is there to compare with QEMU's usual NIC.
MODULES = ["hv_vmbus", "hv_netvsc", "hv_utils", "virtio_net", "8021q"]
PROGRAMS = ["/usr/bin/iperf3", "/usr/sbin/ethtool"]
# Of the package hyperv-daemons; the last one Debian leaves to the administrator.
DAEMON = REFERENCE / "daemons/usr/sbin/hv_kvp_daemon"
DAEMON_SCRIPTS = "usr/libexec/hypervkvpd"
SET_IFCONFIG = HERE / "hv_set_ifconfig"
APPLETS = """sh mount umount cat echo ls grep sed awk ps kill sleep ip ifconfig route udhcpc ping
    dmesg modprobe rmmod lsmod insmod stty poweroff reboot wc head tail cut tr sort uniq seq date
    test true false mkdir rm ln chmod sysctl setsid killall pidof nproc free uname expr printf env
    vconfig arping nc nslookup netstat timeout top which find touch""".split()


class Cpio:
    """A "newc" archive in memory."""

    def __init__(self):
        self.data = bytearray()
        self.inode = 0

    def add(self, name, mode, content=b"", device=(0, 0)):
        self.inode += 1
        encoded = name.encode() + b"\0"
        fields = (self.inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
        self.data += b"070701" + b"".join(b"%08x" % f for f in fields) + encoded
        self._pad()
        self.data += content
        self._pad()

    def _pad(self):
        self.data += b"\0" * (-len(self.data) % 4)

    def folder(self, name):
        self.add(name, stat.S_IFDIR | 0o755)

    def file(self, name, content, mode=0o755):
        self.add(name, stat.S_IFREG | mode, content)

    def link(self, name, target):
        self.add(name, stat.S_IFLNK | 0o777, target.encode())

    def finish(self):
        self.add("TRAILER!!!", 0)
        return bytes(self.data)


def libraries(program):
    """The shared libraries of a program, as the loader finds them."""
    out = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return re.findall(r"(/\S+) \(0x", out)


def module_files(root, version):
    """The modules and all that they depend on, and the index files for modprobe."""
    base = root / "lib/modules" / version
    depends = {}
    for line in (base / "modules.dep").read_text(encoding="ascii").splitlines():
        file, _, needed = line.partition(":")
        depends[Path(file).stem.replace("-", "_")] = [file, *needed.split()]
    files = {base / f for name in MODULES for f in depends.get(name, ())}
    missing = [n for n in MODULES if n not in depends]
    if missing:
        sys.exit(f"initramfs: the kernel has no module {' '.join(missing)}")
    index = ["modules.dep", "modules.alias", "modules.symbols", "modules.builtin", "modules.order"]
    return sorted(files | {base / name for name in index})


def compile_peer():
    """The benchmark's services as a program without shared libraries; returns where it is."""
    program = REFERENCE / "peer"
    subprocess.run(["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-static", "-pthread",
                    HERE / "peer.c", "-o", program], check=True)
    return program


def build(version):
    root = REFERENCE / "root"
    archive = Cpio()
    files = {str(f.relative_to(root)): f for f in module_files(root, version)}
    for program in PROGRAMS:
        for path in [program, *libraries(program)]:
            files[path.lstrip("/")] = Path(path)
    for path in [DAEMON, *(REFERENCE / "daemons" / DAEMON_SCRIPTS).iterdir()]:
        files[str(path.relative_to(REFERENCE / "daemons"))] = path
    for path in libraries(DAEMON):
        files[path.lstrip("/")] = Path(path)
    files[f"{DAEMON_SCRIPTS}/hv_set_ifconfig"] = SET_IFCONFIG
    files["bin/busybox"] = Path("/bin/busybox")
    files["bin/peer"] = compile_peer()
    files["init"] = HERE / "init"
    files["etc/udhcpc.script"] = HERE / "udhcpc.script"
    folders = {"dev", "proc", "sys", "tmp", "run", "bin", "sbin", "etc", "var/lib", "var"}
    for name in files:
        folders |= {str(p) for p in Path(name).parents if str(p) != "."}
    for folder in sorted(folders):
        archive.folder(folder)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.add("dev/null", stat.S_IFCHR | 0o666, device=(1, 3))
    for name, source in sorted(files.items()):
        archive.file(name, source.read_bytes())
    for applet in APPLETS:
        archive.link(f"bin/{applet}", "/bin/busybox")
    return archive.finish()


def main():
    stamp = REFERENCE / ".unpacked"
    if not stamp.exists():
        sys.exit("initramfs: the reference kernel is not there; type: tools/setup test")
    version = stamp.read_text(encoding="ascii").strip()
    digest = hashlib.sha256(version.encode())
    for path in [Path(__file__), HERE / "init", HERE / "udhcpc.script", HERE / "peer.c",
                 SET_IFCONFIG, Path("/bin/busybox"), *map(Path, PROGRAMS)]:
        digest.update(path.read_bytes())
    image, mark = REFERENCE / "initrd.img", REFERENCE / ".initrd"
    with open(REFERENCE / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if image.exists() and mark.exists() and mark.read_text() == digest.hexdigest():
            return
        new = image.with_suffix(".new")  # a VM may just be starting with the old one
        new.write_bytes(build(version))
        new.replace(image)
        mark.write_text(digest.hexdigest())


if __name__ == "__main__":
    main()
