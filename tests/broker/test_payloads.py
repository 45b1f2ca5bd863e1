"""From objects to values and back: where a payload lies, and that all it names is found again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from pydantic import BaseModel

from headrace_broker import codec, payloads, values
from headrace_broker.connection import AsyncLink, Command, Reply, Server
from headrace_broker.errors import MessageError, PayloadMismatch, PayloadTooLarge
from headrace_broker.keys import Keys, PartitionKeys
from headrace_broker.values import Value
from support.links import call_async

INCARNATION = "Ab3_-xyz0912"
LIMIT = codec.INLINE_LIMIT


class Order(BaseModel):
    """What a task may take."""

    id: int
    lines: list[str] = []


class CountingLink:
    """`AsyncLink` that remembers the names of the commands that went through it."""

    def __init__(self, link: AsyncLink) -> None:
        self._link = link
        self.sent: list[str] = []

    async def exchange(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        self.sent += [str(command[0]) for command in commands]
        return await self._link.exchange(commands, timeout=timeout)

    async def close(self) -> None:
        await self._link.close()


class Store:
    """The values of one incarnation on a server."""

    def __init__(self, link: CountingLink, keys: PartitionKeys) -> None:
        self.link = link
        self.outputs = keys.outputs(INCARNATION)
        self._keys = keys
        self._count = 0

    async def large(self, payload: bytes, tag: str = "m") -> Value:
        """A reference to a key that holds `payload`."""
        self._count += 1
        key = self._keys.value(INCARNATION, str(self._count))
        await call_async(self.link, "SET", key, payload, "PX", 60_000)
        return values.reference(key, len(payload), tag)

    async def slot(self, name: str, value: Value) -> Value:
        """An output that names a slot which holds `value`."""
        await call_async(self.link, "HSET", self.outputs, name, value)
        return values.output(name)

    async def resolve(self, value: Value) -> Value:
        self.link.sent.clear()
        return await payloads.resolve(self.link, value, self.outputs)


@pytest.fixture
async def store(server_url: str, namespace: str) -> AsyncIterator[Store]:
    link = await Server(server_url).connect_async()
    try:
        yield Store(CountingLink(link), Keys(namespace).partition(0))
    finally:
        await link.close()


def inline(value: object) -> Value:
    return values.inline(codec.encode(value))


def never() -> str:
    raise AssertionError("an inline value needs no key")


@pytest.mark.parametrize("size", [0, 1, LIMIT - 1, LIMIT])
@pytest.mark.parametrize("tag", ["m", "j"])
def test_a_payload_up_to_the_limit_is_inline(size: int, tag: str) -> None:
    payload = b"x" * size
    stored = payloads.store(payload, never, tag)
    assert stored == payloads.Stored(values.inline(payload, tag), None)


@pytest.mark.parametrize("size", [LIMIT + 1, codec.PAYLOAD_LIMIT])
@pytest.mark.parametrize("tag", ["m", "j"])
def test_a_larger_payload_lies_at_a_key(size: int, tag: str) -> None:
    payload = b"x" * size
    stored = payloads.store(payload, lambda: "the-key", tag)
    assert values.parse(stored.value) == values.Reference("the-key", size, tag)
    assert stored.write == ("the-key", payload)


def test_a_payload_over_its_limit_is_refused() -> None:
    with pytest.raises(PayloadTooLarge, match="1,048,577 bytes, the limit is 1,048,576"):
        payloads.store(b"x" * (codec.PAYLOAD_LIMIT + 1), never)


def test_load_validates() -> None:
    assert payloads.load(inline({"id": 1}), Order) == Order(id=1)
    assert payloads.load(inline({"id": 1})) == {"id": 1}
    assert payloads.load(values.inline(b'{"id": 1}', "j"), Order) == Order(id=1)
    assert payloads.load(values.inline(b'{"id": 1}', "j")) == {"id": 1}
    for wrong in (inline({"id": "x"}), values.inline(b'{"id": "x"}', "j"), values.inline(b"{", "j")):
        with pytest.raises(PayloadMismatch):
            payloads.load(wrong, Order)


@pytest.mark.parametrize("value", [values.output("n1.0"), values.reference("k", 1)])
def test_load_refuses_what_is_not_resolved(value: Value) -> None:
    for unresolved in (value, values.composite("list", (), [value])):
        with pytest.raises(PayloadMismatch, match="not resolved"):
            payloads.load(unresolved)


def test_shapes() -> None:
    parts = [inline(1), inline({"id": 2}), values.inline(b'"three"', "j")]
    names = ["a", "b", "c"]
    assert payloads.load(values.composite("dict", names, parts)) == {"a": 1, "b": {"id": 2}, "c": "three"}
    assert payloads.load(values.composite("args", names, parts)) == {"a": 1, "b": {"id": 2}, "c": "three"}
    assert payloads.load(values.composite("list", (), parts)) == [1, {"id": 2}, "three"]
    assert payloads.load(values.composite("list", (), [])) == []
    assert payloads.load(values.composite("dict", [], [])) == {}
    pair = payloads.load(values.composite("pair", (), parts[:2]))
    assert pair == (1, {"id": 2})
    assert type(pair) is tuple


def test_shapes_are_validated_as_a_whole() -> None:
    orders = values.composite("list", (), [inline({"id": 1}), inline({"id": 2})])
    assert payloads.load(orders, list[Order]) == [Order(id=1), Order(id=2)]
    by_name = values.composite("dict", ["a"], [inline({"id": 1})])
    assert payloads.load(by_name, dict[str, Order]) == {"a": Order(id=1)}
    pair = values.composite("pair", (), [inline({"id": 1}), inline("ok")])
    assert payloads.load(pair, tuple[Order, str]) == (Order(id=1), "ok")
    with pytest.raises(PayloadMismatch):
        payloads.load(orders, list[str])


def test_nested_composites_load() -> None:
    inner = values.composite("pair", (), [inline(1), inline(2)])
    assert payloads.load(values.composite("dict", ["in"], [values.composite("list", (), [inner])])) == {"in": [(1, 2)]}


def test_arguments_are_those_of_a_join() -> None:
    parts = [inline(1), values.output("n1.0")]
    assert payloads.arguments(values.composite("args", ["a", "b"], parts)) == {"a": parts[0], "b": parts[1]}
    assert payloads.arguments(values.composite("args", [], [])) == {}
    for value in (inline(1), values.composite("dict", ["a", "b"], parts), values.output("x")):
        assert payloads.arguments(value) is None


@pytest.mark.parametrize("value", [b"", b"?", b"c\x90", b"r\xc0"])
async def test_garbage_is_a_message_error_wherever_it_goes(value: Value) -> None:
    class NoLink:
        async def exchange(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
            raise AssertionError("nothing is to be fetched")

        async def close(self) -> None: ...

    for bad in (value, values.composite("list", (), [value])):
        with pytest.raises(MessageError):
            await payloads.resolve(NoLink(), bad, "outputs")
        with pytest.raises(MessageError):
            payloads.load(bad)
    with pytest.raises(MessageError):
        payloads.arguments(value)


@pytest.mark.leaves_keys("outputs")
class TestResolve:
    async def test_inline_values_cost_nothing(self, store: Store) -> None:
        for value in (inline(1), values.inline(b"{}", "j"), values.composite("list", (), [inline(1)])):
            assert await store.resolve(value) == value
            assert store.link.sent == []

    async def test_references(self, store: Store) -> None:
        order = codec.encode({"id": 1, "lines": ["x" * LIMIT]})
        resolved = await store.resolve(await store.large(order))
        assert resolved == values.inline(order)
        assert payloads.load(resolved, Order).id == 1
        resolved = await store.resolve(await store.large(b'{"id": 2}', "j"))
        assert resolved == values.inline(b'{"id": 2}', "j")

    async def test_outputs(self, store: Store) -> None:
        assert await store.resolve(await store.slot("n1.0", inline(1))) == inline(1)

    async def test_outputs_that_hold_references(self, store: Store) -> None:
        value = await store.slot("n1.0", await store.large(b"large"))
        assert await store.resolve(value) == values.inline(b"large")

    async def test_outputs_that_name_outputs(self, store: Store) -> None:
        value = await store.slot("n2.0", await store.slot("n1.0", inline("deep")))
        assert await store.resolve(value) == inline("deep")

    async def test_nested_composites(self, store: Store) -> None:
        """A join of joins: slots that hold composites of slots, references and inline values."""
        inner = values.composite(
            "dict", ["x", "y"], [await store.slot("n1.1", inline(1)), await store.large(codec.encode("big"))]
        )
        parts = [await store.slot("n2.0", inner), inline("plain"), await store.large(b"[3]", "j")]
        value = values.composite("args", ["a", "b", "c"], parts)
        resolved = await store.resolve(value)
        assert values.needs(resolved) == ([], [])
        assert payloads.load(resolved) == {"a": {"x": 1, "y": "big"}, "b": "plain", "c": [3]}
        arguments = payloads.arguments(resolved)
        assert arguments is not None
        assert {name: payloads.load(part) for name, part in arguments.items()} == payloads.load(resolved)

    async def test_what_is_named_twice_is_fetched_once(self, store: Store) -> None:
        one = await store.slot("n1.0", await store.large(codec.encode("big")))
        resolved = await store.resolve(values.composite("pair", (), [one, one]))
        assert payloads.load(resolved) == ("big", "big")
        assert store.link.sent == ["HMGET", "MGET"]

    async def test_a_wide_join_takes_few_round_trips(self, store: Store) -> None:
        """300 branches, each with a large output: two chunks of slots and two of keys."""
        parts = [await store.slot(f"n{n}.0", await store.large(codec.encode(f"{n}" + "x" * 100))) for n in range(300)]
        loaded: list[str] = payloads.load(await store.resolve(values.composite("list", (), parts)))
        assert [text.rstrip("x") for text in loaded] == [str(n) for n in range(300)]
        assert store.link.sent == ["HMGET", "HMGET", "MGET", "MGET"]

    async def test_a_missing_key(self, store: Store) -> None:
        gone = values.reference("{none:0}:v:x:1", 1)
        for value in (gone, values.composite("list", (), [inline(1), gone]), await store.slot("n1.0", gone)):
            with pytest.raises(MessageError, match=r"gone: \{none:0\}:v:x:1 \(1 in all\)"):
                await store.resolve(value)

    async def test_a_missing_slot(self, store: Store) -> None:
        for value in (values.output("n9.0"), values.composite("list", (), [inline(1), values.output("n9.0")])):
            with pytest.raises(MessageError, match=r"gone: n9\.0 \(1 in all\)"):
                await store.resolve(value)
        three = values.composite("list", (), [values.output(f"n{n}.0") for n in range(3)])
        with pytest.raises(MessageError, match=r"\(3 in all\)"):
            await store.resolve(three)

    async def test_garbage_in_a_slot(self, store: Store) -> None:
        for garbage in (b"", b"?", b"c\x90"):
            with pytest.raises(MessageError):
                await store.resolve(await store.slot("n1.0", garbage))

    @pytest.mark.parametrize("circle", ["itself", "another", "inside"])
    async def test_slots_in_a_circle(self, store: Store, circle: str) -> None:
        held = {
            "itself": {"a": values.output("a")},
            "another": {"a": values.output("b"), "b": values.output("a")},
            "inside": {"a": values.composite("list", (), [inline(1), values.output("a")])},
        }[circle]
        for name, value in held.items():
            await store.slot(name, value)
        with pytest.raises(MessageError, match="at most 64 deep"):
            await store.resolve(values.output("a"))

    async def test_too_deep(self, store: Store) -> None:
        value: Value = inline(1)
        for _ in range(values.MAX_DEPTH - 1):
            value = values.composite("list", (), [value])
        assert await store.resolve(await store.slot("n1.0", value)) == value
        with pytest.raises(MessageError, match="at most 64 deep"):
            await store.resolve(values.composite("list", (), [await store.slot("n1.0", value)]))


def test_load_of_a_dict_keeps_the_order_of_its_branches() -> None:
    names = [f"b{n}" for n in reversed(range(50))]
    loaded: dict[str, Any] = payloads.load(values.composite("dict", names, [inline(n) for n in range(50)]))
    assert list(loaded) == names


class Sized:
    """A link to a server that holds keys of so many bytes."""

    def __init__(self) -> None:
        self.chunks: list[int] = []

    async def exchange(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[Reply]:
        ((_, *names),) = commands
        self.chunks.append(len(names))
        return [[b"x" for _ in names]]

    async def close(self) -> None: ...


def named(count: int, size: int) -> Value:
    return values.composite("list", (), [values.reference(f"k{n}", size) for n in range(count)])


@pytest.mark.parametrize(
    ("count", "size", "chunks"),
    [(20, codec.PAYLOAD_LIMIT, [8, 8, 4]), (300, LIMIT + 1, [256, 44]), (3, 9_000_000, [1, 1, 1]), (1, 0, [1])],
)
async def test_a_reply_is_bounded_in_bytes_too(count: int, size: int, chunks: list[int]) -> None:
    link = Sized()
    await payloads.resolve(link, named(count, size), "outputs")
    assert link.chunks == chunks


async def test_what_comes_together_is_bounded() -> None:
    link = Sized()
    await payloads.resolve(link, named(64, codec.PAYLOAD_LIMIT), "outputs")
    assert sum(link.chunks) == 64
    link.chunks.clear()
    with pytest.raises(PayloadTooLarge, match="come together here have 68,157,440 bytes or more") as caught:
        await payloads.resolve(link, named(65, codec.PAYLOAD_LIMIT), "outputs")
    assert link.chunks == [], "before anything is fetched"
    assert caught.value.ids["limit"] == payloads.COMPOSITE_LIMIT


@pytest.mark.leaves_keys("outputs")
async def test_what_lies_in_slots_counts_by_its_payload(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly: neither tags nor the references themselves."""
    monkeypatch.setattr(payloads, "COMPOSITE_LIMIT", 300)
    part = codec.encode(bytes(98))
    parts = [await store.slot("a", values.inline(part)), await store.slot("b", await store.large(part))]
    await store.resolve(values.composite("list", (), [*parts, await store.large(part)]))
    with pytest.raises(PayloadTooLarge, match="have 400 bytes or more, the limit is 300"):
        await store.resolve(values.composite("list", (), [*parts, await store.large(part), await store.large(part)]))
