"""Whatever is damaged, the command line shows it: in quarantine, as a blocked instance, or as a finding of `doctor`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.cli.running import run
from headrace_broker import messages
from headrace_broker.definitions import Definition
from headrace_broker.messages import GarbageMessage

from . import flows
from .bench import Bench, check_once, settle, steps
from .poison import Poisoned

pytestmark = pytest.mark.real_only


class Shell:
    """Commands on the bench's server, in this process."""

    def __init__(self, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
        self._here = ("--url", bench.server.url, "--namespace", bench.keys.ns)
        self._capsys = capsys
        self.code = 0
        self.err = ""

    def __call__(self, *arguments: str) -> str:
        self._capsys.readouterr()
        self.code = run([*arguments, *self._here])
        captured = self._capsys.readouterr()
        self.err = captured.err
        return captured.out

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))

    def quarantined(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.json("quarantine", "ls")["items"]
        return found

    def blocked(self) -> list[str]:
        return [item["id"] for item in self.json("ls", "--status", "blocked")["items"]]

    def findings(self) -> dict[str, dict[str, Any]]:
        return {finding["code"]: finding for finding in self.json("doctor")["findings"]}


@pytest.fixture
def shell(bench: Bench, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(bench, capsys)


class TestStreams:
    @pytest.mark.parametrize("source", ["events", "starts", "signals"])
    def test_an_inbox(self, bench: Bench, shell: Shell, source: str) -> None:
        stream = bench.keys.signals if source == "signals" else getattr(bench.part, source)
        bench.call("XADD", stream, "*", "m", b"\xffrubbish", "note", "[bold]x[/bold]")
        steps(bench.orchestrator())
        (found,) = shell.quarantined()
        assert found["source"] == source
        shown = shell("quarantine", "show", found["entry"])
        assert found["reason"] in " ".join(shown.split())
        assert "[bold]x[/bold]" in shown
        findings = shell.findings()
        assert findings.keys() == {"quarantine"}
        assert findings["quarantine"]["about"] == [found["entry"]]
        assert shell.code == 5, "warnings only"

    def test_a_task_stream(self, bench: Bench, shell: Shell) -> None:
        """A worker found it and says so; or it died of it, and its lease ran out."""
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        report = GarbageMessage("default", "1-1", b"\x00", "no task message")
        bench.call("XADD", bench.part.events, "*", "m", messages.pack(report))
        bench.call("XADD", hand.sources[0].key, "*", "foo", "bar")
        (entry,) = hand.take_raw()
        hand.go_idle(source=hand.sources[0], entry=entry)
        bench.clock.advance(11)
        steps(orchestrator)
        assert sorted(found["source"] for found in shell.quarantined()) == ["events", "leases"]
        shell("quarantine", "retry", "--all")
        assert shell.code == 1
        assert shell.err.count("no place to go back to") == 2

    def test_timers(self, bench: Bench, shell: Shell) -> None:
        bench.call("ZADD", bench.part.timers, 1, "rubbish")
        steps(bench.orchestrator())
        assert [found["source"] for found in shell.quarantined()] == ["timers"]


class TestInstances:
    def test_a_header(self, bench: Bench, shell: Shell) -> None:
        incarnation = bench.start("bad", bench.register(flows.chain("a")))
        bench.call("DEL", bench.part.header("bad"))
        bench.call("SET", bench.part.header("bad"), "rubbish")
        steps(bench.orchestrator())
        assert [found["instance"] for found in shell.quarantined()] == ["bad"]
        assert shell.json("ls")["items"] == [], "one damaged header does not hide the others"
        assert shell.code == 0
        bench.call("DEL", bench.part.header("bad"), *bench.call("KEYS", f"*{bench.keys.ns}*:{incarnation}"))

    @pytest.mark.parametrize("key", ["state", "outputs"])
    def test_state_and_outputs(self, bench: Bench, shell: Shell, key: str) -> None:
        definition = Definition("d", (flows.delay("sleep", 1, 60_000), flows.task("t", None)))
        incarnation = bench.start("bad", bench.register(definition))
        first = bench.orchestrator(1)
        steps(first)
        first.close()
        name = getattr(bench.part, key)(incarnation)
        bench.call("DEL", name)
        bench.call("SET", name, "rubbish")
        bench.pass_time(60_000)
        steps(bench.orchestrator(2))
        assert shell.blocked() == ["bad"]
        assert "headrace unblock bad" in shell("show", "bad")
        finding = shell.findings()["instances_blocked"]
        assert finding["about"] == ["bad"]
        assert "headrace unblock bad" in finding["mend"]

    def test_a_definition(self, bench: Bench, shell: Shell) -> None:
        definition = bench.register(flows.chain("a"))
        bench.call("SET", bench.keys.definition(definition.digest), "rubbish")
        bench.start("bad", definition)
        steps(bench.orchestrator())
        assert shell.blocked() == ["bad"]
        assert "cannot be read" in shell.findings()["flow_unreadable"]["means"]

    def test_what_is_parked(self, bench: Bench, shell: Shell) -> None:
        definition = flows.chain("a", flow="late")
        incarnation = bench.start("bad", definition)
        orchestrator, hand = bench.orchestrator(), bench.hand()
        steps(orchestrator)
        bench.call("LPUSH", bench.part.parked(incarnation), "rubbish")
        bench.register(definition)
        shell("unblock", "bad", "--actor", "ann")
        settle(orchestrator, hand)
        (found,) = shell.quarantined()
        assert (found["instance"], found["source"]) == ("bad", "events")
        assert bench.status("bad") == "completed"


class TestRegistry:
    def test_a_flows_record(self, bench: Bench, shell: Shell) -> None:
        bench.register(flows.chain("a", flow="f"))
        bench.register(flows.chain("a", flow="good"))
        bench.call("HSET", bench.keys.flow("f"), "version", "rubbish")
        assert shell.findings()["flow_unreadable"]["about"] == ["f"]
        shell("start", "f")
        assert shell.code == 1
        assert "The record of flow 'f' cannot be read" in shell.err

    def test_a_workers_announcement(self, bench: Bench, shell: Shell) -> None:
        bench.announce("default")
        bench.call("SET", bench.keys.worker("keeper"), "rubbish", "PX", 60_000)
        assert "keeper" in shell.findings()["worker_unreadable"]["about"][0]

    @pytest.mark.parametrize("name", ["queues", "flows", "workers", "signals"])
    def test_a_key_of_another_type(self, bench: Bench, shell: Shell, name: str) -> None:
        key = getattr(bench.keys, name)
        bench.call("SETEX" if name == "signals" else "SET", *((key, 60, "x") if name == "signals" else (key, "x")))
        assert key in shell.findings()["key_damaged"]["about"][0]
        bench.call("DEL", key)

    @pytest.mark.parametrize("name", ["events", "starts", "meta", "quarantine"])
    def test_a_partitions_key_of_another_type(self, bench: Bench, shell: Shell, name: str) -> None:
        key = getattr(bench.part, name)
        bench.call("SET", key, "x")
        assert key in shell.findings()["key_damaged"]["about"][0]
        bench.call("DEL", key)


class TestABugInTheEngine:
    def test_from_the_first_sign_to_its_mending(
        self, bench: Bench, shell: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        poison = Poisoned(monkeypatch, "poison")
        bench.start("bad", bench.register(flows.chain("poison", "b", flow="bad")))
        bench.start("good", bench.register(flows.chain("a", "b", flow="good")))
        orchestrator, hand = bench.orchestrator(), bench.hand()
        settle(orchestrator, hand)
        check_once(bench.history("good"), "a", "b")
        assert shell.blocked() == ["bad"]
        shown = shell("show", "bad")
        assert "1 event, the first of which could not be applied" in shown
        (found,) = shell.quarantined()
        assert found["message"]["kind"] == "ResultMessage"
        shell("quarantine", "retry", found["entry"])
        assert shell.code == 1
        assert "headrace unblock bad" in shell.err
        assert {"instances_blocked", "quarantine"} <= shell.findings().keys()
        assert shell.code == 1
        poison.fails = False
        assert shell.json("unblock", "--all", "--flow", "bad") == {"unblock": ["bad"]}
        settle(orchestrator, hand)
        assert shell.json("show", "bad")["instance"]["status"] == "completed"
        shell("unblock", "bad")
        assert shell.code == 1
        assert "is not blocked, it is completed" in shell.err
        shell("quarantine", "drop", "--all", "--yes")
        assert not {"instances_blocked", "quarantine"} & shell.findings().keys()
