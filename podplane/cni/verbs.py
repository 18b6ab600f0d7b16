"""The verbs of the CNI specification over a node's network: what a plugin was called with comes in, its answer goes out.

Calls for one (container id, interface) go one after another, whatever a runtime does. An ADD whose answer nobody takes any more is undone:
its caller has been told nothing, or something else. Descriptors of pods' namespaces are held here, from ADD to DEL.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeVar

from podplane.cni import call as calls
from podplane.cni import result, tuning, wire
from podplane.cni.call import Call, Id
from podplane.cni.errors import CniError, Code, render
from podplane.cni.network import Attached, Attachment, FurtherNetworkError, NetworkError, NodeNetwork, TryAgainError
from podplane.cni.result import Address, Interface, Result, Route, merged
from podplane.kernel import syscalls
from podplane.kernel.namespace import Namespace, NetworkNamespace, Workers, is_within_reach
from podplane.kernel.opener import has_link
from podplane.kernel.passed import Passed

T = TypeVar("T")
log = logging.getLogger(__name__)
NS_GET_NSTYPE = 0xB703
"""linux/nsfs.h: which kind of namespace a descriptor is of."""
ERRNO_DIGITS = 5
"""Fewer than that has the kernel's largest errno (MAX_ERRNO)."""
LEAVING_SECONDS, LOOK_SECONDS = 1.0, 0.01
"""So long the link of an attachment that was detached may take to go; from one look to the next."""
NEED_ALL = (calls.ADD, calls.CHECK, calls.GC)
"""Verbs that need to know what is attached."""
DEFAULT_ROUTES = {False: "0.0.0.0/0", True: "::/0"}
"""By whether the address is of IPv6."""

Deliver = Callable[[bytes], Awaitable[bool]]
"""Gives the caller its answer; was it there to take it?"""


class NoNamespace:
    """In place of a pod's network namespace where none is needed."""

    @property
    def fd(self) -> int:
        """OSError."""
        raise FileNotFoundError("the network namespace is not known")

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """OSError."""
        raise FileNotFoundError("the network namespace is not known")

    def close(self) -> None:
        """Nothing to let go of."""


