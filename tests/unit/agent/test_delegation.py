"""Plugins of others, called for further interfaces: what they are told, what becomes of their failures, and that all is undone."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from podplane.agent.additional import FurtherInterfaces
from podplane.agent.delegation import Made, Plugins
from podplane.cni.additional import Chain, Selection, network
from podplane.cni.network import Attachment, NetworkError
from podplane.kernel import plugins as kernel_plugins
from podplane.kernel.namespace import Namespace
from podplane.kernel.plugins import call
from tests.unit.agent.rig import Rig

PROGRAM = """#!/bin/sh
config=$(cat)
echo "$CNI_COMMAND $(basename "$0") $CNI_CONTAINERID $CNI_IFNAME $config" >> "$(dirname "$0")/calls"
[ -e "$(dirname "$0")/fails-$CNI_COMMAND" ] && { echo '{"code": 7, "msg": "it fails", "details": "on purpose"}'; exit 1; }
[ "$CNI_COMMAND" = ADD ] && echo "$RESULT"
exit 0
"""
RESULT = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "net1", "mac": "02:00:00:00:00:01", "sandbox": "/x"}],
    "ips": [{"address": "10.9.0.2/24", "interface": 0}],
}
SELECTION = Selection("default", "vlan", "net1")


def chain(*types: str, **more: Any) -> Chain:
    found = network(
        "default/vlan", json.dumps({"cniVersion": "1.0.0", "name": "vlan", "plugins": [{"type": t, **more} for t in types]})
    )
    assert isinstance(found, Chain)
    return found


class Links(set[str]):
    """Those in the pod's namespace: no plugin here makes any, so tests put in what one would."""

    def has(self, _: Namespace, name: str) -> bool:
        return name in self

    def remove(self, _: Namespace, name: str) -> None:
        self.discard(name)


@pytest.fixture
def links() -> Links:
    return Links()


@pytest.fixture
def made(tmp_path: Path, links: Links) -> Plugins:
    (tmp_path / "bin").mkdir()
    for name in ("first", "second"):
        program = tmp_path / "bin" / name
        program.write_text(PROGRAM.replace("$RESULT", json.dumps(RESULT).replace('"', '\\"')))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    path = str(tmp_path / "none"), str(tmp_path / "bin")
    return Plugins(tmp_path / "kept", path, has_link=links.has, remove_link=links.remove)


def calls(tmp_path: Path) -> list[tuple[str, str, dict[str, Any]]]:
    """What was called: command, plugin, configuration."""
    path = tmp_path / "bin" / "calls"
    lines = [line.split(" ", 4) for line in path.read_text().splitlines()] if path.exists() else []
    assert all(line[2:4] == ["c", "net1"] for line in lines)
    return [(line[0], line[1], json.loads(line[4])) for line in lines]


def request() -> Attachment:
    return Rig().attachment("a", container_id="c")


async def test_each_plugin_gets_the_result_of_the_one_before_and_all_are_undone_in_reverse(
    made: Plugins, tmp_path: Path
) -> None:
    got = await made.add(chain("first", "second"), SELECTION, request())
    assert (got.ips, got.interface, got.mac) == (("10.9.0.2",), "net1", "02:00:00:00:00:01")
    await made.check(request())
    again = Plugins(tmp_path / "kept", (str(tmp_path / "bin"),))
    await again.delete("other")
    await again.delete("c")
    await again.delete("c")
    found = calls(tmp_path)
    assert [one[:2] for one in found] == [
        *(("ADD", "first"), ("ADD", "second"), ("CHECK", "first"), ("CHECK", "second"), ("DEL", "second"), ("DEL", "first"))
    ]
    base = {"cniVersion": "1.0.0", "name": "vlan"}
    assert found[0][2] == {**base, "type": "first"}
    assert all(config == {**base, "type": kind, "prevResult": RESULT} for _, kind, config in found[1:])
    assert not list((tmp_path / "kept").iterdir())


@pytest.mark.parametrize("more", [{"cniVersion": "0.3.1"}, {"cniVersion": "1.0.0", "disableCheck": True}])
async def test_plugins_that_know_no_check_are_not_called_with_it(made: Plugins, tmp_path: Path, more: dict[str, Any]) -> None:
    found = network("default/vlan", json.dumps({"name": "vlan", "plugins": [{"type": "first"}], **more}))
    assert isinstance(found, Chain)
    await made.add(found, SELECTION, request())
    await made.check(request())
    assert [one[0] for one in calls(tmp_path)] == ["ADD"]


