"""A call of a container runtime: environment and configuration, checked. Pure.

    environment ── which verb, of which container and interface
    standard input, JSON ── `cniVersion`, `name`, `type`, and by verb: `prevResult`, `runtimeConfig`, `args`, `dns`, the valid attachments

What is malformed is refused with the code that the CNI specification has for it and the name of the variable or field, and so is what
podplane does not know: nothing is ignored. DEL alone reads no more than it needs, because it has to succeed whatever else is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from podplane.cni.arguments import Arguments, RuntimeConfig, addresses, as_named, parse_arguments
from podplane.cni.errors import CniError, Code, shortened
from podplane.cni.result import NEWEST, VERSIONS, Dns, Result, is_before
from podplane.model.bandwidth import trouble_of
from podplane.state.mac import asked_mac

T = TypeVar("T")
ADD, DEL, CHECK, GC, STATUS, VERSION = VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
SINCE = {CHECK: "0.4.0", GC: "1.1.0", STATUS: "1.1.0"}
"""The first version of the specification that has a verb."""
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
"""Of networks and containers."""
IFNAME_CHARACTERS = 15
"""IFNAMSIZ without its zero."""
VALID_ATTACHMENTS = ("cni.dev/valid-attachments", "cni.dev/attachments")
"""What GC is to keep; libcni sends it by both names."""
PROTOCOL_KEYS = frozenset(("cniVersion", "name", "type", "capabilities", "prevResult", "runtimeConfig", "args", "dns"))
"""Keys of a configuration that podplane reads, or that say nothing to a plugin (`capabilities`)."""
RUNTIME_KEYS = frozenset(field.encode_name for field in msgspec.structs.fields(RuntimeConfig))
"""Of `runtimeConfig`."""
PROTOCOL_PREFIX = "cni.dev/"
"""Of keys that runtimes add."""

Id = tuple[str, str]
"""(container id, interface name)"""


class Call(msgspec.Struct, frozen=True):
    """One call. Which fields have a meaning depends on the verb.

    `kept` is what GC is to keep, None when the caller did not say; `ips` are addresses that are asked for, `former_ips` those that the
    pod had before.
    """

    verb: str
    version: str = NEWEST
    network: str = ""
    container_id: str = ""
    ifname: str = ""
    netns: str = ""
    arguments: Arguments = Arguments()
    runtime: RuntimeConfig = RuntimeConfig()
    ips: tuple[str, ...] = ()
    former_ips: tuple[str, ...] = ()
    dns: Dns = Dns()
    previous: Result | None = None
    kept: frozenset[Id] | None = None

    @property
    def id(self) -> Id:
        """(container id, interface name)."""
        return (self.container_id, self.ifname)

    @property
    def previous_mtu(self) -> int | None:
        """That of the container's interface, where the former result says it: it does since CNI 1.1.0."""
        of_container = self.previous.interfaces if self.previous is not None else ()
        return next((one.mtu for one in of_container if one.name == self.ifname and one.sandbox and one.mtu), None)


class _GenericArguments(msgspec.Struct, frozen=True):
    """`args.cni`: addresses; all else there may be ignored, by convention."""

    ips: tuple[str, ...] = ()


class _OwnArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """`args.podplane`: addresses that the pod had before, which it gets again where they are free."""

    former_ips: tuple[str, ...] = msgspec.field(default=(), name="formerIPs")


class _Args(msgspec.Struct, frozen=True):
    cni: _GenericArguments = _GenericArguments()
    podplane: _OwnArguments = _OwnArguments()


class _Kept(msgspec.Struct, frozen=True, rename={"container_id": "containerID"}):
    container_id: str
    ifname: str


def version_of(stdin: bytes) -> str:
    """The version that a caller speaks, as far as that can be told: for answers to calls that can't be read."""
    try:
        version = msgspec.json.decode(stdin).get("cniVersion")
    except (msgspec.DecodeError, AttributeError, RecursionError):
        return NEWEST
    return version if version in VERSIONS else NEWEST