class Verbs:
    """Calls over one network; its methods run on one event loop.

    `node` is the network namespace that no pod may be attached by. `held` are the namespaces of attachments from before; they are closed
    here once they are detached.
    """

    def __init__(self, network: NodeNetwork, node: Namespace, workers: Workers, held: Mapping[Id, Namespace]) -> None:
        self._network, self._node, self._workers = network, node, workers
        self._held = dict(held)
        self._locks: dict[Id, tuple[asyncio.Lock, int]] = {}

    async def answer(self, request: wire.Request, descriptors: MutableMapping[str, int], deliver: Deliver) -> None:
        """See to a request and deliver the answer. Whoever calls closes the descriptors that are left then."""
        verb = request.env.get("CNI_COMMAND", "")
        try:
            call = calls.parse(request.env, request.stdin)
            if call.verb in NEED_ALL:
                await self._network.begun()
            if call.verb == calls.ADD:
                await self._add(call, request.env, descriptors, deliver)
                return
            done = await self._do(call, request.env, descriptors)
        except CniError as error:
            done = failed(error, calls.version_of(request.stdin))
        except NetworkError as error:
            done = failed(_wrapped(error, verb), calls.version_of(request.stdin))
        except Exception as error:
            log.exception("call verb=%s container=%s", verb, request.env.get("CNI_CONTAINERID", ""))
            why = CniError(Code.INTERNAL, f"the agent failed: {error}", "its log says more")
            done = failed(why, calls.version_of(request.stdin))
        await deliver(done)

    async def _do(self, call: Call, env: Mapping[str, str], descriptors: MutableMapping[str, int]) -> bytes:
        if call.verb == calls.VERSION:
            return wire.answer(0, result.render_versions(call.version))
        if call.verb == calls.STATUS:
            self._status()
        elif call.verb == calls.GC:
            await self._gc(call)
        elif call.verb == calls.CHECK:
            await self._check(call, env, descriptors)
        else:
            async with self._alone(call.id):
                if self._is_another(call, descriptors):
                    log.warning(
                        "call verb=DEL container=%s what is attached is in another network namespace", call.container_id
                    )
                else:
                    await self._network.delete(_attachment(call, NoNamespace()))
                    self._release(call.id)
        return wire.answer(0)

    def _is_another(self, call: Call, descriptors: Mapping[str, int]) -> bool:
        """Is the attachment in another namespace than the DEL is about? Only a plugin that takes an ADD back says which one that is."""
        fd, held = descriptors.get(wire.NETNS), self._held.get(call.id)
        return fd is not None and held is not None and not _same(fd, held.fd)

    @contextlib.asynccontextmanager
    async def _alone(self, id_: Id) -> AsyncIterator[None]:
        """After those that came before for the same attachment."""
        lock, users = self._locks.get(id_, (asyncio.Lock(), 0))
        self._locks[id_] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(id_)
            if users > 1:
                self._locks[id_] = lock, users - 1

    async def _add(self, call: Call, env: Mapping[str, str], descriptors: MutableMapping[str, int], deliver: Deliver) -> None:
        if call.previous is not None and call.previous.has_interface(call.ifname):
            raise CniError(Code.INVALID_CONFIGURATION, f"prevResult: a plugin before this one has made interface {call.ifname}")
        async with self._alone(call.id):
            if self._network.find(call.id) is not None:
                await self._end_former(call, env, self._checked(call, env, descriptors))
            request = _attachment(call, self._namespace(call, env, descriptors))
            try:
                await self._until_free(request)
                attached = await self._network.add(request)
            except BaseException as error:
                is_refused = isinstance(error, NetworkError) and not isinstance(error, FurtherNetworkError | TryAgainError)
                is_attached = self._network.find(call.id) is not None  # by an ADD that was not answered
                is_there = is_refused and not is_attached and _has_interface(request)
                request.netns.close()
                if not is_attached:
                    self._release(call.id)
                if is_there:
                    raise CniError(
                        Code.REFUSED, f"CNI_NETNS {call.netns} has an interface {call.ifname} already", str(error)
                    ) from None
                raise
            self._release(call.id)
            self._held[call.id] = request.netns
            if not await deliver(wire.answer(0, result.render(_result(call, attached), call.version))):
                log.warning("call verb=ADD container=%s its caller has gone: it is detached again", call.container_id)
                await self._network.delete(request)
                self._release(call.id)

    async def _end_former(self, call: Call, env: Mapping[str, str], fd: int) -> None:
        """CniError when the interface is attached already, unless that is asked again. What has its id in another namespace was left
        without a DEL, as by podman when it is killed together with the plugin: it is detached."""
        held = self._held.get(call.id)
        if held is not None and not _same(fd, held.fd):
            log.warning(
                "call verb=ADD container=%s is in another network namespace now: the former one is detached", call.container_id
            )
            await self._network.delete(_attachment(call, NoNamespace()))
            self._release(call.id)
        elif wire.AGAIN not in env:
            raise CniError(Code.ATTACHED, f"interface {call.ifname} of container {call.container_id} is attached already")

    async def _until_free(self, request: Attachment) -> None:
        """Wait until what was detached from the namespace has left it. CniError when an interface of this name is another's: it would get
        the addresses and routes of this one."""
        for _ in range(round(LEAVING_SECONDS / LOOK_SECONDS)):
            if self._network.find(request.id) is not None or not _has_interface(request):
                return
            await asyncio.sleep(LOOK_SECONDS)
        raise CniError(Code.REFUSED, f"CNI_NETNS {request.netns_path} has an interface {request.ifname} already")

    def _checked(self, call: Call, env: Mapping[str, str], descriptors: Mapping[str, int]) -> int:
        """The descriptor of the pod's network namespace. CniError when there is none, or it is of something else."""
        fd = descriptors.get(wire.NETNS)
        if fd is None:
            reason = _errno(env.get(wire.NETNS_ERROR, "")) or "it was not passed on"
            raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_NETNS {call.netns}: {reason}")
        try:
            is_netns = fcntl.ioctl(fd, NS_GET_NSTYPE) == syscalls.CLONE_NEWNET
        except OSError:
            is_netns = False
        if not is_netns:
            raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_NETNS {call.netns} is not a network namespace")
        if _same(fd, self._node.fd):
            raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_NETNS {call.netns} is the node's own network namespace")
        return fd

    def _namespace(self, call: Call, env: Mapping[str, str], descriptors: MutableMapping[str, int]) -> NetworkNamespace:
        """The pod's network namespace, with what the plugin opened there. CniError when nothing can be done in it."""
        passed = _passed(call, self._checked(call, env, descriptors), descriptors)
        namespace = NetworkNamespace(descriptors.pop(wire.NETNS), self._workers, passed)
        try:
            _check_reach(call, env, namespace)
        except CniError:
            namespace.close()
            raise
        return namespace

    async def _check(self, call: Call, env: Mapping[str, str], descriptors: MutableMapping[str, int]) -> None:
        fd = self._checked(call, env, descriptors)
        async with self._alone(call.id):
            attached = self._network.find(call.id)
            if attached is None:
                what = f"interface {call.ifname} of container {call.container_id}"
                raise CniError(Code.UNKNOWN_CONTAINER, f"{what} is not attached")
            held = self._held.get(call.id)
            if held is not None and not _same(fd, held.fd):
                raise CniError(Code.FAULTY, f"CNI_NETNS {call.netns} is not the network namespace that was attached")
            expected = {one.ip for one in call.previous.of_interface(call.ifname)} if call.previous is not None else set()
            if missing := sorted(expected - set(attached.ips)):
                raise CniError(Code.FAULTY, f"prevResult: {call.ifname} has no address {', '.join(missing)}")
            if held is not None:
                _adopt(held, _passed(call, fd, descriptors))
                _check_reach(call, env, held)
            mtu = 0 if tuning.sets_mtu(*call.id) else call.previous_mtu
            await self._network.check(dataclasses.replace(_attachment(call, NoNamespace()), mtu=mtu))

    def _status(self) -> None:
        unready = self._network.unready()
        if unready is not None:
            raise CniError(Code.LIMITED_CONNECTIVITY if unready.is_limited else Code.NOT_AVAILABLE, unready.reason)

    async def _gc(self, call: Call) -> None:
        """Detach what is not kept of the network of this name; all is kept when the caller did not say what is."""
        kept = [
            one
            for one in self._network.attachments()
            if call.kept is None or one.network != call.network or one.id in call.kept
        ]
        await self._network.gc(kept)
        attached = {one.id for one in self._network.attachments()}
        for id_ in self._held.keys() - attached - self._locks.keys():
            self._release(id_)

    def _release(self, id_: Id) -> None:
        namespace = self._held.pop(id_, None)
        if namespace is not None:
            namespace.close()


