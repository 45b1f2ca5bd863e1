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

`code` is stable and meant for machines; the text is for people and may change.
"""

from __future__ import annotations

from typing import ClassVar


class HeadraceError(Exception):
    """Something in Headrace went wrong."""

    code: ClassVar[str] = "headrace_error"

    def __init__(self, message: str | None = None, **ids: str | int | None) -> None:
        """`message` defaults to the class's docstring; `ids` name what it is about (instance, flow, node …)."""
        super().__init__(message if message is not None else (type(self).__doc__ or "").strip())
        self.ids: dict[str, str | int] = {name: value for name, value in ids.items() if value is not None}


class ConfigurationError(HeadraceError):
    """A setting, server or namespace cannot be used as it is."""

    code = "configuration_error"


class InvalidDuration(ConfigurationError):
    """Not a duration."""

    code = "invalid_duration"


class UnsupportedServer(ConfigurationError):
    """The server is not one that Headrace can run on."""

    code = "unsupported_server"


class EvictionPolicyRefused(ConfigurationError):
    """The server may evict keys when memory runs low, which would lose workflow state."""

    code = "eviction_policy_refused"


class PartitionCountMismatch(ConfigurationError):
    """The namespace was created with another number of partitions."""

    code = "partition_count_mismatch"


class EmbeddedServerError(ConfigurationError):
    """The embedded server could not be started."""

    code = "embedded_server_error"


class MissingExtra(ConfigurationError):
    """An optional package is not installed."""

    code = "missing_extra"


class TargetError(ConfigurationError):
    """A target could not be loaded."""

    code = "target_error"


class ServerError(HeadraceError):
    """The server answered a command with an error."""

    code = "server_error"


class ServerFull(ServerError):
    """The server is out of memory and takes nothing new."""

    code = "server_full"


class ServerNotReady(ServerError):
    """The server answers, but takes no commands yet, or no writes."""

    code = "server_not_ready"


class AccessDenied(ServerError):
    """The server wants a password, or does not let the user do what Headrace does."""

    code = "access_denied"


class CommitDamaged(ServerError):
    """A command failed inside an applied commit, which only a strange hand can cause. The partition is repaired."""

    code = "commit_damaged"


class PartitionDamaged(ServerError):
    """A strange hand wrote a key of the partition, which nobody can own until that is mended."""

    code = "partition_damaged"


class ServerUnreachable(HeadraceError):
    """The server cannot be reached."""

    code = "server_unreachable"


class ClientClosed(HeadraceError):
    """The client was closed; make another one."""

    code = "client_closed"


class FlowError(HeadraceError):
    """A flow or task is wrong as written."""

    code = "flow_error"


class InvalidFlow(FlowError):
    """The flow is wrong as written."""

    code = "invalid_flow"


class InvalidTask(FlowError):
    """The task is wrong as written."""

    code = "invalid_task"


class FlowNotFound(HeadraceError):
    """No flow of that name is registered."""

    code = "flow_not_found"


class PayloadError(HeadraceError):
    """A payload cannot be carried."""

    code = "payload_error"


class PayloadTooLarge(PayloadError):
    """The payload is over its limit."""

    code = "payload_too_large"


class PayloadNotSerializable(PayloadError):
    """The payload holds a value that cannot be carried."""

    code = "payload_not_serializable"


class PayloadMismatch(PayloadError):
    """The payload does not validate against the annotation of its receiver."""

    code = "payload_mismatch"


class InstanceError(HeadraceError):
    """The request does not fit the instance."""

    code = "instance_error"


class InvalidInstanceId(InstanceError):
    """Not an instance id."""

    code = "invalid_instance_id"


class InvalidRequest(InstanceError):
    """An argument of a request cannot be used as it is."""

    code = "invalid_request"


class InstanceExists(InstanceError):
    """An instance of that id is live."""

    code = "instance_exists"


class InstanceNotFound(InstanceError):
    """No instance of that id is known."""

    code = "instance_not_found"


class InstanceFinished(InstanceError):
    """The instance has ended."""

    code = "instance_finished"


class InstanceNotEnded(InstanceError):
    """The instance has not ended."""

    code = "instance_not_ended"


class UnknownSignal(InstanceError):
    """No step of the instance's flow waits for a signal of that name."""

    code = "unknown_signal"


class InstanceNotBlocked(InstanceError):
    """The instance is not blocked."""

    code = "instance_not_blocked"


class OutcomeError(HeadraceError):
    """The instance did not complete."""

    code = "outcome_error"


class InstanceFailed(OutcomeError):
    """The instance failed."""

    code = "instance_failed"


class InstanceCancelled(OutcomeError):
    """The instance was cancelled."""

    code = "instance_cancelled"


class InstanceBlocked(OutcomeError):
    """The instance is blocked by an event that could not be applied."""

    code = "instance_blocked"


class TaskError(HeadraceError):
    """The step failed."""

    code = "task_error"


class TaskTimedOut(TaskError):
    """The attempt ran longer than its time-out."""

    code = "task_timed_out"


class SignalTimeout(TaskError):
    """The signal did not come in time."""

    code = "signal_timeout"


class WorkerLost(TaskError):
    """The workers that ran the task were lost, again and again."""

    code = "worker_lost"


class UnknownRoute(TaskError):
    """The router gave a key that no branch takes."""

    code = "unknown_route"


class QuarantineError(HeadraceError):
    """The request does not fit the quarantined entry."""

    code = "quarantine_error"


class QuarantineEntryNotFound(QuarantineError):
    """No such entry is in quarantine."""

    code = "quarantine_entry_not_found"


class QuarantineRetryRefused(QuarantineError):
    """The quarantined entry cannot go back to where it came from."""

    code = "quarantine_retry_refused"


class MessageError(HeadraceError):
    """Bytes from a stream that are no message of ours."""

    code = "message_error"


class Fenced(HeadraceError):
    """Another owner holds the partition, or this owner's view of it is out of date."""

    code = "fenced"