def parse(env: Mapping[str, str], stdin: bytes) -> Call:
    """The call that these make. CniError says what is wrong with it."""
    verb = env.get("CNI_COMMAND", "")
    if verb not in VERBS:
        problem = f"{verb!r} is none of {', '.join(VERBS)}" if verb else "is missing"
        raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_COMMAND {problem}")
    if verb == VERSION:
        return Call(verb, version_of(stdin))
    _check_environment(verb, env)
    raw = _decoded(stdin)
    version, network = _version(verb, raw), _network(raw)
    call = Call(verb, version, network, env.get("CNI_CONTAINERID", ""), env.get("CNI_IFNAME", ""), env.get("CNI_NETNS", ""))
    if verb == DEL:
        return call
    _check_keys(raw)
    if verb == GC:
        return msgspec.structs.replace(call, kept=_kept(raw))
    return call if verb == STATUS else _with_attachment(call, env, raw)


def _with_attachment(call: Call, env: Mapping[str, str], raw: Mapping[str, Any]) -> Call:
    """With what is said of the attachment that is to be made, or checked."""
    arguments = parse_arguments(env.get("CNI_ARGS", ""))
    runtime = _with_mac(_runtime(raw), arguments)
    args: _Args = _field(raw, "args", _Args, _Args())
    of_caller = (arguments.ip,) if arguments.ip else ()
    named = (("runtimeConfig.ips", runtime.ips), ("args.cni.ips", args.cni.ips), ("CNI_ARGS: IP", of_caller))
    where, asked = next((one for one in named if one[1]), ("", ()))
    return msgspec.structs.replace(
        call,
        arguments=arguments,
        runtime=runtime,
        ips=addresses(asked, where),
        former_ips=addresses(args.podplane.former_ips, "args.podplane.formerIPs"),
        dns=_field(raw, "dns", Dns, Dns()),
        previous=_previous(call, raw),
    )


def _previous(call: Call, raw: Mapping[str, Any]) -> Result | None:
    """What plugins before this one have made; for CHECK, what the ADD of this interface made, and nothing else."""
    previous: Result | None = _field(raw, "prevResult", Result, None)
    if previous is not None and "code" in raw["prevResult"]:
        said = shortened(str(raw["prevResult"].get("msg", "")))
        raise CniError(Code.INVALID_CONFIGURATION, f"prevResult.code: it is an error, and no result of ADD: {said}")
    if call.verb != CHECK:
        return previous
    if previous is None:
        raise CniError(Code.INVALID_CONFIGURATION, "prevResult is missing: CHECK is about what an ADD made")
    if not previous.has_interface(call.ifname):
        missing = f"{call.ifname} of the container is not among them: it is no result of this ADD"
        raise CniError(Code.INVALID_CONFIGURATION, f"prevResult.interfaces: {missing}")
    return previous


def _check_environment(verb: str, env: Mapping[str, str]) -> None:
    if verb in (GC, STATUS):
        return
    needed = ("CNI_CONTAINERID", "CNI_IFNAME", *(() if verb == DEL else ("CNI_NETNS",)))
    if missing := [name for name in needed if not env.get(name)]:
        what = "variable" if len(missing) == 1 else "variables"
        raise CniError(Code.INVALID_ENVIRONMENT, f"{verb} needs the environment {what} {', '.join(missing)}")
    container = env["CNI_CONTAINERID"]
    if not NAME.fullmatch(container):
        raise CniError(
            Code.INVALID_ENVIRONMENT, f"CNI_CONTAINERID {container!r} is not a name of letters, digits, '_', '.' and '-'"
        )
    if problem := ifname_problem(env["CNI_IFNAME"]):
        raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_IFNAME {env['CNI_IFNAME']!r} {problem}")


def ifname_problem(name: str) -> str:
    """Why an interface can't have this name (dev_valid_name of the kernel, which fills in "%d"), "" when it can."""
    if len(name.encode(errors="surrogateescape")) > IFNAME_CHARACTERS:
        return f"is longer than {IFNAME_CHARACTERS} bytes"
    if name in (".", "..", "lo"):
        return "is not a name for an interface"
    if any(one in "/:%" or one.isspace() or not one.isprintable() for one in name):
        return "has a character that names of interfaces don't have"
    return ""


