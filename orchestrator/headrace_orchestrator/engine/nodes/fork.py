"""A fork: a frame with a token per branch; when the last branch has ended, one token goes on with all outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from headrace_broker import history
from headrace_broker.records import Frame, Token
from headrace_broker.values import Shape
from headrace_orchestrator.engine.program import Inert
from headrace_orchestrator.engine.turn import Turn


class ForkSpec(NamedTuple):
    """`shape` is what the join gets: arguments by name, or one dict."""

    names: list[str]
    firsts: list[int]
    shape: Shape


class Fork(Inert):
    def parse(self, params: Mapping[str, Any]) -> ForkSpec:
        if params["shape"] not in ("args", "dict"):
            raise ValueError(f"a join gets args or a dict, not {params['shape']!r}")
        branches = [(str(name), int(first)) for name, first in params["branches"]]
        if not branches:
            raise ValueError("a fork has at least one branch")
        return ForkSpec([name for name, _ in branches], [first for _, first in branches], cast(Shape, params["shape"]))

    def enter(self, turn: Turn, id: int, token: Token) -> None:
        spec: ForkSpec = turn.node(token).spec
        frame = turn.open_frame(token.node, token, len(spec.firsts))
        turn.record(history.FORKED, token.node, token.frame, token.branch, frame)
        turn.remove_token(id)
        for branch, first in enumerate(spec.firsts):
            turn.new_token(first, token.slot, frame, branch)

    def on_branch_end(self, turn: Turn, frame_id: int, frame: Frame) -> None:
        node = turn.program.nodes[frame.node]
        spec: ForkSpec = node.spec
        slots = turn.close_frame(frame_id, len(spec.firsts))
        slot = f"j{frame_id}"
        turn.store_composite(slot, spec.shape, spec.names, slots)
        turn.record(history.JOINED, frame.node, frame.frame, frame.branch, frame_id)
        turn.new_token(node.next, slot, frame.frame, frame.branch)
