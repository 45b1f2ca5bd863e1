"""The bare loop: Headrace's round trips with no engine. The yardstick of DESIGN 10.

    starts ─┐                                          ┌─▶ tasks ──▶ WORKER (one process, a no-op)
    events ─┴─▶ ORCHESTRATOR ── WATCH, MULTI … EXEC ───┤                │
      ▲                                                └─▶ state, output, history, cursor
      └───────────────────────── results ───────────────────────────────┘

* **Orchestrator**, one process: one XREAD takes up to 512 entries of each inbox (`events`, `starts`) of
  each partition. Each partition's batch is one MULTI/EXEC on that partition's own connection, `meta` being
  watched: per result HSET (state and output), RPUSH (history), XADD (next dispatch, id `<commit>-<n>`); per
  batch XTRIM of both inboxes and HSET of the cursors. `WATCH meta` and `HMGET meta` ride behind the
  previous EXEC. The commits of one turn are sent together and then awaited together.
* **Worker**, one process: XREADGROUP takes up to 64 tasks of one partition and moves on to the next; it
  blocks, with COUNT 1 over all partitions, only when all were empty. Results, XACK and XDEL are one
  MULTI/EXEC.

Both pack with hiredis directly, one buffer a batch, and use redis-py connections (`send_packed_command`,
`read_response`), RESP 2, no library retries. Nothing is decoded, validated or fenced by dispatch id: what
Headrace costs beyond this is the engine.

**What is timed**: every instance is in `starts` before the clock starts. The clock runs in the orchestrator
from its first XREAD to the reply of the commit that ends the last instance. A step is one result committed;
`steps = instances * steps per instance`.

    python benchmarks/bare_loop.py [--url URL] [--instances 2000] [--steps 10] [--rounds 3] [--json]

Without `--url` it starts a server of its own (append-only file, fsync each second) and stops it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, cast
from zlib import crc32

import hiredis
from bench_server import own_server
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool
from redis.retry import Retry

READ_EVENTS = 512
READ_TASKS = 64
GROUP = b"workers"
CONSUMER = b"bare-1"
#: Seconds without any progress after which a side gives up; a bare loop that stands this long is broken.
STALL = 20.0
BLOCK_MS = b"100"

Command = tuple[bytes, ...]
#: hiredis' own annotation allows a tuple of one only.
_pack = cast("Callable[[Command], bytes]", hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType]
#: A stream entry as RESP 2 gives it: id, [field, value, field, value, ...].
Entry = tuple[bytes, list[bytes]]


@dataclasses.dataclass(frozen=True)
class Result:
    """One run. CPU seconds are user + system; the server's include its background threads (AOF fsync)."""

    steps_per_second: float
    seconds: float
    steps: int
    orchestrator_cpu_seconds: float
    worker_cpu_seconds: float
    server_cpu_seconds: float
    commits: int


class Wire(Protocol):
    """The part of a redis-py connection that is used here (redis-py's own annotations are partial)."""

    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def send_packed_command(self, command: Sequence[bytes], check_health: bool = True) -> None: ...
    def read_response(self) -> Any: ...


class Keys:
    """The keys of one namespace; all of a partition carry the hash tag `{ns:p}`, as Headrace's do."""

    def __init__(self, namespace: str, partitions: int) -> None:
        tags = [b"{%b:%d}" % (namespace.encode(), p) for p in range(partitions)]
        self.partitions = partitions
        self.meta = [tag + b":meta" for tag in tags]
        self.events = [tag + b":events" for tag in tags]
        self.starts = [tag + b":starts" for tag in tags]
        self.tasks = [tag + b":tasks" for tag in tags]
        self.instance = [tag + b":i:" for tag in tags]
        self.history = [tag + b":h:" for tag in tags]

    def partition(self, instance: bytes) -> int:
        return crc32(instance) % self.partitions

    def all(self, instances: Iterable[bytes]) -> Iterator[bytes]:
        """Every key a run can leave, so that it can be removed without a scan."""
        yield from (*self.meta, *self.events, *self.starts, *self.tasks)
        for instance in instances:
            p = self.partition(instance)
            yield self.instance[p] + instance
            yield self.history[p] + instance


def connect(url: str) -> Wire:
    """A connection of its own: RESP 2, no retries (a repeated XADD or EXEC would falsify the count)."""
    make = cast(Any, ConnectionPool).from_url  # its keyword arguments are not annotated
    wire = cast(Wire, make(url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=STALL).make_connection())
    wire.connect()
    return wire


def pack(commands: Iterable[Command]) -> list[bytes]:
    """One buffer, one sendall: redis-py's `pack_commands` costs four times as much, and a send every 6 kB."""
    return [b"".join(map(_pack, commands))]


