"""Start-up checks: on the two real servers, and on answers of servers that we do not have here."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import pytest

from headrace_broker.checks import MEND_POLICY, ServerInfo, check_server
from headrace_broker.connection import Command, Link, Reply, Server, call
from headrace_broker.conversations import converse
from headrace_broker.errors import EvictionPolicyRefused, ServerError, UnsupportedServer

REDIS_7 = b"# Server\r\nredis_version:7.2.4\r\nrun_id:abc\r\n"
NOEVICTION = [b"maxmemory-policy", b"noeviction"]
REFUSED = ServerError("unknown command 'CONFIG', with args beginning with: 'GET'")


class Scripted:
    """A server that answers by the command's first two words."""

    def __init__(
        self, server: Reply, config: Reply = (b"maxmemory-policy", b"noeviction"), memory: Reply = b""
    ) -> None:
        self._answers = {"INFO server": server, "CONFIG GET": config, "INFO memory": memory}
        self._waiting: list[Reply] = []

    def send(self, commands: Sequence[Command]) -> None:
        self._waiting += [self._answers[f"{command[0]!s} {command[1]!s}"] for command in commands]

    def receive(self, count: int) -> list[Reply]:
        replies, self._waiting = self._waiting[:count], self._waiting[count:]
        return replies

    def wait(self, seconds: float) -> bool:
        return True

    def close(self) -> None:
        self._waiting.clear()


@pytest.fixture
def link(server_url: str) -> Iterator[Link]:
    link = Server(server_url).connect()
    yield link
    link.close()


@pytest.mark.real_only
def test_the_real_servers_will_do(link: Link, server_kind: str) -> None:
    info = converse(link, check_server())
    assert info.kind == server_kind
    assert info.run_id


@pytest.mark.real_only
def test_a_server_that_evicts_is_refused_with_the_command_that_mends_it(link: Link) -> None:
    call(link, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(EvictionPolicyRefused, match="is allkeys-lru") as raised:
            converse(link, check_server())
    finally:
        call(link, "CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert MEND_POLICY == "redis-cli CONFIG SET maxmemory-policy noeviction"
    assert MEND_POLICY in str(raised.value)


@pytest.mark.parametrize("version", ["6.2.14", "2.8.0", "6.99"])
def test_an_old_redis_is_refused(version: str) -> None:
    with pytest.raises(UnsupportedServer, match=f"is Redis {version}; Headrace needs Redis 7.0"):
        converse(Scripted(f"redis_version:{version}\r\n".encode()), check_server())


@pytest.mark.parametrize("version", ["7.0.0", "7.0.15", "8.2.1", "10.0.0"])
def test_a_redis_from_7_0_will_do(version: str) -> None:
    link = Scripted(f"redis_version:{version}\r\nrun_id:r\r\n".encode())
    assert converse(link, check_server()) == ServerInfo("redis", version, "r")


def test_valkey_is_known_by_its_own_version() -> None:
    link = Scripted(b"redis_version:6.0.0\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\nrun_id:r\r\n")
    info = converse(link, check_server())
    assert str(info) == "Valkey 8.0.1"


@pytest.mark.parametrize("answer", [b"", b"hello\r\n", ServerError("unknown command 'INFO'")])
def test_what_is_no_redis_is_refused(answer: Reply) -> None:
    with pytest.raises(UnsupportedServer):
        converse(Scripted(answer), check_server())


def test_a_missing_password_stays_what_it_is() -> None:
    with pytest.raises(ServerError, match="Authentication required"):
        converse(Scripted(ServerError("Authentication required.")), check_server())


@pytest.mark.parametrize("config", [REFUSED, []])
def test_a_managed_server_without_config_is_asked_through_info(config: Reply) -> None:
    with pytest.raises(EvictionPolicyRefused, match="volatile-lru"):
        converse(Scripted(REDIS_7, config, b"maxmemory_policy:volatile-lru\r\n"), check_server())
    assert converse(Scripted(REDIS_7, config, b"maxmemory_policy:noeviction\r\n"), check_server()).version == "7.2.4"


def test_an_unknown_policy_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "headrace.checks"):
        converse(Scripted(REDIS_7, REFUSED, b"used_memory:1\r\n"), check_server())
    assert "must be noeviction" in caplog.text
