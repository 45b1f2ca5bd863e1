"""The commands, each loaded when it is asked for: help and completion of names need none of them.

A new command is a line in `TABLE`: its name, the module whose `add_to` adds it, and the first sentence of its help.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Final, NamedTuple, cast

import typer
from typer.core import TyperCommand, TyperGroup


class Entry(NamedTuple):
    module: str
    summary: str


TABLE: Final[Mapping[str, Entry]] = {
    "demo": Entry(
        "demo", "Run flows over Python's standard library while processes are killed; checks that nothing is lost."
    ),
    "init": Entry("init", "Write a first app of ten lines, and print how to run it."),
    "dev": Entry("dev", "Run a server, an orchestrator and a worker."),
    "orchestrator": Entry("processes", "Run an orchestrator."),
    "worker": Entry("processes", "Run a worker for the flows and tasks of the targets."),
    "start": Entry("instances", "Start an instance of a flow, or one for each line of a file."),
    "signal": Entry("instances", "Send a signal to a live instance."),
    "cancel": Entry("instances", "Ask for a live instance to be cancelled."),
    "ls": Entry("views", "List instances, newest first."),
    "show": Entry("views", "Show an instance: status, what it waits for, timeline, attempts, errors, result."),
    "watch": Entry(
        "watch", "Watch an instance until it ends, its outcome as the exit code; or all of them, until Ctrl-C."
    ),
    "unblock": Entry("blocked", "Let a blocked instance go on where it stopped."),
    "delete": Entry(
        "deleting",
        "Delete ended instances before their retention does: one by ID, or those of --flow, --status, --before.",
    ),
    "quarantine": Entry("quarantine", "Entries that could not be read or applied."),
    "doctor": Entry(
        "doctor", "Look for what is wrong: server, partitions, queues, workers, instances; say what mends it."
    ),
}


def load(name: str) -> Any:
    """The command, or group of commands, of that name. Raises `KeyError`."""
    module = import_module(f".{TABLE[name].module}", __package__)
    part = typer.Typer(callback=_no_options, rich_markup_mode=None, pretty_exceptions_enable=False)
    module.add_to(part)
    return typer.main.get_group(part).commands[name]


class LazyGroup(TyperGroup):
    """Lists the commands by `TABLE`, and loads the one that is run."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = cast(Any, _Loading())

    def list_commands(self, ctx: Any) -> list[str]:
        return list(TABLE)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """What lists show of a command: its name and its summary."""
        return TyperCommand(cmd_name, help=TABLE[cmd_name].summary) if cmd_name in TABLE else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, found, rest = super().resolve_command(ctx, args)
        return name, None if found is None else load(args[0]), rest


class _Loading(Mapping[str, Any]):
    """The commands by name, for whoever looks into the group."""

    def __getitem__(self, name: str) -> Any:
        return load(name)

    def __contains__(self, name: object) -> bool:
        return name in TABLE

    def __iter__(self) -> Iterator[str]:
        return iter(TABLE)

    def __len__(self) -> int:
        return len(TABLE)


def _no_options() -> None:
    """A callback makes a group of it, however few commands there are."""
