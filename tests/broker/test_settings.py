"""Settings: given over the environment over the defaults; what is wrong is named."""

from __future__ import annotations

import os

import pytest

from headrace_broker.errors import ConfigurationError
from headrace_broker.settings import load_settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("HEADRACE_"):
            monkeypatch.delenv(name)


def test_the_defaults() -> None:
    settings = load_settings()
    assert (settings.url, settings.namespace, settings.partitions) == ("redis://localhost:6379/0", "headrace", None)
    assert (settings.lease, settings.ownership, settings.grace) == (10_000, 5_000, 20_000)
    assert (settings.concurrency, settings.processes, settings.queues) == (32, 1, ())
    assert (settings.max_tasks_per_child, settings.max_memory) == (None, None)
    assert (settings.metrics_host, settings.metrics_port, settings.log_level) == ("127.0.0.1", 9464, "info")


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"LEASE": "2s", "OWNERSHIP": "1.5", "QUEUES": "a, b,", "PARTITIONS": "8", "LOG_LEVEL": "DEBUG"}
    for name, value in given.items():
        monkeypatch.setenv(f"HEADRACE_{name}", value)
    monkeypatch.setenv("HEADRACE_NAMESPACE", "")
    settings = load_settings()
    assert (settings.lease, settings.ownership, settings.queues, settings.partitions) == (2000, 1500, ("a", "b"), 8)
    assert (settings.log_level, settings.namespace) == ("debug", "headrace")


def test_what_is_given_wins_and_none_counts_as_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_LEASE", "3s")
    monkeypatch.setenv("HEADRACE_CONCURRENCY", "5")
    settings = load_settings(lease="4s", concurrency=None)
    assert (settings.lease, settings.concurrency) == (4000, 5)


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_LEASE", "soon")
    monkeypatch.setenv("HEADRACE_PROCESSES", "many")
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    assert "HEADRACE_LEASE cannot be 'soon': A duration is" in str(raised.value)
    assert "HEADRACE_PROCESSES cannot be 'many'" in str(raised.value)


def test_retention(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    kept = (settings.retention_completed, settings.retention_failed, settings.retention_count)
    assert kept == (24 * 3_600_000, 7 * 24 * 3_600_000, 100_000)
    monkeypatch.setenv("HEADRACE_RETENTION_FAILED", "forever")
    monkeypatch.setenv("HEADRACE_RETENTION_COUNT", "50")
    settings = load_settings(retention_completed="2h")
    assert (settings.retention_completed, settings.retention_failed, settings.retention_count) == (7_200_000, None, 50)
    monkeypatch.setenv("HEADRACE_RETENTION_COUNT", "forever")
    assert load_settings().retention_count is None
    with pytest.raises(ConfigurationError, match="--retention-completed cannot be 'never': A duration is"):
        load_settings(retention_completed="never")
    with pytest.raises(ConfigurationError, match="--retention-count cannot be '-1': It is a whole number up to"):
        load_settings(retention_count="-1")


def test_a_wrong_option_is_named() -> None:
    with pytest.raises(ConfigurationError, match="--metrics-port cannot be 70000"):
        load_settings(metrics_port=70_000)
    with pytest.raises(ConfigurationError, match="--lease cannot be '1ms'"):
        load_settings(lease="1ms")
    with pytest.raises(ConfigurationError, match="--max-memory cannot be 'lots'"):
        load_settings(max_memory="lots")
    with pytest.raises(ConfigurationError, match="--max-memory cannot be '1KB'"):
        load_settings(max_memory="1KB")
    with pytest.raises(ConfigurationError, match="--max-tasks-per-child cannot be 0"):
        load_settings(max_tasks_per_child=0)


def test_memory_is_given_as_people_write_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_MAX_MEMORY", "512MB")
    assert load_settings().max_memory == 512_000_000
    assert load_settings(max_memory="1.5GiB").max_memory == 1_610_612_736
    assert load_settings(max_memory="64000000").max_memory == 64_000_000
