# SPDX-License-Identifier: BSD-2-Clause
"""The commands of tools/hv."""

import argparse
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from . import BUILD, ROOT, HvError, ic_cli, nic_cli
from .sockets import connect
from .vm import CRASH, READY, RUN, VIOLATION, Forward, Spec, Vm

MAKE_CHECK_SECONDS = 0.5


def _add_common(parser, name):
    add = parser.add_argument
    add("--name", default=name, help="name of the VM, to run several (default %(default)s)")
    add("--vcpus", type=int, default=2, metavar="N", help="virtual CPUs (default %(default)s)")
    add("--memory", type=int, default=512, metavar="MB", help="memory (default %(default)s)")
    add("--nic", action="append", metavar="KIND[,PROPERTY=VALUE...]",
        help="user (default; needs no root), tap:IFNAME, socket:OPTIONS or none; may be repeated. "
        "Properties go to the hv-net device (tools/hyperv-host/README.md)")
    add("--nic-opt", action="append", default=[], metavar="PROPERTY=VALUE",
        help="a property for every hv-net, e.g. max-nvsp=0x60001, csum=off")
    add("--forward", action="append", metavar="[ADDR:]PORT:GUESTPORT[/udp]",
        help="lead a port of this machine into the guest (user NIC; default 5201:5201)")
    add("--max-version", type=lambda v: int(v, 0), metavar="VERSION",
        help="highest VMBus version that the host speaks, e.g. 0x50003")
    add("--no-ic", action="store_true", help="no integration services")
    add("--ic-opt", action="append", default=[], metavar="SERVICE,PROPERTY=VALUE",
        help="a property of an integration service, e.g. kvp,max-version=0x30000")
    add("--cpu-opt", action="append", default=[], metavar="PROPERTY=VALUE",
        help="a CPU property, e.g. hyperv-tsc-page=off")
    add("--netns", metavar="NAME", help="run in a network namespace (as root, for tap)")
    add("--headless", action="store_true", help="plain output, no terminal needed, no input read")
    add("--detach", action="store_true", help="return when the guest is ready; `hv stop` ends it")
    add("--allow-reboot", action="store_true", help="let the guest restart instead of ending")
    add("--timeout", type=float, default=60, metavar="S",
        help="how long the guest may take to be ready (default %(default)s)")


