"""The value that a dispatch carries: what its slot holds, inline when that is known and small."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from headrace_broker.codec import INLINE_LIMIT
from headrace_broker.connection import Command, Link, exchange, is_wrong_type, raise_error
from headrace_broker.errors import MessageError
from headrace_broker.keys import PartitionKeys
from headrace_broker.values import Composite, Inline, Output, Value, composite, output, parse

from .cache import Values
from .engine.model import Draft

_PARTS_READ = 64
"""A composite of more parts is read by the worker, in chunks: here it would hold up the partition."""


class SlotReader:
    """Resolves slots for one batch: from the drafts, the cache, and one pipelined read for all the rest."""

    def __init__(self, link: Link, keys: PartitionKeys, cache: Values) -> None:
        self._link = link
        self._keys = keys
        self._cache = cache
        self._read: dict[tuple[str, str], Value] = {}

    def prepare(self, drafts: Iterable[Draft]) -> None:
        """Reads what dispatches need and is not known: slots, then a composite's parts, then their aliases."""
        wanted = [(draft, dispatch.slot) for draft in drafts for dispatch in draft.dispatches]
        self._fetch(wanted)
        parts = [(draft, part) for draft, slot in wanted for part in _parts(self._known(draft, slot))]
        self._fetch(parts)
        self._fetch(
            (draft, alias[1:].decode())
            for draft, slot in parts
            if (alias := self._held(draft, slot)) and alias[:1] == b"o"
        )

    def value(self, draft: Draft, slot: str) -> Value:
        """What goes into the message; of a composite too long for one, its slot.

        Raises `MessageError` when the slot is gone, which only damaged data can cause.
        """
        value = self._known(draft, slot)
        if value is None:
            raise MessageError(f"Slot {slot!r} of instance {draft.instance.id!r} is gone.")
        if value[:1] != b"c":
            return value
        inlined = self._inlined(draft, cast(Composite, parse(value)))
        if inlined is not None:
            return inlined
        return value if len(value) <= INLINE_LIMIT else output(slot)

    def _inlined(self, draft: Draft, parsed: Composite) -> Value | None:
        parts: list[Value] = []
        size = 0
        for part in parsed.parts:
            inner = parse(part)
            known = self._known(draft, inner.slot) if isinstance(inner, Output) else part
            if known is None or not isinstance(parse(known), Inline):
                return None
            size += len(known)
            if size > INLINE_LIMIT:
                return None
            parts.append(known)
        return composite(parsed.shape, parsed.names, parts)

    def _known(self, draft: Draft, slot: str) -> Value | None:
        """What the slot holds, aliases followed; None if it, or what it is an alias of, is not in memory."""
        value = self._held(draft, slot)
        if value is not None and value[:1] == b"o":
            return self._held(draft, value[1:].decode())
        return value

    def _held(self, draft: Draft, slot: str) -> Value | None:
        value = draft.outputs.get(slot)
        if value is not None:
            return value
        incarnation = draft.instance.incarnation
        return self._cache.get(incarnation, slot) or self._read.get((incarnation, slot))

    def _fetch(self, wanted: Iterable[tuple[Draft, str]]) -> None:
        missing: dict[str, dict[str, None]] = {}
        for draft, slot in wanted:
            if self._held(draft, slot) is None:
                missing.setdefault(draft.instance.incarnation, {})[slot] = None
        if not missing:
            return
        commands: list[Command] = [("HMGET", self._keys.outputs(inc), *slots) for inc, slots in missing.items()]
        for (incarnation, slots), reply in zip(missing.items(), exchange(self._link, commands), strict=True):
            if is_wrong_type(reply):  # one instance's harm, not the partition's
                raise MessageError(f"The outputs of incarnation {incarnation} are no hash: {reply}")
            for slot, value in zip(slots, cast("list[bytes | None]", raise_error(reply)), strict=True):
                if value is not None:
                    self._read[incarnation, slot] = value


def _parts(value: Value | None) -> list[str]:
    if value is None or value[:1] != b"c":
        return []
    parts = cast(Composite, parse(value)).parts
    if len(parts) > _PARTS_READ:
        return []
    return [inner.slot for inner in map(parse, parts) if isinstance(inner, Output)]
