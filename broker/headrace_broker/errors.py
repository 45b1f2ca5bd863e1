"""Every error Headrace raises, in one tree. `headrace.errors` re-exports it.

    HeadraceError
    ├── ConfigurationError            a setting, a server or a namespace that cannot be used as it is
    │   ├── InvalidDuration
    │   ├── UnsupportedServer         older than Redis 7.0, or not a Redis at all
    │   ├── EvictionPolicyRefused     the server may evict keys
    │   ├── PartitionCountMismatch
    │   ├── EmbeddedServerError
    │   ├── MissingExtra              an optional package is needed; says the install command
    │   └── TargetError               a TARGET of the command line that cannot be loaded
    ├── ServerError                   the server answered a command with an error
    │   ├── ServerFull                out of memory
    │   ├── ServerNotReady            loading its data, or a replica
    │   ├── AccessDenied              password or permission missing
    │   ├── CommitDamaged             a command failed inside an applied commit
    │   └── PartitionDamaged          a key of a partition cannot be worked with
    ├── ServerUnreachable             no connection, or one that was lost
    ├── ClientClosed                  a client that was closed is asked for something
    ├── FlowError                     a flow or task that is wrong as written; raised while the author's code runs
    │   ├── InvalidFlow
    │   └── InvalidTask
    ├── FlowNotFound                  no flow of that name is registered
    ├── PayloadError
    │   ├── PayloadTooLarge
    │   ├── PayloadNotSerializable
    │   └── PayloadMismatch           a payload does not validate against the receiver's annotation
    ├── InstanceError
    │   ├── InvalidInstanceId
    │   ├── InvalidRequest            an argument that cannot be used: its type, a signal's name, an actor, a policy
    │   ├── InstanceExists
    │   ├── InstanceNotFound
    │   ├── InstanceFinished          it has ended and takes no more signals or controls
    │   ├── InstanceNotEnded          it is live, so it cannot be deleted
    │   ├── UnknownSignal             no step of its flow waits for a signal of that name
    │   └── InstanceNotBlocked        there is nothing to unblock
    ├── OutcomeError                  what `handle.result()` raises for an instance that did not complete
    │   ├── InstanceFailed
    │   ├── InstanceCancelled
    │   └── InstanceBlocked
    ├── TaskError                     why a step failed, when it was not the author's exception
    │   ├── TaskTimedOut
    │   ├── SignalTimeout
    │   ├── WorkerLost
    │   └── UnknownRoute
    ├── QuarantineError
    │   ├── QuarantineEntryNotFound
    │   └── QuarantineRetryRefused    it has no place to go back to
    ├── MessageError                  bytes from a stream that are no message of ours
    └── Fenced                        another owner holds the partition

`code` is stable and meant for machines; the text is for people and may change. A class's docstring says in its first
paragraph what has happened, in its last one what to do: both are in docs/reference/errors.md, which `make docs` writes.
"""

from __future__ import annotations

import inspect
from typing import ClassVar


class HeadraceError(Exception):
    """Something in Headrace went wrong.

    Catch it to catch every error of Headrace; its `code` says which one it is.
    """

    code: ClassVar[str] = "headrace_error"

    def __init__(self, message: str | None = None, **ids: str | int | None) -> None:
        """`message` defaults to what the class's docstring begins with; `ids` name what it is about (flow, node …)."""
        super().__init__(message if message is not None else meaning(type(self)))
        self.ids: dict[str, str | int] = {name: value for name, value in ids.items() if value is not None}


class ConfigurationError(HeadraceError):
    """A setting, server or namespace cannot be used as it is.

    Change what the message names: an option, a variable or the server's configuration. Trying again does not help.
    """

    code = "configuration_error"


class InvalidDuration(ConfigurationError):
    """Not a duration.

    Give seconds, a `timedelta`, or text such as "250ms", "30s", "1h30m", "7d".
    """

    code = "invalid_duration"


class UnsupportedServer(ConfigurationError):
    """The server is not one that Headrace can run on.

    Use Redis 7.0 or later, or Valkey.
    """

    code = "unsupported_server"


class EvictionPolicyRefused(ConfigurationError):
    """The server may evict keys when memory runs low, which would lose workflow state.

    On the server: `CONFIG SET maxmemory-policy noeviction`, and the same in its configuration file.
    """

    code = "eviction_policy_refused"


