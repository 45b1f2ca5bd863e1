"""Connections: replies, errors as values, and no command that is sent twice, whatever is lost."""

from __future__ import annotations

import asyncio
import inspect
import socket
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import pytest

from headrace_broker.connection import (
    Argument,
    AsyncLink,
    Command,
    Link,
    Reply,
    Server,
    Subscription,
    call,
    exchange,
    is_packing,
    raise_error,
)
from headrace_broker.connection import subscription as subscriptions
from headrace_broker.connection.redis_link import pack
from headrace_broker.errors import ConfigurationError, ServerError, ServerUnreachable
from headrace_broker.keys import Keys
from support.links import call_async
from support.proxy import Cut, CuttingProxy
from support.waiting import wait_until_async

PATIENCE = 5.0
TTL = ("PX", 60_000)


@pytest.fixture(params=["sync", "async"])
def style(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def proxy(server_url: str) -> Iterator[CuttingProxy]:
    with CuttingProxy(server_url) as running:
        yield running


@pytest.fixture
def key(namespace: str) -> str:
    """A key that may be written if it gets a TTL."""
    return Keys(namespace).partition(0).request("one")


@pytest.fixture
def counter(server_url: str, key: str) -> Counter:
    return Counter(server_url, key)


class Counter:
    """A number on the server, read past the proxy."""

    def __init__(self, url: str, key: str) -> None:
        self.key = key
        self._url = url
        self._ask("SET", key, 0, *TTL)

    @property
    def value(self) -> int:
        return int(self._ask("GET", self.key))

    def _ask(self, *command: Argument) -> Reply:
        with closing(Server(self._url).connect()) as link:
            return call(link, *command)


class Tries:
    """A link of either kind, for tests that must hold for both; the asynchronous one has a loop of its own."""

    def __init__(self, url: str, style: str, timeout: float, loop: asyncio.Runner) -> None:
        self._loop = loop
        self._link: Link | None = None
        if style == "sync":
            self._link = Server(url).connect(timeout=timeout)
        else:
            self._async = loop.run(Server(url).connect_async(timeout=timeout))

    def exchange(self, *commands: Command) -> list[Reply]:
        if self._link is not None:
            return exchange(self._link, commands)
        return self._loop.run(self._async.exchange(commands))

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
        else:
            self._loop.run(self._async.close())


@contextmanager
def tries(url: str, style: str, timeout: float = PATIENCE) -> Generator[Tries, None, None]:
    with asyncio.Runner() as loop, closing(Tries(url, style, timeout, loop)) as link:
        yield link


@pytest.fixture
async def link(server_url: str) -> AsyncIterator[AsyncLink]:
    connected = await Server(server_url).connect_async()
    try:
        yield connected
    finally:
        await connected.close()


class TestReplies:
    @pytest.mark.real_only  # fakeredis closes the connection after an error
    def test_errors_are_values(self, server_url: str, key: str, style: str) -> None:
        with tries(server_url, style) as link:
            replies = link.exchange(("SET", key, "text", *TTL), ("INCR", key), ("LPUSH", key, 1), ("GET", key))
            assert replies[0] == b"OK"
            assert isinstance(replies[1], ServerError)
            assert "not an integer" in str(replies[1])
            assert isinstance(replies[2], ServerError)
            assert "WRONGTYPE" in str(replies[2])
            assert replies[3] == b"text"
            assert link.exchange(("GET", key)) == [b"text"], "the link goes on after an error"

    def test_errors_inside_exec_are_values_too(self, server_url: str, key: str, style: str) -> None:
        with tries(server_url, style) as link:
            replies = link.exchange(("MULTI",), ("SET", key, "text", *TTL), ("INCR", key), ("GET", key), ("EXEC",))
            assert replies[:4] == [b"OK", b"QUEUED", b"QUEUED", b"QUEUED"]
            done = cast("list[Reply]", replies[4])
            assert done[0] == b"OK"
            assert isinstance(done[1], ServerError)
            assert done[2] == b"text", "EXEC does not roll back"

    def test_a_fenced_exec_is_none(self, server_url: str, key: str, style: str) -> None:
        with tries(server_url, style) as link, tries(server_url, style) as other:
            assert link.exchange(("WATCH", key)) == [b"OK"]
            assert other.exchange(("SET", key, "2", *TTL)) == [b"OK"]
            assert link.exchange(("MULTI",), ("SET", key, "3", *TTL), ("EXEC",))[2] is None
            assert other.exchange(("GET", key)) == [b"2"]

    def test_every_type_of_argument_and_reply(self, server_url: str, key: str, style: str) -> None:
        binary = bytes(range(256)) + b"\r\n$-1\r\n"
        with tries(server_url, style) as link:
            arguments: tuple[Argument, ...] = (binary, "größe\r\n", 17, -1, 0.5, "", b"")
            replies = link.exchange(
                ("DEL", key),
                ("RPUSH", key, *arguments),
                ("PEXPIRE", key, 60_000),
                ("LRANGE", key, 0, -1),
                ("LINDEX", key, 99),
            )
            assert replies[1:3] == [7, 1]
            assert replies[3] == [binary, "größe\r\n".encode(), b"17", b"-1", b"0.5", b"", b""]
            assert replies[4] is None

    def test_many_commands_and_large_ones(self, server_url: str, key: str, style: str) -> None:
        large = b"x" * 3_000_000
        with tries(server_url, style) as link:
            assert link.exchange(("SET", key, large, *TTL), ("GET", key)) == [b"OK", large]
            assert link.exchange(*[("ECHO", n) for n in range(2000)]) == [b"%d" % n for n in range(2000)]

    def test_nothing_to_do(self, server_url: str, style: str) -> None:
        with tries(server_url, style) as link:
            assert link.exchange() == []

    def test_sent_and_received_apart(self, server_url: str) -> None:
        """The partition loop reads what it asked for in the turn before."""
        with closing(Server(server_url).connect()) as link:
            link.send([("ECHO", "one"), ("ECHO", "two")])
            link.send([("ECHO", "three")])
            assert link.receive(1) == [b"one"]
            assert link.receive(2) == [b"two", b"three"]

    @pytest.mark.real_only  # fakeredis closes the connection after an error
    async def test_call_raises_errors(self, server_url: str, link: AsyncLink, key: str) -> None:
        assert await call_async(link, "SET", key, "text", *TTL) == b"OK"
        with pytest.raises(ServerError, match="not an integer"):
            await call_async(link, "INCR", key)
        with closing(Server(server_url).connect()) as sync:
            with pytest.raises(ServerError, match="not an integer"):
                call(sync, "INCR", key)
            assert call(sync, "GET", key) == b"text"

    def test_raise_error(self) -> None:
        assert raise_error(b"x") == b"x"
        with pytest.raises(ServerError):
            raise_error(ServerError("no"))

    def test_pack(self) -> None:
        assert pack([("GET", b"k"), ("PING",)]) == b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nPING\r\n"


class TestConnecting:
    @pytest.mark.parametrize("url", ["", "localhost", "http://x", "redis:/x", "redis://h:port"])
    def test_not_a_url(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="A server URL looks like"):
            Server(url)

    def test_nobody_listens(self, tmp_path: Path, style: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        for url in (f"redis://127.0.0.1:{port}", f"unix://{tmp_path}/none.sock"):
            with pytest.raises(ServerUnreachable, match="No server answers at"), tries(url, style):
                pass

    @pytest.mark.real_only
    def test_a_database_of_its_own(self, proxy: CuttingProxy, key: str, style: str) -> None:
        with tries(f"{proxy.url}/7", style) as link, tries(proxy.url, style) as other:
            link.exchange(("SET", key, "x", *TTL))
            assert other.exchange(("EXISTS", key)) == [0]
            link.exchange(("DEL", key))

    @pytest.mark.real_only
    def test_the_wrong_password_is_refused(self, proxy: CuttingProxy, style: str) -> None:
        url = proxy.url.replace("redis://", "redis://:secret@")
        with pytest.raises(ConfigurationError, match=r"(?i)user or password") as refused, tries(url, style):
            pass
        assert "secret" not in str(refused.value)

    def test_what_is_no_server_of_ours(self, style: str) -> None:
        with (
            something_else(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url,
            pytest.raises((ServerError, ServerUnreachable)),
            tries(url, style) as link,
        ):
            link.exchange(("PING",))

    def test_the_timeout_holds_for_connecting(self, style: str) -> None:
        with something_else(b"") as url, pytest.raises(ServerUnreachable), tries(url, style, timeout=0.1) as link:
            link.exchange(("PING",))


@contextmanager
def something_else(answer: bytes) -> Generator[str, None, None]:
    """The URL of a port where something gives the same answer to whatever it is sent (nothing, if empty)."""

    def serve() -> None:
        clients: list[socket.socket] = []
        try:
            while True:
                client, _ = listener.accept()
                clients.append(client)
                client.recv(1024)
                if answer:
                    client.sendall(answer)
        except OSError:
            for client in clients:
                client.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(PATIENCE)


class TestLoss:
    """Invariant 3's other half: what may have been done is never done again behind the caller's back."""

    def test_before_the_reply(self, proxy: CuttingProxy, counter: Counter, style: str) -> None:
        with tries(proxy.url, style) as link:
            proxy.cut(Cut(request=b"INCR"))
            with pytest.raises(ServerUnreachable, match="lost"):
                link.exchange(("INCR", counter.key))
            assert_dead(link, proxy)
        assert counter.value == 1
        assert proxy.cuts == 1

    @pytest.mark.parametrize("after", [1, 2, 50_000, 100_000])
    def test_in_the_middle_of_a_reply(
        self, proxy: CuttingProxy, counter: Counter, key: str, style: str, after: int
    ) -> None:
        with tries(proxy.url, style) as link:
            proxy.cut(Cut(request=b"INCR", after=after))
            with pytest.raises(ServerUnreachable, match="lost"):
                link.exchange(("INCR", counter.key), ("ECHO", b"x" * 100_000))
            assert_dead(link, proxy)
        assert counter.value == 1

    @pytest.mark.parametrize("after", [0, 1, 3, 6])
    def test_in_the_middle_of_an_exec(self, proxy: CuttingProxy, counter: Counter, style: str, after: int) -> None:
        with tries(proxy.url, style) as link:
            proxy.cut(Cut(request=b"EXEC", reply=b"+QUEUED\r\n*", after=after))
            with pytest.raises(ServerUnreachable, match="lost"):
                link.exchange(("MULTI",), *[("INCR", counter.key)] * 3, ("EXEC",))
            assert_dead(link, proxy)
        assert counter.value == 3

    def test_before_the_server_has_it(self, proxy: CuttingProxy, counter: Counter, style: str) -> None:
        with tries(proxy.url, style) as link:
            proxy.cut(Cut(request=b"INCR", lose_request=True))
            with pytest.raises(ServerUnreachable, match="lost"):
                link.exchange(("INCR", counter.key))
            assert_dead(link, proxy)
        assert counter.value == 0

    def test_between_two_exchanges(self, proxy: CuttingProxy, counter: Counter, style: str) -> None:
        with tries(proxy.url, style) as link:
            link.exchange(("INCR", counter.key))
            proxy.cut_all()
            with pytest.raises(ServerUnreachable, match="lost"):
                link.exchange(("INCR", counter.key), ("INCR", counter.key))
            assert_dead(link, proxy)
        assert counter.value == 1

    def test_while_the_server_is_down(self, proxy: CuttingProxy, style: str) -> None:
        proxy.go_down()
        with pytest.raises(ServerUnreachable), tries(proxy.url, style) as link:
            link.exchange(("PING",))
        proxy.come_up()
        with tries(proxy.url, style) as link:
            assert link.exchange(("PING",)) == [b"PONG"]

    def test_a_server_that_says_nothing(self, proxy: CuttingProxy, counter: Counter, style: str) -> None:
        with tries(proxy.url, style, timeout=0.15) as link:
            proxy.stall()
            began = time.monotonic()
            with pytest.raises(ServerUnreachable, match="lost"):
                link.exchange(("INCR", counter.key))
            assert 0.1 < time.monotonic() - began < PATIENCE
            connections = proxy.connections
            proxy.flow()
            assert_dead(link, proxy, connections)

    def test_a_closed_link_stays_closed(self, proxy: CuttingProxy, style: str) -> None:
        with tries(proxy.url, style) as link:
            link.exchange(("PING",))
            link.close()
            assert_dead(link, proxy)


@pytest.mark.real_only
def test_the_proxy_listens_on_a_unix_socket_too(server_url: str, counter: Counter, style: str) -> None:
    with (
        TemporaryDirectory() as directory,  # pytest's own paths may pass the 107 bytes of a socket's
        CuttingProxy(server_url, Path(directory) / "s") as proxy,
    ):
        with tries(proxy.url, style) as link:
            assert link.exchange(("INCR", counter.key)) == [1]
            proxy.cut(Cut(request=b"INCR"))
            with pytest.raises(ServerUnreachable, match="lost"):
                link.exchange(("INCR", counter.key))
            assert_dead(link, proxy)
        assert counter.value == 2


def assert_dead(link: Tries, proxy: CuttingProxy, connections: int = 1) -> None:
    """The link says so, and does not connect anew: it would come back without its WATCH."""
    for _ in range(2):
        with pytest.raises(ServerUnreachable):
            link.exchange(("PING",))
    assert proxy.connections == connections


@pytest.mark.real_only
class TestBlocking:
    """Reads that wait for a stream, as every loop of ours makes."""

    def stream(self, namespace: str) -> str:
        return Keys(namespace).partition(0).events

    def test_a_blocking_read_that_finds_nothing(self, server_url: str, namespace: str, style: str) -> None:
        with tries(server_url, style) as link:
            assert link.exchange(("XREAD", "BLOCK", 50, "STREAMS", self.stream(namespace), "$")) == [None]
            assert link.exchange(("PING",)) == [b"PONG"]

    def test_the_connection_s_time_out_ends_it(self, server_url: str, namespace: str, style: str) -> None:
        with tries(server_url, style, timeout=0.1) as link:
            with pytest.raises(ServerUnreachable):
                link.exchange(("XREAD", "BLOCK", 60_000, "STREAMS", self.stream(namespace), "$"))
            with pytest.raises(ServerUnreachable):
                link.exchange(("PING",))

    async def test_a_time_out_of_its_own(self, server_url: str, namespace: str) -> None:
        read: Command = ("XREAD", "BLOCK", 300, "STREAMS", self.stream(namespace), "$")
        link = await Server(server_url).connect_async(timeout=0.1)
        assert await link.exchange([read], timeout=PATIENCE) == [None]
        with pytest.raises(ServerUnreachable):
            await link.exchange([read])
        link = await Server(server_url).connect_async()
        began = time.monotonic()
        with pytest.raises(ServerUnreachable):
            await link.exchange([("XREAD", "BLOCK", 60_000, *read[3:])], timeout=0.1)
        assert time.monotonic() - began < PATIENCE
        with pytest.raises(ServerUnreachable):
            await link.exchange([("PING",)])

    async def test_a_blocking_read_gets_what_comes(self, server_url: str, namespace: str, link: AsyncLink) -> None:
        stream = self.stream(namespace)
        other = await Server(server_url).connect_async()
        reading = asyncio.create_task(link.exchange([("XREAD", "BLOCK", 10_000, "STREAMS", stream, "0")], timeout=20))
        assert await other.exchange([("XADD", stream, "1-1", "m", b"\x00")]) == [b"1-1"]
        assert await reading == [[[stream.encode(), [[b"1-1", [b"m", b"\x00"]]]]]]
        await other.close()

    async def test_a_cancelled_exchange_closes_the_link(self, server_url: str, namespace: str) -> None:
        """Its reply would answer the next one."""
        link = await Server(server_url).connect_async()
        name = await call_async(link, "CLIENT", "ID")
        read: Command = ("XREAD", "BLOCK", 60_000, "STREAMS", self.stream(namespace), "$")
        reading = asyncio.create_task(link.exchange([read], timeout=PATIENCE))
        other = await Server(server_url).connect_async()
        await wait_until_async(lambda: has_client(other, name, "flags=b"), why="the read to block")
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        with pytest.raises(ServerUnreachable):
            await link.exchange([("PING",)])

        async def gone() -> bool:
            return not await has_client(other, name)

        await wait_until_async(gone, why="the server to see the connection closed")
        await other.close()

    async def test_an_exchange_cancelled_at_any_moment_leaves_no_stray_reply(self, server_url: str) -> None:
        for turns in range(12):
            link = await Server(server_url).connect_async()
            task = asyncio.create_task(link.exchange([("ECHO", "first"), ("ECHO", "second")]))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            done = await asyncio.gather(task, return_exceptions=True)
            if isinstance(done[0], asyncio.CancelledError) and turns > 0:
                with pytest.raises(ServerUnreachable):
                    await link.exchange([("ECHO", "third")])
            else:
                assert await link.exchange([("ECHO", "third")]) == [b"third"]
            await link.close()


async def has_client(link: AsyncLink, client: int, having: str = "") -> bool:
    """Whether the server has that connection, with those words in its line of CLIENT LIST."""
    listed = (await call_async(link, "CLIENT", "LIST")).decode()
    return any(line.startswith(f"id={client} ") and having in line for line in listed.splitlines())


@pytest.fixture
async def subscription(proxy: CuttingProxy) -> AsyncIterator[Subscription]:
    subscribed = await Server(proxy.url).subscription()
    try:
        yield subscribed
    finally:
        await subscribed.close()


class Listener:
    """Collects what a subscription gets, as its one reader."""

    def __init__(self, subscription: Subscription) -> None:
        self.got: list[tuple[str, bytes]] = []
        self._subscription = subscription
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._subscription.messages():
            self.got.append(message)

    async def until(self, expected: Sequence[tuple[str, bytes]]) -> None:
        await wait_until_async(lambda: len(self.got) >= len(expected), why=f"{expected}")
        assert self.got == list(expected)

    async def aclose(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


class TestSubscription:
    async def test_once_confirmed_nothing_is_missed(
        self, subscription: Subscription, link: AsyncLink, namespace: str
    ) -> None:
        one, two = f"{namespace}:one", f"{namespace}:zwei-ß"
        async with aclosing(Listener(subscription)) as listener:
            await subscription.subscribe(one, two)
            published = await link.exchange([("PUBLISH", channel, b"\xff\x00") for channel in (one, two)])
            assert published == [1, 1]
            await listener.until([(one, b"\xff\x00"), (two, b"\xff\x00")])

    async def test_channels_come_and_go(self, subscription: Subscription, link: AsyncLink, namespace: str) -> None:
        one, two = f"{namespace}:one", f"{namespace}:two"
        async with aclosing(Listener(subscription)) as listener:
            await subscription.subscribe(one)
            await subscription.subscribe(two)
            await subscription.unsubscribe(one)

            async def left() -> bool:
                return bool(await call_async(link, "PUBLISH", one, "unheard") == 0)

            await wait_until_async(left, why="the server to take the channel off")
            await call_async(link, "PUBLISH", two, "heard")
            await wait_until_async(lambda: (two, b"heard") in listener.got)
            await subscription.subscribe(one)
            assert await call_async(link, "PUBLISH", one, "again") == 1
            await wait_until_async(lambda: (one, b"again") in listener.got)

    async def test_many_at_the_same_time(self, subscription: Subscription, link: AsyncLink, namespace: str) -> None:
        channels = [f"{namespace}:{n}" for n in range(50)]
        async with aclosing(Listener(subscription)) as listener:
            await asyncio.gather(*[subscription.subscribe(channel) for channel in channels])
            await link.exchange([("PUBLISH", channel, "x") for channel in channels])
            await listener.until([(channel, b"x") for channel in channels])

    async def test_nothing_to_subscribe_to(self, subscription: Subscription, link: AsyncLink, namespace: str) -> None:
        async with aclosing(Listener(subscription)) as listener:
            await subscription.subscribe()
            await subscription.unsubscribe()
            await subscription.subscribe(f"{namespace}:x")
            await call_async(link, "PUBLISH", f"{namespace}:x", "1")
            await listener.until([(f"{namespace}:x", b"1")])

    async def test_it_ends_when_the_server_goes(
        self, subscription: Subscription, proxy: CuttingProxy, namespace: str
    ) -> None:
        listener = Listener(subscription)
        await subscription.subscribe(f"{namespace}:x")
        proxy.go_down()
        with pytest.raises(ServerUnreachable, match="subscription was lost"):
            await asyncio.wait_for(listener.task, PATIENCE)
        with pytest.raises(ServerUnreachable):
            await subscription.subscribe(f"{namespace}:y")
        assert proxy.connections == 1, "it must not connect anew by itself: what was published meanwhile is lost"

    async def test_who_waits_for_a_confirmation_learns_of_the_loss(
        self, subscription: Subscription, proxy: CuttingProxy, namespace: str
    ) -> None:
        listener = Listener(subscription)
        proxy.cut(Cut(request=b"SUBSCRIBE"))
        with pytest.raises(ServerUnreachable):
            await asyncio.wait_for(subscription.subscribe(f"{namespace}:x"), PATIENCE)
        with pytest.raises(ServerUnreachable):
            await asyncio.wait_for(listener.task, PATIENCE)

    async def test_a_confirmation_has_a_deadline(
        self,
        subscription: Subscription,
        proxy: CuttingProxy,
        namespace: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(subscriptions, "CONFIRMATION_DEADLINE", 0.1)
        async with aclosing(Listener(subscription)):
            proxy.stall()
            with pytest.raises(ServerUnreachable, match="did not confirm"):
                await subscription.subscribe(f"{namespace}:x")

    async def test_closing_ends_it(self, subscription: Subscription, namespace: str) -> None:
        listener = Listener(subscription)
        await subscription.subscribe(f"{namespace}:x")
        await subscription.close()
        with pytest.raises(ServerUnreachable):
            await asyncio.wait_for(listener.task, PATIENCE)


def test_a_signal_handler_can_tell_that_it_was_called_while_commands_are_packed() -> None:
    seen: list[bool] = []

    def commands() -> Iterator[Command]:
        here = inspect.currentframe()
        assert here is not None
        seen.append(is_packing(here.f_back))
        yield ("GET", 1)

    assert pack(commands()) == b"*2\r\n$3\r\nGET\r\n$1\r\n1\r\n"
    assert seen == [True]
    assert not is_packing(inspect.currentframe())
    assert not is_packing(None)
