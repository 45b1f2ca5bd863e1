"""start, signal, cancel, ls, show: what they print, where, and their exit codes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from headrace_broker import codec, history, values, wire
from headrace_broker.connection import Server, exchange
from headrace_broker.conversations import converse
from headrace_broker.namespace import open_namespace

from .conftest import Headrace

FLOWS = """
from pydantic import BaseModel
from headrace import Flow, Signal, task

class Order(BaseModel):
    id: str

@task
def settle(order: Order) -> str:
    return order.id

orders = Flow("orders", input=Order).then(settle)
go = Flow("gone", input=Order).wait_for_signal(Signal("go", list)).then(settle, name="flaky")
by_name = Flow("settle", input=Order).then(settle)
"""
ORDER = '{"id": "42"}'


@pytest.fixture
def target(headrace: Headrace, tmp_path: Path) -> str:
    """A target, after the fixture that went to the directory it lies in."""
    (tmp_path / "shop.py").write_text(FLOWS)
    return "shop.py:orders"


def test_start_prints_the_id(headrace: Headrace, here: tuple[str, ...], target: str) -> None:
    assert headrace("start", target, "--input", ORDER, "--id", "a", *here).out == "a\n"
    outcome = headrace("start", "orders", "--input", ORDER, *here, "--json")
    assert outcome.code == 0
    assert set(outcome.json) == {"id", "incarnation"}


def test_a_task_may_have_the_name_of_a_flow(headrace: Headrace, here: tuple[str, ...], target: str) -> None:
    assert headrace("start", "shop.py:settle", "--input", ORDER, "--id", "a", *here).code == 0
    assert headrace("show", "a", *here, "--json").json["instance"]["flow"] == "settle"


def test_start_reads_files_and_stdin(
    headrace: Headrace, here: tuple[str, ...], target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "order.json").write_text(ORDER)
    assert headrace("start", target, "-i", "@order.json", *here).code == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(ORDER))
    assert headrace("start", target, "-i", "-", *here).code == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("-i", "{bad"), "error: --input is not JSON: "),
        (("-i", "NaN"), "error: --input is not JSON: NaN is not a number"),
        (("-i", "[1e999]"), "error: --input is not JSON: 1e999 is larger than a float can be; carry it as text"),
        (("-i", "@missing.json"), "error: --input @missing.json: the file cannot be read"),
        (("-i", '{"id": 7}'), "error: The input of flow 'orders' does not validate: id: "),
        ((), "error: The input of flow 'orders' does not validate: "),
        (("-i", ORDER, "--id", "x" * 300), "error: An instance id has 1 to 256 bytes; got 300."),
        (("-i", ORDER, "--conflict", "maybe"), "error: --conflict is one of fail, use_existing; got 'maybe'."),
        (("-i", json.dumps({"id": "x" * (1 << 20)})), "error: The payload has "),
    ],
)
def test_bad_input_is_exit_code_2(
    headrace: Headrace, here: tuple[str, ...], target: str, arguments: tuple[str, ...], complaint: str
) -> None:
    outcome = headrace("start", target, *arguments, *here)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(complaint)


@pytest.mark.parametrize(
    ("what", "complaint"),
    [
        ("missing.py:orders", "there is no file"),
        ("shop.py:nothing", "nothing"),
        ("json:dumps", "not a Flow"),
        ("shop.py", "it does not say which flow to start; the flows of shop.py are: gone, orders, settle. Write shop"),
        ("shop.py:Order", "Order is of type"),
        ("tasks.py:only", "only is a task, not a flow; tasks.py has no flows"),
    ],
)
def test_a_bad_target_is_exit_code_2(
    headrace: Headrace, here: tuple[str, ...], target: str, what: str, complaint: str, tmp_path: Path
) -> None:
    (tmp_path / "tasks.py").write_text("from headrace import task\n@task\ndef only() -> None: ...\n")
    outcome = headrace("start", what, "-i", ORDER, *here)
    assert outcome.code == 2
    assert complaint in outcome.err


def test_a_taken_id_is_exit_code_1(headrace: Headrace, here: tuple[str, ...], target: str) -> None:
    first = headrace("start", target, "-i", ORDER, "--id", "a", *here, "--json").json
    outcome = headrace("start", target, "-i", ORDER, "--id", "a", *here)
    assert (outcome.code, outcome.out) == (1, "")
    assert "'a' is live" in outcome.err
    again = headrace("start", target, "-i", ORDER, "--id", "a", "--conflict", "use_existing", *here, "--json")
    assert again.json == first


def test_what_is_not_there_is_exit_code_3(headrace: Headrace, here: tuple[str, ...]) -> None:
    for arguments in (("start", "orders"), ("signal", "a", "go"), ("cancel", "a"), ("show", "a")):
        outcome = headrace(*arguments, *here)
        assert (outcome.code, outcome.out) == (3, "")
        assert outcome.err.startswith("error: No ")


def test_waiting_ends_with_the_time(headrace: Headrace, here: tuple[str, ...], target: str) -> None:
    outcome = headrace("start", target, "-i", ORDER, "--id", "a", "--wait", "--timeout", "50ms", *here)
    assert outcome.code == 1
    assert "'a' has not ended after 50 ms; it goes on" in outcome.err


def test_signals_and_cancels_are_confirmed(headrace: Headrace, here: tuple[str, ...], target: str) -> None:
    headrace("start", "shop.py:go", "-i", ORDER, "--id", "a", *here)
    assert headrace("signal", "a", "go", "--payload", "[1]", *here).out == "signal go sent to a\n"
    assert headrace("signal", "a", "go", *here, "--json").json == {"id": "a", "signal": "go"}
    outcome = headrace("signal", "a", "gone", *here)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "error: Instance 'a' gets no signal 'gone': its flow 'gone' waits for go.\n"
    assert headrace("cancel", "a", "--reason", "why not", *here).out == "cancel of a requested\n"


def test_ls_prints_a_table_or_json(headrace: Headrace, here: tuple[str, ...], target: str) -> None:
    for n in range(3):
        headrace("start", target, "-i", ORDER, "--id", f"order-{n}", *here)
    table = headrace("ls", *here).out
    assert "\x1b[" not in table
    assert [line.split()[:3] for line in table.splitlines()] == [
        ["ID", "FLOW", "STATUS"],
        *([f"order-{n}", "orders", "queued"] for n in (2, 1, 0)),
    ]
    page = headrace("ls", "--limit", "2", *here, "--json").json
    assert [item["id"] for item in page["items"]] == ["order-2", "order-1"]
    rest = headrace("ls", "--cursor", page["cursor"], "--status", "queued", "--flow", "orders", *here, "--json").json
    assert ([item["id"] for item in rest["items"]], rest["cursor"]) == (["order-0"], None)


def test_ls_of_nothing_says_so_on_stderr(headrace: Headrace, here: tuple[str, ...]) -> None:
    outcome = headrace("ls", *here)
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "no instances\n")
    assert headrace("ls", *here, "--json").json == {"items": [], "cursor": None}


@pytest.mark.parametrize(
    "arguments", [("--status", "done"), ("--limit", "0"), ("--cursor", "x"), ("--since", "yesterday"), ("--limit", "x")]
)
def test_ls_with_a_bad_option_is_exit_code_2(
    headrace: Headrace, here: tuple[str, ...], arguments: tuple[str, ...]
) -> None:
    outcome = headrace("ls", *arguments, *here)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: ")


def test_show_prints_status_result_and_timeline(
    headrace: Headrace, here: tuple[str, ...], target: str, server_url: str, namespace: str
) -> None:
    inc = headrace("start", target, "-i", ORDER, "--id", "a", *here, "--json").json["incarnation"]
    link = Server(server_url).connect()
    keys = converse(link, open_namespace(namespace)).of("a")
    at = 1_900_000_000_000
    chunk = history.pack(
        [
            (at, history.DISPATCHED, 0, 0, 0, 1, 1),
            (at, history.FAILED, 0, 0, 0, 1, 1, "failed", "ValueError", "negative", "Traceback …", "w1"),
            (at, history.COMPLETED, 0, 0, 0, 1, 2, at, 1500, "w1"),
        ]
    )
    exchange(
        link,
        [
            ("HSET", keys.header("a"), "status", "completed", "ended", at, "result", "1.0"),
            ("HSET", keys.outputs(inc), "1.0", values.inline(codec.encode({"ok": True}))),
            ("RPUSH", keys.history(inc), chunk),
        ],
    )
    link.close()
    text = headrace("show", "a", *here).out
    assert "completed" in text
    assert '"ok": true' in text
    assert "attempt 1, ValueError: negative" in text
    assert "attempt 2, took 1.5 s, on w1" in text
    shown = headrace("show", "a", *here, "--json").json
    assert (shown["instance"]["status"], shown["result"]) == ("completed", {"ok": True})
    assert [event["kind"] for event in shown["history"]] == ["dispatched", "attempt_failed", "completed"]


def test_show_prints_why_it_failed(
    headrace: Headrace, here: tuple[str, ...], target: str, server_url: str, namespace: str
) -> None:
    headrace("start", target, "-i", ORDER, "--id", "a", *here)
    link = Server(server_url).connect()
    keys = converse(link, open_namespace(namespace)).of("a")
    error = wire.pack(["ValueError", "negative", "Traceback: line 3", "settle"])
    exchange(link, [("HSET", keys.header("a"), "status", "failed", "ended", 1_900_000_000_000, "error", error)])
    link.close()
    outcome = headrace("show", "a", *here)
    assert outcome.code == 0
    assert "ValueError: negative (at settle)" in outcome.out
    assert "Traceback: line 3" in outcome.out
    waited = headrace("start", target, "-i", ORDER, "--id", "a", "--conflict", "use_existing", *here)
    assert waited.code == 0  # an ended id is free


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--wait", "--timeout", "bla"), "--timeout cannot be 'bla': A duration is seconds"),
        (("--timeout", "5s"), "--timeout says how long --wait waits"),
    ],
)
def test_a_bad_timeout_starts_nothing(
    headrace: Headrace, here: tuple[str, ...], target: str, options: tuple[str, ...], complaint: str
) -> None:
    outcome = headrace("start", f"{target}:orders", "--input", ORDER, *options, *here)
    assert (outcome.code, outcome.out) == (2, "")
    assert complaint in outcome.err
    assert headrace("ls", *here).err == "no instances\n"


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 257])
def test_a_bad_signal_name_is_exit_code_2_without_a_server(headrace: Headrace, name: str) -> None:
    outcome = headrace("signal", "a", name, "--url", "redis://127.0.0.1:1/0")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("error: A signal's name has")
