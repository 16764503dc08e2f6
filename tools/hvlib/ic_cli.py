# SPDX-License-Identifier: BSD-2-Clause
"""The commands of tools/hv that manage a guest as a whole: shutdown, heartbeat, time, kvp, pause,
resume, migrate, nmi."""

import datetime

from . import HvError, ic

WHICH = "which VM (default: dunlin, or the only one that runs)"
COMMANDS = ("shutdown", "heartbeat", "time", "kvp", "pause", "resume", "migrate", "nmi")
STATUS = "Exit status: 0 done, 1 error, 3 the guest does not answer, 4 it refused."


def add_parsers(commands):
    """Adds the commands."""
    shutdown = _command(commands, "shutdown", "have the guest power off or restart", STATUS)
    add = shutdown.add_argument
    add("--force", action="store_true", help="at once, whatever runs")
    add("--restart", action="store_true", help="restart instead of power off")
    add("--timeout", type=float, default=60, metavar="S",
        help="how long the guest may take (default %(default)s)")
    add("--message", default="", metavar="TEXT", help="why, for the guest's log")
    _command(commands, "heartbeat", "is the guest alive, and its application?", STATUS)
    _add_time(commands)
    _add_kvp(commands)
    _command(commands, "pause", "stop a VM's processors and clocks")
    _add_resume(commands)
    migrate = _command(commands, "migrate", "what a live migration does to the guest",
                       "The guest stands still for a moment and goes on with a TSC of another "
                       "frequency; the reference TSC page follows.")
    migrate.add_argument("--downtime", type=float, default=0.2, metavar="S",
                         help="how long it stands still (default %(default)s)")
    migrate.add_argument("--tsc-khz", type=int, metavar="KHZ",
                         help="the new frequency (default: a tenth faster)")
    _command(commands, "nmi", "inject a non-maskable interrupt: the guest reports and ends")


def _add_resume(commands):
    add = _command(commands, "resume", "let a paused VM go on",
                   "A long pause without waiting for it: --leap moves the host's clock as the guest "
                   "is told it (it stays so: hv time --set now).").add_argument
    add("--leap", type=_seconds, default=0, metavar="S", help="so many seconds have passed more")
    add("--clocks-run", action="store_true",
        help="reference time and TSC have gone on by as much, instead of standing still")


def _seconds(text):
    if not 0 <= (seconds := float(text)) <= 365 * 24 * 3600:
        raise ValueError(text)
    return seconds


def _command(commands, name, text, epilog=None):
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".",
                                  epilog=epilog)
    command.add_argument("--name", "--vm", help=WHICH)
    return command


def _add_time(commands):
    add = _command(commands, "time", "what time the guest is told; the host's clock for it",
                   STATUS).add_argument
    add("--set", metavar="WHEN", type=_when,
        help="a time (2030-01-31T12:00:00Z), +S or -S (seconds from this machine's), or now")
    add("--rate", type=int, metavar="PPM", help="the host's clock runs so much faster (or slower)")
    add("--sync", action="store_true", help="tell the guest to take the time over now")


def _when(text):
    """Seconds from this machine's time."""
    now = datetime.datetime.now(datetime.timezone.utc)
    if text == "now":
        return 0.0
    if text[:1] in "+-":
        return float(text)
    when = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    if not when.tzinfo:
        when = when.replace(tzinfo=datetime.timezone.utc)
    return (when - now).total_seconds()


