"""Questions that are answered and never stored: who am I, whose token is this, may I do that, a token for a ServiceAccount."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable
from typing import Any

from podplane.apiserver import decoding
from podplane.apiserver.decoding import Options
from podplane.apiserver.deletion import rfc3339
from podplane.apiserver.identity import (
    AUDIENCE,
    DEFAULT_SECONDS,
    MAX_SECONDS,
    MIN_SECONDS,
    Attributes,
    Authorize,
    Tokens,
    User,
)
from podplane.apiserver.kinds.resource import Resource
from podplane.apiserver.kinds.table import row
from podplane.apiserver.problems import Cause, Problem, invalid

Object = dict[str, Any]
TOKEN_REQUEST = row("authentication.k8s.io", "io.k8s.api.authentication.v1.TokenRequest", "tokenrequests")


class Reviews:
    """Answers, by the plural of the question."""

    def __init__(self, tokens: Tokens, authorize: Authorize, now: Callable[[], datetime.datetime]) -> None:
        self._tokens = tokens
        self._authorize = authorize
        self._now = now
        self._answers: dict[str, Callable[[User, Object], Object]] = {
            "selfsubjectreviews": self._self,
            "tokenreviews": self._token,
            "selfsubjectaccessreviews": self._own_access,
            "subjectaccessreviews": self._access,
            "selfsubjectrulesreviews": self._rules,
        }

    def answer(self, resource: Resource, user: User, question: Object, options: Options) -> Object:
        """The question, with its status."""
        decoding.fitted(resource, question, options)
        question["status"] = self._answers[resource.plural](user, question.get("spec", {}))
        question["metadata"].setdefault("creationTimestamp", None)
        return question

    def _self(self, user: User, _: Object) -> Object:
        return {"userInfo": user.info()}

    def _token(self, _: User, spec: Object) -> Object:
        if not spec.get("token"):
            raise invalid("TokenReview", "", [Cause.required("spec.token")], "authentication.k8s.io")
        user, audiences = self._tokens.review(spec["token"], spec.get("audiences", []))
        if user is None:
            return {"authenticated": False, "user": {}, "error": "the token is nobody's, or not for these audiences"}
        return {"authenticated": True, "user": user.info(), "audiences": list(audiences)}

    def _own_access(self, user: User, spec: Object) -> Object:
        why = self._authorize(user, attributes(spec, "SelfSubjectAccessReview"))
        return {"allowed": not why} | ({"reason": why} if why else {})

    def _access(self, _: User, spec: Object) -> Object:
        if not spec.get("user") and not spec.get("groups"):
            causes = [Cause.required("spec.user", "at least one of user or group must be specified")]
            raise invalid("SubjectAccessReview", "", causes, "authorization.k8s.io")
        somebody = User(spec.get("user", ""), spec.get("uid", ""), tuple(spec.get("groups", ())))
        why = self._authorize(somebody, attributes(spec, "SubjectAccessReview"))
        return {"allowed": not why} | ({"reason": why} if why else {})

    def _rules(self, user: User, spec: Object) -> Object:
        may = not self._authorize(user, Attributes("*", "*", "*", "*", namespace=spec.get("namespace", "")))
        every = ["*"]
        return {
            "resourceRules": [{"verbs": every, "apiGroups": every, "resources": every}] if may else [],
            "nonResourceRules": [{"verbs": every, "nonResourceURLs": every}] if may else [],
            "incomplete": False,
        }

    def token_request(self, account: Object, question: Object, options: Options) -> Object:
        """authentication.k8s.io/v1 TokenRequest: a token for this ServiceAccount."""
        decoding.fitted(TOKEN_REQUEST, question, options)
        spec = question.setdefault("spec", {})
        seconds = spec.setdefault("expirationSeconds", DEFAULT_SECONDS)
        if not MIN_SECONDS <= seconds <= MAX_SECONDS:
            why = f"may not be less than 10 minutes, nor more than {MAX_SECONDS} seconds"
            raise invalid("TokenRequest", "", [Cause.invalid("spec.expirationSeconds", seconds, why)], "authentication.k8s.io")
        audiences = spec.get("audiences") or [AUDIENCE]
        spec["audiences"] = audiences
        token, end = self._tokens.issue(account, audiences, seconds, spec.get("boundObjectRef"), str(uuid.uuid4()))
        expires = datetime.datetime.fromtimestamp(end, datetime.UTC)
        question["status"] = {"token": token, "expirationTimestamp": rfc3339(expires)}
        own = account["metadata"]
        question["metadata"] = {"name": own["name"], "namespace": own["namespace"], "creationTimestamp": rfc3339(self._now())}
        return question


def attributes(spec: Object, kind: str) -> Attributes:
    """What a review asks for. Problem unless it is one thing."""
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if (resource is None) is (path is None):
        why = "exactly one of resourceAttributes and nonResourceAttributes must be specified"
        raise Problem("Invalid", f'{kind}.authorization.k8s.io "" is invalid: spec: Invalid value: {why}')
    if path is not None:
        return Attributes(path.get("verb", ""), path=path.get("path", ""))
    fields = ("verb", "group", "version", "resource", "subresource", "namespace", "name")
    found = resource or {}
    return Attributes(**{field: found.get(field, "") for field in fields})