def _decoded(stdin: bytes) -> dict[str, Any]:
    try:
        raw = msgspec.json.decode(stdin)
    except (msgspec.DecodeError, RecursionError) as error:
        raise CniError(Code.NOT_DECODED, f"the configuration on standard input is not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise CniError(Code.NOT_DECODED, "the configuration on standard input is not a JSON object")
    return raw


def _version(verb: str, raw: Mapping[str, Any]) -> str:
    version: str = _field(raw, "cniVersion", str, "")
    if version not in VERSIONS:
        said = repr(version) if version else "missing"
        raise CniError(Code.INCOMPATIBLE_VERSION, f"cniVersion is {said}", f"podplane-cni speaks {', '.join(VERSIONS)}")
    if is_before(version, SINCE.get(verb, version)):
        raise CniError(Code.INCOMPATIBLE_VERSION, f"cniVersion {version} has no {verb}", f"it came with {SINCE[verb]}")
    return version


def _network(raw: Mapping[str, Any]) -> str:
    name: str = _field(raw, "name", str, "")
    if not NAME.fullmatch(name):
        said = f"{name!r} is not a name of letters, digits, '_', '.' and '-'" if name else "is missing"
        raise CniError(Code.INVALID_CONFIGURATION, f"name {said}")
    return name


def _check_keys(raw: Mapping[str, Any]) -> None:
    """Refuse what podplane does not know; the specification wants key and value to be named."""
    for key, value in raw.items():
        if key not in PROTOCOL_KEYS and not key.startswith(PROTOCOL_PREFIX):
            raise _unsupported(key, value)
    _field(raw, "type", str, "")


def _runtime(raw: Mapping[str, Any]) -> RuntimeConfig:
    given = _field(raw, "runtimeConfig", dict[str, Any], {})
    for key, value in given.items():
        if key not in RUNTIME_KEYS:
            raise _unsupported(f"runtimeConfig.{key}", value)
    present = {key: as_named(key, value) for key, value in given.items() if value is not None}
    runtime: RuntimeConfig = _field({"runtimeConfig": present}, "runtimeConfig", RuntimeConfig, RuntimeConfig())
    if trouble := trouble_of(runtime.bandwidth.asked):
        raise CniError(Code.INVALID_CONFIGURATION, f"runtimeConfig.bandwidth.{trouble}")
    return runtime


def _with_mac(runtime: RuntimeConfig, arguments: Arguments) -> RuntimeConfig:
    """With the MAC that is asked for in the usual notation: the capability's, else that of CNI_ARGS."""
    where = "runtimeConfig.mac" if runtime.mac else "CNI_ARGS: MAC"
    asked = runtime.mac or arguments.mac
    try:
        return msgspec.structs.replace(runtime, mac=asked_mac(asked)) if asked else runtime
    except ValueError as error:
        raise CniError(Code.INVALID_CONFIGURATION, f"{where}: {error}") from None


def _unsupported(key: str, value: Any) -> CniError:
    text = shortened(msgspec.json.encode(value).decode())
    return CniError(Code.UNSUPPORTED_FIELD, f"unsupported field {key}: {text}", "podplane-cni does not know it: take it out")


def _kept(raw: Mapping[str, Any]) -> frozenset[Id] | None:
    lists = [_field(raw, key, tuple[_Kept, ...], ()) for key in VALID_ATTACHMENTS if key in raw]
    return frozenset((one.container_id, one.ifname) for kept in lists for one in kept) if lists else None


def _field(raw: Mapping[str, Any], key: str, type_: Any, default: T) -> Any:
    """A field of the configuration; null is as if it were not there. CniError with the field's path when it is malformed."""
    value = raw.get(key)
    if value is None:
        return default
    try:
        return msgspec.convert(value, type_)
    except (msgspec.ValidationError, RecursionError) as error:
        reason, _, path = str(error).partition(" - at `$")
        raise CniError(Code.INVALID_CONFIGURATION, f"{key}{path.rstrip('`')}: {reason}") from None