def call(wire: Wire, commands: Sequence[Command]) -> list[Any]:
    """One round trip; an error in a reply is raised."""
    wire.send_packed_command(pack(commands))
    return [wire.read_response() for _ in commands]


def read_exec(wire: Wire, queued: int) -> None:
    """Read the replies of MULTI, `queued` commands and EXEC; loud when the watch failed or a command did."""
    for _ in range(queued + 1):
        wire.read_response()
    replies = wire.read_response()
    if replies is None:
        raise RuntimeError("EXEC was refused: `meta` was written by somebody else")
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply


class Partition:
    """One partition of the bare orchestrator: its connection, cursors and commit number."""

    def __init__(self, url: str, keys: Keys, number: int, steps: int) -> None:
        self.wire = connect(url)
        self.tasks = keys.tasks[number]
        self.meta = keys.meta[number]
        self.events = keys.events[number]
        self.starts = keys.starts[number]
        self.instance = keys.instance[number]
        self.history = keys.history[number]
        self.steps = steps
        self.commit = 0
        self.ended = 0
        self.cursor = {self.events: b"0-0", self.starts: b"0-0"}
        self.guard: list[Command] = [
            (b"WATCH", self.meta),
            (b"HMGET", self.meta, b"commit", b"events", b"starts"),
        ]
        call(self.wire, self.guard)
        self._queued = 0

    def send(self, batch: Sequence[tuple[bytes, list[Entry]]]) -> None:
        """Turn one batch of both inboxes into one commit and send it, the next WATCH and HMGET behind it."""
        self.commit += 1
        last = b"%d" % self.steps
        instance_key, history_key, tasks = self.instance, self.history, self.tasks
        number, n = b"%d-" % self.commit, 0
        commands: list[Command] = [(b"MULTI",)]
        add = commands.append
        for stream, entries in batch:
            started = stream == self.starts
            for entry, fields in entries:
                instance, step, value = fields[1], fields[3], fields[5]
                if not started and step == last:
                    add((b"HSET", instance_key + instance, b"state", b"completed", b"o:" + step, value))
                    add((b"RPUSH", history_key + instance, b"completed %b %b" % (step, entry)))
                    self.ended += 1
                    continue
                following = b"%d" % (int(step) + 1)
                n += 1
                dispatch = number + b"%d" % n
                add((b"HSET", instance_key + instance, b"state", b"running " + dispatch, b"o:" + step, value))
                add((b"RPUSH", history_key + instance, b"completed %b %b" % (step, entry)))
                add((b"XADD", tasks, dispatch, b"i", instance, b"k", following, b"v", value))
            self.cursor[stream] = entries[-1][0]
            add((b"XTRIM", stream, b"MINID", after(entries[-1][0])))
        cursors = (b"events", self.cursor[self.events], b"starts", self.cursor[self.starts])
        add((b"HSET", self.meta, b"commit", b"%d" % self.commit, *cursors))
        self._queued = len(commands) - 1
        add((b"EXEC",))
        commands += self.guard
        self.wire.send_packed_command(pack(commands))

    def settle(self) -> None:
        """Await the commit that was sent, and what it left in `meta`."""
        read_exec(self.wire, self._queued)
        self.wire.read_response()
        commit = self.wire.read_response()[0]
        if commit != b"%d" % self.commit:
            raise RuntimeError(f"expected commit {self.commit} in `meta`, found {commit!r}")


def after(entry: bytes) -> bytes:
    """The smallest stream id above `entry`: XTRIM MINID keeps its own argument."""
    milliseconds, _, sequence = entry.partition(b"-")
    return b"%b-%d" % (milliseconds, int(sequence) + 1)


def orchestrate(url: str, namespace: str, partitions: int, instances: int, steps: int, pipe: Pipe) -> None:
    """The orchestrator process; sends back (seconds, CPU seconds, commits)."""
    keys = Keys(namespace, partitions)
    reader = connect(url)
    parts = [Partition(url, keys, number, steps) for number in range(partitions)]
    owner = {stream: part for part in parts for stream in (part.events, part.starts)}
    streams = (*keys.events, *keys.starts)
    head = (b"XREAD", b"COUNT", b"%d" % READ_EVENTS, b"BLOCK", BLOCK_MS, b"STREAMS", *streams)
    pipe.send("ready")
    pipe.recv()
    cpu, start = time.process_time(), time.perf_counter()
    progress = start
    while sum(part.ended for part in parts) < instances:
        read = (*head, *(owner[stream].cursor[stream] for stream in streams))
        found = cast("list[tuple[bytes, list[Entry]]] | None", call(reader, [read])[0])
        if not found:
            if time.perf_counter() - progress > STALL:
                raise RuntimeError(f"no event for {STALL:.0f} s: the worker is gone or the loop lost one")
            continue
        batches: dict[Partition, list[tuple[bytes, list[Entry]]]] = {}
        for stream, entries in found:
            batches.setdefault(owner[stream], []).append((stream, entries))
        for part, batch in batches.items():
            part.send(batch)
        for part in batches:
            part.settle()
        progress = time.perf_counter()
    seconds = time.perf_counter() - start
    pipe.send((seconds, time.process_time() - cpu, sum(part.commit for part in parts)))
    pipe.recv()


