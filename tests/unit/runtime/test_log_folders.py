"""Where the logs of a pod are."""

from __future__ import annotations

from pathlib import Path

from podplane.runtime.output import log_folder_name

UID = "744dd5e2-67d9-4f1a-bdf8-19b80047372c"


def test_the_folder_of_a_pod_is_named_as_a_kubelet_names_it() -> None:
    assert log_folder_name("default", "web", UID) == f"default_web_{UID}"


def test_the_longest_names_make_a_folder_still_and_each_pod_has_its_own(tmp_path: Path) -> None:
    longest, other = "b" + "-c.d" * 63, UID.replace("7", "8")
    assert len(longest) == 253
    names = [log_folder_name("n" * 63, longest, uid) for uid in (UID, other)]
    for name in names:
        (tmp_path / name).mkdir()
    assert len(set(names)) == 2 and all(name.endswith(uid) for name, uid in zip(names, (UID, other), strict=True))
