"""From drafts to the commands of one commit. Only commands that cannot fail on data (DESIGN 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from headrace_broker import history, messages, quarantine, records
from headrace_broker.codec import INLINE_LIMIT
from headrace_broker.connection import Argument, Command
from headrace_broker.ids import entry_of
from headrace_broker.instances import ENDED, index_member, missing_member, retained_class, timer_member
from headrace_broker.keys import GROUP, PartitionKeys
from headrace_broker.messages import ContinueMessage, TaskMessage
from headrace_broker.tasks import VALUE_LIFE_MS
from headrace_broker.values import Value, reference

from .engine.model import Dispatch, Draft
from .inbox import Item, after

SlotValue = Callable[[Draft, str], Value]


def write(
    keys: PartitionKeys,
    drafts: Sequence[Draft],
    items: Sequence[Item],
    cursors: Mapping[str, str],
    now: int,
    slot_value: SlotValue,
    streams: Iterable[str],
) -> list[Command]:
    """The commands of a commit: what the drafts changed, what the items leave behind, and the trims.

    `streams` are the partition's task streams: where a hand-out may lie of which nobody knows where it lies.
    """
    commands: list[Command] = []
    timers_set: list[Argument] = []
    timers_gone: list[Argument] = [item.member for item in items if item.member is not None]
    for draft in drafts:
        _write_instance(commands, keys, draft)
        for timer, due in draft.timers.items():
            member = timer_member(draft.instance.incarnation, timer.token, timer.number, draft.instance.id)
            if due is None:
                timers_gone.append(member)
            else:
                timers_set += (due, member)
    if timers_gone:
        commands.append(("ZREM", keys.timers, *timers_gone))
    if timers_set:
        commands.append(("ZADD", keys.timers, *timers_set))
    _write_dispatches(commands, keys, drafts, now, slot_value)
    _write_revokes(commands, keys, drafts, items, streams)
    for item in items:
        if item.reason is not None:
            commands.append(
                quarantine.write(
                    keys, item.source, item.id, item.instance, item.reason, item.raw or {}, parked=item.parked
                )
            )
        if item.dropped_keys:
            commands.append(("DEL", *item.dropped_keys))
        commands += [("PEXPIRE", key, VALUE_LIFE_MS) for key in item.expiring_keys]
    for source, stream in (("events", keys.events), ("starts", keys.starts)):
        if source in cursors:
            commands.append(("XTRIM", stream, "MINID", after(cursors[source])))
    return commands


def _write_instance(commands: list[Command], keys: PartitionKeys, draft: Draft) -> None:
    instance = draft.instance
    incarnation = instance.incarnation
    status = draft.header.get("status")
    if draft.header or draft.error is not None:
        fields: list[Argument] = [item for pair in draft.header.items() for item in pair]
        if draft.error is not None:
            fields += ("error", draft.error)
        commands.append(("HSET", keys.header(instance.id), *fields))
    if status is not None and status != instance.status:
        member = index_member(incarnation, instance.id)
        commands.append(("ZREM", keys.by_status(instance.status), member))
        score = draft.header["ended"] if status in ENDED else instance.created
        commands.append(("ZADD", keys.by_status(status), score, member))
        if status in ENDED:
            commands.append(("ZADD", keys.retained(retained_class(status), instance.flow), score, member))
    if status in ("completed", "cancelled"):
        commands.append(("DEL", keys.state(incarnation)))
    else:
        _write_state(commands, keys.state(incarnation), draft)
    if draft.outputs:
        commands.append(("HSET", keys.outputs(incarnation), *_outputs(commands, keys, draft)))
    if draft.adopt:
        commands += [("PERSIST", key) for key in draft.adopt]
        commands.append(("SADD", keys.large(incarnation), *draft.adopt))
    if draft.drop:
        commands.append(("DEL", *draft.drop))
    if draft.parked or draft.unparked is not None or draft.lacks_definition is not None:
        _write_parked(commands, keys, draft)
    if draft.history:
        commands.append(("RPUSH", keys.history(incarnation), history.pack(draft.history)))
    if status in ENDED:
        commands.append(("PUBLISH", keys.ended(incarnation), str(status)))


def _write_parked(commands: list[Command], keys: PartitionKeys, draft: Draft) -> None:
    instance = draft.instance
    key = keys.parked(instance.incarnation)
    if draft.unparked is not None and draft.status in ENDED:
        commands.append(("DEL", key))
    elif draft.unparked:
        commands.append(("LTRIM", key, draft.unparked, -1))
    if draft.parked:
        commands.append(("RPUSH", key, *draft.parked))
    if draft.lacks_definition is not None:
        member = missing_member(instance.definition, instance.incarnation, instance.id)
        commands.append(("ZADD", keys.missing, 0, member) if draft.lacks_definition else ("ZREM", keys.missing, member))
    if draft.continues:
        more = messages.pack(ContinueMessage(instance.id, instance.incarnation, "unpark"))
        commands.append(("XADD", keys.events, "*", messages.FIELD, more))


def _write_state(commands: list[Command], key: str, draft: Draft) -> None:
    written: list[Argument] = []
    gone: list[Argument] = []
    for field, record in draft.changes.items():
        if record is not None:
            written += (field, records.pack(record))
        elif field in draft.instance.state:
            gone.append(field)
    if written:
        commands.append(("HSET", key, *written))
    if gone:
        commands.append(("HDEL", key, *gone))


def _outputs(commands: list[Command], keys: PartitionKeys, draft: Draft) -> Iterable[Argument]:
    """Slots and values; an inline value over the limit (from a raw signal) goes to a key of its own."""
    fields: list[Argument] = []
    for slot, value in draft.outputs.items():
        if len(value) > INLINE_LIMIT + 1 and value[:1] in (b"m", b"j"):
            key = keys.value(draft.instance.incarnation, slot)
            commands += [("SET", key, value[1:]), ("SADD", keys.large(draft.instance.incarnation), key)]
            draft.outputs[slot] = value = reference(key, len(value) - 1, value[:1].decode())
        fields += (slot, value)
    return fields


def _write_dispatches(
    commands: list[Command], keys: PartitionKeys, drafts: Sequence[Draft], now: int, slot_value: SlotValue
) -> None:
    """In the order of their numbers: entry ids must grow in each stream."""
    found = [(dispatch.number, dispatch, draft) for draft in drafts for dispatch in draft.dispatches]
    found.sort(key=lambda row: row[0])
    for _, dispatch, draft in found:
        call = dispatch.call
        message = messages.pack(_task(draft, dispatch, now, slot_value(draft, dispatch.slot)))
        entry = entry_of(dispatch.dispatch)
        commands.append(("XADD", keys.tasks(call.stream), entry, messages.FIELD, message))


def _task(draft: Draft, dispatch: Dispatch, now: int, value: Value) -> TaskMessage:
    instance = draft.instance
    return TaskMessage(
        instance.id,
        instance.incarnation,
        int(instance.header.get("run", "1")),
        instance.flow,
        dispatch.node,
        dispatch.call.task,
        dispatch.dispatch,
        dispatch.token,
        dispatch.step,
        dispatch.attempt,
        dispatch.call.retry.max_retries + 1,
        dispatch.losses,
        dispatch.alone,
        dispatch.call.timeout_ms,
        now,
        value,
        instance.header.get("trace", ""),
    )


def _write_revokes(
    commands: list[Command],
    keys: PartitionKeys,
    drafts: Sequence[Draft],
    items: Sequence[Item],
    streams: Iterable[str],
) -> None:
    entries: dict[str, list[Argument]] = {}
    for item in items:
        if item.stream is not None and item.entry is not None:
            entries.setdefault(item.stream, []).append(item.entry)
    for draft in drafts:
        for revoke in draft.revokes:
            for stream in (revoke.stream,) if revoke.stream is not None else streams:
                entries.setdefault(stream, []).append(entry_of(revoke.dispatch))
            commands.append(("PUBLISH", keys.revoked, revoke.dispatch))
    for stream, ids in entries.items():
        commands.append(("XACK", keys.tasks(stream), GROUP, *ids))
        commands.append(("XDEL", keys.tasks(stream), *ids))
