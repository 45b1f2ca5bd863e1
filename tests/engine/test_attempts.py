"""What becomes of an attempt (DESIGN 7 and 8): failures spend attempts, losses and hand-backs do not."""

from __future__ import annotations

import pytest
from engine.flows import fork, task
from engine.world import World
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_broker.definitions import RetrySpec
from headrace_orchestrator.engine.attempts import LOSSES_BEFORE_ALONE, retry_delay_ms

STEADY = RetrySpec(max_retries=5, initial_ms=100, backoff=3.0, max_ms=2000)


# -- retries --------------------------------------------------------------------------------------


def test_no_retries_is_one_attempt() -> None:
    world = World(task("t", retries=0)).start()
    world.fail("t")
    assert world.status == "failed"
    assert len(world.entries("dispatched")) == 1


def test_attempts_are_retries_plus_one() -> None:
    world = World(task("t", retries=3)).start()
    for attempt in (1, 2, 3, 4):
        assert world.task("t").attempt == attempt
        world.fail("t", f"Error{attempt}")
        world.advance("1h")

    assert world.status == "failed"
    assert world.error[0] == "Error4"
    assert [entry["attempt"] for entry in world.entries("attempt_failed")] == [1, 2, 3, 4]
    assert [entry["attempt"] for entry in world.entries("retry_scheduled")] == [2, 3, 4]


def test_a_retry_waits_for_its_delay() -> None:
    world = World(task("t", retries=STEADY)).start()
    world.fail("t")

    assert world.where == {"t": "backoff"}
    assert world.tasks == {}
    assert world.due_in == 100
    world.advance(0.099)
    assert world.where == {"t": "backoff"}
    world.advance(0.001)
    assert world.where == {"t": "dispatched"}
    world.complete("t", "at last")
    assert world.result_value == "at last"


def test_delays_grow_up_to_their_cap() -> None:
    world = World(task("t", retries=STEADY)).start()
    delays: list[int] = []
    for _ in range(STEADY.max_retries):
        world.fail("t")
        delays.append(world.due_in)
        world.fire_next()
    assert delays == [100, 300, 900, 2000, 2000]


def test_a_time_out_told_by_the_worker_is_a_failed_attempt() -> None:
    world = World(task("t", retries=1, timeout="3s")).start()
    world.begin("t")
    world.time_out("t")
    assert world.where == {"t": "backoff"}
    world.advance("1s")
    world.time_out("t")
    assert world.status == "failed"
    assert world.error[0] == "TaskTimedOut"
    assert [entry["outcome"] for entry in world.entries("attempt_failed")] == ["timed_out", "timed_out"]


def test_retry_after_overrules_the_delay_and_spends_an_attempt() -> None:
    world = World(task("t", retries=1)).start()
    world.fail("t", retry_after_ms=77_000)
    assert world.due_in == 77_000
    world.fire_next()
    world.fail("t", retry_after_ms=77_000)
    assert world.status == "failed"


def test_give_up_overrules_the_policy() -> None:
    world = World(task("t", retries=9)).start()
    world.fail("t", "GiveUp", may_retry=False)
    assert world.status == "failed"
    assert world.error[0] == "GiveUp"


def test_a_failure_that_may_be_retried_is_still_bound_by_the_number() -> None:
    world = World(task("t", retries=0)).start()
    world.fail("t", may_retry=True, retry_after_ms=1)
    assert world.status == "failed"


def test_a_failure_without_a_reason_says_so() -> None:
    world = World(task("t")).start()
    world.commit(world.result("t", "failed"))
    assert world.error[:2] == ["Unknown", "The worker gave no reason."]


# -- the delay's formula --------------------------------------------------------------------------

policies = st.builds(
    RetrySpec,
    max_retries=st.just(1),
    initial_ms=st.integers(0, 100_000),
    backoff=st.floats(0, 100),
    max_ms=st.integers(0, 10_000_000),
    jitter=st.floats(0, 1),
)


@settings(max_examples=25, deadline=None)
@given(policies, st.integers(1, 10_000), st.integers(0, 2**32).map("0-feed-{}-0".format))
def test_the_delay_is_the_formula_capped_and_then_jittered(retry: RetrySpec, k: int, seed: str) -> None:
    try:
        exact = min(retry.initial_ms * retry.backoff ** (k - 1), retry.max_ms)
    except OverflowError:
        exact = retry.max_ms
    delay = retry_delay_ms(retry, k, seed)
    assert exact * (1 - retry.jitter) - 1 <= delay <= exact * (1 + retry.jitter) + 1
    assert delay == retry_delay_ms(retry, k, seed), "a batch that is decided again decides the same"


def test_jitter_spreads_over_its_whole_range() -> None:
    retry = RetrySpec(1, 10_000, 2.0, 60_000, jitter=0.5)
    delays = [retry_delay_ms(retry, 1, f"0-feed-{n}-0") for n in range(500)]
    assert 5000 <= min(delays) < 5500
    assert 14_500 < max(delays) <= 15_000
    assert 9500 < sum(delays) / len(delays) < 10_500


def test_a_huge_backoff_ends_at_the_cap() -> None:
    assert retry_delay_ms(RetrySpec(10_000, 1000, 100.0, 3_600_000), 9_999, "x") == 3_600_000


# -- lost deliveries ------------------------------------------------------------------------------


