"""`podplane dns import-corefile`: what is printed where, and its exit status."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from podplane.cli.dns.import_corefile import import_corefile

TEXT = ". {\n kubernetes cluster.local {\n  pods verified\n }\n template ANY ANY\n forward . {$DNS}\n}\n"


def run(*arguments: str, text: str = TEXT, dns: str = "192.0.2.1") -> Result:
    return CliRunner().invoke(import_corefile, arguments, input=text, env={"DNS": dns})


def test_the_config_map_is_on_standard_output_and_what_is_left_out_on_the_other() -> None:
    result = run("-")
    assert yaml.safe_load(result.stdout) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "podplane-dns", "namespace": "kube-system"},
        "data": {"config.yaml": "pods: verified\nupstreams: [192.0.2.1]\n"},
    }
    assert (result.stderr, result.exit_code) == ("Corefile:5: template has no counterpart\n", 0)


def test_strict_fails_when_something_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "Corefile"
    file.write_text(TEXT)
    result = run("--strict", str(file))
    assert (result.stderr, result.exit_code) == (f"{file}:5: template has no counterpart\n", 1)
    assert run("--strict", "-", text=TEXT.replace(" template ANY ANY\n", "")).exit_code == 0


def test_another_domain_is_the_clusters() -> None:
    assert run("--domain", "lab.example", "-").stderr.startswith(
        "Corefile:2: kubernetes for cluster.local.: the cluster's domain is lab.example."
    )
    assert "'a..b' is no name" in run("--domain", "a..b", "-").output


@pytest.mark.parametrize(
    ("text", "line"), [(". {", "Corefile:1: a block is not closed"), ("", "Corefile:1: there is no server block")]
)
def test_what_is_no_corefile_is_one_line(text: str, line: str) -> None:
    result = run("-", text=text)
    assert (result.output, result.exit_code) == (f"Error: {line}\n", 1)


def test_characters_that_a_terminal_obeys_are_not_printed() -> None:
    assert "bad?[31m has no counterpart" in run("-", text=TEXT.replace("template", "bad\x1b[31m")).stderr


@pytest.mark.parametrize(
    "text", ["apiVersion: v1\ndata:\n  Corefile: |\n    . {\n    }\n", '{\n  "apiVersion": "v1"}', '{"kind": "ConfigMap"}']
)
def test_a_whole_config_map_is_told_apart(text: str) -> None:
    assert "Corefile is an object of the API: its Corefile alone is wanted" in run("-", text=text).output
