"""Every event is applied once: across lost replies, dropped owners, stale owners and late packets."""

from __future__ import annotations

from random import Random

import pytest

from headrace_broker.connection import Server
from headrace_broker.errors import ServerUnreachable
from support.proxy import Cut, CuttingProxy

from . import flows
from .bench import Bench, Tap, check_once, counted, kinds, settle, step_until, steps
from .hand import Hand

pytestmark = pytest.mark.real_only


def check_deliveries(hand: Hand) -> None:
    """Nobody got a step's attempt twice: what was applied twice would be handed out twice."""
    attempts = [(h.task.incarnation, h.task.step, h.task.attempt, h.task.losses) for h in hand.taken]
    assert len(attempts) == len(set(attempts))
    assert len({h.task.dispatch for h in hand.taken}) == len(hand.taken)


class TestALostReplyOfExec:
    """The commit may be done or not, and its owner cannot know: it must find out, not guess (issue 2, point 4)."""

    OFFSETS = (*range(0, 40, 3), *range(40, 400, 17))

    def test_at_many_bytes(self, bench: Bench) -> None:
        definition = bench.register(flows.chain("a", "b"))
        hand = bench.hand()
        lost = 0
        with CuttingProxy(bench.server.url) as proxy:
            orchestrator = bench.orchestrator(connector=Tap(Server(proxy.url)))

            def go_on() -> None:
                """What is cut beyond the reply is noticed a few turns later."""
                nonlocal lost
                try:
                    steps(orchestrator)
                except ServerUnreachable:
                    lost += 1
                    assert orchestrator.owned == []
                    bench.clock.advance(20)

            for offset in self.OFFSETS:
                id = f"at{offset}"
                bench.start(id, definition)
                while not hand.work():
                    go_on()
                proxy.cut(Cut(request=b"EXEC", reply=b"+OK\r\n+QUEUED", after=offset))
                while bench.status(id) != "completed":
                    go_on()
                    hand.work()
                check_once(bench.history(id), "a", "b")
            assert proxy.cuts == len(self.OFFSETS)
            assert lost > len(self.OFFSETS) / 2
            orchestrator.disconnect()
        check_deliveries(hand)
        assert len(hand.taken) == 2 * len(self.OFFSETS)
        assert counted(orchestrator, "stale_results_total") == 0

    def test_none_of_the_reply_comes(self, bench: Bench) -> None:
        bench.start("c", bench.register(flows.chain("a", "b")))
        hand = bench.hand()
        with CuttingProxy(bench.server.url) as proxy:
            orchestrator = bench.orchestrator(connector=Tap(Server(proxy.url)))
            step_until(orchestrator, lambda: orchestrator.owned == [0])
            hand.work()
            before = bench.meta().commit
            proxy.cut(Cut(request=b"EXEC"))
            with pytest.raises(ServerUnreachable):
                steps(orchestrator)
            assert bench.meta().commit == before + 1, "it was done all the same"
            bench.clock.advance(20)
            settle(orchestrator, hand)
            orchestrator.disconnect()
        check_once(bench.history("c"), "a", "b")
        check_deliveries(hand)

    def test_the_request_is_lost(self, bench: Bench) -> None:
        bench.start("c", bench.register(flows.chain("a", "b")))
        hand = bench.hand()
        with CuttingProxy(bench.server.url) as proxy:
            orchestrator = bench.orchestrator(connector=Tap(Server(proxy.url)))
            step_until(orchestrator, lambda: orchestrator.owned == [0])
            hand.work()
            before = bench.meta().commit
            proxy.cut(Cut(request=b"EXEC", lose_request=True))
            with pytest.raises(ServerUnreachable):
                steps(orchestrator)
            assert bench.meta().commit == before
            bench.clock.advance(20)
            settle(orchestrator, hand)
            orchestrator.disconnect()
        check_once(bench.history("c"), "a", "b")


