"""Tasks: functions that a flow calls."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from headrace_broker.definitions import TaskCall
from headrace_broker.durations import Duration, parse_duration
from headrace_broker.errors import InvalidTask
from headrace_broker.keys import Isolation
from headrace_broker.values import Value

from . import binding
from .context import TaskContext
from .names import check_name
from .retry import RetryPolicy, policy_of
from .signature import Signature

P = ParamSpec("P")
C = TypeVar("C")
A = TypeVar("A")
R = TypeVar("R")

ISOLATIONS: Final[tuple[Isolation, ...]] = ("thread", "process")


class Task(Generic[P, C, A, R]):
    """What `@task` returns. `P`, `C`: the function as it was, and as it still is when called; `A`: the value it takes
    in a flow; `R`: the value it gives."""

    def __init__(
        self,
        fn: Callable[P, C],
        *,
        name: str | None = None,
        queue: str = "default",
        retries: int | RetryPolicy = 0,
        timeout: Duration | None = None,
        isolation: Isolation = "thread",
        description: str | None = None,
        namespace: Mapping[str, Any] | None = None,
    ) -> None:
        """See `task`. `namespace`: names its annotations may use besides its module's; not kept."""
        _check_function(fn)
        self.fn = fn
        self.name = check_name("A task's name", _name_of(fn) if name is None else name, InvalidTask)
        self.queue = check_name(f"The queue of task {self.name!r}", queue, InvalidTask)
        if isolation not in ISOLATIONS:
            raise InvalidTask(f'isolation= of task {self.name!r} is "thread" or "process"; got {isolation!r}.')
        self.isolation: Isolation = isolation
        self.timeout_ms = 0 if timeout is None else parse_duration(timeout)
        if timeout is not None and self.timeout_ms == 0:
            raise InvalidTask(
                f"timeout= of task {self.name!r} is above zero; got {timeout!r}. Leave it out for no time-out."
            )
        self.retry = policy_of(retries)
        self.description = description if description is not None else inspect.getdoc(fn) or ""
        self.is_async = inspect.iscoroutinefunction(_underlying(fn))
        self.signature = Signature(fn, f"Task {self.name!r}", namespace)
        self.__name__ = self.name
        self.__doc__ = fn.__doc__
        self.__module__ = getattr(fn, "__module__", __name__)
        self.__wrapped__ = fn

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C:
        """Calls the function as if there was no decorator."""
        return self.fn(*args, **kwargs)

    def call(self) -> TaskCall:
        """How a node calls it, for the definition."""
        return TaskCall(self.name, self.queue, self.isolation, self.timeout_ms, self.retry.spec())

    def bind(self, value: Value, context: TaskContext) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments for `fn`, decoded from a *resolved* value (see `payloads.resolve`).

        Raises `PayloadMismatch` that names the task and the parameter, and `InvalidTask`.
        """
        return binding.bind(self.name, self.signature, value, context)

    def check(self) -> None:
        """Raises `InvalidTask` if an annotation that `bind` needs cannot be resolved. For workers, when they load."""
        self.signature.check()

    def same_as(self, other: AnyTask) -> bool:
        """Whether both are the same function with the same options, so that one may stand for the other."""
        return self is other or (self.fn is other.fn and self.call() == other.call() and self.retry == other.retry)

    @property
    def where(self) -> str:
        """Its function's place in the code, for messages."""
        return f"{self.__module__}.{getattr(self.fn, '__qualname__', type(self.fn).__name__)}"

    def __repr__(self) -> str:
        return f"<Task {self.name!r} of {self.where}>"

    if TYPE_CHECKING:  # what builders ask of a step; no code calls these

        def __task__(self, value: A, /) -> R: ...
        def __step__(self, value: A, /) -> R: ...
        def __join__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...


AnyTask = Task[..., Any, Any, Any]


class TaskDecorator(Protocol):
    """What `task(...)` with options returns.

    The coroutines are `Coroutine[None, None, R]`: with `Any` in their place mypy infers `Any` for everything.
    """

    @overload
    def __call__(self, fn: Callable[[], Coroutine[None, None, R]], /) -> Task[[], Coroutine[None, None, R], Any, R]: ...
    @overload
    def __call__(self, fn: Callable[[], R], /) -> Task[[], R, Any, R]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[TaskContext, P], Coroutine[None, None, R]], /
    ) -> Task[Concatenate[TaskContext, P], Coroutine[None, None, R], Any, R]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[TaskContext, P], R], /
    ) -> Task[Concatenate[TaskContext, P], R, Any, R]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[A, P], Coroutine[None, None, R]], /
    ) -> Task[Concatenate[A, P], Coroutine[None, None, R], A, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[A, P], R], /) -> Task[Concatenate[A, P], R, A, R]: ...


