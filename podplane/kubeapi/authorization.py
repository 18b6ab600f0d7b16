"""Who may read what a node says of itself: a bearer token that the API confirms, of a user who has the right, as for a kubelet's port.

    token → TokenReview → user → SubjectAccessReview (get nodes/metrics or nodes/proxy of this node) → allowed
    token for readers → says itself that it is one → TokenReview for their audience → the account of readers → allowed

kube-apiserver passes on nobody's credentials to what it proxies to, and users with certificates have no token. So who may create tokens of
the ServiceAccount kube-system/podplane-viewer shows one. It goes to the node as plain HTTP: the account has no right at all, and no
API takes a token of this audience, so whoever sees it can read nodes until it ends, and do nothing else.

Answers are kept for some seconds, by a hash of the token, so that a scraper costs the API two requests in that time. An API that does not
answer is a refusal with 503 and is not remembered. A client whose tokens the API does not confirm is soon not asked about any more for
some seconds (429), so that it neither floods the API nor keeps others out. The agent's own user must be allowed to create both reviews:
nodes are (system:node), ServiceAccounts are by the ClusterRole system:auth-delegator.
Sources: k8s.io/kubernetes, pkg/kubelet/server/auth.go; k8s.io/apiserver, endpoints/filters/authentication.go; KEP-1205 (audiences).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

from podplane.kubeapi.client import Client
from podplane.kubeapi.errors import ApiError
from podplane.model.config import VIEWER, VIEWER_AUDIENCE

METRICS, PROXY = "metrics", "proxy"
"""Subresources of nodes that rights are about."""
VIEWER_USER = f"system:serviceaccount:kube-system:{VIEWER}"
KEPT_SECONDS, KEPT = 10.0, 256
"""An answer is good for so long; so many are kept."""
REVIEWS, REVIEW_SECONDS = 8, 5.0
"""So many tokens are asked about at once; the API has so long to answer."""
OF_CLIENT = 6
"""So many questions to the API may come of one client's address in `KEPT_SECONDS`, but for those that ended well."""
TOKEN_REVIEWS, ACCESS_REVIEWS = "tokenreviews.authentication.k8s.io", "subjectaccessreviews.authorization.k8s.io"
Decision = tuple[bytes, str]
"""What a decision is about: the hash of a token, and a subresource ("": it is a token for readers, who may read all)."""


class Refusal(msgspec.Struct, frozen=True):
    """The HTTP status of a refusal, and why in one line."""

    status: int
    why: str


TOO_MANY = Refusal(429, "too many tokens to ask the API about: try again later")


def _not_for_readers(token: str) -> Refusal | None:
    """Why this can't be a token for readers, by what it says of itself, so that the API is not asked about just anything; None where the
    API is to say whether that is so. Tokens of ServiceAccounts are JWTs (RFC 7519)."""
    try:
        payload = token.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        audiences, account = claims["aud"], str(claims["sub"])
    except (LookupError, TypeError, ValueError, RecursionError):
        return Refusal(401, "this is no token for readers of nodes")
    if VIEWER_AUDIENCE not in (audiences if isinstance(audiences, list) else [audiences]):
        return Refusal(401, "this token is not for readers of nodes")
    return None if account == VIEWER_USER else Refusal(403, f"this token is not of {VIEWER_USER}")