def _add_kvp(commands):
    kvp = commands.add_parser("kvp", help="key-value pairs and addresses exchanged with the guest",
                              epilog=STATUS)
    actions = kvp.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(parent, name, text):
        parser = parent.add_parser(name, help=text)
        parser.add_argument("--name", "--vm", help=WHICH)
        return parser

    def pool(parser, default):
        parser.add_argument("--pool", choices=ic.POOLS, default=default,
                            help="whose keys (default %(default)s)")
    pool(action(actions, "list", "all keys of a pool; auto: what the guest's system is"), "auto")
    for name, text in (("get", "print a key's value"), ("set", "set a key"),
                       ("delete", "delete a key")):
        parser = action(actions, name, text)
        parser.add_argument("key", metavar="KEY")
        if name == "set":
            parser.add_argument("value", metavar="VALUE")
            parser.add_argument("--type", choices=("string", "expand-string", "u32", "u64"),
                                default="string", help="of the value (default %(default)s)")
        pool(parser, "external")

    ip = actions.add_parser("ip", help="a NIC's addresses as the guest has them")
    ip_actions = ip.add_subparsers(dest="ip_action", required=True, metavar="ACTION")
    action(ip_actions, "show", "what the guest reports").add_argument(
        "nic", metavar="NIC", nargs="?", default="nic0", help="(default %(default)s)")
    parser = action(ip_actions, "set", "have the guest set them")
    parser.add_argument("nic", metavar="NIC")
    parser.add_argument("--dhcp", action="store_true", help="take them from DHCP again")
    for name, what in (("address", "A.B.C.D/P or X::Y/P"), ("gateway", "A"), ("dns", "A")):
        parser.add_argument(f"--{name}", action="append", default=[], metavar=what,
                            help="may be repeated")


def run(args, find):
    """Does what the command line says; find(name or None): the running VM. Returns the status."""
    return globals()[f"_{args.command}"](args, find(args.name)) or 0


def _shutdown(args, vm):
    done = ic.shutdown(vm, args.restart, args.force, args.timeout, args.message)
    if done == "ended" and args.restart:
        print(f"hv: {vm.name} restarted, and as it was not started with --allow-reboot it has ended")
    else:
        print(f"hv: {vm.name} has {done}")


def _heartbeat(_, vm):
    now = ic.stats(vm, "heartbeat")
    if now["contact"] == "none":
        raise ic.NoAnswer("no contact: the guest has not answered a heartbeat")
    print(f"{now['contact']}, application {now['application']}, last answer "
          f"{now['last_answer_ms'] / 1000:.1f} s ago, {now['answers']} beats answered, "
          f"{now['missed']} missed")
    return 0 if now["contact"] == "ok" else ic.NoAnswer.status


def _time(args, vm):
    if args.set is not None or args.rate is not None:
        ic.set_clock(vm, args.set, args.rate)
    if args.sync:
        ic.send_time(vm)
    now = ic.stats(vm, "timesync")
    print(f"{ic.host_time(vm).isoformat(timespec='milliseconds')}, rate "
          f"{now['clock_rate_ppm']:+d} ppm, told {now['syncs']} times to set the clock and "
          f"{now['samples']} samples, service {now['state']}")


def _kvp(args, vm):
    if args.action == "ip":
        return _ip(args, vm)
    if args.action == "list":
        for key, value in ic.kvp_list(vm, args.pool).items():
            print(f"{key}={value}")
    elif args.action == "get":
        value = ic.kvp_get(vm, args.key, args.pool)
        if value is None:
            raise HvError(f"the guest has no key {args.key} in pool {args.pool}")
        print(value)
    elif args.action == "set":
        try:
            value = int(args.value, 0) if args.type in ("u32", "u64") else args.value
        except ValueError as error:
            raise HvError(f"{args.value} is not a number") from error
        ic.kvp_set(vm, args.key, value, args.pool, args.type)
    elif not ic.kvp_delete(vm, args.key, args.pool):
        raise HvError(f"the guest has no key {args.key} in pool {args.pool}")
    return 0


def _ip(args, vm):
    if args.ip_action == "set":
        if not args.dhcp and not args.address:
            raise HvError("give --address or --dhcp")
        ic.ip_set(vm, args.nic, ic.Addresses(args.dhcp, args.address, args.gateway, args.dns))
        return 0
    found = ic.ip_get(vm, args.nic)
    print(f"{args.nic}: {'DHCP' if found.dhcp else 'static'}")
    for what, entries in (("address", found.addresses), ("gateway", found.gateways),
                          ("dns", found.dns)):
        for entry in entries:
            print(f"  {what} {entry}")
    return 0


def _pause(_, vm):
    ic.pause(vm)


def _resume(args, vm):
    ic.resume(vm, args.leap, args.clocks_run)


def _migrate(args, vm):
    khz = ic.migrate(vm, args.tsc_khz, args.downtime)
    print(f"hv: {vm.name} goes on with a TSC of {khz} kHz")


def _nmi(_, vm):
    ic.inject_nmi(vm)
