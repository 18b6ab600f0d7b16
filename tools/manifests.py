"""Writes what of the chart and of deploy/ is made of something else. By hand, after a change of one of these or of the chart.

    podplane/machine/rbac.py ──► charts/podplane/templates/rbac.yaml, controllers-rbac.yaml ─┬─► the beginning of deploy/podplane.yaml
    podplane/services/pools.py ──► charts/podplane/crds/loadbalancerpools.yaml ──────────────┘
    podplane/agent/settings.py ──► the definitions in charts/podplane/values.schema.json, of the chart's `config`
    charts/podplane ── helm template ──► the rest of it, deploy/podplane-uninstall.yaml, deploy/podplane-dns.yaml and …-dns-service.yaml

    .venv/bin/python -m tools.manifests        # helm 3 or later has to be on the PATH only if the chart changed otherwise

The files in deploy/ say of which chart they are made, by a digest: a test sees that it is that of the chart even where there is no helm.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import yaml

from podplane.agent.settings import Settings
from podplane.machine import rbac
from podplane.machine.configuration import FOUND_OUT
from podplane.services import pools

TOP = Path(__file__).parents[1]
CHART = TOP / "charts/podplane"
DEPLOY, UNINSTALL = TOP / "deploy/podplane.yaml", TOP / "deploy/podplane-uninstall.yaml"
NAMES, NAMES_SERVICE = TOP / "deploy/podplane-dns.yaml", TOP / "deploy/podplane-dns-service.yaml"
MADE = {
    DEPLOY: (
        "--show-only=templates/configmaps.yaml",
        "--show-only=templates/daemonset.yaml",
        "--show-only=templates/controllers.yaml",
    ),
    UNINSTALL: ("--set=uninstall=true", "--show-only=templates/uninstall.yaml"),
    NAMES: ("--set=dns.enabled=true", "--show-only=templates/configmaps.yaml", "--show-only=templates/daemonset.yaml"),
    NAMES_SERVICE: ("--set=dns.enabled=true", "--show-only=templates/dns.yaml"),
}
"""What is made of the chart, with which options of helm."""
RULES, CONTROLLERS_RULES = CHART / "templates/rbac.yaml", CHART / "templates/controllers-rbac.yaml"
DEFINITION = CHART / "crds/loadbalancerpools.yaml"
SCHEMA, DEFINITIONS = CHART / "values.schema.json", '  "definitions": '
"""The end of that file begins there."""
OF_VALUES = {"network": ("agent_port", *FOUND_OUT), "services": ("enabled",)}
"""Settings of agents that other values of the chart say, or that can't be chosen."""
WITH_NODE_BLOCKS, END = "{{- if .Values.nodeBlocks.enabled }}\n", "{{- end }}\n"
WITH_CONTROLLERS = "{{- if and .Values.controllers.enabled (not .Values.uninstall) }}\n"
NAMESPACE, KUBERNETES = "kube-system", "1.36.0"
HEADER = """# See docs/install.md. Made of charts/podplane, where changes belong.
# Chart: sha256:{digest}
"""
RENDERED = "---\n# Source: podplane/"
"""Where begins what helm wrote."""


class Refused(Exception):
    """helm does not take the chart or its values; the text is what it says."""


def rules(account: rbac.Account = rbac.AGENTS) -> str:
    """What agents, or controllers, may do in the API: it has nothing to fill in."""
    return "# Made of podplane/machine/rbac.py.\n" + yaml.safe_dump_all(rbac.manifests(account), sort_keys=False)


def rules_of_controllers() -> str:
    """As the chart has them: what node blocks alone need is there where these are given."""
    text = rules(rbac.CONTROLLERS)
    for one in rbac.CONTROLLERS.rules:
        if one.of_node_blocks:
            head, found, rest = text.partition(yaml.safe_dump([one.object], sort_keys=False))
            text = f"{head}{WITH_NODE_BLOCKS}{found}{END}{rest}"
    return f"{WITH_CONTROLLERS}{text}{END}"


def definition() -> str:
    """What pools of addresses are."""
    return "# Made of podplane/services/pools.py.\n" + yaml.safe_dump(pools.definition(), sort_keys=False)


def schema() -> str:
    """That of the chart's values: as it is, and settings of agents as their classes have them."""
    _, classes = msgspec.json.schema_components([Settings], ref_template="{name}")
    written, parts = SCHEMA.read_text(), []
    for feature, found in classes[Settings.__name__]["properties"].items():
        if f'"#/definitions/{feature}"' not in written:
            continue
        fields = classes[found["$ref"]]["properties"]
        kept = {name: {key: one[key] for key in ("type", "items") if key in one} for name, one in fields.items()}
        rows = kept | dict.fromkeys(OF_VALUES.get(feature, ()), False)
        lines = ",\n".join(f"        {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
        head = f'    "{feature}": {{\n      "type": "object",\n      "additionalProperties": false,\n      "properties": {{\n'
        parts.append(f"{head}{lines}\n      }}\n    }}")
    return written[: written.index(DEFINITIONS)] + DEFINITIONS + "{\n" + ",\n".join(parts) + "\n  }\n}\n"


def made() -> dict[Path, str]:
    """The files of the chart that are made of something else, and what they are to be."""
    return {RULES: rules(), CONTROLLERS_RULES: rules_of_controllers(), DEFINITION: definition(), SCHEMA: schema()}


def digest() -> str:
    """Of all files of the chart but those that are made, and their names."""
    found = hashlib.sha256()
    for path in sorted(one for one in CHART.rglob("*") if one.is_file() and one not in made()):
        found.update(f"{path.relative_to(CHART)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


def rendered(*options: str, namespace: str = NAMESPACE) -> str:
    """What helm makes of the chart. Refused when it takes chart or options for wrong, LookupError when there is no helm."""
    if (helm := shutil.which("helm")) is None:
        raise LookupError("helm is not on the PATH")
    words: Sequence[str] = (
        helm,
        "template",
        "podplane",
        str(CHART),
        "--namespace",
        namespace,
        "--kube-version",
        KUBERNETES,
        *options,
    )
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stderr.strip())
    return done.stdout


def deployed(target: Path) -> str:
    """The whole of a file that is made of the chart. LookupError when there is no helm, and the chart is another one than the file's."""
    head = HEADER.format(digest=digest())
    try:
        found = rendered(*MADE[target])
    except LookupError:
        former = target.read_text() if target.exists() else ""
        if not former.startswith(head):
            raise
        found = former[former.index(RENDERED) :]
    first = (definition(), rules(), rules(rbac.CONTROLLERS.without_node_blocks)) if target == DEPLOY else ()
    return head + "".join(f"---\n{text}" for text in first) + found


def main() -> int:
    """Write all of them: 0; 1 without helm, or where it refuses the chart."""
    for path, text in made().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    for target in MADE:
        try:
            target.write_text(deployed(target))
        except (LookupError, Refused) as error:
            print(f"{target.relative_to(TOP)} is as it was: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
