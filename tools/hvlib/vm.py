# SPDX-License-Identifier: BSD-2-Clause
"""One virtual machine on the emulated Hyper-V: its description, its life, its console and log."""

import ctypes
import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from . import BUILD, HvError, HvTimeout, ic, nic
from .esp import make_esp
from .sockets import ConsoleWriter, EventWatch, Qmp

HOST = BUILD / "host" / "qemu-system-x86_64"
INSN_COUNT = BUILD / "host" / "insn-count.so"
OVMF = Path("/usr/share/OVMF")
RUN = BUILD / "run"
READY = r"dunlin: ready: .*"
VIOLATION = "hyperv-host: violation:"
CRASH = "hyperv-host: guest crash:"

# A Generation 2 machine has no PIT, PIC, PS/2, VGA, IDE; see tools/hyperv-host/README.md.
GENERATION_2 = "q35,pit=off,pic=off,i8042=off,smbus=off,sata=off,hpet=off,vmport=off,smm=off"
PR_SET_PDEATHSIG = 1
ESCAPES = re.compile(r"\x1b(\[[0-9;?=]*[A-Za-z]|[()][A-Z0-9]|[=>])|[\x00-\x08\x0b-\x1f\x7f]")


def plain(text):
    """Text without terminal escape codes and control characters (firmware prints many)."""
    return ESCAPES.sub("", text)


@dataclasses.dataclass
class Forward:
    """A port of this machine that leads into a guest on user networking."""
    port: int
    guest: int
    address: str = "127.0.0.1"
    proto: str = "tcp"

    @classmethod
    def parse(cls, text):
        """[ADDRESS:]PORT:GUESTPORT[/udp]"""
        match = re.fullmatch(r"(?:([\d.]+):)?(\d+):(\d+)(?:/(tcp|udp))?", text)
        if not match or not all(0 < int(p) < 65536 for p in match.group(2, 3)):
            raise HvError(f"--forward {text}: write [ADDRESS:]PORT:GUESTPORT[/udp], "
                          "e.g. 5201:5201")
        return cls(int(match[2]), int(match[3]), match[1] or "127.0.0.1", match[4] or "tcp")

    def check_free(self):
        kind = socket.SOCK_STREAM if self.proto == "tcp" else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET, kind) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((self.address, self.port))
                if self.proto == "tcp":
                    sock.listen()
            except OSError as error:
                raise HvError(f"cannot listen on {self.address} port {self.port}: "
                              f"{error.strerror}. Choose another one: make run PORT=5202, or "
                              "tools/hv run --forward 5202:5201") from error


@dataclasses.dataclass
class Spec:  # pylint: disable=too-many-instance-attributes
    """What a VM is made of. Boots exactly one of efi, disk, cdrom, kernel."""
    name: str = "dunlin"
    vcpus: int = 2
    memory: int = 512  # MB
    efi: Path = None  # an EFI program; put on an ESP, or handed to the firmware if direct
    direct: bool = False
    config: Path = None  # dunlin.conf
    disk: Path = None  # a disk image: .vhdx, .qcow2 or raw; never written
    cdrom: Path = None
    kernel: Path = None  # a Linux kernel, with initrd
    initrd: Path = None
    append: str = ""
    # Each "user", "tap:IFNAME" or "socket:OPTIONS", then ",property=value" for the hv-net device,
    # which has a channel for each processor unless queues= says otherwise.
    nics: list = dataclasses.field(default_factory=lambda: ["user"])
    nic_opts: list = dataclasses.field(default_factory=list)  # for every hv-net
    forwards: list = dataclasses.field(default_factory=list)  # of the first user NIC
    max_version: int = None  # VMBus, e.g. 0x00050003
    ic: bool = True  # the integration services
    # Each "SERVICE,PROPERTY=VALUE...", e.g. "kvp,max-version=0x30000".
    ic_opts: list = dataclasses.field(default_factory=list)
    hyperv: bool = True
    cpu_opts: list = dataclasses.field(default_factory=list)
    gdb: int = None  # port; the VM then waits for gdb before its first instruction
    allow_reboot: bool = False
    netns: str = None  # run in this network namespace (needs root)
    detached: bool = False  # outlive the process that started it
    count: bool = False  # count instructions, see hvlib.counting
    profile: bool = False  # and how often each block of code runs
    marks: list = dataclasses.field(default_factory=list)  # addresses to note when counting
    extra: list = dataclasses.field(default_factory=list)  # more arguments for the host


