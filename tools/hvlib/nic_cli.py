# SPDX-License-Identifier: BSD-2-Clause
"""The commands `tools/hv nic ...`: what an administrator does with the NICs of a running VM."""

import argparse

from . import HvError, nic, wire
from .vm import RUN, Forward, Vm

WHICH = "which VM (default: dunlin, or the only one that runs)"


def add_parser(commands):
    """Adds `nic` and what may follow it."""
    parser = commands.add_parser("nic", help="add, remove, change NICs of a running VM")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_add(actions)
    remove = _action(actions, "remove", "unplug a NIC; waits until the guest has let go of it")
    remove.add_argument("--timeout", type=float, default=10, metavar="S",
                        help="how long the guest may take (default %(default)s)")
    _action(actions, "list", "the NICs and what became of them", nic=False)
    link = _action(actions, "link", "pull the cable or put it back")
    link.add_argument("state", choices=("up", "down"))
    speed = _action(actions, "speed", "change the speed of the link, which the guest is told")
    speed.add_argument("mbit", type=int, metavar="MBIT", help="Mbit/s")
    _action(actions, "network", "tell the guest that another network is behind the NIC")
    table = _action(actions, "send-table", "ask the guest to send by these channels, by hash in turn")
    table.add_argument("channels", type=int, nargs="+", metavar="CHANNEL", help="0 is the first")
    _action(actions, "pause", "stop serving a NIC: nothing goes in or out")
    _action(actions, "resume", "serve a paused NIC again")
    _add_impair(actions)


def _action(actions, name, text, nic=True, **more):  # pylint: disable=redefined-outer-name
    action = actions.add_parser(name, help=text, **more)
    if nic:
        action.add_argument("nic", metavar="NIC", help="its name as in `hv nic list`: nic0 is the first")
    action.add_argument("--name", "--vm", help=WHICH)
    return action


def _add_add(actions):
    action = actions.add_parser(
        "add", help="plug in a NIC", description="Plugs a NIC in; prints its name, which is the "
        "first free one of nic0, nic1, ... unless --name says another. The guest is not waited for.")
    add = action.add_argument
    add("--name", help=f"{WHICH}; a name that no VM has is that of the new NIC")
    add("--vm", help="which VM, if --name is the NIC's and several run")
    add("--nic", "--backend", default="user", metavar="KIND[,PROPERTY=VALUE...]",
        help="what is behind it, as in `hv run --nic` (default %(default)s)")
    add("--opt", action="append", default=[], metavar="PROPERTY=VALUE",
        help="a property of the hv-net device, e.g. mac=00:15:5d:00:00:01, rescind-after=20")
    add("--forward", action="append", default=[], metavar="[ADDR:]PORT:GUESTPORT[/udp]",
        help="lead a port of this machine to this NIC's address in the guest (user NIC)")


def _add_impair(actions):
    impair = _action(
        actions, "impair", "delay, lose, reorder, duplicate frames, limit their rate",
        description="Sets what is given, for both directions unless one is named, leaves the rest "
        "as it is and prints the result. --delay 10 for both directions is a round trip of 20 ms. "
        "Percentages are of pieces of at most MTU: a large frame is cut where one of them is hit.")
    add = impair.add_argument
    add("--to-guest", action="append_const", dest="sides", const="to-guest",
        help="only frames to the guest")
    add("--from-guest", action="append_const", dest="sides", const="from-guest",
        help="only frames from the guest")
    for what, text in (("delay", "until a frame arrives"), ("rate", "of the wire; 0: no limit"),
                       ("loss", "of the pieces do not arrive"),
                       ("reorder", "of the pieces are overtaken by the next three"),
                       ("duplicate", "of the pieces arrive twice")):
        setting = wire.SETTINGS[what]
        unit = {"ms": "MS", "Mbit/s": "MBIT", "%": "PERCENT"}[setting.unit]
        add(f"--{what}", type=_wire_number(what), metavar=unit,
            help=f"{setting.unit} {text}".replace("%", "%%") +
            f" (0 to {setting.highest})")
    add("--queue", type=int, metavar="KIB",
        help=f"how much may be on the wire and wait for it; more is dropped (default "
        f"{wire.QUEUE_KIB})")
    add("--seed", type=int, metavar="N", help="begin the random choices again, those of number N")
    add("--off", action="store_true", help="a perfect wire again")


def _wire_number(what):
    def number(text):
        try:
            value = float(text)
            wire.scaled(what, value)
        except (ValueError, HvError) as error:
            raise argparse.ArgumentTypeError(
                str(error) if isinstance(error, HvError) else f"{text} is not a number") from error
        return value
    return number


def run(args, find):
    """Does what the command line says; find(name or None): the running VM."""
    if args.action == "add":
        return _add(args, find)
    vm = find(args.name)
    if args.action == "remove":
        print(f"{args.nic}: gone after {nic.remove(vm, args.nic, args.timeout):.2f} s")
    elif args.action == "list":
        print(*nic.describe(vm), sep="\n")
    elif args.action == "link":
        nic.set_link(vm, args.nic, args.state == "up")
    elif args.action == "speed":
        nic.set_speed(vm, args.nic, args.mbit)
    elif args.action == "network":
        nic.change_network(vm, args.nic)
    elif args.action == "send-table":
        nic.set_send_table(vm, args.nic, args.channels)
    elif args.action in ("pause", "resume"):
        nic.pause(vm, args.nic, args.action == "pause")
    else:
        _impair(args, vm)
    return 0


def _add(args, find):
    of_vm = args.name and not args.vm and (RUN / args.name).is_dir() and Vm(args.name).running()
    vm = find(args.name if of_vm else args.vm)
    forwards = [Forward.parse(text) for text in args.forward]
    for forward in forwards:
        forward.check_free()
    new = nic.add(vm, args.nic, None if of_vm else args.name, args.opt, forwards)
    words = [f"{new.name}: added to {vm.name}, {new.options['mac']}"]
    words += [f"{f.address} port {f.port} leads to its port {f.guest}" for f in forwards]
    print(", ".join(words))
    return 0


def _impair(args, vm):
    settings = {what: getattr(args, what) for what in wire.SETTINGS
                if getattr(args, what) is not None}
    if args.off and (settings or args.queue is not None):
        raise HvError("--off sets everything to nothing; give it alone")
    sides = args.sides or wire.SIDES
    if args.off:
        wire.off(vm, args.nic, sides)
    wire.impair(vm, args.nic, sides, args.queue, args.seed, **settings)
    print("\n".join(wire.describe(vm, args.nic)))
