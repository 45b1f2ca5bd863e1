"""The client without an event loop: the same methods, from any thread, that Ctrl-C, forks and exits leave whole."""

from __future__ import annotations

import gc
import inspect
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_overloads

import pytest

from headrace import Client, Handle, Start, SyncClient, SyncHandle
from headrace_broker.errors import (
    ClientClosed,
    ConfigurationError,
    InstanceExists,
    InstanceNotFound,
    InvalidRequest,
    PayloadMismatch,
)
from support.flows import Order, approval, gated, loose, orders
from support.scripts import preload
from support.waiting import wait_until

from .conftest import Hand

THREAD = "headrace-client"
RENAMED = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
}
RETYPED = (
    ("Iterable[Input | Start[Input]] | AsyncIterable[Input | Start[Input]]", "Iterable[Input | Start[Input]]"),
    ("Iterable[Any] | AsyncIterable[Any]", "Iterable[Any]"),
    ("AsyncGenerator", "Generator"),
    ("Handle[", "SyncHandle["),
)
"""Where the annotations of `Client` and `SyncClient` differ: inputs, and what is given."""


@pytest.fixture
def sync(server_url: str, namespace: str) -> Iterator[SyncClient]:
    preload(server_url)
    with SyncClient(server_url, namespace, retry_for="5s") as client:
        yield client


def methods(kind: type) -> dict[str, Any]:
    public = {name: value for name, value in vars(kind).items() if inspect.isfunction(value) and name[0] != "_"}
    return public | {name: vars(kind)[name] for name in ("__init__", "__aenter__", "__aexit__") if name in vars(kind)}


PAIRS: list[tuple[type, type, str]] = [
    *((Client, SyncClient, name) for name in methods(Client)),
    *((Handle, SyncHandle, name) for name in methods(Handle) if name != "__init__"),
]


def shape(function: Callable[..., Any], retyped: tuple[tuple[str, str], ...] = ()) -> list[tuple[object, ...]]:
    """Names, kinds, defaults and annotations of the parameters, and the return type; of each overload if there are."""
    shapes: list[tuple[object, ...]] = []
    for one in [*get_overloads(function), function]:
        found = inspect.signature(one)
        texts = [str(part.annotation) for part in found.parameters.values()] + [str(found.return_annotation)]
        for old, new in retyped:
            texts = [text.replace(old, new) for text in texts]
        shapes.append((*((part.name, part.kind, part.default) for part in found.parameters.values()), *texts))
    return shapes


@pytest.mark.parametrize(("one", "other", "name"), PAIRS)
def test_both_clients_and_both_handles_have_the_same_methods(one: type, other: type, name: str) -> None:
    twin = vars(other).get(RENAMED.get(name, name))
    assert twin is not None, f"{other.__name__} has no {name}"
    assert shape(twin) == shape(vars(one)[name], RETYPED)
    assert not inspect.iscoroutinefunction(twin)


def test_neither_has_more_than_the_other() -> None:
    assert set(methods(SyncClient)) <= set(methods(Client))
    assert set(methods(SyncHandle)) == set(methods(Handle))


def test_a_start_and_its_result(sync: SyncClient, hand: Hand) -> None:
    handle = sync.start(orders, Order(id="42"), id="a")
    assert handle.get().status == "queued"
    ending = threading.Timer(0.1, hand.complete, (handle, {"order": "42", "at": "2026-01-31T00:00:00Z"}))
    ending.start()
    assert handle.result("10s").order == "42"
    ending.join()
    assert sync.handle("a", orders).result().order == "42"
    assert sync.handle("a").result()["order"] == "42"
    assert [item.id for item in sync.list().items] == ["a"]
    assert [flow.name for flow in sync.flows()] == ["orders"]


def test_errors_are_those_of_the_client(sync: SyncClient) -> None:
    handle = sync.start(gated, 1, id="a")
    with pytest.raises(InstanceExists):
        sync.start(gated, 1, id="a")
    with pytest.raises(PayloadMismatch):
        handle.signal(approval, {"total": 3})
    handle.signal(approval, Order(id="1"))
    with pytest.raises(TimeoutError, match="'a' has not ended after 20 ms"):
        handle.result("20ms")
    with pytest.raises(InstanceNotFound):
        sync.cancel("nobody")
    with pytest.raises(ConfigurationError, match="A server URL looks like"):
        SyncClient("nonsense")


def test_a_history_is_followed(sync: SyncClient, hand: Hand) -> None:
    handle = sync.start(loose, 1, id="a")
    hand.record(handle, "1", "2")
    events = handle.events()
    assert [next(events).fields["signal"], next(events).fields["signal"]] == ["1", "2"]
    hand.record(handle, "3")
    third = next(events)
    hand.complete(handle, None)
    assert list(events) == []
    assert handle.history()[-1] == third
    assert [event.fields["signal"] for event in handle.events(after=handle.history()[0].position)] == ["2", "3"]
    with pytest.raises(InvalidRequest):
        handle.events(after="yesterday")


