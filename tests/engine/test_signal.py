from __future__ import annotations

from engine.flows import delay, fork, payload, task, wait
from engine.world import INSTANCE, World

from headrace_broker.messages import SignalMessage


def test_suspends_until_the_signal() -> None:
    world = World(wait("approval", "ok")).start()

    assert world.where == {"approval": "awaiting"}
    assert world.timers == {}
    assert world.entries("signal_awaited") == [{"node": "approval", "frame": 0, "branch": 0, "signal": "ok", "due": 0}]


def test_completes_with_the_payload() -> None:
    world = World(wait("approval", "ok"), task("publish")).start()
    world.signal("ok", {"by": "ann"})

    assert world.given("publish") == {"by": "ann"}
    assert world.story == ["started", "signal_awaited", "signal_received", "signal_taken", "dispatched"]


def test_still_waits_after_a_signal_of_another_name() -> None:
    world = World(wait("approval", "ok", timeout="2d")).start()
    world.signal("okay")
    world.advance("1d")
    assert world.where == {"approval": "awaiting"}


def test_takes_one_that_came_before_it_waited() -> None:
    world = World(task("prepare"), wait("approval", "ok")).start()
    world.signal("ok", "early")
    assert world.where == {"prepare": "dispatched"}

    world.complete("prepare")
    assert world.result_value == "early"
    assert "signal_awaited" not in world.story


def test_takes_one_that_came_before_the_start() -> None:
    world = World(wait("approval", "ok"))
    world.signal("ok", "very early")
    assert world.status == "queued"

    world.start()
    assert world.result_value == "very early"


def test_first_in_first_out_and_one_wait_takes_one() -> None:
    world = World(wait("one", "n"), wait("two", "n"), wait("three", "n", keep_input=True)).start()
    world.signal("n", 1)
    world.signal("n", 2)
    assert world.where == {"three": "awaiting"}

    world.signal("n", 3)
    assert world.result_value == (2, 3)


def test_buffered_ones_are_taken_in_their_order() -> None:
    world = World(task("prepare"), wait("one", "n"), wait("two", "n", keep_input=True), wait("three", "n")).start()
    for number in (1, 2):
        world.signal("n", number)
    world.complete("prepare")

    assert world.where == {"three": "awaiting"}
    assert world.read(world.outputs[next(iter(world.tokens.values())).slot]) == (1, 2)


def test_hundreds_of_waits_pass_at_once_without_recursion() -> None:
    world = World(task("prepare"), *(wait(f"w{n}", "n") for n in range(400))).start()
    world.commit(*(SignalMessage(INSTANCE, "n", payload(n)) for n in range(399)))
    world.complete("prepare")
    assert world.where == {"w399": "awaiting"}


def test_who_waited_longest_is_served_first() -> None:
    world = World(fork("both", left=[wait("l", "n")], right=[wait("r", "n")])).start()
    world.signal("n", 1)
    assert world.where == {"r": "awaiting"}
    world.signal("n", 2)
    assert world.result_value == {"left": 1, "right": 2}


def test_one_that_gave_up_waiting_is_passed_over() -> None:
    world = World(fork("both", left=[wait("l", "n", timeout="1s", default="gave up")], right=[wait("r", "n")])).start()
    world.advance("1s")
    world.signal("n", 1)
    assert world.result_value == {"left": "gave up", "right": 1}


def test_a_signal_after_all_gave_up_is_buffered_for_the_next() -> None:
    world = World(wait("first", "n", timeout="1s", default=0), delay("nap", "1s"), wait("second", "n")).start()
    world.advance("1s")
    world.signal("n", "late")
    assert world.where == {"nap": "sleeping"}
    world.advance("1s")
    assert world.result_value == "late"


def test_keep_input_makes_a_pair() -> None:
    world = World(wait("approval", "ok", keep_input=True), task("publish")).start("draft")
    world.signal("ok", "yes")
    assert world.given("publish") == ("draft", "yes")


def test_a_time_out_alone_fails_the_step() -> None:
    world = World(wait("approval", "ok", timeout="48h")).start()
    assert world.due_in == 48 * 3_600_000
    world.advance("48h")

    assert world.status == "failed"
    assert world.error[0] == "SignalTimeout"
    assert world.error[3] == "approval"
    assert "'ok'" in world.error[1]
    assert world.story[-2:] == ["signal_timed_out", "ended"]


def test_a_time_out_with_a_default_goes_on_with_it() -> None:
    world = World(wait("approval", "ok", timeout="1h", default="no"), task("publish")).start()
    world.advance("1h")
    assert world.given("publish") == "no"


def test_a_time_out_with_steps_goes_through_them_on_the_waits_input() -> None:
    world = World(wait("approval", "ok", timeout="1h", on_timeout=[task("escalate")]), task("publish")).start("draft")
    world.advance("1h")
    assert world.given("escalate") == "draft"
    world.complete("escalate", "boss said yes")
    assert world.given("publish") == "boss said yes"


def test_a_signal_in_time_skips_the_steps_for_a_time_out() -> None:
    world = World(wait("approval", "ok", timeout="1h", on_timeout=[task("escalate")]), task("publish")).start()
    world.signal("ok", "yes")
    assert world.timers == {}
    world.advance("2h")
    assert world.where == {"publish": "dispatched"}


def test_a_signal_that_comes_as_a_wait_times_out_is_kept_for_the_next() -> None:
    world = World(wait("first", "n", timeout="1s", default="none"), wait("second", "n", keep_input=True)).start()
    world.advance("1s")
    world.signal("n", "late")
    assert world.result_value == ("none", "late")