async def test_a_plugin_that_is_gone_keeps_no_pod(made: Plugins, tmp_path: Path) -> None:
    await made.add(chain("first", "second"), SELECTION, request())
    (tmp_path / "bin" / "second").unlink()
    await made.delete("c")
    assert [one[:2] for one in calls(tmp_path)][-1] == ("DEL", "first") and not list((tmp_path / "kept").iterdir())


async def test_what_is_asked_for_is_told_to_plugins_that_take_it(made: Plugins, tmp_path: Path) -> None:
    wanted = Selection("default", "vlan", "net1", ("10.9.0.2",), "02:00:00:00:00:01")
    one = chain("first", capabilities={"ips": True, "mac": True})
    assert not made.why_refused(one, wanted)
    await made.add(one, wanted, request())
    assert calls(tmp_path)[0][2]["runtimeConfig"] == {"ips": ["10.9.0.2"], "mac": "02:00:00:00:00:01"}
    assert made.why_refused(chain("first"), wanted) == "ips are asked for, and none of its plugins has the capability ips"
    assert "there is no plugin third in " in made.why_refused(chain("first", "third"), SELECTION)
    confined = Plugins(tmp_path / "kept", (str(tmp_path / "bin"),), may_enter=False)
    assert "plugins of others enter pods' namespaces, and the agent has no CAP_SYS_ADMIN" in confined.why_refused(one, wanted)


async def test_the_failure_of_a_plugin_is_told_and_what_was_made_is_undone(made: Plugins, tmp_path: Path) -> None:
    (tmp_path / "bin" / "fails-ADD").touch()
    with pytest.raises(NetworkError) as caught:
        await made.add(chain("first", "second"), SELECTION, request())
    assert (
        str(caught.value) == "pod default/a: interface net1 of default/vlan: plugin first has failed ADD: it fails: on purpose"
    )
    assert [one[0] for one in calls(tmp_path)] == ["ADD", "DEL", "DEL"] and not list((tmp_path / "kept").iterdir())


async def test_an_interface_that_was_never_made_keeps_no_pod_though_nothing_can_be_undone(
    made: Plugins, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("fails-ADD", "fails-DEL"):
        (tmp_path / "bin" / name).touch()
    for kind in ("first", "second"):  # the definition is another one the second time
        with pytest.raises(NetworkError, match=f"plugin {kind} has failed ADD: it fails: on purpose"):
            await made.add(chain(kind, "first"), SELECTION, request())
    assert "plugin second has failed DEL: it fails: on purpose" in caplog.text
    assert [one[:2] for one in calls(tmp_path)] == [
        *(("ADD", "first"), ("DEL", "first"), ("DEL", "first")),
        *(("ADD", "second"), ("DEL", "first"), ("DEL", "second")),
    ]
    await made.delete("c")
    assert not list((tmp_path / "kept").iterdir())


async def test_an_interface_that_no_plugin_undoes_is_removed_before_it_is_made_anew(made: Plugins, links: Links) -> None:
    await made.add(chain("first"), SELECTION, request())
    links.add("net1")
    assert (await made.add(chain("first"), SELECTION, request())).ips == ("10.9.0.2",) and not links


async def test_an_interface_that_was_there_before_is_none_of_a_plugin(made: Plugins, links: Links, tmp_path: Path) -> None:
    links.add("net1")
    (tmp_path / "bin" / "fails-ADD").touch()
    for _ in range(2):
        with pytest.raises(NetworkError, match="plugin first has failed ADD"):
            await made.add(chain("first"), SELECTION, request())
    assert links == {"net1"}


async def test_what_an_agent_was_killed_at_before_it_was_made_keeps_no_pod(made: Plugins, tmp_path: Path) -> None:
    made._keep(Made("c", "net1", "", chain("first", "second")))
    (tmp_path / "bin" / "fails-DEL").touch()
    await Plugins(tmp_path / "kept", (str(tmp_path / "bin"),)).delete("c")
    assert [one[:2] for one in calls(tmp_path)] == [("DEL", "second"), ("DEL", "first")]
    assert not list((tmp_path / "kept").iterdir())


async def test_an_interface_is_made_anew_though_the_former_one_can_not_be_undone(made: Plugins, tmp_path: Path) -> None:
    await made.add(chain("first"), SELECTION, request())
    (tmp_path / "bin" / "fails-DEL").touch()
    assert (await made.add(chain("second"), SELECTION, request())).ips == ("10.9.0.2",)
    with pytest.raises(NetworkError, match="plugin second has failed DEL"):
        await made.delete("c")
    assert [one[:2] for one in calls(tmp_path)] == [*(("ADD", "first"), ("DEL", "first"), ("ADD", "second"), ("DEL", "second"))]


async def test_a_failure_to_undo_is_tried_again(made: Plugins, tmp_path: Path) -> None:
    await made.add(chain("first"), SELECTION, request())
    (tmp_path / "bin" / "fails-DEL").touch()
    with pytest.raises(NetworkError, match="plugin first has failed DEL: it fails"):
        await made.delete("c")
    (tmp_path / "bin" / "fails-DEL").unlink()
    await made.gc({"c"})
    assert list((tmp_path / "kept").iterdir())
    await made.gc(set())
    assert not list((tmp_path / "kept").iterdir())


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({}, "its result has no such interface"),
        ({"interfaces": [{"name": "net2", "sandbox": "/x"}]}, "its result has no such interface"),
        ({"ips": [{"address": "x"}]}, "'x' does not appear to be"),
        ("none", "the result of plugin first makes no sense"),
    ],
)
async def test_a_result_that_makes_no_sense_is_told(made: Plugins, tmp_path: Path, result: Any, words: str) -> None:
    program = tmp_path / "bin" / "first"
    program.write_text(
        program.read_text().replace(json.dumps(RESULT).replace('"', '\\"'), json.dumps(result).replace('"', '\\"'))
    )
    with pytest.raises(NetworkError, match=words):
        await made.add(chain("first"), SELECTION, request())
    assert not list((tmp_path / "kept").iterdir())


