"""The wheel, and an editable installation, carry the program that container engines run (podplane/cni/plugin), built where a compiler is.

Without one the package has the Python script of the same purpose only, and the build says so.
"""

from __future__ import annotations

import runpy
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PluginBuild(BuildHookInterface[Any]):
    """Hatch finds it by its base class."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the program into the source tree, from where it is taken as an artifact."""
        plugin = Path(self.root, "podplane", "cni", "plugin")
        target = plugin / "podplane-cni"
        problem: str = runpy.run_path(str(plugin / "build.py"))["build"](target)
        if problem:
            target.unlink(missing_ok=True)
            self.app.display_warning(f"podplane-cni was not built ({problem}): the slower Python script takes its place")
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