def no_op(value: bytes) -> bytes:
    """The task."""
    return value


def work(url: str, namespace: str, partitions: int, pipe: Pipe) -> None:
    """The worker process; sends back its CPU seconds when told to stop."""
    keys = Keys(namespace, partitions)
    wire = connect(url)
    events = dict(zip(keys.tasks, keys.events, strict=True))
    group = (b"XREADGROUP", b"GROUP", GROUP, CONSUMER, b"COUNT")
    fetch = [(*group, b"%d" % READ_TASKS, b"STREAMS", tasks, b">") for tasks in keys.tasks]
    wait = (*group, b"1", b"BLOCK", BLOCK_MS, b"STREAMS", *keys.tasks, *([b">"] * partitions))
    pipe.send("ready")
    pipe.recv()
    cpu = time.process_time()
    turn = empty = 0
    while True:
        if empty >= partitions:
            if pipe.poll():
                break
            found = call(wire, [wait])[0]
        else:
            found = call(wire, [fetch[turn]])[0]
            turn = (turn + 1) % partitions
        if not found:
            empty = 0 if empty >= partitions else empty + 1
            continue
        empty = 0
        for tasks, entries in cast("list[tuple[bytes, list[Entry]]]", found):
            inbox = events[tasks]
            commands: list[Command] = [(b"MULTI",)]
            for _, fields in entries:
                output = no_op(fields[5])
                commands.append((b"XADD", inbox, b"*", b"i", fields[1], b"k", fields[3], b"v", output))
            ids = [entry for entry, _ in entries]
            commands.append((b"XACK", tasks, GROUP, *ids))
            commands.append((b"XDEL", tasks, *ids))
            commands.append((b"EXEC",))
            wire.send_packed_command(pack(commands))
            read_exec(wire, len(commands) - 2)
    pipe.send(time.process_time() - cpu)


def run(url: str, instances: int, steps: int, partitions: int = 4) -> Result:
    """Run `instances` chains of `steps` no-op steps, all of them at once; its keys are removed afterwards.

    Raises RuntimeError when a process died or nothing moved for 20 seconds, or when the outcome is not
    `steps` outputs and `steps + 1` history entries (the start's too) in each instance.
    """
    if instances < 1 or steps < 1:
        raise ValueError(f"expected at least one instance of at least one step, found {instances} of {steps}")
    namespace = f"bare-{os.urandom(4).hex()}"
    keys = Keys(namespace, partitions)
    ids = [b"bare-%08d" % number for number in range(instances)]
    wire = connect(url)
    try:
        call(wire, [(b"XGROUP", b"CREATE", tasks, GROUP, b"0", b"MKSTREAM") for tasks in keys.tasks])
        for some in chunks(ids, 500):
            call(
                wire,
                [(b"XADD", keys.starts[keys.partition(i)], b"*", b"i", i, b"k", b"0", b"v", b"1") for i in some],
            )
        with (
            process(work, url, namespace, partitions) as worker,
            process(orchestrate, url, namespace, partitions, instances, steps) as orchestrator,
        ):
            server_cpu = server_cpu_seconds(wire)
            worker.send("go")
            orchestrator.send("go")
            seconds, cpu, commits = cast("tuple[float, float, int]", receive(orchestrator, 600))
            server_cpu = server_cpu_seconds(wire) - server_cpu
            worker.send("stop")
            worker_cpu = cast(float, receive(worker, STALL))
            orchestrator.send("stop")
        check(wire, keys, ids, steps)
    finally:
        for some in chunks(list(keys.all(ids)), 1000):
            call(wire, [(b"UNLINK", *some)])
        wire.disconnect()
    total = instances * steps
    return Result(total / seconds, seconds, total, cpu, worker_cpu, server_cpu, commits)