def _parser():
    parser = argparse.ArgumentParser(
        prog="tools/hv", description="Runs virtual machines on the emulated Hyper-V host.",
        epilog="State of a VM (logs, sockets) is in build/run/NAME/. "
        "`tools/hv COMMAND --help` tells more.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="boot an EFI program or a disk image until interrupted")
    _add_common(run, "dunlin")
    what = run.add_mutually_exclusive_group()
    what.add_argument("--efi", type=Path, metavar="FILE",
                      help="an EFI program (default build/BOOTX64.EFI)")
    what.add_argument("--disk", type=Path, metavar="FILE", help="a disk image (vhdx, qcow2, raw)")
    what.add_argument("--cdrom", type=Path, metavar="FILE", help="an ISO image")
    run.add_argument("--direct", action="store_true",
                     help="hand the EFI program to the firmware instead of making a disk for it")
    run.add_argument("--config", type=Path, metavar="FILE", help="dunlin.conf for --efi")
    run.add_argument("--no-hyperv", action="store_true", help="a plain machine, not Hyper-V")
    run.add_argument("--gdb", type=int, metavar="PORT",
                     help="wait for gdb on this port before the first instruction")
    run.add_argument("--symbols", type=Path, metavar="ELF", help="for the gdb line: the kernel")
    run.add_argument("--ready", default=READY, metavar="REGEX",
                     help="the console line that says the guest is ready (default %(default)r; "
                     "empty: do not wait)")

    linux = commands.add_parser("linux", help="boot the reference guest, Debian's Linux")
    _add_common(linux, "linux")
    linux.add_argument("--append", default="", help="more words for the kernel's command line")

    for name, text in (("stats", "print the host's counters as JSON"),
                       ("console", "the guest's console: shows it and types on it"),
                       ("stop", "end a VM"), ("list", "list the running VMs"),
                       ("screenshot", "save the guest's screen")):
        sub = commands.add_parser(name, help=text)
        if name != "list":
            sub.add_argument("--name", help="which VM (default: dunlin, or the only one that runs)")
        if name == "screenshot":
            sub.add_argument("file", type=Path, help="a .ppm file to write")
    nic_cli.add_parser(commands)
    ic_cli.add_parsers(commands)
    return parser


def _running():
    names = sorted(p.name for p in RUN.glob("*")) if RUN.is_dir() else []
    return [n for n in names if Vm(n).running()]


def _find(name):
    if not name:
        running = _running()
        if "dunlin" in running:
            running = ["dunlin"]
        if len(running) > 1:
            raise HvError(f"several VMs run; say which: --name {'|'.join(running)}")
        name = running[0] if running else "dunlin"
    return Vm.find(name)


def _spec(args):
    nics = args.nic or ["user"]
    nics = [] if nics == ["none"] else nics
    user = any(n.split(",")[0] == "user" for n in nics)
    if args.forward is None:
        args.forward = ["5201:5201"] if user else []
    return Spec(name=args.name, vcpus=args.vcpus, memory=args.memory, nics=nics,
                nic_opts=args.nic_opt, forwards=[Forward.parse(f) for f in args.forward],
                max_version=args.max_version, cpu_opts=args.cpu_opt, netns=args.netns,
                detached=args.detach, allow_reboot=args.allow_reboot, ic=not args.no_ic,
                ic_opts=args.ic_opt)


# What `run` shows while a VM lives ----------------------------------------------------------------


class Follower:
    """Copies complete new lines of the guest's console and the host's log to standard output."""

    def __init__(self, vm):
        self.vm = vm
        self.position = {"console": 0, "host": 0}
        self.crashed = False

    def _new_lines(self, key, text):
        end = text.rfind("\n") + 1
        lines = text[self.position[key]:end].splitlines()
        self.position[key] = max(end, self.position[key])
        return lines

    def poll(self):
        """Shows what is new; returns those lines of the guest."""
        for line in self._new_lines("host", self.vm.host_text()):
            print(line, flush=True)
            self.crashed = self.crashed or CRASH in line
        lines = [x for x in self._new_lines("console", self.vm.console()) if x.strip()]
        for line in lines:
            print(line, flush=True)
        return lines


class Interrupted(Exception):
    """SIGINT or SIGTERM: the user wants the VM to end."""


def _on_signal(*_):
    raise Interrupted


def _make_catches_sigint():
    """True if our parent is a make that has a handler for SIGINT. When a signal comes to make alone
    (a terminal signals the whole group; kill does not) it only waits for us, and the one trace is
    that SIGINT is back at its default."""
    try:
        status = Path(f"/proc/{os.getppid()}/status").read_text(encoding="ascii")
    except OSError:
        return False
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    caught = int(fields.get("SigCgt", "0"), 16)
    return fields.get("Name") == "make" and bool(caught & (1 << (signal.SIGINT - 1)))


def _what_to_type(spec, detached):
    if spec.forwards:
        first = spec.forwards[0]
        text = f"iperf3 -c {first.address} -p {first.port}"
    else:
        text = "tools/hv console"
    return text + ("" if not detached else f"    (tools/hv stop --name {spec.name} ends it)")


def _typed_line():
    """A line that the user typed, or None."""
    if select.select([sys.stdin], [], [], 0)[0]:
        return sys.stdin.readline().rstrip("\n") or None
    return None


def _follow(vm, follower, ready, args, spec):
    """Shows the VM until it ends. Returns the exit status."""
    deadline = time.monotonic() + args.timeout if ready else None
    interactive = not args.headless and sys.stdin.isatty()
    under_make = _make_catches_sigint()
    next_make_check = 0
    while True:
        alive = vm.running()
        lines = follower.poll()
        if ready and any(ready.search(line) for line in lines):
            ready = deadline = None
            bold = ("\x1b[1m", "\x1b[0m") if interactive and sys.stdout.isatty() else ("", "")
            print(f"{bold[0]}hv: ready, type: {_what_to_type(spec, args.detach)}{bold[1]}",
                  flush=True)
            if args.detach:
                return 0
        if follower.crashed and not args.allow_reboot:
            raise HvError(f"the guest has crashed (see above)\n{vm.console_tail()}")
        if not alive:
            reason = vm.wait_exit(1)
            if reason == "host-qmp-quit":
                print("hv: the VM was stopped")
                return 0
            if not ready and reason == "guest-shutdown":
                print("hv: the guest has shut down")
                return 0
            raise HvError(f"the VM has ended by itself: {reason}\n"
                          f"{vm.host_text()[-2000:]}{vm.console_tail()}")
        if deadline and time.monotonic() > deadline:
            raise HvError(f"the guest was not ready in {args.timeout:.0f} s\n{vm.console_tail()}")
        if interactive and (typed := _typed_line()) is not None:
            vm.send_line(typed)
        if under_make and time.monotonic() > next_make_check:
            next_make_check = time.monotonic() + MAKE_CHECK_SECONDS
            if not _make_catches_sigint():
                raise Interrupted
        time.sleep(0.05 if deadline else 0.2)


def _run(spec, ready, args, hint=None):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _on_signal)
    print(f"hv: booting {spec.name}: {spec.vcpus} vCPUs, {spec.memory} MB", flush=True)
    vm = None
    status = 1
    try:
        vm = Vm.start(spec)
        if hint:
            print(hint, flush=True)
        status = _follow(vm, Follower(vm), re.compile(ready) if ready else None, args, spec)
    except Interrupted:
        print("hv: interrupted, ending the VM", flush=True)
        status = 0
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if vm and not (args.detach and status == 0):
            broken = [line for line in vm.violations() if VIOLATION in line]
            vm.stop()
            if broken:
                print(f"hv: the guest broke {len(broken)} rule(s) of Hyper-V, the first: "
                      f"{broken[0]}")
    return status


