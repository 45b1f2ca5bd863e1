"""What a child serves: the tasks of its targets, for the queues it was given."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from headrace.tasks import AnyTask
from headrace_broker.errors import ConfigurationError
from headrace_broker.keys import Isolation, stream_of


@dataclass(frozen=True)
class Served:
    """`streams` are those a child reads; `process_streams` are for work-horses, and children never read them."""

    tasks: Mapping[str, AnyTask]
    streams: tuple[str, ...]
    process_streams: tuple[str, ...] = ()

    def names(self, isolation: Isolation) -> list[str]:
        """The tasks that are announced for this isolation, sorted."""
        return sorted(name for name, task in self.tasks.items() if task.isolation == isolation)


def serve(tasks: Iterable[AnyTask], queues: Collection[str] | None = None) -> Served:
    """The tasks of these queues; of all queues that tasks name if None.

    Raises `ConfigurationError` if there is nothing to do, `InvalidTask` for annotations that cannot be resolved.
    """
    known = list(tasks)
    named = {task.queue for task in known}
    if not known:
        raise ConfigurationError("The targets define no task and no flow, so this worker would have nothing to do.")
    if queues is not None and (missing := set(queues) - named):
        raise ConfigurationError(
            f"No task of the targets is in queue {', '.join(sorted(missing))}; there are: {', '.join(sorted(named))}."
        )
    chosen = {task.name: task for task in known if queues is None or task.queue in queues}
    for task in chosen.values():
        task.check()
    streams: dict[Isolation, set[str]] = {"thread": set(), "process": set()}
    for task in chosen.values():
        streams[task.isolation].add(stream_of(task.queue, task.isolation))
    return Served(chosen, tuple(sorted(streams["thread"])), tuple(sorted(streams["process"])))
