"""How many rq workers there are, and what is said when RQ is missing."""

from __future__ import annotations

import pytest

from headrace_broker.conversations import converse
from headrace_broker.errors import ConfigurationError
from headrace_broker.workers import live_workers
from headrace_workers.process import WorkerOptions
from headrace_workers.rq.serializer import MessagePack
from headrace_workers.rq.words import Begun, Died, Ending, Settled, Up, Word, decode, encode
from support.feeding import Feed
from support.waiting import wait_until

from .conftest import PATIENCE, STREAM, StartRq

HIDE = (
    "import sys; sys.modules['rq'] = None; import importlib.util as u; f = u.find_spec; "
    "u.find_spec = lambda name, package=None: None if name == 'rq' else f(name, package)\n"
)


@pytest.mark.real_only
@pytest.mark.servers("redis")
@pytest.mark.leaves_keys("namespace")
class TestProcesses:
    def test_without_rq_the_error_says_how_to_install_it(self, start: StartRq, feed: Feed) -> None:
        worker = start(HIDE)
        assert worker.ended() == 1
        assert "MissingExtra: Task" in worker.said
        assert "pip install 'headrace[rq]'" in worker.said

    @pytest.mark.full_only
    def test_without_rq_its_workers_cannot_be_asked_for(self, start: StartRq, feed: Feed) -> None:
        asked = start(HIDE, rq=2)
        assert asked.ended() == 1
        assert "MissingExtra: --rq" in asked.said

    def test_rq_0_leaves_such_tasks_to_others(self, start: StartRq, feed: Feed) -> None:
        start(HIDE, rq=0)
        announced = wait_until(lambda: converse(feed.link, live_workers(feed.namespace.keys)), PATIENCE, "a worker")
        assert announced[0].streams == ("default",)

    def test_the_bridge_is_announced_once_it_takes_work(self, start: StartRq, feed: Feed) -> None:
        start()

        def streams() -> set[str]:
            return {
                stream for record in converse(feed.link, live_workers(feed.namespace.keys)) for stream in record.streams
            }

        wait_until(lambda: streams() == {"default", STREAM}, PATIENCE, "both streams to be served")


def test_a_count_of_rq_workers_is_checked() -> None:
    with pytest.raises(ConfigurationError, match="rq of a worker"):
        WorkerOptions(targets=["x.py"], rq=-1)


def test_rq_keeps_messagepack() -> None:
    job: tuple[object, ...] = ("headrace_workers.rq.horse.run", None, (b"\x00\xff", "default", 3), {})
    assert MessagePack.loads(MessagePack.dumps(job)) == [job[0], None, [b"\x00\xff", "default", 3], {}]


@pytest.mark.parametrize("word", [Up(), Begun("1-a-2-3"), Ending("1-a-2-3"), Settled("1-a-2-3"), Died("1-a-2-3", -9)])
def test_words_cross_the_pipe(word: Word) -> None:
    line = encode(word)
    assert line.endswith(b"\n")
    assert decode(line.rstrip(b"\n")) == word


@pytest.mark.parametrize("line", [b"", b"hello", b"Begun", b"Died 1 x", b"Up up", b"\xff\xfe", b"Settled a b"])
def test_other_lines_are_no_words(line: bytes) -> None:
    assert decode(line) is None