def _cmd_run(args):
    spec = _spec(args)
    spec.disk, spec.cdrom = args.disk, args.cdrom
    spec.efi = args.efi or (None if args.disk or args.cdrom else BUILD / "BOOTX64.EFI")
    spec.direct, spec.config, spec.gdb = args.direct, args.config, args.gdb
    spec.hyperv = not args.no_hyperv
    hint = None
    if spec.gdb:
        args.timeout = 1e9  # the user decides when it goes on
        hint = f"hv: stopped; in another terminal type: gdb {args.symbols or ''} " \
            f"-ex 'target remote :{spec.gdb}'  (then: hbreak kernel_main, continue)"
    return _run(spec, args.ready, args, hint)


def _cmd_linux(args):
    subprocess.run(["/usr/bin/python3", ROOT / "tests/reference/initramfs.py"], check=True)
    spec = _spec(args)
    spec.kernel = BUILD / "reference" / "vmlinuz"
    spec.initrd = BUILD / "reference" / "initrd.img"
    spec.append = f"console=ttyS0 panic=-1 {args.append}"
    return _run(spec, r"reference: ready.*", args)


def _cmd_stats(args):
    print(json.dumps(_find(args.name).stats(), indent=2))
    return 0


def _cmd_nic(args):
    return nic_cli.run(args, _find)


def _cmd_console(args):
    vm = _find(args.name)
    sock = connect(vm.folder / "console.sock")
    sys.stdout.write(vm.console())
    sys.stdout.flush()
    print("hv: type; Ctrl-C or end of input leaves (the VM goes on)", file=sys.stderr)
    inputs = [sock, sys.stdin]
    linger = None
    try:
        while True:
            readable = select.select(inputs, [], [], linger)[0]
            if not readable:
                return 0  # input has ended and the guest is quiet
            if sock in readable:
                data = sock.recv(65536)
                if not data:
                    print("hv: the VM has ended", file=sys.stderr)
                    return 1
                sys.stdout.write(data.decode("utf-8", "replace").replace("\r", ""))
                sys.stdout.flush()
            if sys.stdin in readable:
                line = sys.stdin.readline()
                if line:
                    sock.sendall(line.encode())
                else:
                    inputs, linger = [sock], 1
    except KeyboardInterrupt:
        return 0


def _cmd_stop(args):
    vm = _find(args.name)
    vm.stop()
    print(f"hv: {vm.name} has ended")
    return 0


def _cmd_list(_):
    for name in _running():
        print(f"{name}  pid {Vm(name).pid()}")
    return 0


def _cmd_screenshot(args):
    _find(args.name).qmp("screendump", filename=str(args.file.resolve()))
    return 0


def main():
    args = _parser().parse_args()
    try:
        if args.command in ic_cli.COMMANDS:
            status = ic_cli.run(args, _find)
        else:
            status = globals()[f"_cmd_{args.command}"](args)
        print(end="", flush=True)  # a broken pipe shows here, not when Python ends
        return status
    except HvError as error:
        print(f"hv: error: {error}", file=sys.stderr)
        return error.status
    except BrokenPipeError:  # `tools/hv list | grep -q NAME` and the like do not read it all
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 0
