"""Raw signals: `XADD <ns>:signals * instance ID name NAME payload JSON`, from anything that speaks Redis (DESIGN 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from . import codec, values
from .errors import MessageError
from .ids import check_instance_id
from .messages import SignalMessage

NAME_LIMIT: Final = 256
"""Bytes of a signal's name in UTF-8."""
ACTOR: Final = "raw"


def parse(fields: Mapping[bytes, bytes]) -> SignalMessage:
    """The signal in the fields of an entry; its payload stays the JSON that it is.

    Raises `MessageError`, `InvalidInstanceId`, `PayloadTooLarge`, `PayloadNotSerializable`, `UnicodeDecodeError`.
    """
    try:
        instance = check_instance_id(fields[b"instance"].decode())
        name = fields[b"name"].decode()
    except KeyError as error:
        raise MessageError(f"A raw signal has the fields instance, name and payload; {error} is missing.") from None
    if not 1 <= len(fields[b"name"]) <= NAME_LIMIT or not name.isprintable():
        raise MessageError(f"A signal's name has 1 to {NAME_LIMIT} printable bytes; got {name[:40]!r}.")
    payload = fields.get(b"payload", b"null")
    codec.check_size(payload, codec.PAYLOAD_LIMIT)
    codec.check_json(payload)
    return SignalMessage(instance, name, values.inline(payload, "j"), actor=ACTOR)
