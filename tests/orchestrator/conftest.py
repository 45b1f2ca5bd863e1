"""The bench, for every test of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .bench import Bench


@pytest.fixture
def bench(server_url: str, namespace: str) -> Iterator[Bench]:
    """One partition."""
    made = Bench(server_url, namespace)
    yield made
    made.close()


@pytest.fixture
def wide_bench(server_url: str, namespace: str) -> Iterator[Bench]:
    """Four partitions."""
    made = Bench(server_url, namespace, partitions=4)
    yield made
    made.close()