class PartitionCountMismatch(ConfigurationError):
    """The namespace was created with another number of partitions.

    Leave `--partitions` and HEADRACE_PARTITIONS out: the namespace has its number. Another number needs another
    namespace.
    """

    code = "partition_count_mismatch"


class EmbeddedServerError(ConfigurationError):
    """The embedded server could not be started.

    The message has the server's last words. Look at the directory: is it writable, is the disk full?
    """

    code = "embedded_server_error"


class MissingExtra(ConfigurationError):
    """An optional package is not installed.

    Type the `pip install` that the message ends with.
    """

    code = "missing_extra"


class TargetError(ConfigurationError):
    """A target could not be loaded.

    Correct the target, or the mistake in it that the message names. A target is `file.py`, `package.module`, or
    either with `:attribute`.
    """

    code = "target_error"


class ServerError(HeadraceError):
    """The server answered a command with an error.

    Read the server's own words in the message; `headrace doctor` says what it can see.
    """

    code = "server_error"


class ServerFull(ServerError):
    """The server is out of memory and takes nothing new.

    Give the server more memory (`maxmemory`), or less to keep. Then try again: nothing was done.
    """

    code = "server_full"


class ServerNotReady(ServerError):
    """The server answers, but takes no commands yet, or no writes.

    Wait until it has loaded its data. If it is a replica, give the URL of the primary.
    """

    code = "server_not_ready"


class AccessDenied(ServerError):
    """The server wants a password, or does not let the user do what Headrace does.

    Put user and password into the URL, or give the user the permission that the message names.
    """

    code = "access_denied"


class CommitDamaged(ServerError):
    """A command failed inside an applied commit, which only a strange hand can cause. The partition is repaired.

    Nothing: the orchestrator repairs the partition by itself. Find out who else writes into the namespace.
    """

    code = "commit_damaged"


class PartitionDamaged(ServerError):
    """A strange hand wrote a key of the partition, which nobody can own until that is mended.

    Run the command that the message names. Find out who else writes into the namespace.
    """

    code = "partition_damaged"


class ServerUnreachable(HeadraceError):
    """The server cannot be reached.

    Is the server up, is the URL right (`--url`, HEADRACE_URL)? What was asked for may have been done: ask again
    with the same id.
    """

    code = "server_unreachable"


class ClientClosed(HeadraceError):
    """The client was closed; make another one.

    Keep a client open for as long as the process needs it.
    """

    code = "client_closed"


class FlowError(HeadraceError):
    """A flow or task is wrong as written.

    Correct the flow or the task; the message says what was expected.
    """

    code = "flow_error"


class InvalidFlow(FlowError):
    """The flow is wrong as written.

    Correct the call that raised it: a name used twice, a step out of place, a branch that is missing.
    """

    code = "invalid_flow"


class InvalidTask(FlowError):
    """The task is wrong as written.

    Correct the function or the options of its `@task`.
    """

    code = "invalid_task"


class FlowNotFound(HeadraceError):
    """No flow of that name is registered.

    Start a worker with the flow, or start by `TARGET:flow` or with the `Flow` itself. In a new deployment, wait a
    second.
    """

    code = "flow_not_found"


class PayloadError(HeadraceError):
    """A payload cannot be carried.

    Change the value that the message points at.
    """

    code = "payload_error"


class PayloadTooLarge(PayloadError):
    """The payload is over its limit.

    Store the value elsewhere, and pass where it lies. A value has at most 1 MiB.
    """

    code = "payload_too_large"


class PayloadNotSerializable(PayloadError):
    """The payload holds a value that cannot be carried.

    Pass plain data, a pydantic model or a dataclass. The message says where in the value the trouble is.
    """

    code = "payload_not_serializable"


class PayloadMismatch(PayloadError):
    """The payload does not validate against the annotation of its receiver.

    Make the value fit the annotation, or the annotation the value; after a deploy, accept the old form too.
    """

    code = "payload_mismatch"


class InstanceError(HeadraceError):
    """The request does not fit the instance.

    The message says what the instance's state allows.
    """

    code = "instance_error"


class InvalidInstanceId(InstanceError):
    """Not an instance id.

    Use 1 to 256 bytes of printable text.
    """

    code = "invalid_instance_id"


class InvalidRequest(InstanceError):
    """An argument of a request cannot be used as it is.

    Correct the argument that the message names.
    """

    code = "invalid_request"


