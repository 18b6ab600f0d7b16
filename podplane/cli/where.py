"""Which cluster a command is about: a lab (`lab.folder.Folder`), or the one of a kubeconfig. Both say the same of themselves."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from podplane.lab.errors import LabError
from podplane.lab.folder import Folder
from podplane.model.words import command_line

if TYPE_CHECKING:
    from podplane.kubeapi.access import Access
    from podplane.lab.spec import LabSpec


@dataclass(frozen=True, slots=True)
class OfKubeconfig:
    """The cluster of a context of a kubeconfig ("": its current one); without a file that of kubectl's, or of the pod that this runs in."""

    path: str = ""
    context: str = ""

    def access(self) -> Access:
        """The user's way to the API. LabError when there is none."""
        from podplane.kubeapi.access import AccessError, from_kubeconfig, in_cluster
        from podplane.lab.kubeconfig import files

        try:
            if self.path:
                return from_kubeconfig(Path(self.path), self.context)
            there = [path for path in files() if path.exists()]
            if len(there) > 1:
                named = ", ".join(map(str, there))
                raise LabError(f"KUBECONFIG names {len(there)} files ({named}): say which one by --kubeconfig FILE")
            if there or self.context:
                return from_kubeconfig(there[0] if there else files()[0], self.context)
            return in_cluster()
        except AccessError as error:
            raise LabError(str(error) if self.path else f"{error}: give --kubeconfig FILE, or set KUBECONFIG") from None

    def command(self, verb: str, rest: str = "") -> str:
        """The command line of a verb for this cluster."""
        given = (("--kubeconfig", self.path), ("--context", self.context))
        return command_line(verb, " ".join([*(f"{name} {shlex.quote(text)}" for name, text in given if text), rest]).strip())

    def undo_faults(self, node: str) -> str:
        """The command line that undoes the faults of a node; they are those of a lab, whose name nobody knows here."""
        return command_line("fault", f"{node} --clear")


Where = Folder | OfKubeconfig


def what(where: Where) -> str:
    """In a word."""
    return "lab" if isinstance(where, Folder) else "cluster"


def lab_spec(where: Where) -> LabSpec | None:
    """The settings of a lab; None for a cluster, whose machines others have set up."""
    from podplane.lab import spec

    return spec.load(where.spec) if isinstance(where, Folder) else None