@overload
def task(fn: Callable[[], Coroutine[None, None, R]], /) -> Task[[], Coroutine[None, None, R], Any, R]: ...
@overload
def task(fn: Callable[[], R], /) -> Task[[], R, Any, R]: ...
@overload
def task(
    fn: Callable[Concatenate[TaskContext, P], Coroutine[None, None, R]], /
) -> Task[Concatenate[TaskContext, P], Coroutine[None, None, R], Any, R]: ...
@overload
def task(fn: Callable[Concatenate[TaskContext, P], R], /) -> Task[Concatenate[TaskContext, P], R, Any, R]: ...
@overload
def task(
    fn: Callable[Concatenate[A, P], Coroutine[None, None, R]], /
) -> Task[Concatenate[A, P], Coroutine[None, None, R], A, R]: ...
@overload
def task(fn: Callable[Concatenate[A, P], R], /) -> Task[Concatenate[A, P], R, A, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    queue: str = "default",
    retries: int | RetryPolicy = 0,
    timeout: Duration | None = None,
    isolation: Isolation = "thread",
    description: str | None = None,
) -> TaskDecorator: ...
def task(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Makes a function a task, bare (`@task`) or with options (`@task(retries=3)`). It stays callable as it was.

    * `name`: unique among the tasks of a worker; the function's name by default. Changing it parts the task from
      instances that run.
    * `queue`: which workers take it.
    * `retries`: a number (after 1 s, 2 s, 4 s …) or a `RetryPolicy`; none by default.
    * `timeout`: per attempt, from its start: seconds, a timedelta, or "30s", "5m".
    * `isolation`: "thread" runs a `def` in a thread and an `async def` on the event loop; "process" in a process of its
      own, which can be killed.
    * `description`: for people; the docstring by default.

    Raises `InvalidTask` for a function that no flow could call, and `InvalidDuration`.
    """
    frame = inspect.currentframe()
    caller = frame.f_back if frame is not None else None
    namespace = caller.f_locals if caller is not None else None  # classes inside a function, that annotations name

    def make(fn: Callable[..., Any]) -> AnyTask:
        return Task(fn, **options, namespace=namespace)

    return make if fn is None else make(fn)


def as_task(given: object, *, name: str | None, use: str) -> AnyTask:
    """The task itself, or a plain function made one. `use` ("`.then()`") is for the errors.

    Raises `InvalidTask`.
    """
    if isinstance(given, Task):
        return cast(AnyTask, given)
    if not callable(given):
        raise InvalidTask(f"{use} takes a task or a function; got {type(given).__name__} {given!r:.80}.")
    function = cast("Callable[..., Any]", given)
    return Task(function, name=name if _is_nameless(function) else None)


def _check_function(fn: object) -> None:
    if isinstance(fn, Task):
        raise InvalidTask(f"{fn!r} is a task already; @task was applied twice.")
    if not callable(fn):
        raise InvalidTask(f"@task decorates a function; got {type(fn).__name__} {fn!r:.80}.")
    underlying = _underlying(cast("Callable[..., Any]", fn))
    if inspect.isgeneratorfunction(underlying) or inspect.isasyncgenfunction(underlying):
        raise InvalidTask(
            f"{getattr(fn, '__name__', 'This function')!r} is a generator. Generators as tasks are not supported yet "
            "in this release; return a list, or split the work into steps."
        )


def _underlying(fn: Callable[..., Any]) -> Any:
    """What tells whether calling `fn` gives a coroutine or a generator."""
    found: Any = fn
    while isinstance(found, functools.partial):
        found = cast(Any, found).func
    if inspect.isroutine(found) or isinstance(found, type):
        return found
    return getattr(found, "__call__", found)  # noqa: B004  # its method, not whether it has one


def _is_nameless(fn: Callable[..., Any]) -> bool:
    return getattr(fn, "__name__", "<lambda>") == "<lambda>"


def _name_of(fn: Callable[..., Any]) -> str:
    if _is_nameless(fn):
        raise InvalidTask(
            "A lambda, partial or object has no name to be found by when it runs. Give it one: name=, or "
            'task(name="double")(lambda x: 2 * x).'
        )
    return str(fn.__name__)