class InstanceExists(InstanceError):
    """An instance of that id is live.

    Take another id, or the one that is there: `conflict="use_existing"`, `--conflict use_existing`.
    """

    code = "instance_exists"


class InstanceNotFound(InstanceError):
    """No instance of that id is known.

    Check id, namespace and server: `headrace ls`.
    """

    code = "instance_not_found"


class InstanceFinished(InstanceError):
    """The instance has ended.

    Nothing, usually. Its outcome: `headrace show`.
    """

    code = "instance_finished"


class InstanceNotEnded(InstanceError):
    """The instance has not ended.

    Wait for its end, or cancel it first: `headrace delete --force`.
    """

    code = "instance_not_ended"


class UnknownSignal(InstanceError):
    """No step of the instance's flow waits for a signal of that name.

    Check the signal's name; the message lists those that the flow waits for.
    """

    code = "unknown_signal"


class InstanceNotBlocked(InstanceError):
    """The instance is not blocked.

    Nothing: it goes on by itself. `headrace show` says what it waits for.
    """

    code = "instance_not_blocked"


class OutcomeError(HeadraceError):
    """The instance did not complete.

    `headrace show` has the history.
    """

    code = "outcome_error"


class InstanceFailed(OutcomeError):
    """The instance failed.

    `headrace show` has the step, the error and the worker's traceback. Mend the cause and start anew.
    """

    code = "instance_failed"


class InstanceCancelled(OutcomeError):
    """The instance was cancelled.

    Nothing: somebody asked for it. `headrace show` says who, and why.
    """

    code = "instance_cancelled"


class InstanceBlocked(OutcomeError):
    """The instance is blocked by an event that could not be applied.

    Mend the reason that the message gives, then `headrace unblock`. `Handle.result` may be called again.
    """

    code = "instance_blocked"


class TaskError(HeadraceError):
    """The step failed.

    The step's error type in `headrace show` is one of these.
    """

    code = "task_error"


class TaskTimedOut(TaskError):
    """The attempt ran longer than its time-out.

    Give it a longer `timeout`, or retries; look at why it takes so long.
    """

    code = "task_timed_out"


class SignalTimeout(TaskError):
    """The signal did not come in time.

    Give the wait a longer `timeout`, a `default` or an `on_timeout`.
    """

    code = "signal_timeout"


class WorkerLost(TaskError):
    """The workers that ran the task were lost, again and again.

    See of what the workers die (their log says it): memory, a crash in native code, a kill. Then start anew.
    """

    code = "worker_lost"


class UnknownRoute(TaskError):
    """The router gave a key that no branch takes.

    Give the route that branch, or a `default_branch`.
    """

    code = "unknown_route"


class QuarantineError(HeadraceError):
    """The request does not fit the quarantined entry.

    `headrace quarantine ls` lists what is there.
    """

    code = "quarantine_error"


class QuarantineEntryNotFound(QuarantineError):
    """No such entry is in quarantine.

    Check the entry: `headrace quarantine ls`. It may have been retried or dropped.
    """

    code = "quarantine_entry_not_found"


class QuarantineRetryRefused(QuarantineError):
    """The quarantined entry cannot go back to where it came from.

    The message says why. `headrace quarantine show` has its content; `headrace quarantine drop` deletes it.
    """

    code = "quarantine_retry_refused"


class MessageError(HeadraceError):
    """Bytes from a stream that are no message of ours.

    Nothing: the entry is in quarantine, `headrace quarantine show`. Find out who wrote it.
    """

    code = "message_error"


class Fenced(HeadraceError):
    """Another owner holds the partition, or this owner's view of it is out of date.

    Nothing: the other owner goes on. If it happens often, give orchestrators a longer `--ownership`.
    """

    code = "fenced"


def meaning(error: type[HeadraceError]) -> str:
    """What has happened, as the first paragraph of the class's docstring says it."""
    return _paragraphs(error)[0]


def remedy(error: type[HeadraceError]) -> str:
    """What to do about it, as the docstring's last paragraph says; "" if it has only one."""
    return "".join(_paragraphs(error)[1:][-1:])


def _paragraphs(error: type[HeadraceError]) -> list[str]:
    """Those of its own docstring, or of the nearest ancestor's, each in a line."""
    return [" ".join(part.split()) for part in (inspect.getdoc(error) or "").split("\n\n")]
