"""Where the demo's flow stores what it found: SQLite, one row a module under the step's idempotency key.

`writes` has a line for every time a task wrote, `modules` a row for every key: after a redelivery there may be more
writes than rows, and never two rows.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Final

from .modules import Facts

FILE: Final = "modules.db"
_BUSY_SECONDS: Final = 30.0
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS modules (key TEXT PRIMARY KEY, module TEXT NOT NULL, facts TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS writes (key TEXT NOT NULL, dispatch TEXT NOT NULL);
"""


class Ledger:
    """The database in a directory. Each call has a connection of its own, so any thread or process may use it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE

    def create(self) -> None:
        """Makes the tables. WAL: those who read never wait for those who write."""
        with self._connection() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_TABLES)

    def store(self, key: str, dispatch: str, facts: Facts) -> bool:
        """One write; False if that key has its row already, which then stays as it is."""
        with self._connection() as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO writes VALUES (?, ?)", (key, dispatch))
            row = (key, facts.module, facts.to_json())
            return connection.execute("INSERT INTO modules VALUES (?, ?, ?) ON CONFLICT DO NOTHING", row).rowcount == 1

    def rows(self) -> int:
        return self._number("SELECT count(*) FROM modules")

    def writes(self) -> int:
        return self._number("SELECT count(*) FROM writes")

    def stored(self) -> list[tuple[str, str]]:
        """(module, facts as JSON) of each row, by module."""
        with self._connection() as connection:
            return connection.execute("SELECT module, facts FROM modules ORDER BY module").fetchall()

    def facts(self) -> list[Mapping[str, Any]]:
        return [json.loads(facts) for _, facts in self.stored()]

    def _number(self, query: str) -> int:
        with self._connection() as connection:
            return int(connection.execute(query).fetchone()[0])

    @contextlib.contextmanager
    def _connection(self) -> Generator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = NORMAL")
            yield connection
