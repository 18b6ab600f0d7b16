"""An agent's process on a machine: what it opens again after a crash, and what it does without an API, which is nothing."""

from __future__ import annotations

import asyncio
import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from podplane.agent.agent import Agent
from podplane.cni import networks
from podplane.cni.network import Attachment
from podplane.cni.networks import CONFLIST
from podplane.kernel.door import Kernel
from podplane.kernel.namespace import CurrentNamespace, NetworkNamespace, Workers
from podplane.kernel.opener import KernelOpener
from podplane.machine import snapshot
from podplane.machine import uninstall as module
from podplane.machine.errors import MachineError
from podplane.machine.host import MachineHost
from podplane.machine.journal import Journal
from podplane.machine.program import JOURNAL
from podplane.machine.uninstall import uninstall
from podplane.model.config import STATUS_PORT
from podplane.pods.plan import veth_name
from podplane.state.network import Link, Peer
from podplane.state.operations import Operation
from tests.kernel.test_foreign import FOREIGN, MACHINE, VERSIONS, run
from tests.kernel.test_foreign import shown as shown_all
from tests.plans import agent_settings, config, node
from tests.unit.agent.rig import Object, caches_of

pytestmark = pytest.mark.kernel
IPS = ("10.244.1.2",)
CONFIG = config(VERSIONS)


def attachment(name: str, namespace: NetworkNamespace, path: str) -> Attachment:
    return Attachment(name, f"uid-{name}", "default", name, namespace, netns_path=path)


