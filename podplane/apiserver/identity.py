"""Who asks: bearer tokens of the lab's own users and of ServiceAccounts; and the seam where it is decided who may do what.

A ServiceAccount's token is a JWT that this server signs (HS256: nobody else verifies it) for an account, an audience and a time, bound if
asked to a pod or secret; it is worth something only while these exist with the same uid (KEP-1205).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from podplane.apiserver.problems import Problem
from podplane.apiserver.store import Store

AUDIENCE = "https://kubernetes.default.svc.cluster.local"
ISSUER = AUDIENCE
AUTHENTICATED, MASTERS = "system:authenticated", "system:masters"
MIN_SECONDS, DEFAULT_SECONDS, MAX_SECONDS = 600, 3600, 365 * 86400
BOUND_KINDS = {("v1", "Pod"): "pods", ("v1", "Secret"): "secrets", ("v1", "Node"): "nodes"}


class User(msgspec.Struct, frozen=True):
    """Somebody known (authentication.k8s.io/v1 UserInfo)."""

    username: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, Sequence[str]] = {}

    def info(self) -> dict[str, Any]:
        """UserInfo."""
        found: dict[str, Any] = {"username": self.username, "groups": list(self.groups)}
        if self.uid:
            found["uid"] = self.uid
        if self.extra:
            found["extra"] = {key: list(values) for key, values in self.extra.items()}
        return found


ANONYMOUS = User("system:anonymous", groups=("system:unauthenticated",))


def admin() -> User:
    """Who started the lab."""
    return User("admin", groups=(MASTERS, AUTHENTICATED))


def component(name: str) -> User:
    """A part of the control plane."""
    return User(f"system:{name}", groups=(MASTERS, AUTHENTICATED))


def controller(name: str) -> User:
    """A controller: the ServiceAccount that it is in a cluster."""
    namespace = "kube-system"
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
    return User(f"system:serviceaccount:{namespace}:{name}", groups=groups)


def node(name: str) -> User:
    """A node's kubelet and agent."""
    return User(f"system:node:{name}", groups=("system:nodes", AUTHENTICATED))


def agent() -> User:
    """The agents that are processes of their own: the ServiceAccount that they have in a cluster."""
    namespace = "kube-system"
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
    return User(f"system:serviceaccount:{namespace}:podplane-agent", groups=groups)


def node_client() -> User:
    """The API server towards nodes, as kubeadm calls it."""
    return User("kube-apiserver-kubelet-client", groups=(MASTERS, AUTHENTICATED))


class Attributes(msgspec.Struct, frozen=True):
    """What somebody wants to do (authorization.k8s.io/v1 ResourceAttributes)."""

    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


Authorize = Callable[[User, Attributes], str]
"""Why somebody may not do that, or "" if they may."""


def allow_known(user: User, attributes: Attributes) -> str:
    """Everybody who is known may do everything. RBAC decides here one day; its objects are stored already."""
    return "" if AUTHENTICATED in user.groups else "only health and version are for everybody"


