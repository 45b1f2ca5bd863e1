"""The keeper's steps: leases, deaths, drains; with children that are scripted and time that is set."""

from __future__ import annotations

import logging

import pytest

from headrace_broker import tasks
from headrace_broker.connection import Server, call
from headrace_broker.conversations import converse
from headrace_broker.keys import GROUP
from headrace_broker.messages import GarbageMessage
from headrace_broker.workers import live_workers
from headrace_workers.nursery import WEDGED_SECONDS
from headrace_workers.pipe import Begun, Drain, Failed, Held, Report, Revoked
from support.proxy import CuttingProxy

from .keeping import READY, World, held

pytestmark = pytest.mark.real_only


def test_it_announces_what_its_children_serve_and_withdraws_it(world: World) -> None:
    world.run()
    (record,) = converse(world.feed.link, live_workers(world.feed.namespace.keys))
    assert (record.keeper, record.streams, record.tasks) == ("keeper", ("default",), ("double",))
    assert (record.host, record.pid, record.processes, record.concurrency) == ("host", 7, 1, 32)
    assert world.keeper.process_work == (frozenset({"default:process"}), frozenset({"heavy"}))
    world.keeper.announce_also(["default:process"], ["heavy"])
    world.step()
    (record,) = converse(world.feed.link, live_workers(world.feed.namespace.keys))
    assert record.tasks == ("double", "heavy")
    world.keeper.drain()
    world.step()
    assert converse(world.feed.link, live_workers(world.feed.namespace.keys)) == []