def failed(error: CniError, version: str) -> bytes:
    """The answer with this error."""
    return wire.answer(1, render(error, version))


def _wrapped(error: NetworkError, verb: str) -> CniError:
    if isinstance(error, TryAgainError):
        return CniError(Code.TRY_AGAIN, str(error))
    return CniError(Code.FAULTY if verb == calls.CHECK else Code.REFUSED, str(error))


def _passed(call: Call, fd: int, descriptors: MutableMapping[str, int]) -> Passed | None:
    """What the plugin opened in the network namespace `fd`."""
    try:
        return Passed.take(fd, descriptors)
    except ValueError as error:
        raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_NETNS {call.netns}: {error}") from None


def _adopt(held: Namespace, passed: Passed | None) -> None:
    """Have what was opened in a namespace used for it, if there is nothing yet: the agent was started again since its ADD."""
    if passed is None:
        return
    if isinstance(held, NetworkNamespace) and held.passed is None:
        held.passed = passed
    else:
        passed.close()


def _check_reach(call: Call, env: Mapping[str, str], namespace: Namespace) -> None:
    """CniError when nothing can be done in a network namespace: nothing was opened there, and the agent can't enter it."""
    if is_within_reach(namespace):
        return
    number = _errno(env.get(wire.ENTER_ERROR, ""))
    why = f"podplane-cni can't enter it ({number})" if number else "podplane-cni is older than the agent"
    hint = "have the engine run it as root" if number else "run `podplane cni install`"
    raise CniError(
        Code.REFUSED, f"CNI_NETNS {call.netns}: {why}, and the agent has no CAP_SYS_ADMIN", f"{hint}, or give the agent that"
    )


def _errno(number: str) -> str:
    """What an errno that the plugin says means; "" for none."""
    return os.strerror(int(number)) if number.isdecimal() and len(number) < ERRNO_DIGITS else ""


def _same(one: int, other: int) -> bool:
    first, second = os.fstat(one), os.fstat(other)
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def _attachment(call: Call, netns: Namespace) -> Attachment:
    """What is to be attached; a container that is no Kubernetes pod is named by its id, in no namespace."""
    return Attachment(
        container_id=call.container_id,
        pod_uid=call.arguments.pod_uid,
        namespace=call.arguments.namespace,
        name=call.arguments.pod or call.container_id,
        netns=netns,
        ifname=call.ifname,
        requested_ips=call.former_ips,
        host_ports=tuple(one.asked for one in call.runtime.port_mappings),
        asked_ips=call.ips,
        mac=call.runtime.mac,
        bandwidth=call.runtime.bandwidth.asked,
        network=call.network,
        netns_path=call.netns,
    )


def _has_interface(request: Attachment) -> bool:
    """Does somebody else's interface of this name keep it from being attached?"""
    try:
        return has_link(request.netns, request.ifname)
    except OSError:
        return False


def _result(call: Call, attached: Attached) -> Result:
    """What an attachment got, after what plugins before this one have made."""
    host = (Interface(attached.host_interface, mtu=attached.mtu),) if attached.host_interface else ()
    own = Interface(attached.interface, attached.mac, attached.mtu, call.netns)
    gateways = attached.gateways or ("",) * len(attached.ips)
    ips = tuple(
        Address(f"{ip}/{128 if ':' in ip else 32}", gateway, len(host))
        for ip, gateway in zip(attached.ips, gateways, strict=True)
    )
    routes = (Route(DEFAULT_ROUTES[":" in ip], gateway) for ip, gateway in zip(attached.ips, gateways, strict=True))
    made = Result(interfaces=(*host, own), ips=ips, routes=tuple(routes) if attached.has_default_routes else (), dns=call.dns)
    return made if call.previous is None else merged(call.previous, made)
