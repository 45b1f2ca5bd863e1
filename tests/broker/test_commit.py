"""The fenced commit on each server: what one owner may do, and what nobody may."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from headrace_broker.commit import FIRST_COMMIT, ORIGIN, Commits, Meta
from headrace_broker.connection import Link, Server, call
from headrace_broker.errors import CommitDamaged, Fenced, MessageError, ServerError, ServerUnreachable
from headrace_broker.keys import Keys, PartitionKeys
from support.proxy import Cut, CuttingProxy
from support.waiting import wait_until

NUMBER = FIRST_COMMIT


@dataclass
class Owner:
    """A partition owned as `token`, at commit `NUMBER`."""

    keys: PartitionKeys
    link: Link
    look: Link
    commits: Commits

    def commit(self, *entries: str, **meta: str | int) -> None:
        """Appends the entries to `events`."""
        self.commits.send([("XADD", self.keys.events, "*", "m", entry) for entry in entries], meta)
        self.commits.receive()

    def events(self) -> list[str]:
        return [fields[1].decode() for _, fields in call(self.look, "XRANGE", self.keys.events, "-", "+")]

    def meta(self) -> Meta:
        return Meta.parse(call(self.look, "HGETALL", self.keys.meta))


@pytest.fixture
def owner(server_url: str, namespace: str) -> Iterator[Owner]:
    keys = Keys(namespace).partition(0)
    link, look = Server(server_url).connect(), Server(server_url).connect()
    call(look, "HSET", keys.meta, "token", "1ab", "commit", NUMBER, "epoch", 1)
    made = Owner(keys, link, look, Commits(link, keys, "1ab", NUMBER))
    yield made
    link.close()
    look.close()


def test_commits_follow_each_other(owner: Owner) -> None:
    owner.commits.watch()
    assert owner.commits.next == NUMBER + 1
    owner.commit("a", "b", events="5-1", now=17)
    owner.commit("c")
    owner.commit(events="6-0")
    assert owner.events() == ["a", "b", "c"]
    assert owner.meta() == Meta("1ab", NUMBER + 3, 1, 17, "6-0", ORIGIN, ORIGIN)


def test_meta_of_a_partition_that_nobody_owned_yet() -> None:
    assert Meta.parse([]) == Meta()
    assert Meta().commit > 1_700_000_000_000 * 100, "above any id a server gives by itself"


def test_meta_that_cannot_be_read() -> None:
    with pytest.raises(MessageError, match="meta"):
        Meta.parse([b"commit", b"many"])


class TestTheFence:
    def test_another_token(self, owner: Owner) -> None:
        call(owner.look, "HSET", owner.keys.meta, "token", "2cd")
        with pytest.raises(Fenced, match="2cd"):
            owner.commits.watch()

    @pytest.mark.parametrize("number", [NUMBER - 1, NUMBER + 1])
    def test_another_number(self, owner: Owner, number: int) -> None:
        call(owner.look, "HSET", owner.keys.meta, "commit", number)
        with pytest.raises(Fenced, match=str(number)):
            owner.commits.watch()

    def test_a_partition_without_meta(self, owner: Owner) -> None:
        call(owner.look, "DEL", owner.keys.meta)
        with pytest.raises(Fenced):
            owner.commits.watch()

    @pytest.mark.parametrize(
        "fields", [("token", "2cd"), ("commit", NUMBER + 7), ("token", "1ab")], ids=["token", "number", "same"]
    )
    def test_whoever_writes_meta_after_the_watch_wins(self, owner: Owner, fields: tuple[str, str | int]) -> None:
        owner.commits.watch()
        call(owner.look, "HSET", owner.keys.meta, *fields)
        with pytest.raises(Fenced):
            owner.commit("a")
        assert owner.events() == []
        assert owner.meta().events == ORIGIN

    def test_the_watch_rides_behind_each_commit(self, owner: Owner) -> None:
        owner.commits.watch()
        owner.commit("a")
        call(owner.look, "HSET", owner.keys.meta, "token", "2cd", "commit", NUMBER + 1)
        with pytest.raises(Fenced):
            owner.commit("b")
        assert owner.events() == ["a"]

    def test_taken_between_the_exec_and_the_watch_behind_it(self, owner: Owner) -> None:
        """Not to be timed from outside: the commit itself plays the other owner."""
        owner.commits.watch()
        owner.commits.send([], {"token": "2cd"})
        with pytest.raises(Fenced, match="2cd"):
            owner.commits.receive()

    def test_a_packet_that_comes_late(self, owner: Owner, server_url: str) -> None:
        """Sent by the old owner, held up on the way, and there when a new owner has committed."""
        with CuttingProxy(server_url) as proxy:
            old = Server(proxy.url).connect()
            stale = Commits(old, owner.keys, "1ab", NUMBER)
            stale.watch()
            proxy.stall()
            stale.send([("XADD", owner.keys.events, "*", "m", "late")], {})
            call(owner.look, "HSET", owner.keys.meta, "token", "2cd")
            new = Commits(owner.link, owner.keys, "2cd", NUMBER)
            new.watch()
            new.send([("XADD", owner.keys.events, "*", "m", "new")], {})
            new.receive()
            proxy.flow()
            with pytest.raises(Fenced):
                stale.receive()
            old.close()
        assert owner.events() == ["new"]
        assert owner.meta().commit == NUMBER + 1


class TestErrors:
    def test_one_inside_an_applied_commit_is_damage(self, owner: Owner) -> None:
        call(owner.look, "SET", owner.keys.timers, "no sorted set")
        owner.commits.watch()
        owner.commits.send([("ZADD", owner.keys.timers, 1, "x"), ("XADD", owner.keys.events, "*", "m", "a")], {})
        with pytest.raises(CommitDamaged, match="wrong kind of value"):
            owner.commits.receive()
        assert owner.events() == ["a"], "EXEC does not roll back"
        call(owner.look, "DEL", owner.keys.timers)

    @pytest.mark.real_only
    def test_one_before_exec_applies_nothing(self, owner: Owner) -> None:
        owner.commits.watch()
        owner.commits.send([("XADD", owner.keys.events, "*", "m", "a"), ("HSET", owner.keys.meta)], {})
        with pytest.raises(ServerError, match=r"before it was applied: .*wrong number of arguments") as caught:
            owner.commits.receive()
        assert not isinstance(caught.value, CommitDamaged)
        assert owner.events() == []
        assert owner.meta().commit == NUMBER

    @pytest.mark.parametrize("after", [0, 5, 16, 40])
    def test_a_lost_reply_leaves_open_what_happened(self, owner: Owner, server_url: str, after: int) -> None:
        with CuttingProxy(server_url) as proxy:
            link = Server(proxy.url).connect()
            commits = Commits(link, owner.keys, "1ab", NUMBER)
            commits.watch()
            proxy.cut(Cut(request=b"EXEC", reply=b"+OK", after=after))
            commits.send([("XADD", owner.keys.events, "*", "m", "a")], {})
            with pytest.raises(ServerUnreachable):
                commits.receive()
            assert proxy.cuts == 1
            with pytest.raises(ServerUnreachable):
                commits.watch()
            link.close()

        def all_or_nothing() -> bool:
            """The server may come to the EXEC only now, between our two reads."""
            return owner.events() == ["a"] * (owner.meta().commit - NUMBER)

        wait_until(all_or_nothing, why="all of it or nothing")

    def test_a_lost_request_applies_nothing(self, owner: Owner, server_url: str) -> None:
        with CuttingProxy(server_url) as proxy:
            link = Server(proxy.url).connect()
            commits = Commits(link, owner.keys, "1ab", NUMBER)
            commits.watch()
            proxy.cut(Cut(request=b"EXEC", lose_request=True))
            commits.send([("XADD", owner.keys.events, "*", "m", "a")], {})
            with pytest.raises(ServerUnreachable):
                commits.receive()
            link.close()
        assert owner.events() == []
        assert owner.meta().commit == NUMBER
