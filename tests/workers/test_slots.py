"""What a child may fetch and begin, and what it reads next."""

from __future__ import annotations

from headrace_broker.keys import Keys
from headrace_broker.messages import TaskMessage
from headrace_broker.tasks import sources
from headrace_workers.rotation import Rotation
from headrace_workers.slots import Held, Slots

SOURCES = sources([Keys("ns").partition(number) for number in range(4)], ["a", "b"])
MESSAGE = TaskMessage(
    *("i", "inc", 1, "flow", "node", "task", "0-1a-1-0", 1, 1, 1, 1, 0, False, 0, 0, b"m\xc0"),
)


def held(number: int, *, alone: bool = False) -> Held:
    return Held((0, f"{number}-0"), SOURCES[0], MESSAGE._replace(alone=alone))


def test_slots_are_free_until_they_are_waited_for_or_used() -> None:
    slots = Slots(2)
    first, second, third = held(1), held(2), held(3)
    for each in (first, second, third):
        slots.wait(each)
    assert slots.free == 0
    assert slots.next() is first
    assert slots.next() is second
    assert slots.next() is None
    slots.release(first)
    assert slots.next() is third
    slots.release(second)
    slots.release(third)
    assert slots.free == 2
    assert slots.idle


def test_one_that_runs_alone_waits_for_the_others_and_keeps_them_off() -> None:
    slots = Slots(4)
    first, alone, last = held(1), held(2, alone=True), held(3)
    slots.wait(first)
    assert slots.next() is first
    slots.wait(alone)
    slots.wait(last)
    assert slots.free == 0
    assert slots.next() is None
    slots.release(first)
    assert slots.next() is alone
    assert slots.next() is None
    assert slots.free == 0
    slots.release(alone)
    assert slots.next() is last
    assert slots.free == 3


def test_what_is_given_up_no_longer_waits() -> None:
    slots = Slots(1)
    alone = held(1, alone=True)
    slots.wait(alone)
    assert slots.give_up(alone)
    assert not slots.give_up(alone)
    assert slots.next() is None
    assert slots.free == 1


def test_each_stream_gets_its_share_of_the_free_slots() -> None:
    rotation = Rotation("c", SOURCES, 1000)
    commands = rotation.reads(20)
    assert [command[5] for command in commands] == [2] * 4
    assert [command[7:9] for command in commands] == [
        (SOURCES[2 * number].key, SOURCES[2 * number + 1].key) for number in range(4)
    ]
    assert rotation.may_block


def test_few_slots_go_round_the_streams() -> None:
    rotation = Rotation("c", SOURCES, 1000)
    asked: list[object] = []
    while not rotation.may_block:
        commands = rotation.reads(3)
        assert all(command[5] == 1 for command in commands)
        asked += [key for command in commands for key in command[7 : 7 + (len(command) - 7) // 2]]
    assert len(asked) == 9
    assert set(asked) == {source.key for source in SOURCES}
    rotation.found()
    assert not rotation.may_block


def test_a_blocked_read_names_one_entry_of_each_stream() -> None:
    block = Rotation("c", SOURCES, 1000).block
    assert block[4:9] == ("COUNT", 1, "BLOCK", 1000, "STREAMS")
    assert block[-8:] == (">",) * 8
