"""The sub-protocol `v5.channel.k8s.io` of exec: the first byte of each message names its channel.

    0 stdin  1 stdout  2 stderr  3 error (one Status at the end)  4 resize ({"Width", "Height"})  255 close a channel

Source: k8s.io/apimachinery/pkg/util/remotecommand and k8s.io/streaming. An exit code that isn't 0 is a Status of reason
`NonZeroExitCode` with the code as a cause of type `ExitCode`. A command that can't be started is an `InternalError`, as with containerd:
kubectl shows its message and exits with 1. Who looks finds 126 or 127 as a cause of it, too.
"""

from __future__ import annotations

import msgspec

PROTOCOL = "v5.channel.k8s.io"
WITH_STATUS = (PROTOCOL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io")
PROTOCOLS = (*WITH_STATUS, "channel.k8s.io", "base64.channel.k8s.io", "")
"""What is spoken here, the best first; only the first can close a channel, and those before v4 end with a text instead of a Status."""
NOT_STARTED = "Internal error occurred: error executing command in container: "
"""Of a command that can't be started (kubelet, ServeExec)."""
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255


class Cause(msgspec.Struct):
    """One cause of a Status."""

    reason: str = ""
    message: str = ""


class Details(msgspec.Struct):
    """Details of a Status."""

    causes: list[Cause] = []


class Outcome(msgspec.Struct):
    """The Status that ends an exec."""

    status: str = ""
    message: str = ""
    reason: str = ""
    details: Details | None = None
    kind: str = "Status"
    api_version: str = msgspec.field(default="v1", name="apiVersion")
    metadata: dict[str, str] = {}


class TerminalSize(msgspec.Struct, rename="pascal"):
    """Columns and rows of a terminal."""

    width: int
    height: int


def outcome_of(code: int, error: str = "") -> bytes:
    """The Status for an exit code, or for a command that couldn't be started."""
    if error:
        return msgspec.json.encode(
            Outcome("Failure", NOT_STARTED + error, "InternalError", Details([Cause("ExitCode", str(code))]))
        )
    if code:
        message = f"command terminated with non-zero exit code: exit status {code}"
        return msgspec.json.encode(Outcome("Failure", message, "NonZeroExitCode", Details([Cause("ExitCode", str(code))])))
    return msgspec.json.encode(Outcome("Success"))


def last_words(protocol: str, code: int, error: str = "") -> bytes:
    """What the error channel says at the end, by the protocol; nothing where a protocol before v4 has a success to tell."""
    outcome = outcome_of(code, error)
    if protocol in WITH_STATUS:
        return outcome
    found = msgspec.json.decode(outcome, type=Outcome)
    return b"" if found.status == "Success" else found.message.encode()


def exit_code(status: bytes) -> tuple[int, str]:
    """(exit code, error message): the message is empty when the command ran."""
    outcome = msgspec.json.decode(status, type=Outcome)
    if outcome.status == "Success":
        return 0, ""
    causes = outcome.details.causes if outcome.details else []
    code = next((int(c.message) for c in causes if c.reason == "ExitCode" and c.message.isdecimal()), 1)
    return code, "" if outcome.reason == "NonZeroExitCode" else outcome.message.removeprefix(NOT_STARTED)
