"""A network as Flannel makes it on the rig: Debian's bridge, host-local and portmap, a VXLAN device, and flanneld's routes."""

from __future__ import annotations

import json
import shutil

from podplane.cni.install import BIN_DIR, CONF_DIR
from tests.cluster.rig import Rig
from tests.engines.machine import Machine

PLUGINS = dict.fromkeys(("bridge", "host-local", "portmap", "loopback"), "/usr/lib/cni")
"""Of Debian's package containernetworking-plugins."""
FILE = f"{CONF_DIR}/10-flannel.conflist"
VNI, PORT, MTU = 1, 8472, 1450
MAC = "02:00:00:00:00:{:02x}"


SYSCTLS = ("net.ipv4.ip_forward", "net.bridge.bridge-nf-call-iptables")


def missing() -> list[str]:
    """Those that are not there."""
    return [f"{folder}/{name}" for name, folder in PLUGINS.items() if shutil.which(name, path=folder) is None]


def conflist(block: str) -> str:
    """What Flannel's plugin hands on to bridge and host-local, and the plugin behind it."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": block}]], "routes": [{"dst": "10.244.0.0/16"}]}
    bridge = {"type": "bridge", "bridge": "cni0", "isDefaultGateway": True, "hairpinMode": True, "mtu": MTU, "ipam": ipam}
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "1.0.0", "name": "cbr0", "plugins": [bridge, portmap]})


class Flannel:
    """It, on all nodes, as long as `remove` is not called."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._blocks = {name: rig.get("node", name)["spec"]["podCIDR"] for name in rig.nodes}
        self._before = {name: machine("sysctl", *SYSCTLS) for name, machine in rig.nodes.items()}
        for number, name in enumerate(rig.nodes, 1):
            self._begin(rig.nodes[name], name, number)

    def _begin(self, machine: Machine, name: str, number: int) -> None:
        for plugin, folder in PLUGINS.items():
            machine("cp", f"{folder}/{plugin}", f"{BIN_DIR}/{plugin}")
        own = ("ip", "-o", "-4", "addr", "show", "dev", "eth0")
        local = machine(*own).split()[3].partition("/")[0]
        device = f"flannel.1 type vxlan id {VNI} dstport {PORT} local {local} dev eth0 nolearning"
        lines = [
            f"ip link add {device}",
            f"ip link set flannel.1 address {MAC.format(number)} mtu {MTU} up",
            f"ip address add {_first(self._blocks[name])}/32 dev flannel.1",
            *(f"sysctl -q {name}=1" for name in SYSCTLS),
        ]
        for other, peer in enumerate(self._blocks, 1):
            if peer != name:
                gateway, mac = _first(self._blocks[peer]), MAC.format(other)
                lines += [
                    f"ip neigh add {gateway} lladdr {mac} dev flannel.1 nud permanent",
                    f"bridge fdb add {mac} dev flannel.1 dst 192.168.100.1{other}",
                    f"ip route add {self._blocks[peer]} via {gateway} dev flannel.1 onlink",
                ]
        machine("sh", "-euc", "\n".join(lines))
        self.tell(name)

    def tell(self, name: str) -> None:
        """Tell the engine of a node of it, by its file."""
        machine = self._rig.nodes[name]
        machine("sh", "-euc", f"cat > {FILE}.new && mv {FILE}.new {FILE}", stdin=conflist(self._blocks[name]))

    def remove(self) -> None:
        """All of it, when no pod is on it any more."""
        for name, machine in self._rig.nodes.items():
            paths = (FILE, *(f"{BIN_DIR}/{name}" for name in PLUGINS), "/var/lib/cni")
            links = "for one in flannel.1 cni0; do ip link delete $one || true; done"
            machine("sh", "-euc", f"{links}; rm -rf {' '.join(paths)}; sysctl -q --load=-", stdin=self._before[name])


def _first(block: str) -> str:
    return block.partition("/")[0]