def _boot_arguments(spec, folder):
    chosen = [x for x in (spec.efi, spec.disk, spec.cdrom, spec.kernel) if x]
    if len(chosen) != 1:
        raise HvError("say what to boot: one of --efi FILE, --disk FILE, --cdrom FILE")
    if not Path(chosen[0]).is_file():
        raise HvError(f"{chosen[0]}: no such file" +
                      ("; `make image` builds it" if BUILD in Path(chosen[0]).parents else ""))
    path = Path(chosen[0]).resolve()
    if spec.kernel:
        return ["-kernel", path, "-initrd", Path(spec.initrd).resolve(), "-append", spec.append]
    if spec.efi and spec.direct:
        text = spec.append
        if spec.config:
            lines = Path(spec.config).read_text(encoding="utf-8").splitlines()
            text = ";".join(line for line in lines if line.strip())
        return ["-kernel", path] + (["-append", text] if text else [])
    image_format, device = "raw", "virtio-blk-pci,drive=boot,bootindex=0"
    if spec.efi:
        path = folder / "esp.img"
        make_esp(path, spec.efi, spec.config)
    elif spec.cdrom:
        device += ",logical_block_size=2048,physical_block_size=2048"
    elif path.suffix in (".vhdx", ".qcow2"):
        image_format = path.suffix[1:]
    return ["-drive", f"if=none,id=boot,format={image_format},snapshot=on,"
            f"file={str(path).replace(',', ',,')}", "-device", device]


def command_line(spec, folder):
    """The host's arguments. Sockets are relative to the VM's folder, its working directory."""
    cpu = ",".join(["max", *(["hyperv=on"] if spec.hyperv else []), *spec.cpu_opts])
    command = [
        HOST, "-nodefaults", "-no-user-config", "-name", spec.name,
        "-machine", GENERATION_2 if spec.hyperv else "q35",
        "-accel", "tcg,thread=multi", "-cpu", cpu, "-smp", spec.vcpus, "-m", spec.memory,
        "-display", "none", "-device", "ramfb",
        "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={OVMF}/OVMF_CODE_4M.fd",
        "-drive", "if=pflash,unit=1,format=raw,file=vars.fd",
        "-chardev", "socket,id=com1,path=console.sock,server=on,wait=off,logfile=console.log",
        "-serial", "chardev:com1",
        "-qmp", "unix:qmp.sock,server=on,wait=off", "-qmp", "unix:watch.sock,server=on,wait=off",
    ]
    if spec.hyperv:
        limit = f",max-version={spec.max_version:#x}" if spec.max_version else ""
        command += ["-device", f"vmbus-bridge{limit}"] + (ic.arguments(spec) if spec.ic else [])
    command += nic.arguments(spec) + _boot_arguments(spec, folder)
    if not spec.allow_reboot:
        command += ["-no-reboot"]
    if spec.gdb:
        command += ["-S", "-gdb", f"tcp:127.0.0.1:{spec.gdb}"]
    if spec.count or spec.profile:
        options = ",profile=on" if spec.profile else ""
        options += "".join(f",mark={address:#x}" for address in spec.marks)
        command += ["-plugin", f"{INSN_COUNT},counters=instructions{options}"]
    return [str(c) for c in command + list(spec.extra)]


