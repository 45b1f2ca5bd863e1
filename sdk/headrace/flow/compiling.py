"""From a flow's scope to its definition.

Nodes are numbered in the order in which the author wrote them: a step, then what lies inside it, then the next step. So
where a step begins is known before what comes after is compiled, and equal flows give equal definitions.
"""

from __future__ import annotations

from headrace_broker.definitions import Definition, Node
from headrace_broker.errors import InvalidFlow

from .scope import Scope


def compile_flow(name: str, scope: Scope) -> Definition:
    """Raises `InvalidFlow` for a flow without steps."""
    if not scope.steps:
        raise InvalidFlow(f"Flow {name!r} has no steps. Add one with .then(...).", flow=name)
    nodes: list[Node] = []
    _compile(scope, "", None, nodes)
    return Definition(name, tuple(nodes))


def _compile(scope: Scope, prefix: str, after: int | None, nodes: list[Node]) -> None:
    """Appends the nodes of `scope`. Its last one is followed by `after`."""
    for number, step in enumerate(scope.steps, 1):
        start = len(nodes)
        own = 0 if step.own is None else 1
        inners = step.inner()
        size = own + sum(inner.scope.size for inner in inners)
        following = start + size if number < len(scope.steps) else after
        firsts: list[int] = []
        first = start + own
        for inner in inners:
            firsts.append(first)
            first += inner.scope.size
        if step.own is not None:
            nodes.append(Node(step.own, prefix + step.name, following, step.params(tuple(firsts))))
        for inner in inners:
            _compile(inner.scope, prefix + inner.prefix, following if inner.rejoins else None, nodes)
