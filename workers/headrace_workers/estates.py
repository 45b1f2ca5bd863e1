"""What a dead child leaves: entries that are pending for its consumer, to be reported to the partitions' owners.

The keeper appends how each delivery ended and leaves the entry alone: it is taken out by the commit that applies the
report, so nothing is lost if that never comes. When nothing is pending any more, the consumer goes too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace_broker import messages, tasks
from headrace_broker.connection import Command, raise_error
from headrace_broker.conversations import Conversation
from headrace_broker.errors import MessageError
from headrace_broker.messages import GarbageMessage, TaskMessage
from headrace_broker.tasks import Delivery, Settlement, Source

from . import reports

_BATCH = 256


@dataclass
class Estate:
    """`returned`: entries (stream's key, id) that were certainly not begun. `blameless`: the child did not die of a
    task, its keeper ended it; then what was begun is returned as well, and counts as no loss."""

    consumer: str
    sources: Sequence[Source]
    returned: frozenset[tuple[str, str]] = frozenset()
    blameless: bool = False
    reported: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    complete: bool = False
    """All that was pending has been reported once."""

    def report(self) -> Conversation[int]:
        """Reports what is pending and was not reported yet; returns how many. A lost reply may repeat some.

        Raises `ServerError`.
        """
        pending = yield from tasks.pending(self.consumer, self.sources)
        fresh = [found for found in pending if (found.source.key, found.entry) not in self.reported]
        for start in range(0, len(fresh), _BATCH):
            chunk = fresh[start : start + _BATCH]
            spans = [self._commands(found) for found in chunk]
            replies = yield [command for span in spans for command in span]
            for reply in replies:
                raise_error(reply)
            self.reported.update((found.source.key, found.entry) for found in chunk)
        self.complete = True
        return len(fresh)

    def drop(self) -> Conversation[bool]:
        """Deletes the consumer where nothing is pending; True if that is everywhere. Raises `ServerError`."""
        self.sources = yield from tasks.drop_consumer(self.consumer, self.sources)
        return not self.sources

    def _commands(self, found: Delivery) -> list[Command]:
        source, entry, raw = found
        events = source.partition.events
        try:
            message = messages.expect(messages.unpack(raw or b""), TaskMessage)
        except MessageError as error:
            garbage = messages.pack(GarbageMessage(source.key, entry, raw or b"", str(error)))
            # No token holds it, so no commit will take it out.
            return tasks.settle(source.partition, [Settlement(garbage, source, entry)])
        returned = self.blameless or (source.key, entry) in self.returned
        result = reports.ended(message, "returned" if returned else "lost", self.consumer)
        return [("XADD", events, "*", "m", messages.pack(result))]
