"""Targets: how the command line names flows and tasks. `file.py`, `package.module`, or either with `:attribute`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

from headrace_broker.errors import HeadraceError, TargetError

from .flow import Flow
from .flow.inputs import Unfinished
from .tasks import AnyTask, Task

AnyFlow = Flow[Any, Any]

_FORMS: Final = "A target is file.py, package.module, or one of them with :attribute"


@dataclass(frozen=True)
class Registry:
    """The flows, and all tasks, theirs included, of one or more targets."""

    flows: dict[str, AnyFlow] = field(default_factory=dict[str, AnyFlow])
    tasks: dict[str, AnyTask] = field(default_factory=dict[str, AnyTask])

    def add(self, thing: AnyFlow | AnyTask) -> None:
        """Raises `TargetError` if another flow or task has its name, or if it is wrong as written."""
        try:
            if isinstance(thing, Task):
                self._add_task(thing)
                return
            digest = thing.definition.digest
            known = self.flows.setdefault(thing.name, thing)
            if known is not thing and (known.definition.digest, known.version) != (digest, thing.version):
                raise TargetError(
                    f"Two different flows are named {thing.name!r}. Give one of them another name; a flow that others "
                    "are made from does not belong at module level.",
                    flow=thing.name,
                )
            for task in thing.tasks.values():
                self._add_task(task)
        except TargetError:
            raise
        except HeadraceError as error:
            raise TargetError(f"{type(error).__name__}: {error}") from error

    def update(self, other: Registry) -> None:
        """Adds all of another registry. Raises `TargetError`."""
        for task in other.tasks.values():
            self.add(task)
        for flow in other.flows.values():
            self.add(flow)

    def _add_task(self, task: AnyTask) -> None:
        task.check()
        known = self.tasks.setdefault(task.name, task)
        if not known.same_as(task):
            raise TargetError(
                f"Two different tasks are named {task.name!r}: {known.where} and {task.where}. Give one of them "
                "another name: @task(name=...).",
                task=task.name,
            )


def load_target(target: str) -> Registry:
    """Imports what `target` names and registers its flows and tasks. Raises `TargetError`."""
    place, attribute = _split(target)
    module = _load_file(target, place) if place.endswith(".py") else _load_module(target, place)
    found = {attribute: _attribute(target, module, attribute)} if attribute else vars(module)
    registry = Registry()
    for name, value in list(found.items()):
        if isinstance(value, Unfinished) and not name.startswith("_"):
            raise TargetError(f"Target {target!r}: {name} is a {value.what} that is not ended; call {value.end}.")
        if isinstance(value, Flow | Task):
            try:
                registry.add(cast("AnyFlow | AnyTask", value))
            except TargetError as error:
                raise TargetError(f"Target {target!r}: {name}: {error}", **error.ids) from error
    if not registry.flows and not registry.tasks:
        raise TargetError(
            f"Target {target!r} has no flows and no tasks. A Flow or @task function at module level is found."
        )
    return registry


def load_targets(targets: Iterable[str]) -> Registry:
    """All targets in one registry. Raises `TargetError`."""
    registry = Registry()
    for target in targets:
        registry.update(load_target(target))
    return registry


def _split(target: str) -> tuple[str, str]:
    place, _, attribute = target.strip().partition(":")
    if not place or (":" in target and not attribute):
        raise TargetError(f"{_FORMS}; got {target!r}.")
    if not place.endswith(".py") and ("/" in place or os.sep in place):
        raise TargetError(f"{_FORMS}; got {target!r}. A file ends in .py; a module is written with dots.")
    return place, attribute


def _load_file(target: str, place: str) -> ModuleType:
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        raise TargetError(f"Target {target!r}: there is no file {path}.")
    _search(str(path.parent))
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == str(path):
            return module
    name = path.stem
    if name in sys.modules or name in sys.stdlib_module_names or not name.isidentifier():
        name = f"{name}__target"  # what others import under that name is not ours
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"Target {target!r}: {path} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs, for annotations and pydantic look themselves up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise _import_error(target, error) from error
    return module


def _load_module(target: str, place: str) -> ModuleType:
    if not all(part.isidentifier() for part in place.split(".")):
        raise TargetError(f"{_FORMS}; got {target!r}.")
    _search(os.getcwd())
    try:
        return importlib.import_module(place)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{place}.".startswith(f"{error.name}."):
            hint = f" There is a file {place}.py: write {place}.py." if Path(f"{place}.py").is_file() else ""
            raise TargetError(
                f"Target {target!r}: there is no module {error.name!r} here ({os.getcwd()}) nor among the installed "
                f"packages.{hint}"
            ) from None
        raise _import_error(target, error) from error


def _search(directory: str) -> None:
    """As `python file.py` and `python -m package` do, and for what the target imports."""
    if directory not in sys.path:
        sys.path.insert(0, directory)


def _import_error(target: str, error: BaseException) -> TargetError:
    """The cause and the author's line, without the machinery of imports."""
    if isinstance(error, SystemExit):
        reason = f'it calls sys.exit({error.code!r}) when imported. Put what is run under if __name__ == "__main__".'
    else:
        reason = f"{type(error).__name__}: {error}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and not frame.filename.startswith(str(Path(__file__).parent))
    ]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    hint = " For a file of a package, write the target as package.module." if "relative import" in str(error) else ""
    return TargetError(f"Target {target!r} cannot be imported: {reason}{where}{hint}")


def _attribute(target: str, module: ModuleType, attribute: str) -> object:
    value: object = module
    for part in attribute.split("."):
        value = getattr(value, part, None)
    if isinstance(value, Flow | Task | Unfinished):
        return cast(object, value)
    found = _found(vars(module))
    what = "nothing of that name" if value is None else f"of type {type(value).__name__}"
    raise TargetError(
        f"Target {target!r}: {attribute} is {what}, not a Flow or a task. The module has {found or 'none at all'}."
    )


def _found(names: Mapping[str, object]) -> str:
    return ", ".join(name for name, value in names.items() if isinstance(value, Flow | Task))