def test_the_inputs_of_many_starts_are_taken_in_the_callers_thread(sync: SyncClient) -> None:
    threads: set[threading.Thread] = set()

    def inputs() -> Iterator[Start[int]]:
        for number in range(1100):
            threads.add(threading.current_thread())
            yield Start(number, id=f"i{number}")
        assert sync.get("i0").status == "queued"  # which would wait for itself, did the loop take them
        yield Start(0, id="i0")

    answers = list(sync.start_many(loose, inputs()))
    assert threads == {threading.current_thread()}
    assert [answer.number for answer in answers] == list(range(1101))
    assert answers[7].handle.get().status == "queued"
    assert isinstance(answers[1100].error, InstanceExists)


def test_many_threads_share_one_client(sync: SyncClient) -> None:
    def use(number: int) -> list[str]:
        return [sync.start(loose, number, id=f"{number}-{n}").get().status for n in range(10)]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(use, range(16))) == [["queued"] * 10] * 16
    assert len(sync.list(limit=1000).items) == 160
    assert sum(thread.name == THREAD for thread in threading.enumerate()) == 1


def test_the_thread_lives_from_the_first_call_until_close(server_url: str, namespace: str) -> None:
    preload(server_url)
    client = SyncClient(server_url, namespace)
    assert not client_threads()
    client.flows()
    assert client_threads()
    client.close()
    assert not client_threads()
    client.close()
    for call in (client.flows, lambda: client.handle("a").get(), lambda: next(client.start_many(loose, [1]))):
        with pytest.raises(ClientClosed, match="The client was closed; make another one"):
            call()


def test_a_client_that_is_never_closed_ends_its_thread_when_nobody_has_it(server_url: str, namespace: str) -> None:
    preload(server_url)
    client = SyncClient(server_url, namespace)
    client.flows()
    del client
    gc.collect()
    wait_until(lambda: not client_threads(), why="the thread to end")


def test_close_ends_a_call_that_waits(sync: SyncClient, server_url: str, namespace: str) -> None:
    handle = sync.start(loose, 1, id="a")
    other = SyncClient(server_url, namespace)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(other.handle("a").result)
        following = pool.submit(lambda: list(other.handle("a").events()))
        wait_until(lambda: len(client_threads()) == 2, why="the calls to begin")
        other.flows()
        other.close()
        for call in (waiting, following):
            with pytest.raises(ClientClosed, match="The client was closed while this waited"):
                call.result(10)
    assert handle.get().status == "queued"


def test_ctrl_c_ends_a_wait_and_the_client_goes_on(sync: SyncClient, hand: Hand) -> None:
    handle = sync.start(loose, 1, id="a")
    main = threading.main_thread()
    assert main.ident is not None
    events = handle.events()
    for wait in (handle.result, lambda: next(events)):
        interrupting = threading.Timer(0.2, signal.pthread_kill, (main.ident, signal.SIGINT))
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            wait()
        interrupting.join()
    assert list(events) == []
    wait_until(lambda: hand.call("PUBSUB", "NUMSUB", hand.keys("a").ended(handle.incarnation or ""))[1] == 0)
    hand.complete(handle, "done")
    assert handle.result("10s") == "done"


def client_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


def run_script(text: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "default", "-c", text, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


FORKING = """
import os, sys
from headrace import Flow, SyncClient
from headrace.errors import ClientClosed
flow = Flow("forked").delay("1h")
client = SyncClient(sys.argv[1], sys.argv[2])
handle = client.start(flow, 1, id="parent")
events = handle.events()
child = os.fork()
if child == 0:
    assert handle.get().status == "queued"
    client.start(flow, 2, id="child")
    try:
        next(events)
    except ClientClosed as error:
        print(error, flush=True)
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(sorted(item.id for item in client.list().items))
"""


@pytest.mark.real_only
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_connects_anew_and_the_parents_client_goes_on(server_url: str, namespace: str) -> None:
    process = run_script(FORKING, server_url, namespace)
    output, complaints = process.communicate(timeout=30)
    said, code, ids = output.splitlines()
    assert said == "This was begun before the process forked; it goes on in the parent only."
    assert (code, ids, process.returncode) == ("7", "['child', 'parent']", 0)
    assert not [line for line in complaints.splitlines() if "fork() may lead to deadlocks" not in line], complaints


WAITING = """
import sys
from headrace import Flow, SyncClient
client = SyncClient(sys.argv[1], sys.argv[2])
handle = client.start(Flow("waiting").delay("1h"), 1, id="a")
try:
    print("waiting", flush=True)
    handle.result()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.real_only
def test_a_process_that_is_interrupted_and_closes_nothing_ends_quietly(server_url: str, namespace: str) -> None:
    process = run_script(WAITING, server_url, namespace)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    output, complaints = process.communicate(timeout=30)
    assert (output, complaints, process.returncode) == ("interrupted\n", "", 0)
