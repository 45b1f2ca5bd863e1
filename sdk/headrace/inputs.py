"""What a client is given, checked where the caller can see the error, and encoded."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from headrace_broker import codec
from headrace_broker.errors import InvalidRequest, PayloadMismatch, PayloadNotSerializable
from headrace_broker.requests import Payload


def check_kind(what: str, given: object, *kinds: type) -> None:
    """Raises `InvalidRequest` unless `given` is one of `kinds`: annotations bind nobody."""
    if not isinstance(given, kinds):
        wanted = " or ".join("text" if kind is str else f"a {kind.__name__}" for kind in kinds)
        raise InvalidRequest(f"{what} is {wanted}; got {type(given).__name__} {given!r:.80}.")


def typed_payload(value: Any, annotation: Any, what: str) -> Payload:
    """`value` validated against a type. Raises `PayloadMismatch`, `PayloadNotSerializable`, `PayloadTooLarge`."""
    if annotation is not Any and annotation is not object:
        try:
            value = codec.adapter(annotation).validate_python(value, by_alias=True, by_name=True)
        except ValueError as error:
            raise PayloadMismatch(f"{what} does not validate: {_reasons(error)}") from error
    data = codec.encode(value)
    codec.check_size(data)
    return Payload(data)


def json_payload(value: Any, what: str, schema: str = "") -> Payload:
    """`value`, plain data or what pydantic makes into it, as JSON; validated against a JSON schema if there is one.

    Raises as `typed_payload` does.
    """
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        plain = to_jsonable_python(value)
        data = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise PayloadNotSerializable(f"{what} cannot be written as JSON: {error}") from error
    codec.check_size(data)
    codec.check_json_depth(data, plain)
    if schema:
        _check_schema(plain, schema, what)
    return Payload(data, "j")


def _check_schema(plain: Any, schema: str, what: str) -> None:
    errors: Any = _validator(schema).iter_errors(plain)
    found = [f"{_path(error.absolute_path)}{error.message}" for error in errors]
    if found:
        more = f" (and {len(found) - 5} more)" if len(found) > 5 else ""
        raise PayloadMismatch(f"{what} does not validate: {'; '.join(reason[:300] for reason in found[:5])}{more}")


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    import referencing
    from jsonschema import Draft202012Validator

    registry: referencing.Registry[Any] = referencing.Registry()  # which fetches nothing from elsewhere
    return Draft202012Validator(json.loads(schema), registry=registry)


def _path(parts: Any) -> str:
    path = ".".join(str(part) for part in parts)
    return f"{path}: " if path else ""


def _reasons(error: ValueError) -> str:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    found = error.errors(include_url=False)
    more = f" (and {len(found) - 5} more)" if len(found) > 5 else ""
    return "; ".join(f"{_path(reason['loc'])}{reason['msg']}" for reason in found[:5]) + more
