"""Installing the plugin: whole files or none, in the right order, and nothing of others."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from podplane.cli.cni import cni
from podplane.cni import install as installation
from podplane.cni import networks
from podplane.cni.install import MARK, install, uninstall
from podplane.cni.networks import CONFLIST, InstallError, check_free, configure
from podplane.cni.plugin import build
from podplane.cni.result import VERSIONS
from podplane.model import plain_files
from tests.unit.cni import programs

PROGRAM = b"\x7fELF " + MARK


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a program that was built, and a script."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "podplane-cni").write_bytes(PROGRAM)
    (folder / "podplane_cni.py").write_bytes((build.FOLDER / "podplane_cni.py").read_bytes())
    monkeypatch.setattr(installation, "FOLDER", folder)
    return folder


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "opt" / "bin", tmp_path / "etc" / "net.d"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_programs_and_configuration_are_there_and_go_again(places: tuple[Path, Path]) -> None:
    bin_dir, conf_dir = places
    lines = install(bin_dir, conf_dir)
    assert files(bin_dir) == {"podplane-cni": PROGRAM, "loopback": PROGRAM}
    assert all(os.access(path, os.X_OK) for path in bin_dir.iterdir())
    assert list(files(conf_dir)) == [CONFLIST] and (conf_dir / CONFLIST).stat().st_mode & 0o777 == 0o644
    assert [line.partition(" ")[0] for line in lines] == ["wrote"] * 3
    assert install(bin_dir, conf_dir) == [
        f"{path} is current" for path in (bin_dir / "podplane-cni", bin_dir / "loopback", conf_dir / CONFLIST)
    ]
    assert len(uninstall(bin_dir, conf_dir)) == 3
    assert not files(bin_dir) and not files(conf_dir)
    assert uninstall(bin_dir, conf_dir) == ["nothing of podplane's is there"]


def test_programs_alone_and_the_configuration_later(places: tuple[Path, Path]) -> None:
    bin_dir, conf_dir = places
    assert len(install(bin_dir, None)) == 2 and not conf_dir.exists()
    assert networks.own_configuration(conf_dir) is None
    assert configure(conf_dir)[0].startswith(f"wrote {conf_dir / CONFLIST}")
    assert configure(conf_dir) == [f"{conf_dir / CONFLIST} is current"]
    assert networks.own_configuration(conf_dir) == conf_dir / CONFLIST
    (conf_dir / "00-other.conflist").write_text("{}")
    with pytest.raises(InstallError, match=r"00-other\.conflist comes before"):
        configure(conf_dir)
    install(bin_dir, None)
    (conf_dir / CONFLIST).write_text('{"plugins":[{"type":"bridge"}]}')
    assert networks.own_configuration(conf_dir) is None


def test_the_configuration_is_one_that_all_engines_read(places: tuple[Path, Path]) -> None:
    install(*places)
    network = msgspec.json.decode((places[1] / CONFLIST).read_bytes())
    assert network["cniVersion"] == "1.0.0" and set(network["cniVersions"]) < set(VERSIONS)
    assert network["plugins"] == [{"type": "podplane-cni", "capabilities": dict.fromkeys(networks.CAPABILITIES, True)}]


def test_an_upgrade_replaces_the_programs_and_keeps_what_a_user_has_changed(places: tuple[Path, Path], package: Path) -> None:
    bin_dir, conf_dir = places
    install(bin_dir, conf_dir)
    chained = msgspec.json.decode(networks.configuration())
    chained["plugins"].append({"type": "tuning"})
    (conf_dir / CONFLIST).write_bytes(msgspec.json.encode(chained))
    (package / "podplane-cni").write_bytes(PROGRAM + b" 2")
    assert [line.partition(" ")[0] for line in install(bin_dir, conf_dir)] == ["wrote", "wrote", "kept"]
    assert set(files(bin_dir).values()) == {PROGRAM + b" 2"}
    assert msgspec.json.decode((conf_dir / CONFLIST).read_bytes()) == chained


@pytest.mark.parametrize("content", [b"", b'{"plugins":[', b"[]", b'{"plugins":[]}'])
def test_half_a_configuration_is_replaced(places: tuple[Path, Path], content: bytes) -> None:
    bin_dir, conf_dir = places
    conf_dir.mkdir(parents=True)
    (conf_dir / CONFLIST).write_bytes(content)
    install(bin_dir, conf_dir)
    assert (conf_dir / CONFLIST).read_bytes() == networks.configuration()


def test_what_is_anothers_stays(places: tuple[Path, Path]) -> None:
    bin_dir, conf_dir = places
    for folder, name in ((bin_dir, "loopback"), (bin_dir, "bridge"), (conf_dir, "99-other.conflist")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("another's")
    assert "another's" in install(bin_dir, conf_dir)[1]
    (bin_dir / "podplane-cni").write_text("somebody's own")
    (conf_dir / CONFLIST).write_text("{}")
    assert [line.partition(" ")[0] for line in uninstall(bin_dir, conf_dir)] == ["kept"] * 3
    assert len(files(bin_dir)) == 3 and len(files(conf_dir)) == 2


@pytest.mark.parametrize("name", ["00-other.conflist", "05.conf", "0.json"])
def test_where_another_network_comes_first_nothing_is_changed(places: tuple[Path, Path], name: str) -> None:
    bin_dir, conf_dir = places
    conf_dir.mkdir(parents=True)
    (conf_dir / name).write_text("{}")
    (conf_dir / "00-readme.txt").write_text("")
    with pytest.raises(InstallError, match=name):
        install(bin_dir, conf_dir)
    assert not bin_dir.exists() and CONFLIST not in files(conf_dir)


def test_a_network_of_anothers_by_our_name_is_not_overwritten(places: tuple[Path, Path]) -> None:
    bin_dir, conf_dir = places
    conf_dir.mkdir(parents=True)
    theirs = b'{"cniVersion":"1.0.0","name":"theirs","plugins":[{"type":"bridge"}]}'
    (conf_dir / CONFLIST).write_bytes(theirs)
    with pytest.raises(InstallError, match="another network's: move it away"):
        install(bin_dir, conf_dir)
    assert not bin_dir.exists() and files(conf_dir) == {CONFLIST: theirs}


@pytest.mark.parametrize("failing", ["podplane-cni", CONFLIST])
def test_a_full_disk_leaves_what_was_there(
    places: tuple[Path, Path], package: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bin_dir, conf_dir = places
    install(bin_dir, conf_dir)
    (conf_dir / CONFLIST).write_bytes(b"old")
    (package / "podplane-cni").write_bytes(PROGRAM + b" 2")
    before = files(bin_dir)
    fsync = os.fsync

    def full(fd: int) -> None:
        if failing in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        install(bin_dir, conf_dir)
    assert str(caught.value.filename).endswith(failing)
    assert files(conf_dir) == {CONFLIST: b"old"}
    assert files(bin_dir) == (before if failing != CONFLIST else dict.fromkeys(before, PROGRAM + b" 2"))


def test_what_was_ended_halfway_is_cleaned_and_was_no_configuration(places: tuple[Path, Path]) -> None:
    bin_dir, conf_dir = places
    conf_dir.mkdir(parents=True)
    rest = conf_dir / f"{networks.UNFINISHED}{CONFLIST}.99"
    rest.write_text("{")
    assert rest.suffix not in networks.SUFFIXES
    install(bin_dir, conf_dir)
    assert list(files(conf_dir)) == [CONFLIST]


async def test_without_a_program_the_script_is_installed_and_said(places: tuple[Path, Path], package: Path) -> None:
    bin_dir, conf_dir = places
    (package / "podplane-cni").unlink()
    assert "no C compiler was at hand" in install(bin_dir, conf_dir)[0]
    script = bin_dir / "podplane-cni"
    assert script.read_text().startswith(f"#!{sys.executable} -ISB\n")
    ended = await programs.run([str(script)], b"{}", CNI_COMMAND="VERSION", PODPLANE_CNI_SOCKET=str(bin_dir / "none"))
    assert ended.output["supportedVersions"] == list(VERSIONS)
    assert len(uninstall(bin_dir, conf_dir)) == 3


def test_the_script_and_the_program_are_known_as_ours(tmp_path: Path) -> None:
    assert MARK in (build.FOLDER / "podplane_cni.py").read_bytes()
    assert MARK in (build.FOLDER / "podplane-cni.c").read_bytes()


def test_the_command(places: tuple[Path, Path]) -> None:
    options = ["--bin-dir", str(places[0]), "--conf-dir", str(places[1])]
    assert CliRunner().invoke(cni, ["install", *options]).output.count("wrote") == 3
    assert CliRunner().invoke(cni, ["uninstall", *options]).output.count("removed") == 3


def test_the_command_installs_programs_alone(tmp_path: Path) -> None:
    options = ["install", "--programs-only", "--bin-dir", str(tmp_path / "bin")]
    assert CliRunner().invoke(cni, options).output.count("wrote") == 2
    refused = CliRunner().invoke(cni, [*options, "--conf-dir", str(tmp_path / "net.d")])
    assert refused.exit_code == 2 and "--conf-dir has no effect with --programs-only" in refused.output
    assert os.listdir(tmp_path / "bin") and not (tmp_path / "net.d").exists()


@pytest.mark.parametrize("option", ["--bin-dir", "--conf-dir"])
def test_the_command_refuses_a_folder_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"--bin-dir": str(tmp_path / "bin"), "--conf-dir": str(tmp_path / "net.d")} | {option: ""}
    refused = CliRunner().invoke(cni, ["install", *(word for one in options.items() for word in one)])
    assert refused.exit_code == 2 and f"'{option}': '' names no folder." in refused.output
    assert {path.name for path in tmp_path.iterdir()} <= {"package"}


def theirs(name: str) -> bytes:
    """A network of others."""
    return msgspec.json.encode({"cniVersion": "1.0.0", "name": name, "plugins": [{"type": "bridge"}]})


def test_networks_that_come_first_are_moved_aside_when_told_and_put_back(places: tuple[Path, Path]) -> None:
    bin_dir, conf_dir = places
    conf_dir.mkdir(parents=True)
    before = {name: theirs(name) for name in ("05-flannel.conflist", "10-a.conf", CONFLIST, "99-later.conflist")}
    for name, content in before.items():
        (conf_dir / name).write_bytes(content)
    lines = install(bin_dir, conf_dir, replace=True)
    assert sum(line.startswith("moved") for line in lines) == 3
    now = files(conf_dir)
    assert [name for name in sorted(now) if Path(name).suffix in networks.SUFFIXES] == [CONFLIST, "99-later.conflist"]
    assert now[CONFLIST] == networks.configuration()
    assert install(bin_dir, conf_dir)[-1] == f"{conf_dir / CONFLIST} is current"
    assert sum(line.startswith("put") for line in uninstall(bin_dir, conf_dir)) == 3
    assert files(conf_dir) == before


def test_a_network_that_comes_back_is_moved_aside_again_unless_it_is_another_one(places: tuple[Path, Path]) -> None:
    _, conf_dir = places
    conf_dir.mkdir(parents=True)
    other = conf_dir / "05-flannel.conflist"
    other.write_bytes(theirs("one"))
    configure(conf_dir, replace=True)
    other.write_bytes(theirs("one"))
    assert configure(conf_dir, replace=True)[-1].startswith(f"moved {other} aside")
    other.write_bytes(theirs("two"))
    before = files(conf_dir)
    with pytest.raises(InstallError, match="came back, and is not what"):
        configure(conf_dir, replace=True)
    assert files(conf_dir) == before, "nothing of others is lost"
    assert networks.put_back(conf_dir)[0].startswith("kept") and files(conf_dir) == before


def test_plugins_that_others_chain_stay(places: tuple[Path, Path]) -> None:
    _, conf_dir = places
    conf_dir.mkdir(parents=True)
    mesh = {"type": "istio-cni", "kubernetes": {"cni_bin_dir": "/opt/cni/bin"}}
    for own, line in (
        (networks.entry(), "it is current, with istio-cni beside podplane-cni, which others have added"),
        ({"type": "podplane-cni", "capabilities": {"portMappings": True}}, "remove it to have it written anew"),
    ):
        chained = msgspec.json.decode(networks.configuration()) | {"plugins": [own, mesh], "disableCheck": True}
        (conf_dir / CONFLIST).write_bytes(msgspec.json.encode(chained))
        (said,) = configure(conf_dir)
        assert said.startswith(f"kept {conf_dir / CONFLIST}: ") and said.endswith(line)
        assert msgspec.json.decode((conf_dir / CONFLIST).read_bytes()) == chained


def test_the_command_moves_aside_when_told(places: tuple[Path, Path]) -> None:
    bin_dir, conf_dir = places
    conf_dir.mkdir(parents=True)
    (conf_dir / "05-other.conflist").write_bytes(theirs("other"))
    options = ["install", "--bin-dir", str(bin_dir)]
    assert CliRunner().invoke(cni, [*options, "--conf-dir", str(conf_dir)]).exit_code
    done = CliRunner().invoke(cni, [*options, "--conf-dir", str(conf_dir), "--replace"])
    assert done.exit_code == 0 and f"moved {conf_dir}/05-other.conflist aside" in done.output
    refused = CliRunner().invoke(cni, [*options, "--replace", "--programs-only"])
    assert refused.exit_code == 2 and "--replace has no effect with --programs-only" in refused.output


@pytest.mark.parametrize("what", ["fifo", "endless", "large", "nested"])
def test_a_file_that_is_none_holds_nothing_up(tmp_path: Path, what: str) -> None:
    """In place of podplane's own, where it is read: what makes no sense is nobody's, and replaced."""
    path = tmp_path / CONFLIST
    match what:
        case "fifo":
            os.mkfifo(path)
        case "endless":
            path.symlink_to("/dev/zero")
        case "large":
            path.write_bytes(b" " * (plain_files.LARGEST_BYTES + 1) + networks.configuration())
        case _:
            path.write_bytes(b'{"plugins": ' + b"[" * 100_000)
    assert not networks.names_our_plugin(path)
    assert configure(tmp_path) == [f"wrote {path}, the network's configuration"]
    assert path.read_bytes() == networks.configuration() and not path.is_symlink()


def test_a_fifo_is_moved_aside_once_and_its_copy_is_not_read_for_ever(tmp_path: Path) -> None:
    other = tmp_path / "05-other.conflist"
    os.mkfifo(other)
    assert any(line.startswith(f"moved {other}") for line in configure(tmp_path, replace=True))
    os.mkfifo(other)
    with pytest.raises(InstallError, match="came back"):
        configure(tmp_path, replace=True)


def test_a_folder_is_no_network_and_a_name_that_is_no_utf_8_can_be_told(tmp_path: Path) -> None:
    (tmp_path / "05-backup.conf").mkdir()
    check_free(tmp_path, replace=False)
    (tmp_path / os.fsdecode(b"06-\xff.conf")).write_text("{}")
    with pytest.raises(InstallError) as found:
        check_free(tmp_path, replace=False)
    assert "06-\\udcff.conf comes before" in str(found.value)
    str(found.value).encode()
