"""Brings the instances and programs that a batch needs into memory, in one round trip each for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from headrace_broker import records
from headrace_broker.connection import Command, Link, Reply, exchange, is_wrong_type, raise_error
from headrace_broker.definitions import Definition
from headrace_broker.errors import MessageError
from headrace_broker.ids import DispatchId
from headrace_broker.instances import STATUSES
from headrace_broker.keys import Keys, PartitionKeys
from headrace_broker.records import Record, Token

from .cache import Recent
from .engine.model import Instance
from .engine.nodes import KINDS
from .engine.program import Program


def load_instances(link: Link, keys: PartitionKeys, ids: Iterable[str]) -> dict[str, Instance | MessageError]:
    """The newest incarnation of each id that has one; an error for one whose header cannot be read.

    With a state that cannot be read it is loaded with `damage`: there is something that can be blocked.
    """
    names = list(ids)
    if not names:
        return {}
    loaded: dict[str, Instance | MessageError] = {}
    headers = exchange(link, [("HGETALL", keys.header(id)) for id in names])
    found: dict[str, dict[str, str]] = {}
    for id, reply in zip(names, headers, strict=True):
        try:
            rows = _rows(reply)
        except MessageError as error:
            loaded[id] = _unreadable(id, error)
            continue
        if rows:
            found[id] = {
                name.decode(): value.decode(errors="replace")
                for name, value in zip(rows[::2], rows[1::2], strict=True)
                if name != b"error"
            }
    states = exchange(link, [("HGETALL", keys.state(header.get("inc", ""))) for header in found.values()])
    for (id, header), reply in zip(found.items(), states, strict=True):
        try:
            instance = Instance(id, header["inc"], header["flow"], header["def"], header, {})
            loaded[id] = _checked(instance)
        except (KeyError, ValueError) as error:
            loaded[id] = _unreadable(id, error)
            continue
        try:
            instance.state = _checked_state(records.unpack_state(_rows(reply)))
        except (MessageError, ValueError) as error:
            instance.damage = f"The state of instance {id!r} cannot be read: {error}"
    return loaded


def _checked_state(state: dict[str, Record]) -> dict[str, Record]:
    """Raises `MessageError` for a dispatch id that names no entry: a commit that takes it out would fail in part."""
    for record in state.values():
        if isinstance(record, Token) and record.dispatch:
            DispatchId.parse(record.dispatch)
    return state


def _rows(reply: Reply) -> list[bytes]:
    """The reply of HGETALL. Raises `MessageError` for a key that is no hash: that is one instance's harm, not all's."""
    if is_wrong_type(reply):
        raise MessageError(str(reply))
    return cast("list[bytes]", raise_error(reply))


def _unreadable(id: str, error: Exception) -> MessageError:
    return MessageError(f"The header of instance {id!r} cannot be read: {error}.", instance=id)


def _checked(instance: Instance) -> Instance:
    """Raises KeyError or ValueError for a header without what every instance has."""
    if instance.status not in STATUSES or instance.created < 0:
        raise ValueError(f"status {instance.status!r}, created {instance.created}")
    return instance


class Programs:
    """Programs by definition hash; a definition never changes, so they are kept across reconnects."""

    def __init__(self, keys: Keys, limit: int = 1000) -> None:
        self._keys = keys
        self._programs: Recent[str, Program] = Recent(limit)

    def get(self, digest: str) -> Program | None:
        return self._programs.get(digest)

    def load(self, link: Link, digests: Iterable[str]) -> Mapping[str, str]:
        """Loads what is not here yet; by hash, why one could not be loaded."""
        missing = sorted({digest for digest in digests if self._programs.get(digest) is None})
        if not missing:
            return {}
        commands: list[Command] = [("GET", self._keys.definition(digest)) for digest in missing]
        problems: dict[str, str] = {}
        for digest, reply in zip(missing, exchange(link, commands), strict=True):
            if is_wrong_type(reply):
                problems[digest] = f"Definition {digest} is no string: {reply}"
                continue
            data = cast("bytes | None", raise_error(reply))
            if data is None:
                problems[digest] = f"Definition {digest} is not stored. Start a worker or client that has the flow."
                continue
            try:
                self._programs.put(digest, Program.load(Definition.from_wire(data), KINDS))
            except MessageError as error:
                problems[digest] = str(error)
        return problems
