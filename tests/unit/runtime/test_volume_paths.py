"""Paths of files in volumes, whatever a ConfigMap, a Secret or a pod says: they stay in their volume, or the volume is not written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from podplane.model.pod import (
    ConfigMapVolume,
    DownwardFile,
    DownwardVolume,
    KeyToPath,
    ObjectFieldSelector,
    Pod,
    ProjectedVolume,
    Projection,
    TokenProjection,
    Volume,
)
from podplane.runtime import volumes
from podplane.runtime.environment import ConfigError, Facts
from podplane.runtime.volumes import Files

PARTS = st.sampled_from(["..", ".", "", "a", "b", "..data", "..1", "...", "..data_tmp", "é", "\0", "x" * 300, "a\nb", " "])
PATHS = st.tuples(st.sampled_from(["", "/", "./", "../"]), st.lists(PARTS, min_size=1, max_size=4)).map(
    lambda given: given[0] + "/".join(given[1])
)
KINDS = ("keys", "items", "downward", "projected", "token")
FACTS = Facts((), (), {}, {("configmaps", "c"): {"data": {"k": "content"}}})


def files(kind: str, paths: list[str]) -> Files:
    """What a volume of a kind holds whose files have these paths."""
    items = tuple(KeyToPath("k", path) for path in paths)
    pod, facts = Pod(), FACTS
    if kind == "keys":
        facts = Facts((), (), {}, {("configmaps", "c"): {"data": dict.fromkeys(paths, "content")}})
        volume = Volume("v", config_map=ConfigMapVolume(name="c"))
    elif kind == "items":
        volume = Volume("v", config_map=ConfigMapVolume(name="c", items=items))
    elif kind == "downward":
        fields = tuple(DownwardFile(path, field_ref=ObjectFieldSelector("metadata.name")) for path in paths)
        volume = Volume("v", downward_api=DownwardVolume(items=fields))
    elif kind == "projected":
        volume = Volume(
            "v", projected=ProjectedVolume(sources=(Projection(config_map=ConfigMapVolume(name="c", items=items)),))
        )
    else:
        tokens = tuple(Projection(service_account_token=TokenProjection(path=path)) for path in paths)
        volume = Volume("v", projected=ProjectedVolume(sources=tokens))
    return volumes.files_of(pod, volume, facts, lambda _: "token")


def world(place: Path) -> list[str]:
    """All that is there, beside the volume."""
    return sorted(str(path) for path in place.rglob("*") if path != place / "pod/v" and place / "pod/v" not in path.parents)


@example("items", [["./..data/a"], ["./..2/a"], ["./..2"], ["a"]])
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), st.lists(st.lists(PATHS, min_size=1, max_size=3), min_size=1, max_size=3))
def test_files_of_a_volume_stay_in_it(kind: str, versions: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "pod").mkdir()
        (place / "pod" / "hosts").write_text("the pod's")
        before = world(place)
        for paths in versions:
            try:
                found = files(kind, paths)
                volumes.write(place / "pod" / "v", found)
            except (ConfigError, OSError, ValueError):
                continue
            finally:
                assert world(place) == before
            folder = place / "pod" / "v"
            seen = {
                os.path.relpath(os.path.join(top, file), folder / "..data")
                for top, _, names in os.walk(folder / "..data")
                for file in names
            }
            assert seen == set(found), "nothing of versions before, or of attempts that failed"
            assert all((folder / path).read_bytes() == file.data for path, file in found.items())
            assert all(folder.resolve() in (folder / path).resolve().parents for path in found)
