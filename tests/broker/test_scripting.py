"""Conversations and scripts: one text for both kinds of links, and no server that has to know a script beforehand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace_broker import scripting
from headrace_broker.connection import Command, Link, Reply, Server, call
from headrace_broker.conversations import Conversation, ask, converse, converse_async
from headrace_broker.errors import ServerError


@pytest.fixture
def link(server_url: str) -> Iterator[Link]:
    link = Server(server_url).connect()
    yield link
    link.close()


def twice() -> Conversation[list[Reply]]:
    first = yield from ask(("ECHO", "a"))
    second = yield from ask(("ECHO", "b"), ("ECHO", "c"))
    return first + second


def test_a_conversation_is_held_over_a_link(link: Link) -> None:
    assert converse(link, twice()) == [b"a", b"b", b"c"]


async def test_a_conversation_is_held_over_an_async_link(server_url: str) -> None:
    link = await Server(server_url).connect_async()
    try:
        assert await converse_async(link, twice()) == [b"a", b"b", b"c"]
    finally:
        await link.close()


@pytest.mark.real_only  # fakeredis closes the connection after an error reply
def test_ask_raises_the_first_error(link: Link) -> None:
    with pytest.raises(ServerError, match="wrong number"):
        converse(link, ask(("ECHO", "a"), ("ECHO",)))
    assert call(link, "ECHO", "in step") == b"in step"


@pytest.mark.real_only  # fakeredis closes the connection after an error reply
def test_a_script_is_sent_in_full_only_where_it_is_unknown(link: Link) -> None:
    script = scripting.Script("test", f"return {{KEYS[1], ARGV[1], '{id(link)}'}}")
    seen: list[Command] = []

    def watched() -> Conversation[Reply]:
        conversation = scripting.call(script, ["{k}"], [7])
        commands = next(conversation)
        while True:
            seen.extend(commands)
            try:
                commands = conversation.send((yield commands))
            except StopIteration as end:
                return end.value

    answer = [b"{k}", b"7", str(id(link)).encode()]
    assert converse(link, watched()) == answer
    assert converse(link, watched()) == answer
    assert [command[0] for command in seen] == ["EVALSHA", "EVAL", "EVALSHA"]


@pytest.mark.real_only  # fakeredis closes the connection after an error reply
def test_an_error_of_the_script_is_raised(link: Link) -> None:
    with pytest.raises(ServerError, match="no good"):
        converse(link, scripting.call(scripting.Script("bad", "return redis.error_reply('no good')"), ["{k}"], []))


@pytest.mark.parametrize("name", ["start", "send", "register"])
def test_scripts_say_what_they_take_and_give(name: str) -> None:
    source = scripting.load(name).source
    assert "-- KEYS" in source
    assert "-- ARGV" in source
    assert "-- Returns" in source