def test_a_loss_is_redelivered_at_once_and_spends_no_attempt() -> None:
    world = World(task("t", retries=0)).start()
    first = world.task("t")
    world.lose("t")

    second = world.task("t")
    assert (second.attempt, second.losses, second.alone) == (1, 1, False)
    assert second.dispatch != first.dispatch
    assert world.revoked == [first.dispatch]
    assert world.story == ["started", "dispatched", "redelivered", "dispatched"]
    assert world.entries("redelivered")[0]["cause"] == "lost"


def test_after_two_losses_it_runs_alone() -> None:
    world = World(task("t")).start()
    alone: list[bool] = []
    for _ in range(4):
        alone.append(world.task("t").alone)
        world.lose("t")
    assert alone == [False, False, True, True]


@pytest.mark.parametrize("max_deliveries", [1, 5])
def test_only_losses_while_alone_count(max_deliveries: int) -> None:
    world = World(task("t", retries=3), max_deliveries=max_deliveries).start()
    world.lose("t", LOSSES_BEFORE_ALONE + max_deliveries - 1)
    assert world.where == {"t": "dispatched"}

    world.lose("t")
    assert world.status == "failed"
    assert world.error[0] == "WorkerLost"
    assert world.error[3] == "t"
    assert world.entries("attempt_failed")[0]["outcome"] == "lost"


def test_a_worker_that_survives_saves_the_step() -> None:
    world = World(task("t")).start()
    world.lose("t", 6)
    world.complete("t", "phew")
    assert world.result_value == "phew"


def test_losses_of_a_step_add_up_over_its_attempts() -> None:
    world = World(task("t", retries=1)).start()
    world.lose("t", 2)
    world.fail("t")
    world.advance("1s")
    assert (world.task("t").attempt, world.task("t").losses, world.task("t").alone) == (2, 2, True)


def test_losses_are_the_steps_own() -> None:
    world = World(task("a"), task("b")).start()
    world.lose("a", 3)
    world.complete("a")
    assert (world.task("b").losses, world.task("b").alone) == (0, False)


def test_the_neighbour_of_a_lost_one_is_left_alone() -> None:
    world = World(fork("f", l=[task("a")], r=[task("b")])).start()
    other = world.task("b")
    world.lose("a")
    assert world.task("b") == other


# -- handed back ----------------------------------------------------------------------------------


def test_what_was_returned_spends_neither_attempt_nor_delivery() -> None:
    world = World(task("t")).start()
    world.lose("t", 2)
    for _ in range(20):
        world.hand_back("t")
    again = world.task("t")
    assert (again.attempt, again.losses, again.alone) == (1, 2, True)
    assert world.entries("redelivered")[-1]["cause"] == "returned"


def test_an_unknown_task_backs_off_up_to_a_minute_and_spends_nothing() -> None:
    world = World(task("t")).start()
    delays: list[int] = []
    for _ in range(9):
        world.not_known("t")
        assert world.where == {"t": "backoff"}
        delays.append(world.due_in)
        world.fire_next()
    for delay, step in zip(delays, [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000], strict=True):
        assert 0.8 * step <= delay <= 1.2 * step
    assert (world.task("t").attempt, world.task("t").losses) == (1, 0)
    assert {entry["cause"] for entry in world.entries("redelivered")} == {"unknown task"}


# -- the guard of a time-out ----------------------------------------------------------------------


def test_a_started_attempt_is_guarded_by_its_time_out_and_a_lease() -> None:
    world = World(task("t", timeout="30s"), lease="10s").start()
    assert world.timers == {}, "it does not run yet"
    world.advance("1h")
    world.begin("t")
    assert world.due_in == 40_000
    assert world.where == {"t": "dispatched"}


def test_an_attempt_without_a_time_out_is_not_guarded() -> None:
    world = World(task("t")).start()
    world.begin("t")
    assert world.timers == {}


def test_the_guard_counts_from_when_the_attempt_began_not_from_when_it_was_told() -> None:
    world = World(task("t", timeout="30s"), lease="10s").start()
    began = world.now
    world.advance("25s")
    world.begin("t", began)
    assert world.due_in == 15_000


@pytest.mark.parametrize("ahead", [1, 10**15])
def test_a_worker_with_a_fast_clock_is_guarded_all_the_same(ahead: int) -> None:
    world = World(task("t", timeout="30s"), lease="10s").start()
    world.begin("t", world.now + ahead)
    assert world.due_in == 40_000


def test_a_second_report_of_the_start_changes_nothing() -> None:
    world = World(task("t", timeout="30s")).start()
    world.begin("t")
    timers = dict(world.timers)
    world.advance("5s")
    world.begin("t")
    assert world.timers == timers


def test_the_guard_takes_the_attempt_back_and_the_policy_applies() -> None:
    world = World(task("t", retries=1, timeout="30s")).start()
    first = world.task("t")
    world.begin("t")
    world.advance("40s")

    assert world.revoked == [first.dispatch]
    assert world.where == {"t": "backoff"}
    world.advance("1s")
    assert world.task("t").attempt == 2
    world.begin("t")
    world.advance("40s")
    assert world.status == "failed"
    assert world.error[0] == "TaskTimedOut"


def test_a_result_in_time_takes_the_guard_away() -> None:
    world = World(task("t", timeout="30s"), task("next")).start()
    world.begin("t")
    world.complete("t")
    assert world.timers == {}


@pytest.mark.parametrize("outcome", ["lost", "returned"])
def test_a_redelivery_is_guarded_from_its_own_start(outcome: str) -> None:
    world = World(task("t", timeout="30s")).start()
    world.begin("t")
    world.commit(world.result("t", "lost" if outcome == "lost" else "returned"))
    assert world.timers == {}
    world.advance("1h")
    world.begin("t")
    assert world.due_in == 40_000
