"""Which definitions wait for which signals, as far as a client had to know. Definitions never change, so it stays true.

A signal is sent to an instance of a definition that is known to wait for it; for any other the server answers with the
definition's hash, and nothing is sent. So only the first signal of a (definition, name) costs more than one round trip.
"""

from __future__ import annotations

from typing import Final

from .conversations import Conversation
from .definitions import Definition
from .errors import MessageError, UnknownSignal
from .keys import Keys
from .registry import load_definition

_LIMIT: Final = 32
"""Definitions remembered per signal, and signals; the oldest are forgotten."""


class Awaited:
    """What one client knows of one namespace."""

    def __init__(self) -> None:
        self._definitions: dict[str, dict[str, None]] = {}
        """By signal: hashes, in the order they were learned."""

    def definitions(self, signal: str) -> tuple[str, ...]:
        """The hashes of definitions that may get that signal."""
        return tuple(self._definitions.get(signal, ()))

    def learn(self, keys: Keys, instance: str, digest: str, signal: str) -> Conversation[None]:
        """Notes that the definition waits for the signal. Raises `UnknownSignal` if it does not.

        One that is not stored, or was written by a newer release, gets the benefit of the doubt.
        """
        try:
            definition = yield from load_definition(keys, digest)
        except MessageError:
            definition = None
        if definition is not None and signal not in definition.signals:
            raise _unknown(definition, instance, signal)
        known = self._definitions.setdefault(signal, {})
        known[digest] = None
        for crowded in (known, self._definitions):
            if len(crowded) > _LIMIT:
                del crowded[next(iter(crowded))]


def _unknown(definition: Definition, instance: str, signal: str) -> UnknownSignal:
    waits = ", ".join(sorted(definition.signals))
    return UnknownSignal(
        f"Instance {instance!r} gets no signal {signal!r}: its flow {definition.flow!r} waits for "
        + (f"{waits}." if waits else "no signals at all."),
        instance=instance,
        flow=definition.flow,
        signal=signal,
    )
