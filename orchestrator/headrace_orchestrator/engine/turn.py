"""One event applied to one draft: the moves that every node kind is made of.

A token that moves is entered into its next node by the turn's own loop, not by recursion, so a long row of nodes that
pass at once costs no stack.
"""

from __future__ import annotations

from collections import deque

from headrace_broker import history, records
from headrace_broker.messages import Failure
from headrace_broker.records import Frame, Token
from headrace_broker.values import Shape, Value, composite, large_keys, output

from .model import Context, Draft, TimerKey
from .program import Program, ProgramNode


class Turn:
    """The moves on one draft, at one moment."""

    __slots__ = ("_entering", "context", "draft", "program")

    def __init__(self, draft: Draft, program: Program, context: Context) -> None:
        self.draft = draft
        self.program = program
        self.context = context
        self._entering: deque[int] = deque()

    @property
    def now(self) -> int:
        return self.context.now

    def node(self, token: Token) -> ProgramNode:
        return self.program.nodes[token.node]

    # -- tokens -----------------------------------------------------------------------------------

    def new_token(self, node: int | None, slot: str, frame: int = 0, branch: int = 0) -> None:
        """A token that enters `node` with the value in `slot`."""
        counters = self.draft.counters
        id = counters.tokens
        counters.tokens = id + 1
        self.goto(id, Token(0, frame, branch, slot, records.SLEEPING, 0), node, slot)

    def goto(self, id: int, token: Token, node: int | None, slot: str) -> None:
        """Moves a token that holds no timer. None: it reached the end of its scope."""
        if node is None:
            self._end_scope(id, token, slot)
            return
        counters = self.draft.counters
        self.park(id, Token(node, token.frame, token.branch, slot, records.SLEEPING, counters.steps))
        counters.steps += 1
        self._entering.append(id)

    def advance(self, id: int, token: Token, slot: str) -> None:
        """Moves a token to the node after its own."""
        self.goto(id, token, self.program.nodes[token.node].next, slot)

    def run(self) -> None:
        """Enters every token that moved, until all of them wait for something."""
        while self._entering:
            id = self._entering.popleft()
            token = self.draft.token(id)
            if token is not None and token.phase == records.SLEEPING and not token.timer:
                node = self.program.nodes[token.node]
                node.kind.enter(self, id, token)

    def park(self, id: int, token: Token) -> None:
        """Writes a token that waits, and keeps the count of dispatched ones."""
        self._set(id, token, int(token.phase == records.DISPATCHED))

    def remove_token(self, id: int) -> None:
        self._set(id, None, 0)

    def _set(self, id: int, token: Token | None, active: int) -> None:
        draft = self.draft
        name = records.token_field(id)
        before = draft.get(name, Token)
        if before is not None and before.phase == records.DISPATCHED:
            active -= 1
        draft.changes[name] = token
        draft.counters.active += active

    # -- scopes -----------------------------------------------------------------------------------

    def _end_scope(self, id: int, token: Token, slot: str) -> None:
        self.remove_token(id)
        if token.frame == 0:
            self.end("completed", result=slot)
            return
        draft = self.draft
        frame = draft.frame(token.frame)
        if frame is None:
            raise RuntimeError(f"token {id} names frame {token.frame}, which is not there")
        self.record(history.BRANCH_COMPLETED, frame.node, token.frame, token.branch)
        self.draft.outputs[records.branch_slot(token.frame, token.branch)] = output(slot)
        frame = frame._replace(remaining=frame.remaining - 1)
        draft.put(records.frame_field(token.frame), frame)
        if frame.remaining == 0:
            self.program.nodes[frame.node].kind.on_branch_end(self, token.frame, frame)

    def open_frame(self, node: int, token: Token, branches: int) -> int:
        """A frame that stands where `token` stands. The caller removes the token and makes the branches'."""
        counters = self.draft.counters
        id = counters.frames
        counters.frames = id + 1
        self.draft.put(records.frame_field(id), Frame(node, token.frame, token.branch, branches))
        return id

    def close_frame(self, id: int, branches: int) -> list[str]:
        """Takes the frame away; the slots of its branches, in order."""
        self.draft.remove(records.frame_field(id))
        return [records.branch_slot(id, branch) for branch in range(branches)]

    # -- values -----------------------------------------------------------------------------------

    def store(self, slot: str, value: Value) -> None:
        """Writes a value to a slot, and keeps what it refers to."""
        self.draft.outputs[slot] = value
        self.draft.adopt += large_keys(value)

    def store_composite(self, slot: str, shape: Shape, names: list[str], slots: list[str]) -> None:
        """Writes a composite of other slots; not a byte of theirs is read."""
        self.draft.outputs[slot] = composite(shape, names, [output(part) for part in slots])

    def refuse(self, value: Value | None) -> None:
        """A result or signal that does not count: counted, and its large value deleted."""
        self.draft.stale += 1
        self.discard(value)

    def discard(self, value: Value | None) -> None:
        """Deletes a large value that nobody will read."""
        self.draft.drop += large_keys(value)

    # -- timers -----------------------------------------------------------------------------------

    def set_timer(self, id: int, token: Token, due: int) -> Token:
        """Gives the token a timer; the token, to be parked by the caller."""
        number = self.draft.counters.timers
        self.draft.counters.timers = number + 1
        self.draft.timers[TimerKey(id, number)] = due
        return token._replace(timer=number, due=due)

    def drop_timer(self, id: int, token: Token) -> Token:
        """The token without its timer, which fires no more."""
        if not token.timer:
            return token
        self.draft.timers[TimerKey(id, token.timer)] = None
        return token._replace(timer=0, due=0)

    # -- the end ----------------------------------------------------------------------------------

    def end(self, status: str, *, result: str | None = None, failure: Failure | None = None, reason: str = "") -> None:
        """Ends the instance. What it still holds is the caller's to take away."""
        header = self.draft.header
        header["status"] = status
        header["ended"] = str(self.now)
        if result is not None:
            header["result"] = result
        self.record(history.ENDED, status, failure.type if failure else "", failure.message if failure else reason)

    def record(self, code: int, *fields: object) -> None:
        """Adds a history entry."""
        self.draft.history.append((self.context.now, code, *fields))