def test_owners_that_die_without_a_word(wide_bench: Bench) -> None:
    """A new one every few turns, each dropped in whatever state it is in."""
    bench = wide_bench
    random = Random(4)
    definition = bench.register(flows.chain("a", "b", "c"))
    hand = bench.hand()
    for n in range(20):
        bench.start(f"i{n}", definition)
    for life in range(12):
        orchestrator = bench.orchestrator(life, batch=3)
        for number in range(4):
            bench.call("DEL", bench.keys.partition(number).owner)
        for _ in range(random.randint(1, 6)):
            orchestrator.step(0)
            if random.random() < 0.5:
                hand.work()
        orchestrator.disconnect()
    for number in range(4):
        bench.call("DEL", bench.keys.partition(number).owner)
    settle(bench.orchestrator(99), hand)
    for n in range(20):
        check_once(bench.history(f"i{n}"), "a", "b", "c")
    check_deliveries(hand)


class TestAStaleOwner:
    def test_it_tries_to_commit_and_nothing_is_applied(self, bench: Bench) -> None:
        bench.start("c", bench.register(flows.chain("a", "b")))
        hand = bench.hand()
        stale, fresh = bench.orchestrator(1), bench.orchestrator(2)
        steps(stale)
        hand.work()
        bench.call("DEL", bench.part.owner)
        steps(fresh)
        before = bench.meta()
        hand.work()
        stale.step(0)  # it does not know yet
        assert stale.owned == []
        assert counted(stale, "fenced_commits_total") == 1
        assert bench.meta() == before
        settle([stale, fresh], hand)
        check_once(bench.history("c"), "a", "b")
        check_deliveries(hand)

    def test_two_that_both_believe_in_it_and_race(self, bench: Bench) -> None:
        """Ownership is taken to and fro between every two commits; the fence alone decides."""
        definition = bench.register(flows.chain("a", "b", "c"))
        for n in range(6):
            bench.start(f"i{n}", definition)
        hand = bench.hand()
        pair = [bench.orchestrator(seed, batch=2) for seed in (1, 2)]
        for turn in range(40):
            bench.call("DEL", bench.part.owner)
            bench.clock.advance(18.1)
            for orchestrator in pair if turn % 2 else reversed(pair):
                orchestrator.step(0)
            hand.work()
        settle(pair[0], hand)
        bench.call("DEL", bench.part.owner)
        bench.clock.advance(60)
        settle(pair[0], hand)
        for n in range(6):
            check_once(bench.history(f"i{n}"), "a", "b", "c")
        check_deliveries(hand)

    def test_a_commit_number_that_is_not_the_successor(self, bench: Bench) -> None:
        bench.start("c", bench.register(flows.chain("a", "b")))
        hand = bench.hand()
        orchestrator = bench.orchestrator()
        steps(orchestrator)
        hand.work()
        at = bench.meta().commit
        bench.call("HSET", bench.part.meta, "commit", at + 10)
        orchestrator.step(0)
        assert orchestrator.owned == []
        assert bench.meta().commit == at + 10
        bench.clock.advance(20)
        settle(orchestrator, hand)
        assert bench.meta().commit > at + 10
        check_once(bench.history("c"), "a", "b")


def test_a_commit_that_is_held_up_until_another_owner_has_committed(bench: Bench) -> None:
    bench.start("c", bench.register(flows.chain("a", "b")))
    hand = bench.hand()
    with CuttingProxy(bench.server.url) as proxy:
        tap = Tap(Server(proxy.url))
        late = bench.orchestrator(1, connector=tap)
        steps(late)
        hand.work()
        fresh = bench.orchestrator(2)

        def hold_up(commands: object) -> None:
            """The EXEC leaves its owner, and stays on the way until somebody else has done the same work."""
            if isinstance(commands, list) and ("EXEC",) in commands:
                tap.before = None
                proxy.stall()
                bench.call("DEL", bench.part.owner)
                settle(fresh, hand)
                proxy.flow()

        tap.before = hold_up
        late.step(0)
        assert tap.before is None
        assert late.owned == []
        late.disconnect()
    check_once(bench.history("c"), "a", "b")
    check_deliveries(hand)


def test_a_result_that_is_told_twice_counts_once(bench: Bench) -> None:
    bench.start("c", bench.register(flows.chain("a", "b")))
    orchestrator, hand = bench.orchestrator(), bench.hand()
    steps(orchestrator)
    (held,) = hand.take()
    message = hand.result(held, value=held.task.value)
    hand.tell(held, message)
    hand.settle(held, message)
    settle(orchestrator, hand)
    check_once(bench.history("c"), "a", "b")
    assert counted(orchestrator, "stale_results_total") == 1
    assert len(kinds(bench.history("c"), "dispatched")) == 2
