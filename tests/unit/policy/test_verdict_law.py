"""Verdicts are what a second, naive formulation says of generated clusters; and what is allowed as a whole is what each port is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from podplane.policy.ends import End
from podplane.policy.match import Flow, verdict
from podplane.policy.reach import reach
from tests.unit.policy import objects
from tests.unit.policy.cluster import index_of
from tests.unit.policy.naive import is_allowed
from tests.unit.policy.objects import Object


@given(st.data())
def test_a_verdict_is_what_the_documentation_says(data: st.DataObject) -> None:
    cluster = data.draw(objects.clusters())
    index = index_of(cluster)

    def end(one: Object) -> End:
        if "pod" not in one:
            return End(one["ip"], node=one.get("node", ""))
        return End(one["ip"], index.pod(f"{one['pod']['metadata']['namespace']}/{one['pod']['metadata']['name']}"))

    for _ in range(8):
        asked = data.draw(objects.flows(cluster))
        source, destination = end(asked["source"]), end(asked["destination"])
        found = verdict(Flow(source, destination, asked["protocol"], asked["port"]), index)
        assert found.allowed is is_allowed(asked, cluster), found.by
        assert found.allowed is reach(source, destination, index).has(asked["protocol"], asked["port"])
