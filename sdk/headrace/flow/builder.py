"""The builder of flows."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Never, TypeVar, overload

from headrace.names import check_name
from headrace.signals import Signal
from headrace.tasks import AnyTask
from headrace_broker import codec, values
from headrace_broker.definitions import Definition
from headrace_broker.durations import Duration, parse_duration
from headrace_broker.errors import InvalidFlow
from headrace_broker.retention import Retention
from headrace_broker.values import Value

from .compiling import compile_flow
from .forks import Fork
from .inputs import Steps, branch_scope, inner_scope, value_task
from .keys import keys_of
from .protocols import Step, TaskLike
from .routes import Route
from .scope import Scope
from .steps import DelayStep, InlineStep, RouteStep, SignalStep, TaskStep
from .steps import Step as StepRecord

In = TypeVar("In")
Out = TypeVar("Out")
A = TypeVar("A")
B = TypeVar("B")
K = TypeVar("K")
R = TypeVar("R")

MAX_VERSION: Final = 2**31


class _Nothing:
    """No default was given; `None` is one."""

    def __repr__(self) -> str:
        return "..."


_NOTHING: Final[Any] = _Nothing()


class Flow(Steps, Generic[In, Out]):
    """A chain of steps from In to Out. Immutable: each step returns a new flow, and what a call gets wrong it raises.

    orders = Flow("orders", input=Order).then(validate).then(charge)
    """

    @overload
    def __init__(
        self: Flow[A, A], name: str, input: type[A], *, version: int = 1, retention: Retention | None = None
    ) -> None: ...
    @overload
    def __init__(self: Flow[Any, Any], name: str, *, version: int = 1, retention: Retention | None = None) -> None: ...
    def __init__(self, name: str, input: Any = Any, *, version: int = 1, retention: Retention | None = None) -> None:
        """`input`: the type of what an instance is started with; anything without it. `version`: a CLI start uses the
        highest one that is known. `retention`: how long ended instances are kept; else as the orchestrator is told.

        Raises `InvalidFlow`.
        """
        super().__init__(check_name("A flow's name", name, InvalidFlow), Scope(name))
        if type(version) is not int or not 1 <= version <= MAX_VERSION:
            raise InvalidFlow(f"version= of flow {name!r} is a whole number from 1; got {version!r}.", flow=name)
        if retention is not None and not isinstance(retention, Retention):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidFlow(
                f"retention= of flow {name!r} is a Retention(completed=…, failed=…, count=…); got {retention!r:.80}.",
                flow=name,
            )
        self.version = version
        self.retention = retention
        self.input_type: Any = input

    @overload
    def then(self, step: TaskLike[Out, R], /, *, name: str | None = None) -> Flow[In, R]: ...
    @overload
    def then(self, step: Callable[[Out], Awaitable[R]], /, *, name: str | None = None) -> Flow[In, R]: ...
    @overload
    def then(self, step: Callable[[Out], R], /, *, name: str | None = None) -> Flow[In, R]: ...
    def then(self, step: Any, /, *, name: str | None = None) -> Flow[Any, Any]:
        """A task, on what flows in; what it returns flows on. A plain function is made a task without options.

        `name`: of the node, by default the task's; a lambda has no other. Raises `InvalidFlow` and `InvalidTask`.
        """
        task = value_task(step, flow=self.name, use=".then()", name=name)
        return self._add(TaskStep(self._node_name(name, task.name), task))

    def then_flow(self, flow: Step[Out, R], /, *, name: str | None = None) -> Flow[In, R]:
        """The steps of another flow in this place. Its nodes are called `<name>/…`, by default after that flow.

        Raises `InvalidFlow`.
        """
        scope = inner_scope(flow, flow=self.name, use=".then_flow()")
        return self._add(InlineStep(self._node_name(name, scope.flow), scope))

    def fork(self, *, name: str | None = None) -> Fork[In, Out]:
        """Branches that run in parallel on what flows in: `.fork().branch("a", …).branch("b", …).join(…)`."""
        return Fork(self.scope, self._free_name(name, "fork"), self._on)

    @overload
    def route(
        self, router: TaskLike[Out, K], /, *, keys: Iterable[K] | None = None, name: str | None = None
    ) -> Route[In, Out, K, Never]: ...
    @overload
    def route(
        self, router: Callable[[Out], Awaitable[K]], /, *, keys: Iterable[K] | None = None, name: str | None = None
    ) -> Route[In, Out, K, Never]: ...
    @overload
    def route(
        self, router: Callable[[Out], K], /, *, keys: Iterable[K] | None = None, name: str | None = None
    ) -> Route[In, Out, K, Never]: ...
    def route(self, router: Any, /, *, keys: Iterable[Any] | None = None, name: str | None = None) -> Any:
        """One of several branches: `.route(verdict).branch("publish", …).branch("drop", …).end_route()`.

        `router` is a task that answers with a key. All its keys are known: from its annotation (`Literal`, an `Enum`,
        `bool`), or from `keys`. Raises `InvalidFlow` and `InvalidTask`.
        """
        task = value_task(router, flow=self.name, use=".route()", name=name)
        step = RouteStep(self._node_name(name, task.name), task, (), None)
        self.scope.add(step)  # its name and task, while the call is at hand
        route: Route[Any, Any, Any, Any] = Route(self.scope, step, keys_of(task, keys), self._on)
        return route

    def delay(self, duration: Duration, *, name: str | None = None) -> Flow[In, Out]:
        """Waits that long, without holding anything; what flows in flows on.

        `duration`: seconds, a timedelta, or "250ms" "30s" "5m" "2h" "7d". Raises `InvalidFlow` and `InvalidDuration`.
        """
        return self._add(DelayStep(self._free_name(name, "delay"), parse_duration(duration)))

    @overload
    def wait_for_signal(
        self,
        signal: Signal[A],
        *,
        timeout: Duration | None = None,
        keep_input: Literal[False] = ...,
        name: str | None = None,
    ) -> Flow[In, A]: ...
    @overload
    def wait_for_signal(
        self,
        signal: Signal[A],
        *,
        timeout: Duration | None = None,
        keep_input: Literal[True],
        name: str | None = None,
    ) -> Flow[In, tuple[Out, A]]: ...
    @overload
    def wait_for_signal(
        self, signal: Signal[A], *, timeout: Duration, default: B, name: str | None = None
    ) -> Flow[In, A | B]: ...
    @overload
    def wait_for_signal(
        self,
        signal: Signal[A],
        *,
        timeout: Duration,
        on_timeout: Step[Out, B],
        keep_input: Literal[False] = ...,
        name: str | None = None,
    ) -> Flow[In, A | B]: ...
    @overload
    def wait_for_signal(
        self,
        signal: Signal[A],
        *,
        timeout: Duration,
        on_timeout: Step[Out, B],
        keep_input: Literal[True],
        name: str | None = None,
    ) -> Flow[In, tuple[Out, A] | B]: ...
    def wait_for_signal(
        self,
        signal: Signal[Any],
        *,
        timeout: Duration | None = None,
        default: Any = _NOTHING,
        on_timeout: Any = None,
        keep_input: bool = False,
        name: str | None = None,
    ) -> Flow[Any, Any]:
        """Waits for a signal, or takes the oldest that came before; its payload flows on.

        `keep_input`: the pair (input, payload) flows on. `timeout` alone: the step fails with `SignalTimeout`; with
        `default` that flows on; with `on_timeout` (a task or a flow, on the wait's input) what it gives.
        Raises `InvalidFlow`, `InvalidTask`, `InvalidDuration` and `PayloadNotSerializable`.
        """
        if not isinstance(signal, Signal):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidFlow(
                f".wait_for_signal() of flow {self.name!r} takes a Signal; got {signal!r:.80}. "
                'Make one: approval = Signal("approval", Approval).',
                flow=self.name,
            )
        use = f".wait_for_signal({signal.name!r})"
        timeout_ms = self._timeout(use, timeout, default, on_timeout)
        fallback = self._default(use, default, on_timeout, keep_input)
        late = None if on_timeout is None else branch_scope(on_timeout, flow=self.name, use=f"on_timeout= of {use}")
        return self._add(
            SignalStep(
                name=self._free_name(name, f"wait_{signal.name}"),
                signal=signal,
                timeout_ms=timeout_ms,
                default=fallback,
                on_timeout=late,
                keep_input=bool(keep_input),
            )
        )

    @functools.cached_property
    def definition(self) -> Definition:
        """The flow compiled. Raises `InvalidFlow` for one without steps."""
        return compile_flow(self.name, self.scope)

    @property
    def tasks(self) -> Mapping[str, AnyTask]:
        """Every task it calls, by name."""
        return self.scope.tasks

    @property
    def output_type(self) -> Any:
        """The type of what flows out at the end; `Any` if it cannot be known."""
        return self.scope.output(self.input_type)

    def input_schema(self) -> dict[str, Any]:
        """The JSON schema of the input, empty for one without a type. Raises `InvalidFlow` if a type has none."""
        from pydantic.errors import PydanticUserError

        try:
            return codec.adapter(self.input_type).json_schema()
        except PydanticUserError as error:
            raise InvalidFlow(f"The input of flow {self.name!r} has no JSON schema: {error}.", flow=self.name) from None

    def __repr__(self) -> str:
        return f"<Flow {self.name!r}, {self.scope.size} nodes>"

    if TYPE_CHECKING:  # what builders ask of a step; no code calls it

        def __step__(self, value: In, /) -> Out: ...

    def _add(self, step: StepRecord) -> Flow[Any, Any]:
        return self._on(self.scope.add(step))

    def _on(self, scope: Scope) -> Flow[Any, Any]:
        flow: Flow[Any, Any] = Flow(self.name, self.input_type, version=self.version, retention=self.retention)
        flow.scope = scope
        return flow

    def _node_name(self, given: str | None, fallback: str) -> str:
        return check_name(f"A node of flow {self.name!r}", fallback if given is None else given, InvalidFlow)

    def _free_name(self, given: str | None, stem: str) -> str:
        return self._node_name(given, self.scope.free_name(stem))

    def _timeout(self, use: str, timeout: Duration | None, default: Any, on_timeout: Any) -> int:
        if timeout is None:
            if default is not _NOTHING or on_timeout is not None:
                given = "default" if on_timeout is None else "on_timeout"
                raise InvalidFlow(
                    f"{use} of flow {self.name!r} has {given}= and no timeout=, so it would never be used.",
                    flow=self.name,
                )
            return 0
        ms = parse_duration(timeout)
        if ms == 0:
            raise InvalidFlow(
                f"timeout= in {use} of flow {self.name!r} is above zero; leave it out to wait without end.",
                flow=self.name,
            )
        return ms

    def _default(self, use: str, default: Any, on_timeout: Any, keep_input: bool) -> Value | None:
        if default is _NOTHING:
            return None
        other = "on_timeout" if on_timeout is not None else "keep_input" if keep_input else None
        if other is not None:
            raise InvalidFlow(
                f"{use} of flow {self.name!r} has default= and {other}=, which exclude each other. To compute "
                "what flows on, or to keep the input, use on_timeout= alone.",
                flow=self.name,
            )
        payload = codec.encode(default)
        if len(payload) > codec.INLINE_LIMIT:
            raise InvalidFlow(
                f"default= in {use} of flow {self.name!r} has {len(payload):,} bytes, the limit is "
                f"{codec.INLINE_LIMIT:,}. Let a task load it: on_timeout=.",
                flow=self.name,
            )
        return values.inline(payload)