def test_what_is_attached_is_found_again_by_its_namespace(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workers, journal = Workers(1), Journal(tmp_path / "journal")
    host = MachineHost(journal, workers)
    kept, gone, another = (NetworkNamespace.create(workers) for _ in range(3))
    for name, one in (("kept", kept), ("gone", gone), ("another", another)):
        host.attaching(attachment(name, one, f"/proc/self/fd/{one.fd}"), IPS)
    host.attaching(attachment("nowhere", kept, "/run/netns/none"), IPS)
    gone.close()
    number = another.fd
    with NetworkNamespace.create(workers) as other:
        os.dup2(other.fd, number)
    found = MachineHost(Journal(tmp_path / "journal"), workers)
    assert [(request.name, ips) for request, ips in found.attached()] == [("kept", IPS)]
    ((request, _),) = found.attached()
    assert request.netns is found.found["kept", "eth0"] and found.found["kept", "eth0"].cookie == kept.cookie
    assert list(Journal(tmp_path / "journal").attachments) == [("kept", "eth0")], "what is gone is detached"
    assert "it is another namespace by now" in caplog.text and "none: No such file" in caplog.text


def test_a_record_that_says_the_namespace_of_the_node_is_no_pods_and_takes_nothing_from_one(tmp_path: Path) -> None:
    workers, journal = Workers(1), Journal(tmp_path / "journal")
    pod = NetworkNamespace.create(workers)
    path = f"/proc/self/fd/{pod.fd}"
    MachineHost(journal, workers).attaching(attachment("a", pod, path), IPS)
    journal.attach(attachment("wrong", pod, "/proc/self/ns/net"), IPS, 0)
    journal.close()
    journal = Journal(tmp_path / "journal")
    assert [request.container_id for request, _ in MachineHost(journal, workers).attached()] == ["a"]
    assert [id_ for id_, _ in journal.attachments] == ["a"]
    workers.close()


def test_pods_whose_namespaces_are_not_seen_are_not_taken_for_gone(tmp_path: Path) -> None:
    """As in a container without the machine's folder of them; the links of the node tell that they are there."""
    workers, journal = Workers(1), Journal(tmp_path / "journal")
    pod = NetworkNamespace.create(workers)
    MachineHost(journal, workers).attaching(attachment("a", pod, "/run/netns/nowhere/a"), IPS)
    kernel = Kernel(CurrentNamespace(), KernelOpener())
    kernel.attach("pod/a", pod)
    link = Link(name=veth_name("a", "eth0"), kind="veth", peer=Peer(netns="pod/a", name="eth0", mac="0a:58:00:00:00:01"))
    kernel.apply([Operation(None, link)])
    with pytest.raises(
        MachineError, match="no network namespace of the 1 interface of pods is seen from here: mount the machine's"
    ):
        MachineHost(journal, workers)
    assert list(journal.attachments) == [("a", "eth0")]
    kernel.apply([Operation(link, None)])
    assert not list(MachineHost(journal, workers).attached()), "now it is gone"
    workers.close()


def an_agent_was_here(folder: Path) -> None:
    """An agent has started in this network namespace, and ended; the folder has what it kept of the machine."""
    workers, journal = Workers(1), Journal(folder / JOURNAL)
    host = MachineHost(journal, workers)
    if snapshot.load(folder) is None:
        snapshot.save(folder, snapshot.take(host.namespace))
    objects: list[Object] = [node(number, VERSIONS) for number in (1, 2)]
    settings = agent_settings(VERSIONS, service_cidrs=("10.96.0.0/16",))
    kernel = host.open_kernel()
    agent = Agent("node1", settings, kernel, caches_of(*objects), record=host)
    asyncio.run(agent.start())
    assert not agent.ledger.refused, [str(one.error) for one in agent.ledger.refused.values()]
    kernel.close()  # as the end of the process does
    journal.close()
    workers.close()


HARDENED = """
sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0
sysctl -qw net.ipv4.conf.all.accept_redirects=0 net.ipv4.conf.docker0.forwarding=1 net.ipv4.conf.eth0.accept_redirects=1
"""


def sysctls() -> str:
    """Of IP, on all links."""
    return run("cd /proc/sys/net; grep -r . ipv4/conf ipv6/conf ipv4/neigh ipv6/neigh ipv4/ip_forward 2>/dev/null | sort")


def test_after_it_was_uninstalled_the_machine_is_as_it_was(tmp_path: Path) -> None:
    run(MACHINE + FOREIGN + HARDENED)
    before, had = shown_all(), sysctls()
    an_agent_was_here(tmp_path)
    assert "cbr0" in shown_all() and sysctls() != had
    done = uninstall(tmp_path, CONFIG, (tmp_path / "unit",), detach=False)
    assert shown_all() == before
    assert sysctls() == had
    assert done.is_clean and not os.listdir(tmp_path)
    said = "\n".join(done.lines)
    assert "1 x Link" in said and "sysctl net.ipv4.ip_forward is 0 again" in said
    assert "is as it was before the first start" in said


def test_of_a_machine_without_an_agent_nothing_is_removed(tmp_path: Path) -> None:
    run(MACHINE)
    (tmp_path / "lock").write_text("1\n")  # whoever calls has locked the folder
    said = uninstall(tmp_path, CONFIG, (tmp_path / "unit",), detach=False).lines
    assert said[0] == "removed from the kernel: nothing, there was nothing" and len(said) == 2
    assert not os.listdir(tmp_path)


def test_what_others_changed_meanwhile_stays_and_is_named(tmp_path: Path) -> None:
    run(MACHINE + FOREIGN + HARDENED)
    an_agent_was_here(tmp_path)
    run("ip route add 10.77.0.0/16 dev docker0; sysctl -qw net.ipv4.conf.all.send_redirects=1; nft add table ip later")
    run("sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_established=777; sysctl -qw net.ipv4.conf.eth0.rp_filter=2")
    said = "\n".join(uninstall(tmp_path, CONFIG, (), detach=False).lines)
    assert "sysctl net.netfilter.nf_conntrack_tcp_timeout_established is 777: somebody else changed it, and it stays" in said
    assert "+ route 10.77.0.0/16 on docker0" in said and "+ nf_tables table ip later" in said
    assert "~ sysctl net.ipv4.conf.eth0.rp_filter: 0, now 2" in said
    assert "10.77.0.0/16" in run("ip route") and "later" in run("nft list tables")


def test_a_node_with_pods_is_not_uninstalled_unless_they_may_be_cut_off(tmp_path: Path) -> None:
    run(MACHINE)
    an_agent_was_here(tmp_path)
    workers, journal, netns = Workers(1), Journal(tmp_path / JOURNAL), tmp_path.parent / f"{tmp_path.name}-netns"
    netns.touch()
    with NetworkNamespace.create(workers) as pod:
        host = MachineHost(journal, workers)
        host.attaching(attachment("a", pod, str(netns)), IPS)
        host.attaching(attachment("gone", pod, "/run/netns/gone"), IPS)
    journal.close()
    before = shown_all()
    with pytest.raises(
        MachineError, match="1 interface of pods would lose the network: drain the node first, or give --detach"
    ):
        uninstall(tmp_path, CONFIG, (), detach=False)
    assert shown_all() == before and (tmp_path / JOURNAL).exists()
    assert uninstall(tmp_path, CONFIG, (), detach=True).is_clean
    workers.close()


def test_pods_that_ended_while_no_agent_ran_keep_nobody_from_uninstalling(tmp_path: Path) -> None:
    run(MACHINE)
    an_agent_was_here(tmp_path)
    workers, journal = Workers(1), Journal(tmp_path / JOURNAL)
    with NetworkNamespace.create(workers) as pod:
        MachineHost(journal, workers).attaching(attachment("gone", pod, "/run/netns/gone"), IPS)
    journal.close()
    assert uninstall(tmp_path, CONFIG, (), detach=False).is_clean
    workers.close()


def test_links_of_pods_that_the_folder_does_not_know_are_not_removed(tmp_path: Path) -> None:
    run(MACHINE)
    run("ip link add pp0123456789ab type veth peer name far; ip link set pp0123456789ab alias 'podplane pod/default/a'")
    with pytest.raises(
        MachineError, match=r"1 link of pods would go, of which .* says nothing: give the --run-dir of the agent"
    ):
        uninstall(tmp_path, CONFIG, (), detach=False)
    assert "pp0123456789ab" in run("ip link")
    assert uninstall(tmp_path, CONFIG, (), detach=True).is_clean
    assert "pp0123456789ab" not in run("ip link")


def test_what_plugins_of_others_made_is_undone_by_them(tmp_path: Path) -> None:
    run(MACHINE)
    folder, plugin = tmp_path / "run", tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    plugin.write_text(
        f"#!/bin/sh\ncat >/dev/null; echo $CNI_COMMAND $CNI_CONTAINERID >>{tmp_path}/calls; exit $(cat {tmp_path}/status)\n"
    )
    plugin.chmod(0o755)
    chain = {"path": "default/a", "version": "1.0.0", "name": "a", "plugins": [{"type": "theirs"}]}
    made = {"container_id": "c1", "ifname": "net1", "args": "", "chain": chain, "result": {"cniVersion": "1.0.0"}}
    (folder / "delegated-0-1.json").write_text(json.dumps(made))
    for status, is_clean in ((1, False), (0, True)):
        (tmp_path / "status").write_text(str(status))
        done = uninstall(folder, CONFIG, (), detach=True, plugin_path=(str(tmp_path),))
        assert done.is_clean is is_clean, done
    assert (tmp_path / "calls").read_text() == "DEL c1\n" * 2 and not os.listdir(folder)


def test_what_is_not_the_agents_in_its_folder_stays(tmp_path: Path) -> None:
    run(MACHINE)
    for name in ("hosts", "cni.sock", "before.json.new", "delegated-0-1.json", "cluster", "cluster.new"):
        (tmp_path / name).write_text("")
    (tmp_path / "lib").mkdir()
    uninstall(tmp_path, CONFIG, (), detach=False)
    assert sorted(os.listdir(tmp_path)) == ["hosts", "lib"]


def test_a_restart_keeps_what_sysctls_were_before_the_first_agent(tmp_path: Path) -> None:
    run(MACHINE + HARDENED.replace("net.ipv4.conf.docker0.forwarding=1", ""))
    an_agent_was_here(tmp_path)
    first = dict(Journal(tmp_path / JOURNAL).originals)
    assert first["net.ipv4.ip_forward"].was == "0"
    an_agent_was_here(tmp_path)
    assert Journal(tmp_path / JOURNAL).originals == first


def asked(path: str) -> tuple[int, str]:
    """The status and the body of an answer over HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", 10256, timeout=30)
    connection.request("GET", f"/{path}")
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_without_an_api_it_waits_and_says_so_and_nothing_is_changed(tmp_path: Path) -> None:
    run(MACHINE + FOREIGN + HARDENED)
    before = shown_all(), sysctls()
    server = {"server": "https://127.0.0.1:1"}
    kubeconfig = {
        "clusters": [{"name": "c", "cluster": server}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    (tmp_path / "config").write_text(json.dumps({"network": {"cluster_cidrs": ["10.244.0.0/16"]}}))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        manager.settimeout(60)
        words = ["agent", "--kubeconfig", str(tmp_path / "kubeconfig"), "--config", str(tmp_path / "config")]
        words += ["--node-name", "worker-1", "--run-dir", str(tmp_path / "run")]
        environment = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "n")}
        agent = subprocess.Popen([sys.executable, "-m", "podplane", *words], env=environment, stderr=subprocess.PIPE, text=True)
        try:
            assert manager.recv(1000).startswith(b"STATUS=waiting for the API: the API at 127.0.0.1:1 does not answer")
            assert [asked(path)[0] for path in ("livez", "healthz", "readyz", "status")] == [200, 503, 503, 503]
            assert "waiting for the API" in asked("readyz")[1]
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
                caller.connect(str(tmp_path / "run" / "cni.sock"))
                request = b'CNI_COMMAND=STATUS\0\0{"cniVersion": "1.1.0", "name": "n", "type": "podplane-cni"}'
                caller.sendall(len(request).to_bytes(4, "big") + request)
                answer = caller.makefile("rb").read()
            assert answer[:1] == b"\1" and json.loads(answer[1:])["code"] == 50
        finally:
            agent.send_signal(signal.SIGTERM)
            _, said = agent.communicate(timeout=60)
        assert agent.returncode == 0, said
        assert manager.recv(1000) == b"STOPPING=1"
    assert "waiting for the API" in said and "Traceback" not in said
    assert (shown_all(), sysctls()) == before


def test_pods_of_before_that_ended_are_no_difference_and_a_mount_that_came_is() -> None:
    before, after = (snapshot.Snapshot({"mount": [f"mount /run/netns/{one} (nsfs)"]}, {}) for one in ("a", "b"))
    assert list(before.differences(after)) == ["+ mount /run/netns/b (nsfs)"]


def test_a_kube_proxy_that_was_there_before_and_has_gone_is_no_difference(tmp_path: Path) -> None:
    run(MACHINE)
    with socket.create_server(("127.0.0.1", STATUS_PORT)):
        run("nft add table ip kube-proxy; nft add table ip6 kube-proxy; nft add table ip others")
        snapshot.save(tmp_path, snapshot.take(CurrentNamespace()))
    (socket_line,) = snapshot.load(tmp_path).objects["socket"]  # type: ignore[union-attr]  # it was written
    run("nft delete table ip kube-proxy; nft delete table ip6 kube-proxy")
    (line,) = module._compared(snapshot.load(tmp_path), ())
    gone = f"{socket_line}, nf_tables table ip kube-proxy, nf_tables table ip6 kube-proxy"
    assert line.startswith(f"{module.SAME}, but for kube-proxy, which has gone since: {gone} (")
    with http.server.ThreadingHTTPServer(("127.0.0.1", STATUS_PORT), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        first, *lines = module._compared(snapshot.load(tmp_path), ())
        server.shutdown()
    assert first == module.OTHERWISE and "  - nf_tables table ip kube-proxy" in lines, "it runs, so its tables should be there"
    run("nft delete table ip others")
    first, *lines = module._compared(snapshot.load(tmp_path), ())
    assert first == module.OTHERWISE and "  - nf_tables table ip others" in lines and len(lines) == 4, "all is told then"


ZONE = """
nft add table ip zones; nft add chain ip zones out '{ type filter hook output priority raw; }'
nft add rule ip zones out ct zone set 7
"""


def test_files_sockets_and_zones_of_connection_tracking_are_compared_too(tmp_path: Path) -> None:
    run(MACHINE)
    for name in ("05-moved.conf", "98-gone.conf", CONFLIST):
        (tmp_path / name).write_text("{}")
    (tmp_path / CONFLIST).write_bytes(networks.configuration())
    before = snapshot.take(CurrentNamespace(), [str(tmp_path)])
    assert [line.split()[1] for line in before.objects["file"]] == [f"{tmp_path}/05-moved.conf", f"{tmp_path}/98-gone.conf"]
    (tmp_path / "98-gone.conf").unlink()
    (tmp_path / CONFLIST).unlink()
    (tmp_path / "05-moved.conf").rename(tmp_path / f"05-moved.conf{networks.SAVED}")
    run(ZONE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"", ("192.168.1.10", 9))
    with socket.create_server(("192.168.1.10", 8443)), socket.create_server(("127.0.0.1", 0)):
        after = snapshot.take(CurrentNamespace(), [str(tmp_path)])
    found = list(before.differences(after))
    assert "+ zone 7 of connection tracking" in found and "+ socket tcp 192.168.1.10 port 8443" in found
    (gone,) = [line for line in found if line[2:].startswith("file")]
    assert gone.startswith(f"- file {tmp_path}/98-gone.conf (2 bytes, ")
    assert len([line for line in found if " socket " in line]) == 1, "a port that somebody got by chance is none of podplane's"
    kinds = {kind: rows for kind, rows in before.objects.items() if kind not in snapshot.PLACES}
    older = list(snapshot.Snapshot(kinds, before.sysctls).differences(after))
    assert older == ["+ nf_tables table ip zones"], "of what a former version did not look at nothing is said"
