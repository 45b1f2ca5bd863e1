"""`start`, `signal`, `cancel`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from headrace_broker.durations import parse_duration
from headrace_broker.errors import ConfigurationError, InvalidDuration, PayloadNotSerializable, TargetError

from . import completing
from .connecting import with_client
from .each import EachLine
from .exits import FAILED
from .json_input import parse_json
from .options import Actor, AsJson, InstanceId, Namespace, Url
from .output import note, print_json

if TYPE_CHECKING:
    from headrace.client import Client
    from headrace.flow import Flow

_PAYLOAD: Final = "JSON, @FILE, or - for stdin."
_CONFLICTS: Final = ("fail", "use_existing")


def start(
    flow: Annotated[
        str,
        typer.Argument(
            metavar="FLOW", help="A registered flow's name, or TARGET:flow.", autocompletion=completing.flow_names
        ),
    ],
    input: Annotated[
        str | None, typer.Option("--input", "-i", help=f"The input: {_PAYLOAD}", show_default=False)
    ] = None,
    id: Annotated[
        str | None,
        typer.Option(
            "--id",
            help="The instance's id; else a random one. With --each: made of each input, such as 'order-{id}'; {#} is "
            "the line's number.",
            show_default=False,
        ),
    ] = None,
    each: Annotated[
        str | None,
        typer.Option(
            "--each",
            metavar="FILE",
            help="Start an instance per line of a file of JSON Lines, or of stdin (-). All are checked first.",
            show_default=False,
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end and print the result.")] = False,
    timeout: Annotated[str | None, typer.Option("--timeout", help="For --wait: at most so long, such as 30s.")] = None,
    conflict: Annotated[str, typer.Option("--conflict", help="If the id is live: fail or use_existing.")] = "fail",
    actor: Actor = "",
    url: Url = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Start an instance of a flow, or one for each line of a file."""
    if conflict not in _CONFLICTS:
        raise ConfigurationError(f"--conflict is one of {', '.join(_CONFLICTS)}; got {conflict!r}.")
    policy: Any = conflict
    if each is not None:
        if input is not None or wait or timeout is not None:
            raise ConfigurationError(
                "--each has its inputs from FILE and does not wait: no --input, --wait, --timeout."
            )
        from headrace.starting import Manner

        job = EachLine(each, find_flow(flow), id, Manner(policy, actor), as_json)
        if not with_client(url, namespace, job.run):
            raise typer.Exit(FAILED)
        return
    check_timeout(timeout, wait=wait)
    value = read_payload("--input", input)
    what = find_flow(flow)

    async def run(client: Client) -> None:
        handle = await client.start(what, value, id=id, conflict=policy, actor=actor)
        if not wait:
            if as_json:
                print_json({"id": handle.id, "incarnation": handle.incarnation})
            else:
                print(handle.id, flush=True)
            return
        if not as_json:
            note(f"started {handle.id}; waiting for its end (Ctrl-C leaves it running)")
        result = await handle.result(timeout)
        print_json({"id": handle.id, "incarnation": handle.incarnation, "result": result} if as_json else result)

    with_client(url, namespace, run)


def signal(
    id: InstanceId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The signal's name.")],
    payload: Annotated[str | None, typer.Option("--payload", "-p", help=_PAYLOAD, show_default=False)] = None,
    actor: Actor = "",
    url: Url = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Send a signal to a live instance."""
    value = read_payload("--payload", payload)
    with_client(url, namespace, lambda client: client.signal(id, name, value, actor=actor))
    print_json({"id": id, "signal": name}) if as_json else print(f"signal {name} sent to {id}", flush=True)


def cancel(
    id: InstanceId,
    reason: Annotated[str, typer.Option("--reason", help="Why; goes into the history.")] = "",
    actor: Actor = "",
    url: Url = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Ask for a live instance to be cancelled."""
    with_client(url, namespace, lambda client: client.cancel(id, reason=reason, actor=actor))
    print_json({"id": id, "cancel": "requested"}) if as_json else print(f"cancel of {id} requested", flush=True)


def read_payload(option: str, given: str | None) -> Any:
    """The JSON that an option gives, None without one. Raises `PayloadNotSerializable`, `ConfigurationError`."""
    if given is None:
        return None
    source, text = option, given
    if given == "-":
        source = "stdin"
        try:
            text = sys.stdin.read()
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{option} -: stdin cannot be read: {error}") from None
    elif given.startswith("@"):
        source = given[1:]
        try:
            text = Path(source).expanduser().read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{option} {given}: the file cannot be read: {error}") from None
    try:
        return parse_json(text)
    except PayloadNotSerializable as error:
        hint = f"A string needs double quotes inside the shell's: {option} '\"text\"'." if source == option else ""
        raise PayloadNotSerializable(f"{source} is {error} {hint}".strip()) from None


def check_timeout(timeout: str | None, *, wait: bool) -> None:
    """Raises `ConfigurationError` for a --timeout that is none, or has nothing to bound."""
    if timeout is None:
        return
    if not wait:
        raise ConfigurationError("--timeout says how long --wait waits; give both, or leave it out.")
    try:
        parse_duration(timeout)
    except InvalidDuration as error:
        raise ConfigurationError(f"--timeout cannot be {timeout!r}: {error}") from None


def find_flow(text: str) -> Flow[Any, Any] | str:
    """The flow that FLOW names: a name as it is, `TARGET:flow` loaded. Raises `TargetError`."""
    if ":" not in text and not (text.endswith(".py") and Path(text).is_file()):
        return text
    from headrace.targets import load_target

    place, _, name = text.partition(":")
    refused: TargetError | None = None
    try:
        flows = load_target(text).flows
        if len(flows) == 1:
            return next(iter(flows.values()))
    except TargetError as error:
        refused = error
    # The part behind the colon may be a flow's own name; an attribute of that name, which is no flow, does not matter.
    try:
        flows = load_target(place).flows
    except TargetError as error:
        raise refused or error from None
    if (named := flows.get(name)) is not None:
        return named
    if refused is not None:
        raise refused
    known = f"the flows of {place} are: {', '.join(sorted(flows))}" if flows else f"{place} has no flows"
    problem = f"{name} is a task, not a flow" if name else "it does not say which flow to start"
    raise TargetError(f"Target {text!r}: {problem}; {known}." + (f" Write {place}:FLOW." if flows else ""))


def add_to(app: typer.Typer) -> None:
    for command in (start, signal, cancel):
        app.command()(command)