def check(wire: Wire, keys: Keys, ids: Sequence[bytes], steps: int) -> None:
    """A loop that loses or repeats a step must not be a yardstick."""
    for some in chunks(ids, 500):
        partitions = [keys.partition(i) for i in some]
        sizes = call(wire, [(b"HLEN", keys.instance[p] + i) for p, i in zip(partitions, some, strict=True)])
        entries = call(wire, [(b"LLEN", keys.history[p] + i) for p, i in zip(partitions, some, strict=True)])
        for instance, size, entry in zip(some, sizes, entries, strict=True):
            if (size, entry) != (steps + 2, steps + 1):  # `state` and the input beside the outputs
                raise RuntimeError(
                    f"{instance.decode()}: expected {steps} steps, found {size - 2}, in history {entry - 1}"
                )


def echo(url: str, there: bytes, back: bytes, pipe: Pipe) -> None:
    """The far side of `two_hops`."""
    wire = connect(url)
    cursor = b"0-0"
    pipe.send("ready")
    while not pipe.poll():
        found = call(wire, [(b"XREAD", b"COUNT", b"1", b"BLOCK", BLOCK_MS, b"STREAMS", there, cursor)])[0]
        if found:
            cursor, fields = found[0][1][0]
            call(wire, [(b"XADD", back, b"*", *fields)])


def two_hops(url: str, n: int) -> float:
    """Seconds, median of `n`: XADD here, blocked XREAD in another process, XADD back, blocked XREAD here."""
    tag = b"{bare-%b}" % os.urandom(4).hex().encode()
    there, back = tag + b":there", tag + b":back"
    wire, cursor, taken = connect(url), b"0-0", list[float]()
    try:
        with process(echo, url, there, back) as far:
            for number in range(n + n // 10 + 1):
                start = time.perf_counter()
                # The read is sent behind the XADD, so that it is already blocked when the answer comes.
                found = call(
                    wire,
                    [
                        (b"XADD", there, b"*", b"n", b"%d" % number),
                        (b"XREAD", b"COUNT", b"1", b"BLOCK", b"5000", b"STREAMS", back, cursor),
                    ],
                )[1]
                taken.append(time.perf_counter() - start)
                if not found:
                    raise RuntimeError("no echo within 5 s")
                cursor = found[0][1][0][0]
            far.send("stop")
    finally:
        call(wire, [(b"UNLINK", there, back)])
        wire.disconnect()
    return statistics.median(taken[n // 10 + 1 :])  # the first tenth warms caches up


def server_cpu_seconds(wire: Wire) -> float:
    """What the server's threads have used, from INFO."""
    lines = cast(bytes, call(wire, [(b"INFO", b"cpu")])[0]).decode().splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    return float(facts["used_cpu_user"]) + float(facts["used_cpu_sys"])


def chunks(items: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def receive(pipe: Pipe, timeout: float) -> object:
    """The next message; a process that died or is silent for `timeout` seconds is an error, never a hang."""
    try:
        if pipe.poll(timeout):
            return cast(object, pipe.recv())
    except EOFError:
        raise RuntimeError("a process of the bare loop died; its traceback is on stderr") from None
    raise RuntimeError(f"a process of the bare loop said nothing for {timeout:.0f} s")


@contextmanager
def process(target: Callable[..., None], *arguments: object) -> Generator[Pipe]:
    """A spawned process with a pipe as its last argument; ready when this yields, gone when it leaves."""
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    child: BaseProcess = context.Process(target=target, args=(*arguments, far), daemon=True)
    child.start()
    far.close()
    try:
        receive(near, STALL)
        yield near
        child.join(STALL)
    finally:
        if child.is_alive():
            child.kill()
            child.join()
        near.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="The bare loop: steps/s of Headrace's round trips with no engine.")
    parser.add_argument("--url", help="a running server; without it one is started and stopped")
    parser.add_argument("--instances", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hops", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with own_server(options.url) as url:
        results = [run(url, options.instances, options.steps, options.partitions) for _ in range(options.rounds)]
        hops = two_hops(url, options.hops)
    median = statistics.median(result.steps_per_second for result in results)
    if options.json:
        runs = [dataclasses.asdict(result) for result in results]
        print(json.dumps({"steps_per_second": median, "two_hops_seconds": hops, "runs": runs}))
        return
    for result in results:
        print(
            f"{result.steps_per_second:9,.0f} steps/s  {result.seconds:6.3f} s  {result.commits} commits"
            f"  cpu: orchestrator {result.orchestrator_cpu_seconds:.2f}"
            f"  worker {result.worker_cpu_seconds:.2f}  server {result.server_cpu_seconds:.2f}"
        )
    print(f"{median:9,.0f} steps/s, median of {options.rounds}; two stream hops {hops * 1000:.3f} ms")


if __name__ == "__main__":
    main()
