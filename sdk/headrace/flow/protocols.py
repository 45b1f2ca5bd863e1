"""What the builder accepts, for type checkers. Nothing here exists when a flow runs."""

from __future__ import annotations

from typing import Protocol, TypeVar, TypeVarTuple

Ts = TypeVarTuple("Ts")
In_contra = TypeVar("In_contra", contravariant=True)
Out_co = TypeVar("Out_co", covariant=True)


class TaskLike(Protocol[In_contra, Out_co]):
    """A task from In to Out."""

    def __task__(self, value: In_contra, /) -> Out_co: ...


class Step(Protocol[In_contra, Out_co]):
    """A task or a flow, from In to Out."""

    def __step__(self, value: In_contra, /) -> Out_co: ...


class JoinStep(Protocol[*Ts, Out_co]):
    """A task that takes the outputs of a fork's branches as its arguments."""

    def __join__(self, *args: *Ts) -> Out_co: ...
