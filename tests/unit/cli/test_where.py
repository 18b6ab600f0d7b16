"""Which cluster a command is about: what is written names one, and contradictions are refused before anything is asked."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from podplane.cli.options import lab_or_cluster, show_who_asks
from podplane.cli.where import OfKubeconfig, Where, lab_spec, what
from podplane.kubeapi.errors import ApiError, NotFound
from podplane.lab.errors import LabError
from podplane.lab.folder import Folder


@click.command()
@lab_or_cluster
def command(where: Where) -> None:
    """Say what it is about."""
    click.echo(where.command("routes", "--stats"))


def said(*words: str, lab: str = "two") -> str:
    done = CliRunner().invoke(command, words, env={"PODPLANE_LAB": lab}, catch_exceptions=False)
    return done.output.strip()


def test_a_lab_unless_a_kubeconfig_or_a_context_is_named() -> None:
    assert said() == "podplane routes --name two --stats"
    assert said("--name", "one") == "podplane routes --name one --stats"
    assert said("--kubeconfig", "my file") == "podplane routes --kubeconfig 'my file' --stats"
    assert said("--context", "prod") == "podplane routes --context prod --stats"


def test_a_lab_and_a_cluster_contradict_each_other() -> None:
    with pytest.raises(LabError, match="leave one of them out"):
        said("--name", "one", "--kubeconfig", "file")


def kubeconfig(path: Path, *contexts: str) -> str:
    document = {
        "clusters": [{"name": one, "cluster": {"server": f"https://{one}:6443"}} for one in contexts],
        "users": [{"name": one, "user": {"token": one}} for one in contexts],
        "contexts": [{"name": one, "context": {"cluster": one, "user": one}} for one in contexts],
        "current-context": contexts[0],
    }
    path.write_text(json.dumps(document))
    return str(path)


def test_the_context_that_is_asked_for_or_the_current_one_or_kubectls_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = kubeconfig(tmp_path / "one", "a", "b"), kubeconfig(tmp_path / "other", "c")
    assert [OfKubeconfig(one, context).access().host for context in ("", "b")] == ["a", "b"]
    with pytest.raises(LabError, match="has no context 'x'"):
        OfKubeconfig(one, "x").access()
    monkeypatch.setenv("KUBECONFIG", other)
    assert OfKubeconfig().access().host == "c"
    monkeypatch.setenv("KUBECONFIG", f"{one}:{tmp_path / 'gone'}")
    assert OfKubeconfig(context="b").access().host == "b"
    monkeypatch.setenv("KUBECONFIG", f"{one}:{other}")
    with pytest.raises(LabError, match="names 2 files"):
        OfKubeconfig().access()


def test_without_any_it_says_what_to_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "gone"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(LabError, match="give --kubeconfig FILE, or set KUBECONFIG"):
        OfKubeconfig().access()
    with pytest.raises(LabError, match="can't be read"):
        OfKubeconfig(str(tmp_path / "gone")).access()


def test_what_a_cluster_is_called_and_that_nobody_here_has_set_it_up() -> None:
    assert [what(one) for one in (Folder("a"), OfKubeconfig("a"))] == ["lab", "cluster"]
    assert lab_spec(OfKubeconfig("a")) is None


class Client:
    """A client of an API that gives a token for readers, or not."""

    def __init__(self, answer: str | ApiError) -> None:
        self.answer, self.viewer = answer, ""

    def viewer_token(self, seconds: int) -> str:
        if isinstance(self.answer, ApiError):
            raise self.answer
        return self.answer


def test_nodes_of_a_cluster_are_shown_a_token_for_readers_where_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    of_lab, of_cluster, none = Client("token"), Client("token"), Client(NotFound(404, "NotFound", "no such account"))
    show_who_asks(Folder("a"), of_lab)
    for one in (of_cluster, none):
        show_who_asks(OfKubeconfig("a"), one)
    assert (of_lab.viewer, of_cluster.viewer, none.viewer, capsys.readouterr().err) == ("", "token", "", "")
    refused = Client(ApiError(403, "Forbidden", "no"))
    show_who_asks(OfKubeconfig("a"), refused)
    assert refused.viewer == "" and "create serviceaccounts/token, podplane-viewer" in capsys.readouterr().err
    with pytest.raises(ApiError, match="away"):
        show_who_asks(OfKubeconfig("a"), Client(ApiError(503, "ServiceUnavailable", "it is away")))
