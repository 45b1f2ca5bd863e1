"""How deliveries end that run in work-horses: each is reported once by its horse, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace_broker import codec, payloads, values
from headrace_broker.connection import call
from headrace_broker.messages import GarbageMessage, ResultMessage, StartedMessage
from support.feeding import Feed
from support.waiting import wait_until

from .conftest import PATIENCE, STREAM, StartRq, until_clean

pytestmark = [pytest.mark.real_only, pytest.mark.leaves_keys("namespace", "outputs")]


def value_of(result: ResultMessage) -> object:
    assert result.outcome == "completed", result
    assert result.value is not None
    return payloads.load(result.value)


def test_tasks_run_in_forked_processes_and_are_settled_by_them(feed: Feed, start: StartRq) -> None:
    worker = start(rq=2)
    handed = [worker.hand_out("double", number) for number in range(20)]
    for number, message in enumerate(handed):
        result = feed.result(message, PATIENCE)
        assert value_of(result) == 2 * number
        assert (result.token, result.incarnation) == (message.token, message.incarnation)
        assert result.began > 1_600_000_000_000
    ids = [value_of(feed.result(worker.hand_out("process_ids"), PATIENCE)) for _ in range(2)]
    assert isinstance(ids[0], tuple)
    assert isinstance(ids[1], tuple)
    assert ids[0][0] != ids[1][0], "a horse runs one task"
    assert value_of(feed.result(worker.hand_out("later", 7, instance="i"), PATIENCE)) == "i 7"
    assert feed.result(worker.hand_out("choose", 7), PATIENCE).route == "odd"
    until_clean(feed)
    assert len(feed.of(ResultMessage)) == len(handed) + 4, "each was reported once"


@pytest.mark.servers("redis")
def test_failures_say_what_the_task_raised(feed: Feed, start: StartRq) -> None:
    worker = start()
    failed = feed.result(worker.hand_out("fail", "no such luck"), PATIENCE)
    assert failed.outcome == "failed"
    assert failed.failure is not None
    assert (failed.failure.type, failed.failure.message) == ("ValueError", "no such luck")
    assert "in fail" in failed.failure.traceback
    assert "headrace_workers" not in failed.failure.traceback
    left = feed.result(worker.hand_out("leave"), PATIENCE)
    assert left.outcome == "failed"
    assert left.failure is not None
    assert left.failure.type == "SystemExit"
    mismatch = feed.result(worker.hand_out("double", "two"), PATIENCE)
    assert mismatch.failure is not None
    assert (mismatch.failure.type, mismatch.failure.may_retry) == ("PayloadMismatch", False)
    assert feed.result(worker.hand_out("no_such_task"), PATIENCE).outcome == "unknown"
    garbage = feed.message("double", 1)
    feed.add(garbage.instance, STREAM, b"not a message")
    wait_until(lambda: feed.of(GarbageMessage), PATIENCE, "garbage to be reported")
    until_clean(feed)


@pytest.mark.full_only
@pytest.mark.servers("redis")
def test_large_values_come_and_go_by_reference(feed: Feed, start: StartRq) -> None:
    worker = start()
    result = feed.result(worker.hand_out("blow", 100_000), PATIENCE)
    assert result.value is not None
    (key,), _ = values.needs(result.value)
    assert codec.decode(call(feed.link, "GET", key)) == b"x" * 100_000
    assert 0 < call(feed.link, "PTTL", key) <= 3_600_000
    head = 5  # bytes before bytes in MessagePack
    exact = feed.result(worker.hand_out("blow", codec.PAYLOAD_LIMIT - head), PATIENCE)
    reference = values.parse(exact.value or b"")
    assert isinstance(reference, values.Reference)
    assert reference.size == codec.PAYLOAD_LIMIT
    beyond = feed.result(worker.hand_out("blow", codec.PAYLOAD_LIMIT - head + 1), PATIENCE)
    assert beyond.failure is not None
    assert (beyond.outcome, beyond.failure.type, beyond.failure.may_retry) == ("failed", "PayloadTooLarge", False)
    message = feed.message("double")
    slot = values.output("given")
    call(
        feed.link,
        "HSET",
        feed.namespace.of(message.instance).outputs(message.incarnation),
        "given",
        values.inline(b"\x15"),
    )
    given = worker.hand_out("double", instance=message.instance, value=slot)
    assert value_of(feed.result(given, PATIENCE)) == 42
    until_clean(feed)


@pytest.mark.servers("redis")
def test_a_time_out_ends_the_task_where_it_is(feed: Feed, start: StartRq, tmp_path: Path) -> None:
    worker = start()
    message, horse, _ = worker.begin(tmp_path / "polite", timeout_ms=300)
    result = feed.result(message, PATIENCE)
    assert result.outcome == "timed_out"
    assert result.failure is not None
    assert result.failure.type == "TaskTimedOut"
    assert "0.3 s" in result.failure.message
    assert "in block" in result.failure.traceback
    for internal in ("OutOfTime", "horse.py", "headrace_workers"):
        assert internal not in result.failure.traceback
    assert result.failure.traceback.endswith(f"TaskTimedOut: {result.failure.message}\n")
    assert [started.dispatch for started in feed.of(StartedMessage)] == [message.dispatch]
    # What swallows the exception is killed.
    message, horse, _ = worker.begin(tmp_path / "stubborn", "block_stubbornly", timeout_ms=300)
    result = feed.result(message, PATIENCE)
    assert result.outcome == "timed_out"
    wait_until(lambda: not Path(f"/proc/{horse}").exists(), PATIENCE, "the horse to be killed")
    assert value_of(feed.result(worker.hand_out("double", 4), PATIENCE)) == 8
    until_clean(feed)


@pytest.mark.full_only
@pytest.mark.servers("redis")
def test_a_task_may_start_processes(feed: Feed, start: StartRq) -> None:
    worker = start()
    message = worker.hand_out("spawn", ["echo", str(os.getpid())])
    assert value_of(feed.result(message, PATIENCE)) == f"{os.getpid()}\n"
    until_clean(feed)


@pytest.mark.full_only
@pytest.mark.servers("redis")
def test_a_stock_rq_worker_may_join(feed: Feed, start: StartRq, server_url: str, tmp_path: Path) -> None:
    worker = start(lease_ms=2000)
    first, _, _ = worker.begin(tmp_path / "blocked")
    command = [sys.executable, "-m", "rq.cli", "worker", "--url", server_url, "--name", f"stock-{os.getpid()}"]
    command += ["--serializer", "headrace_workers.rq.serializer.MessagePack"]
    environment = {
        "HEADRACE_URL": server_url,
        "HEADRACE_NAMESPACE": feed.namespace.keys.ns,
        "HEADRACE_TARGETS": json.dumps([str(Path(__file__).with_name("chores.py"))]),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    stock = subprocess.Popen(
        [*command, f"headrace:{feed.namespace.keys.ns}:default"],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for number in range(10):  # more than the bridge has slots
            result = feed.result(worker.hand_out("double", number), PATIENCE)
            assert value_of(result) == 2 * number
            assert result.worker == f"stock-{os.getpid()}"
        (tmp_path / "blocked").unlink()
        assert feed.result(first, PATIENCE).outcome == "completed"
        until_clean(feed)
    finally:
        stock.terminate()
        stock.wait(PATIENCE)
