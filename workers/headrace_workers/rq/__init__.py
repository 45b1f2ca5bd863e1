"""RQ as the executor of tasks with `isolation="process"`: a forked process for each, which can be killed.

    task stream `<queue>:process` ──▶ bridge ──▶ RQ queue `headrace:<namespace>:<queue>` ──▶ rq worker ──fork──▶ horse
                ▲                                                                                                  │
                └───────────────────────── result + acknowledgement + delete, one transaction ─────────────────────┘

RQ executes, delivery stays ours (DESIGN 8): the bridge holds the entry, its lease is renewed, and an RQ job is only the
entry's shadow. Its id is the dispatch id; it holds no URL and no pickle, and goes when the entry is settled or revoked.

The bridge is a child of the keeper that runs no user code, and the `rq worker` processes are its own children. Each
dies with its parent: keeper, bridge, rq worker, horse.

    keeper ─┬─ children
            └─ bridge (`bridge_main`, `bench`, `jobs`, `stable`) ─── rq workers (`worker_main`) ─── horses (`horse`)

This module imports nothing of RQ, so that a keeper can ask whether it is there.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from headrace_broker.errors import MissingExtra
from headrace_broker.extras import install_command

INSTALL: Final = install_command("rq")


def is_installed() -> bool:
    return find_spec("rq") is not None


def missing(names: frozenset[str] = frozenset()) -> MissingExtra:
    """The error to raise when RQ is needed, by the tasks of these names, and is not there."""
    whose = f'Task {", ".join(sorted(names))} has isolation="process"' if names else "--rq"
    return MissingExtra(f"{whose}, which needs RQ: {INSTALL}. (With --rq 0 this worker leaves such tasks to others.)")
