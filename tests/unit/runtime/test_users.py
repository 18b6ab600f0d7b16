"""Who the processes of a pod are."""

from __future__ import annotations

import msgspec
import pytest

from podplane.kernel.ids import COUNT, FIRST, Ids
from podplane.model.pod import Pod
from podplane.runtime.environment import ConfigError
from podplane.runtime.users import Accounts, User, asks, common_user, environment, not_applied, of, only_one

MANY, ONE = Ids(FIRST, COUNT), Ids()
ACCOUNTS = Accounts(
    "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\nbroken:x\nempty:x:7:7:::\n",
    "root:x:0:\nlogs:x:4:web,other\nmore:x:70000:web\nbad:x\n",
)


def pod(
    *containers: dict[str, object], debug: dict[str, object] | None = None, on_host: bool = False, **context: object
) -> Pod:
    spec = {
        "hostNetwork": on_host,
        "securityContext": context,
        "containers": [{"name": f"c{n}", "securityContext": own} for n, own in enumerate(containers or ({},))],
        "ephemeralContainers": [{"name": "debug", "securityContext": debug}] if debug is not None else [],
    }
    return msgspec.convert({"metadata": {"name": "web", "namespace": "shop", "uid": "1-2"}, "spec": spec}, Pod)


def who(one: Pod, users: Ids = MANY, number: int = 0) -> User:
    return of(one, one.spec.all_containers[number], users, ACCOUNTS)


def test_a_pod_that_asks_for_nobody_is_root() -> None:
    for users in (MANY, ONE):
        assert who(pod(), users) == User(0, 0, (), "/root")
    assert not asks(pod())
    assert not_applied_by(pod()) == []


def not_applied_by(one: Pod) -> list[str]:
    return [
        sentence.partition(" not applied")[0].removesuffix(" is").removesuffix(" are") for sentence in not_applied(one, ONE)
    ]


def test_what_a_container_says_comes_before_what_its_pod_says() -> None:
    both = pod({"runAsUser": 5, "runAsGroup": 6}, {}, runAsUser=1000, runAsGroup=3000)
    assert who(both)[:2] == (5, 6)
    assert who(both, number=1) == User(1000, 3000, (), "/")
    assert asks(both)


def test_the_accounts_of_the_machine_say_what_is_not_said() -> None:
    with pytest.raises(ConfigError, match="group 70000: a pod of a lab has those from 0 to 65535"):
        who(pod(runAsUser=33))
    assert who(pod(runAsUser=33, supplementalGroupsPolicy="Strict")) == User(33, 34, (), "/var/www")
    assert who(pod(runAsUser=33, supplementalGroupsPolicy="Strict", runAsGroup=0))[:2] == (33, 0)
    assert who(pod(runAsUser=7)).home == "/"


def test_further_groups_are_those_of_volumes_too() -> None:
    assert who(pod(fsGroup=20, supplementalGroups=[30, 10])).groups == (10, 20, 30)
    assert who(pod(fsGroup=20, supplementalGroups=[20])).groups == (20,)


@pytest.mark.parametrize(
    "context", [{"runAsUser": 65536}, {"runAsUser": 1, "runAsGroup": 1 << 30}, {"supplementalGroups": [99999]}]
)
def test_users_that_a_pod_does_not_have_are_refused(context: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="a pod of a lab has those from 0 to 65535"):
        who(pod(**context))


@pytest.mark.parametrize("users", [MANY, ONE])
def test_root_where_that_must_not_be_is_refused_in_a_kubelets_words(users: Ids) -> None:
    where = r'\(pod: "web_shop\(1-2\)", container: c0\)$'
    with pytest.raises(ConfigError, match=f"^container has runAsNonRoot and image will run as root {where}"):
        who(pod(runAsNonRoot=True), users)
    with pytest.raises(ConfigError, match=f"^container's runAsUser breaks non-root policy {where}"):
        who(pod({"runAsUser": 0, "runAsNonRoot": True}, runAsUser=1), users)
    assert who(pod({"runAsNonRoot": False}, runAsNonRoot=True), users).user == 0
    assert who(pod(runAsNonRoot=True, runAsUser=9), users).user == 9


def test_where_a_pod_has_one_user_it_is_the_one_that_all_its_containers_ask_for() -> None:
    assert only_one(pod({"runAsUser": 5}, runAsUser=5, runAsGroup=7)) == (5, 7)
    assert who(pod(runAsUser=33), ONE) == User(33, 0, (), "/var/www")
    differ = pod({"runAsUser": 5}, {"runAsUser": 6})
    assert only_one(differ) == (0, 0)
    assert not_applied_by(differ) == ["container c0: user 5 and group 0", "container c1: user 6 and group 0"]
    assert only_one(pod(runAsUser=5, on_host=True)) == (0, 0), "it shares the user namespace of its node"


def test_its_other_groups_are_told_there() -> None:
    assert not_applied_by(pod(runAsGroup=20, runAsUser=1, fsGroup=20, supplementalGroups=[20])) == []
    assert not_applied_by(pod(fsGroup=20, supplementalGroups=[30])) == ["the pod: fsGroup 20", "the pod: supplementalGroups 30"]
    assert list(not_applied(pod(fsGroup=20), MANY)) == []


def test_who_looks_into_it_is_nobody_else_there() -> None:
    seen = pod({"runAsUser": 5}, debug={"runAsUser": 0})
    assert only_one(seen) == (5, 0)
    with pytest.raises(ConfigError, match=r"^user 0: pods of this lab have one user, and this one has 5"):
        who(seen, ONE, number=1)
    assert who(pod({}, debug={}), ONE, number=1).user == 0
    assert who(seen, number=1).user == 0


def test_tokens_belong_to_the_user_of_all_containers() -> None:
    assert common_user(pod(runAsUser=5)) == 5
    assert common_user(pod({}, {"runAsUser": 6})) is None
    assert common_user(pod()) is None


def test_tar_keeps_no_owners_where_there_is_one_user() -> None:
    assert environment(ONE) == {"TAR_OPTIONS": "--no-same-owner"}
    assert environment(MANY) == {}