def test_it_logs_what_it_serves_when_that_is_news(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        world.run()
        world.step(6)
        assert caplog.messages == ["Worker serves queues default; tasks double."]
        world.keeper.announce_also(["default:process"], ["heavy"])
        world.step()
    assert caplog.messages[1:] == ["Worker serves queues default, default:process; tasks double, heavy."]


def test_it_renews_what_is_reported_and_nothing_else(world: World) -> None:
    child = world.run()
    first, second = world.deliver(child, world.feed.hand_out("double"), world.feed.hand_out("double"))
    for delivery in (first, second):
        world.age(delivery, 9000)
    child.says.append(held((first, True)))
    world.step(1)
    assert world.idle(first) < 5000
    assert world.idle(second) >= 9000
    assert child.told == []


def test_a_lease_that_is_gone_is_told_to_the_child(world: World) -> None:
    child = world.run()
    message, other = world.feed.hand_out("double"), world.feed.hand_out("double")
    first, second = world.deliver(child, message, other)
    world.feed.revoke(message, publish=False)
    child.says.append(held((first, True), (second, True)))
    world.step(1)
    assert child.told == [Revoked([(first.source.partition.number, first.entry)])]


def test_what_an_owner_publishes_reaches_every_child_at_once(world: World) -> None:
    world.make(processes=2)
    world.run()
    message = world.feed.message("double")
    world.keeper.revoked([message.dispatch, "nonsense"])
    place = (world.feed.namespace.of(message.instance).number, f"{message.dispatch.split('-')[2]}-0")
    assert [child.told for child in world.children] == [[Revoked([place])]] * 2


def test_a_dead_childs_deliveries_are_reported_at_once(world: World) -> None:
    child = world.run()
    handed = [world.feed.hand_out("double") for _ in range(4)]
    begun, waiting, late, _unknown = world.deliver(child, *handed)
    child.says.append(held((begun, True), (waiting, False), (late, False)))
    world.step(1)
    child.says.append(Begun(late.source.key, late.entry))
    child.status = -9
    world.step(0.1)
    results = world.feed.results()
    outcomes = [results[message.dispatch].outcome for message in handed]
    assert outcomes == ["lost", "returned", "lost", "lost"], "what is not known not to have begun counts as begun"
    assert results[handed[0].dispatch].worker == child.consumer
    assert results[handed[0].dispatch].token == 1
    assert world.feed.pending() == 4, "the entries are the owner's to take out"
    world.step(6)
    assert len(world.feed.results()) == 4
    assert len(world.feed.read()) == 4, "nothing is reported twice"


def test_garbage_that_a_dead_child_held_is_reported_and_taken_out(world: World) -> None:
    child = world.run()
    world.feed.add("i", "default", b"garbage", "1-0")
    wanted = tasks.sources(world.feed.namespace.all_partitions, ["default"])
    converse(world.feed.link, tasks.ensure_groups(world.feed.namespace.keys, wanted))
    call(world.feed.link, *tasks.read(child.consumer, wanted, 100))
    child.status = -11
    world.step()
    (found,) = world.feed.of(GarbageMessage)
    assert found.raw == b"garbage"
    assert world.feed.settled()


def test_the_consumer_of_a_dead_child_goes_when_nothing_is_pending(world: World) -> None:
    child = world.run()
    message = world.feed.hand_out("double")
    (delivery,) = world.deliver(child, message)
    child.status = -9
    world.step()

    def consumers() -> list[bytes]:
        rows = call(world.feed.link, "XINFO", "CONSUMERS", delivery.source.key, GROUP)
        return [row[1] for row in rows]

    world.step(6)
    assert consumers() == [child.consumer.encode()]
    world.feed.revoke(message, publish=False)
    world.step(6)
    assert consumers() == []


def test_a_dead_child_is_replaced_under_a_new_name_and_not_in_a_hurry_if_it_dies_young(world: World) -> None:
    first = world.run()
    assert first.consumer == "keeper.1"
    first.status = -9
    world.step(0.1)
    assert [child.consumer for child in world.children] == ["keeper.1", "keeper.2"], "the first at once"
    assert first.closed
    delays: list[float] = []
    for _ in range(8):
        world.children[-1].status = 1
        count, before = len(world.children), world.now
        while len(world.children) == count:
            world.step(0.01)
        delays.append(world.now - before)
    assert delays[-1] > 5 * delays[0]
    assert max(delays) <= 5.1


def test_a_silent_child_is_killed_and_an_innocent_one_is_not(world: World) -> None:
    world.make(processes=2)
    world.run()
    silent, talking = world.children
    for _ in range(int(WEDGED_SECONDS) + 1):
        talking.says.append(Report([], 9000))
        world.step(1)
    assert silent.status == -9
    assert talking.status is None


def test_what_a_wedged_child_held_beside_the_guilty_task_counts_as_no_loss(world: World) -> None:
    child = world.run()
    guilty, innocent = world.feed.hand_out("double"), world.feed.hand_out("double")
    first, second = world.deliver(child, guilty, innocent)
    child.says.append(held((first, True), (second, True)))
    world.step(1)
    world.feed.revoke(guilty)
    world.keeper.revoked([guilty.dispatch])
    world.step(WEDGED_SECONDS)
    world.step()
    assert {dispatch: result.outcome for dispatch, result in world.feed.results().items()} == {
        innocent.dispatch: "returned"
    }


def test_an_entry_of_another_partition_is_not_the_revoked_one(world: World) -> None:
    child = world.run()
    one, other = (source.key for source in tasks.sources(world.feed.namespace.all_partitions[:2], ["default"]))
    child.says.append(Report([Held(one, ["7-0"], [True]), Held(other, ["7-0"], [True])], 0))
    (known,) = world.keeper.children
    known.listen(world.now)
    known.revoke([(0, "7-0")])
    assert known.revoked == {(0, "7-0")}
    child.says.append(Report([Held(other, ["7-0"], [True])], 0))
    known.listen(world.now)
    assert not known.revoked, "what was revoked has ended"
    child.says.append(Report([], 0))


def test_targets_that_cannot_be_loaded_end_it_with_their_message(world: World) -> None:
    world.first_words = lambda: [Failed("Target 'x.py': there is no file x.py.")]
    world.step()
    world.children[0].status = 1
    world.step()
    while not world.keeper.done:
        world.step(0.1)
    assert world.keeper.failure == "Target 'x.py': there is no file x.py."
    assert len(world.children) == 1


def test_a_child_that_is_killed_while_it_starts_is_no_failure_of_the_targets(world: World) -> None:
    world.first_words = list
    world.step()
    for _ in range(3):
        world.children[-1].status = -9
        world.step(10)
        world.step(10)
    assert world.keeper.failure is None
    assert len(world.children) > 2
    world.first_words = lambda: [READY]
    world.children[-1].status = -9
    world.step(10)
    world.run()
    assert world.keeper.process_work == (frozenset(["default:process"]), frozenset(["heavy"]))


def test_a_child_that_ends_by_itself_while_it_loads_ends_it(world: World) -> None:
    world.first_words = list
    world.step()
    world.children[0].status = 71
    world.step()
    assert world.keeper.failure == "A child ended with exit code 71 while it loaded the targets."


def test_once_it_worked_targets_that_cannot_be_loaded_are_tried_again(world: World) -> None:
    world.run()
    world.first_words = lambda: [Failed("No such file.")]
    for _ in range(3):
        world.children[-1].status = 1
        world.step(10)
        world.step(10)
    assert world.keeper.failure is None
    assert len(world.children) > 2


def test_a_drain_waits_for_the_children_and_kills_those_that_overrun(world: World) -> None:
    world.make(processes=2, grace_ms=5000)
    world.run()
    quick, slow = world.children
    (delivery,) = world.deliver(slow, message := world.feed.hand_out("double"))
    slow.says.append(held((delivery, True)))
    world.step(1)
    world.keeper.drain()
    assert quick.told == slow.told == [Drain(5000)]
    quick.status = 0
    world.step(5)
    assert not world.keeper.done
    assert slow.status is None
    world.step(11)
    assert slow.status == -9
    world.step()
    assert world.keeper.done
    assert world.feed.results()[message.dispatch].outcome == "returned", "its keeper ended it, no task did"
    assert len(world.children) == 2


def test_it_ends_at_once_when_told_twice(world: World) -> None:
    child = world.run()
    (_,) = world.deliver(child, message := world.feed.hand_out("double"))
    world.keeper.drain()
    world.step()
    world.keeper.kill()
    world.step()
    world.step()
    assert world.keeper.done
    assert world.feed.results()[message.dispatch].outcome == "returned"


def test_told_twice_it_waits_no_longer_than_a_second_for_a_server_that_is_away(world: World) -> None:
    world.run()
    world.reachable = False
    world.keeper.drain()
    for child in world.keeper.children:
        child.process.kill()
    world.step()
    world.step(2)
    assert not world.keeper.done, "a lease might do"
    world.keeper.kill()
    world.step()
    world.step(1)
    assert world.keeper.done


def test_it_survives_the_servers_absence_and_catches_up(world: World) -> None:
    child = world.run()
    (delivery,) = world.deliver(child, message := world.feed.hand_out("double"))
    world.keeper._drop_link()  # pyright: ignore[reportPrivateUsage]
    world.reachable = False
    world.age(delivery, 9000)
    child.says.append(held((delivery, True)))
    assert 0 < world.step(1) <= 2
    assert world.idle(delivery) >= 9000
    child.status = -9
    world.step(2)
    assert world.feed.results() == {}
    world.reachable = True
    world.step(3)
    assert world.feed.results()[message.dispatch].outcome == "lost"


def test_it_renews_when_the_server_has_loaded_its_data(world: World) -> None:
    child = world.run()
    (delivery,) = world.deliver(child, world.feed.hand_out("double"))
    with CuttingProxy(world.server.url) as proxy:
        world.keeper._drop_link()  # pyright: ignore[reportPrivateUsage]
        world.server = Server(proxy.url)
        world.age(delivery, 9000)
        proxy.refuse()
        child.says.append(held((delivery, True)))
        assert 0 < world.step(1) <= 2
        assert proxy.refusals > 0
        assert world.idle(delivery) >= 9000
        proxy.accept()
        world.step(3)
        assert world.idle(delivery) < 9000
        world.keeper._drop_link()  # pyright: ignore[reportPrivateUsage]
