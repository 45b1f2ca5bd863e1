"""`doctor`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from headrace_broker.durations import format_duration
from headrace_broker.errors import ServerUnreachable

from .connecting import with_client
from .exits import FAILED, UNREACHABLE, WARNINGS
from .options import AsJson, Namespace, Url, server_url
from .output import console, print_json

if TYPE_CHECKING:
    from headrace.client import Client
    from headrace_broker.facts import Facts

    from .checks import Finding


def doctor(url: Url = None, namespace: Namespace = None, as_json: AsJson = False) -> None:
    """Look for what is wrong: server, partitions, queues, workers, instances; say what mends it."""
    from .checks import Finding, examine

    name = namespace or os.environ.get("HEADRACE_NAMESPACE") or "headrace"
    try:
        facts, offset_ms = with_client(url, namespace, lambda client: _look(client, name))
    except ServerUnreachable as error:
        mend = "Start it, or name another: --url, HEADRACE_URL"
        _report(None, 0, [Finding("server_unreachable", "error", str(error), mend, (server_url(url),))], as_json)
        raise typer.Exit(UNREACHABLE) from None
    findings = examine(facts, offset_ms)
    _report(facts, offset_ms, findings, as_json)
    if findings:
        raise typer.Exit(FAILED if findings[0].severity == "error" else WARNINGS)


async def _look(client: Client, namespace: str) -> tuple[Facts, int]:
    """The facts, and how far this machine's clock is ahead of the server's (ms), to half a round trip.

    Not by way of an opened namespace: that would make it.
    """
    from headrace_broker.connection import raise_error
    from headrace_broker.conversations import converse_async
    from headrace_broker.facts import read_facts

    link = await client.session.link()
    facts = await converse_async(link, read_facts(namespace))
    before = time.time()
    (reply,) = await link.exchange([("TIME",)])
    after = time.time()
    seconds, micros = raise_error(reply)
    return facts, round(((before + after) / 2 - int(seconds) - int(micros) / 1e6) * 1000)


def _report(facts: Facts | None, offset_ms: int, findings: Sequence[Finding], as_json: bool) -> None:
    if as_json:
        status = findings[0].severity if findings else "ok"
        print_json({"status": status, "findings": findings, "facts": facts and _plain(facts, offset_ms)})
        return
    from rich.table import Table
    from rich.text import Text

    if facts is not None:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for name, value in _summary(facts, offset_ms).items():
            table.add_row(name, Text(value))
        console().print(table)
        console().print()
    for finding in findings:
        style = "red" if finding.severity == "error" else "yellow"
        console().print(Text.assemble((finding.severity, style), " ", (finding.code, "bold"), "  ", finding.means))
        console().print(Text.assemble("  mend: ", finding.mend))
    if not findings:
        console().print(Text("all is well", style="green"))


def _summary(facts: Facts, offset_ms: int) -> dict[str, str]:
    server = facts.server
    parts = facts.partitions or ()
    on = {True: f"append-only file, fsync {server.fsync or '?'}", False: "append-only file off", None: "not known"}
    limit = f" of {server.max_memory / 1e6:,.0f} MB" if server.max_memory else ", no limit"
    owned = sum(part.owner_ttl_ms is not None for part in parts)
    waiting = sum(part.events.length for part in parts), sum(part.starts.length for part in parts)
    return {
        "server": f"{(server.kind or 'unknown').capitalize()} {server.version or ''}".strip(),
        "persistence": on[server.append_only],
        "eviction": server.eviction or "not known",
        "memory": "not known" if server.used_memory is None else f"{server.used_memory / 1e6:,.1f} MB{limit}",
        "clock": f"{format_duration(abs(offset_ms))} {'ahead of' if offset_ms >= 0 else 'behind'} the server's",
        "namespace": facts.namespace + ("" if facts.partitions is not None else " (not there)"),
        "partitions": f"{len(parts)}, {owned} with an owner",
        "inboxes": f"{waiting[0]:,} events, {waiting[1]:,} starts, {facts.signals.length:,} raw signals",
        "workers": f"{len(facts.workers)}, serving {len({s for w in facts.workers for s in w.streams})} queues",
        "tasks": f"{sum(queue.length for queue in facts.queues):,} handed out or waiting",
        "flows": str(len(facts.flows)),
        **({"left out": ", ".join(facts.left_out)} if facts.left_out else {}),
    }


def _plain(facts: Facts, offset_ms: int) -> dict[str, Any]:
    server = facts.server
    return {
        "server": {
            "kind": server.kind,
            "version": server.version,
            "append_only": server.append_only,
            "fsync": server.fsync,
            "eviction": server.eviction,
            "used_memory": server.used_memory,
            "max_memory": server.max_memory,
            "refused": dict(server.refused),
        },
        "clock_offset_ms": offset_ms,
        "namespace": facts.namespace,
        "partitions": facts.partitions,
        "signals": facts.signals,
        "queues": [{"stream": one.stream, "length": one.length, "tasks": sorted(one.tasks)} for one in facts.queues],
        "workers": [worker._asdict() for worker in facts.workers],
        "flows": [flow.name for flow in facts.flows],
        "blocked": sum(part.blocked for part in facts.partitions or ()),
        "quarantined": facts.quarantined,
        "left_out": facts.left_out,
    }


def add_to(app: typer.Typer) -> None:
    app.command()(doctor)