async def test_a_program_that_does_not_end_is_ended(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError):
        await call("/bin/sh", {}, b"sleep 60 & sleep 60\n", 0.2)
    with pytest.raises(OSError, match="No such file"):
        await call(str(tmp_path / "none"), {}, b"", 1)
    assert (await call("/bin/sh", {"A": "b"}, b"echo $A; echo c >&2; exit 3", 10)) == kernel_plugins.Answer(3, b"b\n", b"c\n")


@pytest.mark.parametrize("kind", ["../../bin/sh", "/bin/sh", "", 7, None])
def test_a_type_that_is_no_name_of_a_file_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="is no type of a plugin"):
        network("default/vlan", json.dumps({"type": kind}))


def test_who_can_not_call_plugins_says_so() -> None:
    further = FurtherInterfaces(None, Rig().settings.network, lambda path: "", tuple)  # type: ignore[arg-type]  # it is not asked
    assert "other plugins are called by agents that are processes" in further._why_not_called(chain("macvlan"), SELECTION)


async def test_a_plugin_that_writes_without_end_is_ended(made: Plugins, tmp_path: Path) -> None:
    script = f"""#!/bin/sh
[ $CNI_COMMAND = DEL ] && exit 0
echo $$ > {tmp_path}/pid; yes aaaaaaaa; exit 0
"""
    (tmp_path / "bin" / "first").write_text(script)
    with pytest.raises(
        NetworkError, match=f"plugin first can't be called: it writes more than {kernel_plugins.OUTPUT_BYTES} bytes"
    ):
        await made.add(chain("first"), SELECTION, request())
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert not list((tmp_path / "kept").iterdir())


async def test_a_result_of_lists_in_lists_is_refused(made: Plugins, tmp_path: Path) -> None:
    (tmp_path / "result").write_text('{"x": ' + "[" * 5000 + "]" * 5000 + "}")
    (tmp_path / "bin" / "first").write_text(f"#!/bin/sh\n[ $CNI_COMMAND = DEL ] || cat {tmp_path}/result\n")
    with pytest.raises(NetworkError, match="the result of plugin first makes no sense"):
        await made.add(chain("first"), SELECTION, request())
    assert not list((tmp_path / "kept").iterdir())


def test_a_folder_is_no_plugin(made: Plugins, tmp_path: Path) -> None:
    (tmp_path / "bin" / "third").mkdir()
    assert "there is no plugin third" in made.why_refused(chain("third"), SELECTION)


async def test_a_plugin_that_can_not_be_executed_is_named_and_called_again(made: Plugins, tmp_path: Path) -> None:
    await made.add(chain("first", "second"), SELECTION, request())
    whole = (tmp_path / "bin" / "second").read_bytes()
    (tmp_path / "bin" / "second").write_bytes(b"\x7fELF")
    for _ in range(2):
        with pytest.raises(NetworkError, match="plugin second can't be called: Exec format error"):
            await made.delete("c")
    (tmp_path / "bin" / "second").write_bytes(whole)
    await made.delete("c")
    assert [one[:2] for one in calls(tmp_path)][-2:] == [("DEL", "second"), ("DEL", "first")]
    assert not list((tmp_path / "kept").iterdir())
