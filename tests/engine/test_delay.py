from __future__ import annotations

from engine.flows import delay, task
from engine.world import World


def test_suspends_with_a_timer() -> None:
    world = World(delay("nap", "5s"), task("wake")).start()

    assert world.where == {"nap": "sleeping"}
    assert world.due_in == 5000
    assert world.status == "waiting"
    assert world.entries("timer_started") == [{"node": "nap", "frame": 0, "branch": 0, "due": world.now + 5000}]


def test_completes_when_the_timer_fires_and_its_input_flows_through() -> None:
    world = World(delay("nap", "5s"), task("wake")).start("tea")
    world.advance("5s")

    assert world.where == {"wake": "dispatched"}
    assert world.given("wake") == "tea"
    assert world.story == ["started", "timer_started", "timer_fired", "dispatched"]


def test_still_waits_a_millisecond_before() -> None:
    world = World(delay("nap", "5s")).start()
    world.advance(4.999)
    assert world.where == {"nap": "sleeping"}

    world.advance("1ms")
    assert world.status == "completed"
    assert world.result_value == "input"


def test_a_delay_of_nothing_still_takes_a_turn_of_its_own() -> None:
    world = World(delay("nap", 0)).start()
    assert world.due_in == 0
    world.advance(0)
    assert world.status == "completed"


def test_delays_in_a_row_count_from_when_each_is_reached() -> None:
    world = World(delay("one", "5s"), delay("two", "5s")).start()
    world.advance("8s")
    assert world.where == {"two": "sleeping"}
    assert world.due_in == 2000
