"""What a server refuses is told in words, with what to do, and by a class of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from headrace_broker import errors
from headrace_broker.connection import Link, Server, call, exchange
from headrace_broker.embedded import EmbeddedServer
from support.servers import redis_binary


@pytest.fixture(scope="module", params=["valkey", "redis"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server of this module's own, for it gets passwords."""
    binary = redis_binary() if request.param == "redis" else None
    with EmbeddedServer.open(tmp_path_factory.mktemp("refusing"), binary=binary) as server:
        yield server


@pytest.fixture
def link(server: EmbeddedServer) -> Iterator[Link]:
    link = Server(server.url).connect()
    yield link
    link.close()


def as_user(server: EmbeddedServer, user: str) -> str:
    return server.url.replace("unix://", f"unix://{user}@")


def test_out_of_memory(link: Link) -> None:
    call(link, "CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(errors.ServerFull, match=r"out of memory.*redis-cli CONFIG SET maxmemory") as raised:
            call(link, "SET", "k", "v")
        inside = exchange(link, [("MULTI",), ("SET", "k", "v"), ("EXEC",)])
    finally:
        call(link, "CONFIG", "SET", "maxmemory", "0")
    assert "command not allowed when used memory > 'maxmemory'" in str(raised.value)
    assert isinstance(inside[1], errors.ServerFull)


def test_no_permission(server: EmbeddedServer, link: Link) -> None:
    call(link, "ACL", "SETUSER", "bob", "on", ">secret", "~x", "+get")
    bob = Server(as_user(server, "bob:secret")).connect()
    for command in (("SET", "x", "v"), ("GET", "y")):
        with pytest.raises(errors.AccessDenied, match=r"does not let this user .* redis-cli ACL SETUSER USER"):
            call(bob, *command)
    bob.close()


def test_a_missing_and_a_wrong_password(server: EmbeddedServer, link: Link) -> None:
    call(link, "ACL", "SETUSER", "default", ">secret")
    try:
        nobody = Server(server.url).connect()
        with pytest.raises(errors.AccessDenied, match=r"wants a password.* redis://USER:PASSWORD@host"):
            call(nobody, "PING")
        nobody.close()
        with pytest.raises(errors.ConfigurationError, match="refused the user or password") as raised:
            Server(as_user(server, ":guessed:wrong")).connect()
        with pytest.raises(errors.ConfigurationError, match="refused the user or password"):
            asyncio.run(Server(as_user(server, ":guessed:wrong")).connect_async())
    finally:
        call(link, "ACL", "SETUSER", "default", "nopass")
    assert "guessed" not in str(raised.value)
    assert "wrong:" not in str(raised.value)


def test_a_replica(link: Link) -> None:
    call(link, "REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(errors.ServerNotReady, match=r"is a replica.*URL of its primary"):
            call(link, "SET", "k", "v")
    finally:
        call(link, "REPLICAOF", "NO", "ONE")


def test_other_errors_stay_in_the_servers_words(link: Link) -> None:
    with pytest.raises(errors.ServerError) as raised:
        call(link, "EVAL", "return redis.error_reply('MINE it is')", 0)
    assert type(raised.value) is errors.ServerError
    assert "MINE it is" in str(raised.value)