def _die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Vm:
    """A VM that this process started, or found running (Vm.find)."""

    def __init__(self, name):
        self.name = name
        self.folder = RUN / name
        self.console_log = self.folder / "console.log"
        self.host_log = self.folder / "host.log"
        self.process = None
        self.watch = None
        self._writer = None

    # Life ---------------------------------------------------------------------------------------

    @classmethod
    def find(cls, name):
        """The running VM of that name."""
        vm = cls(name)
        if not vm.running():
            others = [p.name for p in RUN.glob("*") if cls(p.name).running()]
            raise HvError(f"no VM named {name} is running" + (
                f"; these are: {', '.join(sorted(others))}" if others else
                "; start one: make run"))
        return vm

    def pid(self):
        """The host's process id, or None if it does not run (a stale file does not count)."""
        try:
            pid = int((self.folder / "pid").read_text(encoding="ascii"))
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            # By identity: a path that leads into another mount namespace reads differently.
            here = os.path.samefile(f"/proc/{pid}/cwd", self.folder)
        except (OSError, ValueError):
            return None
        return pid if here and b"qemu-system" in command else None

    def running(self):
        if self.process:
            return self.process.poll() is None
        return self.pid() is not None

    @classmethod
    def start(cls, spec):
        """Starts the host process and returns once it answers on its control socket."""
        vm = cls(spec.name)
        if not re.fullmatch(r"[\w.-]+", spec.name):
            raise HvError("--name: letters, digits, dot, dash and underscore only")
        if not 1 <= spec.vcpus <= 64 or spec.memory < 64:
            raise HvError("a VM has 1 to 64 vCPUs and at least 64 MB of memory")
        if vm.running():
            raise HvError(f"a VM named {spec.name} is running already: "
                          f"tools/hv stop --name {spec.name}, or give this one another --name")
        if not HOST.exists():
            raise HvError("the emulated host is not built: type tools/setup")
        if not spec.netns:
            for forward in spec.forwards:
                forward.check_free()
        shutil.rmtree(vm.folder, ignore_errors=True)
        vm.folder.mkdir(parents=True)
        shutil.copyfile(OVMF / "OVMF_VARS_4M.fd", vm.folder / "vars.fd")
        command = command_line(spec, vm.folder)
        if spec.netns:
            command = ["ip", "netns", "exec", spec.netns, *command]
        (vm.folder / "command").write_text(shlex.join(command) + "\n", encoding="utf-8")
        vm.console_log.touch()
        with open(vm.host_log, "wb") as log:
            vm.process = subprocess.Popen(  # pylint: disable=consider-using-with
                command, cwd=vm.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=None if spec.detached else _die_with_parent)
        (vm.folder / "pid").write_text(f"{vm.process.pid}\n", encoding="ascii")
        vm._wait_for_control()
        return vm

    def _wait_for_control(self):
        deadline = time.monotonic() + 20
        while True:
            try:
                self.watch = EventWatch(self.folder / "watch.sock")
                return
            except HvError:
                if self.process.poll() is not None:
                    raise HvError(f"the host did not start: {self.host_text().strip()}\n"
                                  f"its command line is in {self.folder}/command") from None
                if time.monotonic() > deadline:
                    self.stop()
                    raise HvError("the host does not answer on its control socket") from None
                time.sleep(0.05)

    def stop(self, timeout=10):
        """Ends the VM at once (no word to the guest). Fine if it has ended already."""
        if self._writer:
            self._writer.close()
            self._writer = None
        pid = self.process.pid if self.process else self.pid()
        if not self.running():
            return
        try:
            with Qmp(self.folder / "qmp.sock", 2) as qmp:
                qmp.command("quit")
        except (HvError, OSError):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + timeout
        while self.running():
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                deadline += timeout
            time.sleep(0.02)

    def wait_exit(self, timeout):
        """Waits for the VM to end by itself; returns the host's reason, e.g. guest-shutdown."""
        deadline = time.monotonic() + timeout
        while self.running():
            if time.monotonic() > deadline:
                raise HvError(f"the VM still runs after {timeout} s\n{self.console_tail()}")
            time.sleep(0.05)
        if self.watch:
            self.watch.join(2)
            return self.watch.reason() or f"exit code {self.process.returncode}"
        return "unknown"

    # Console ------------------------------------------------------------------------------------

    def console(self, since=0):
        """What the guest and the firmware printed on COM1, without escape codes."""
        with open(self.console_log, "rb") as file:
            file.seek(since)
            return plain(file.read().decode("utf-8", "replace").replace("\r", ""))

    def mark(self):
        """Now, as a position for `since`."""
        return self.console_log.stat().st_size

    def console_tail(self, lines=20):
        kept = [line for line in self.console().splitlines() if line.strip()][-lines:]
        return "last lines of the guest's console:\n" + "\n".join(f"  | {k}" for k in kept)

    def wait_console(self, pattern, timeout=60, since=0):
        """Waits until a console line matches; returns the match. Ends early if the VM does."""
        regex = re.compile(pattern, re.MULTILINE)
        deadline = time.monotonic() + timeout
        while True:
            alive = self.running()
            text = self.console(since)
            complete = text[:text.rfind("\n") + 1] if alive else text
            match = regex.search(complete)
            if match:
                return match
            if not alive:
                raise HvError(f"the VM ended ({self.wait_exit(1)}) before it printed "
                              f"{pattern!r}\n{self.host_text()[-2000:]}{self.console_tail()}")
            if time.monotonic() > deadline:
                raise HvTimeout(f"no console line matched {pattern!r} in {timeout} s\n"
                                f"{self.host_text()[-2000:]}{self.console_tail()}")
            time.sleep(0.05)

    def send_line(self, text):
        """Types a line on the guest's COM1."""
        if not self._writer:
            self._writer = ConsoleWriter(self.folder / "console.sock")
        self._writer.send_line(text)

    def command(self, line, pattern, timeout=30):
        """Types a line and waits for a console line that matches; returns the match."""
        since = self.mark()
        self.send_line(line)
        return self.wait_console(pattern, timeout, since)

    # Host ---------------------------------------------------------------------------------------

    def host_text(self):
        """The host's log."""
        return self.host_log.read_text(encoding="utf-8", errors="replace")

    def violations(self):
        """Lines of the host's log that name a rule which the guest broke."""
        return [line for line in self.host_text().splitlines() if VIOLATION in line]

    def qmp(self, name, /, **arguments):
        with Qmp(self.folder / "qmp.sock") as qmp:
            return qmp.command(name, **arguments)

    def stats(self):
        """The host's counters (tools/hyperv-host/README.md)."""
        stats = self.qmp("qom-get", path="/machine/hyperv", property="stats")
        return json.loads(stats) if isinstance(stats, str) else stats

    def cpu_seconds(self):
        """CPU time that the host process has used so far."""
        fields = Path(f"/proc/{self.pid()}/stat").read_text(encoding="ascii").rsplit(")", 1)[1]
        user, system = fields.split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