class Tokens:
    """The tokens that are worth something."""

    def __init__(self, users: Mapping[str, User], key: bytes, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._users = {_digest(token): user for token, user in users.items()}
        self._reviewed: dict[bytes, User] = {}
        self._key = key
        self._store = store
        self._clock = clock

    def add(self, token: str, user: User) -> None:
        """One more token."""
        self._users[_digest(token)] = user

    def add_for_nodes(self, token: str, user: User) -> None:
        """A token that nodes may ask about (TokenReview) and that this API itself does not take: who sees it on a node's wire can
        read nodes with it and do nothing else."""
        self._reviewed[_digest(token)] = user

    def user(self, token: str) -> User | None:
        """Whose token this is; None for a token that is nobody's, or is so no longer."""
        found = self._users.get(_digest(token))
        if found is None and token.count(".") == 2:
            found = self._account(token)
        return found

    def review(self, token: str, audiences: Sequence[str]) -> tuple[User | None, tuple[str, ...]]:
        """(user, the audiences that the token is good for) of those asked for."""
        wanted = tuple(audiences) or (AUDIENCE,)
        if token.count(".") == 2:
            claims = self._claims(token, wanted)
            user = self._bearer(claims) if claims else None
            own = claims.get("aud", []) if claims else []
            return user, tuple(a for a in wanted if a in own) if user else ()
        user = self._reviewed.get(_digest(token)) or self.user(token)
        return (user, (AUDIENCE,)) if user is not None and AUDIENCE in wanted else (None, ())

    def _account(self, token: str) -> User | None:
        claims = self._claims(token, (AUDIENCE,))
        return self._bearer(claims) if claims else None

    def _claims(self, token: str, audiences: Sequence[str]) -> dict[str, Any] | None:
        import jwt  # costs a start that sees no such token nothing

        try:
            options: Any = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}
            claims = jwt.decode(
                token, self._key, algorithms=["HS256"], audience=list(audiences), issuer=ISSUER, options=options
            )
        except (jwt.InvalidTokenError, ValueError):
            return None
        now = self._clock()
        return claims if claims.get("nbf", 0) <= now < claims.get("exp", 0) else None

    def _bearer(self, claims: dict[str, Any]) -> User | None:
        """The account of these claims, if all that the token is bound to is still there."""
        own = claims.get("kubernetes.io", {})
        namespace, account = own.get("namespace", ""), own.get("serviceaccount", {})
        for resource, key, reference in (
            ("serviceaccounts", (namespace, account.get("name", "")), account),
            ("pods", (namespace, own.get("pod", {}).get("name", "")), own.get("pod")),
            ("secrets", (namespace, own.get("secret", {}).get("name", "")), own.get("secret")),
            ("nodes", ("", own.get("node", {}).get("name", "")), own.get("node")),
        ):
            if reference is not None:
                there = self._store.get(resource, key)
                if there is None or there.object["metadata"]["uid"] != reference.get("uid"):
                    return None
        pod = own.get("pod")
        extra = {"authentication.kubernetes.io/credential-id": [f"JTI={claims.get('jti', '')}"]}
        if pod:
            extra |= {
                "authentication.kubernetes.io/pod-name": [pod["name"]],
                "authentication.kubernetes.io/pod-uid": [pod["uid"]],
            }
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
        return User(f"system:serviceaccount:{namespace}:{account['name']}", account["uid"], groups, extra)

    def issue(
        self, account: dict[str, Any], audiences: Sequence[str], seconds: int, bound: dict[str, Any] | None, identity: str
    ) -> tuple[str, float]:
        """A token for a ServiceAccount, and when it ends (seconds of the epoch). Problem when it can't be bound so."""
        now = int(self._clock())
        metadata = account["metadata"]
        own: dict[str, Any] = {
            "namespace": metadata["namespace"],
            "serviceaccount": {"name": metadata["name"], "uid": metadata["uid"]},
        }
        if bound:
            own |= self._bound(bound, metadata["namespace"])
        claims = {
            "aud": list(audiences) or [AUDIENCE],
            "iss": ISSUER,
            "sub": f"system:serviceaccount:{metadata['namespace']}:{metadata['name']}",
            "iat": now,
            "nbf": now,
            "exp": now + seconds,
            "jti": identity,
            "kubernetes.io": own,
        }
        return _signed(claims, self._key), now + seconds

    def _bound(self, bound: dict[str, Any], namespace: str) -> dict[str, Any]:
        resource = BOUND_KINDS.get((bound.get("apiVersion", "v1"), bound.get("kind", "")))
        if resource is None:
            raise Problem(
                "BadRequest", f"cannot bind token to object of type {bound.get('kind')}: only to Pod, Secret and Node"
            )
        key = ("" if resource == "nodes" else namespace, bound.get("name", ""))
        there = self._store.get(resource, key)
        if there is None:
            raise Problem("NotFound", f'{resource} "{bound.get("name", "")}" not found')
        uid = there.object["metadata"]["uid"]
        if bound.get("uid") and bound["uid"] != uid:
            raise Problem(
                "Conflict", f"the UID in the bound object reference ({bound['uid']}) does not match the UID in record"
            )
        found = {resource.removesuffix("s"): {"name": bound["name"], "uid": uid}}
        node_name = there.object.get("spec", {}).get("nodeName") if resource == "pods" else ""
        host = self._store.get("nodes", ("", node_name)) if node_name else None
        if host is not None:
            found["node"] = {"name": node_name, "uid": host.object["metadata"]["uid"]}
        return found


HEADER = b'{"alg":"HS256","typ":"JWT"}'


def _signed(claims: Mapping[str, Any], key: bytes) -> str:
    """A JWT with these claims (RFC 7519, in RFC 7515's compact form). PyJWT reads it; each pod that starts gets one, and PyJWT's own way to
    make it, with its import, takes ten times as long."""
    signed = b".".join(map(_base64url, (HEADER, msgspec.json.encode(claims))))
    return b".".join((signed, _base64url(hmac.digest(key, signed, "sha256")))).decode()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _digest(token: str) -> bytes:
    """By what an opaque token is looked up: how long that takes says nothing about the tokens that there are."""
    return hashlib.sha256(token.encode()).digest()