class Authorizer:
    """Decides for one node; its methods run on one event loop. `clock` gives seconds of a monotonic clock."""

    def __init__(self, client: Client, node_name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._node_name = node_name
        self._clock = clock
        self._known: OrderedDict[Decision, tuple[float, Refusal | None]] = OrderedDict()
        self._reviews: dict[Decision, asyncio.Task[Refusal | None]] = {}
        self._charges: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """Of clients: until when, and how many questions of theirs did not end well; the latest clients."""

    async def refusal(self, token: str, subresource: str, viewer: str = "", client: str = "") -> Refusal | None:
        """Why the owner of this token, or of one for readers, may not read that of the node; None when it may. `client` is the address
        that it came from, "" for one that is not limited."""
        if viewer:
            if (refusal := _not_for_readers(viewer)) is not None:
                return refusal
            token, subresource = viewer, ""
        if not token:
            return Refusal(401, "a bearer token is needed")
        decision = (hashlib.sha256(token.encode()).digest(), subresource)
        until, refusal = self._known.get(decision, (0.0, None))
        if self._clock() < until:
            return refusal
        review = self._reviews.get(decision)
        if review is None:
            if len(self._reviews) >= REVIEWS or not self._charge(client):
                return TOO_MANY
            review = self._reviews[decision] = asyncio.get_running_loop().create_task(self._review(decision, token))
            review.add_done_callback(lambda done: self._reviewed_now(decision, client, done))
        return await asyncio.shield(review)  # a client that goes does not end the review for others

    def _charge(self, client: str) -> bool:
        """May the API be asked about one more token that this client shows?"""
        until, count = self._charges.get(client, (0.0, 0))
        if self._clock() >= until:
            until, count = self._clock() + KEPT_SECONDS, 0
        if client and count >= OF_CLIENT:
            return False
        self._charges[client] = (until, count + 1)
        self._charges.move_to_end(client)
        if len(self._charges) > KEPT:
            self._charges.popitem(last=False)
        return True

    def _reviewed_now(self, decision: Decision, client: str, done: asyncio.Task[Refusal | None]) -> None:
        """Forget the review; one that ended well, or that the API did not answer, is not held against the client."""
        self._reviews.pop(decision, None)
        if (
            done.cancelled()
            or done.exception() is not None
            or ((refusal := done.result()) is not None and refusal.status != 503)
        ):
            return
        if (charged := self._charges.get(client)) is not None:
            self._charges[client] = (charged[0], max(0, charged[1] - 1))

    async def _review(self, decision: Decision, token: str) -> Refusal | None:
        try:
            async with asyncio.timeout(REVIEW_SECONDS):
                refusal = await self._ask(token, decision[1])
        except ApiError as error:
            return Refusal(503, f"the API does not say whose token this is: {error}")
        except TimeoutError:
            return Refusal(503, "the API does not say whose token this is: it does not answer")
        self._known[decision] = (self._clock() + KEPT_SECONDS, refusal)
        self._known.move_to_end(decision)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return refusal

    async def _ask(self, token: str, subresource: str) -> Refusal | None:
        if not subresource:
            return await self._ask_of_viewer(token)
        status = await self._reviewed(TOKEN_REVIEWS, "authentication.k8s.io/v1", "TokenReview", {"token": token})
        if status.get("authenticated") is not True:
            return Refusal(401, "the API does not know this token")
        user = status.get("user") or {}
        what = {"verb": "get", "version": "v1", "resource": "nodes", "subresource": subresource, "name": self._node_name}
        spec = {
            "user": user.get("username", ""),
            "uid": user.get("uid", ""),
            "groups": user.get("groups", []),
            "extra": user.get("extra", {}),
            "resourceAttributes": what,
        }
        status = await self._reviewed(ACCESS_REVIEWS, "authorization.k8s.io/v1", "SubjectAccessReview", spec)
        if status.get("allowed") is not True:
            return Refusal(403, f"{user.get('username')} may not get nodes/{subresource} of {self._node_name}")
        return None

    async def _ask_of_viewer(self, token: str) -> Refusal | None:
        """The audience is read back: a server that does not know of audiences would take any token."""
        spec = {"token": token, "audiences": [VIEWER_AUDIENCE]}
        status = await self._reviewed(TOKEN_REVIEWS, "authentication.k8s.io/v1", "TokenReview", spec)
        if status.get("authenticated") is not True or VIEWER_AUDIENCE not in (status.get("audiences") or ()):
            return Refusal(401, "the API does not know this token, or not for readers of nodes")
        user = (status.get("user") or {}).get("username")
        return None if user == VIEWER_USER else Refusal(403, f"{user} is not {VIEWER_USER}")

    async def _reviewed(self, resource: str, version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
        """The status of a review."""
        answer = await self._client.create(resource, "", {"apiVersion": version, "kind": kind, "metadata": {}, "spec": spec})
        status = answer.get("status")
        return status if isinstance(status, dict) else {}
