"""Test the procedures of orchestration/clusters/README.md, on machines that have only this project's dependencies.

One testbed is started by `ray up` with the cluster file, and runs a sweep from a wheel. Others are started by hand, and
run a sweep from code that the job brings along. Commands that begin with `ray` are read from the page.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import site
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml

from orchestration.testbed.hosts import ROOT, NamespaceHost, Testbed, TestbedError, missing
from sweeps.api import Run
from tests.testbed.traces import load_s, traces

CLUSTERS = ROOT / "orchestration/clusters"
PAGE = (CLUSTERS / "README.md").read_text(encoding="utf-8")
PACKAGES = ("raft_actor_node", "chaos", "orchestration", "sweeps")
HOME = "/tmp/home"
"""The home folder; each host has its own."""
STOPPED = "to-be-stopped"
"""The id of a job."""
OURS = ("raft_actor_node", "ObjectHost", "sweeps.")
"""Words in the command lines of nodes, of actors, of drivers and judges."""
VERSIONS = f"{sys.version_info.major}.{sys.version_info.minor}"

SWEEP = "-o cluster.nodes=3 -o chaos=none -o phases.measure=2s"
"""Options for a sweep of one cell."""
SSH_SERVER = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


def lacking(*commands: str | None) -> str | None:
    """Return why the tests cannot run here, in one line; None if they can."""
    if reason := missing():
        return reason
    if importlib.util.find_spec("aiohttp_cors") is None:
        return "jobs and `ray up` need ray[default]: the extra `cluster`"
    if None in commands:
        return "`ray up` needs an ssh server, ssh and rsync: install openssh-server, openssh-client and rsync"
    return None


def page(beginning: str) -> str:
    """Return the only command of the page with this beginning, without its comment."""
    lines = (re.sub(r"  +# .*", "", line).strip() for line in PAGE.splitlines())
    [command] = {line for line in lines if line.startswith(beginning)}
    return command


def typed(command: str) -> tuple[str, ...]:
    """Return the words that run a command as a logged-in user would, in the folder `project` of the home."""
    script = f"touch ~/.bashrc; source ~/.bashrc; export PATH=~/raft-lab/bin:$PATH RAY_AUTH_MODE=token; {command}"
    environment = (f"HOME={HOME}", "USER=root", "TERM=dumb", "PATH=/usr/local/bin:/usr/bin:/bin")
    return ("env", "-i", *environment, "bash", "-c", f"cd ~/project && {script}")


def shell(host: NamespaceHost, command: str, timeout_s: float = 60.0) -> str:
    """Run a command on a host as a logged-in user would; return its output."""
    return host.run(*typed(command), timeout_s=timeout_s)


def inside(host: NamespaceHost, path: str) -> Path:
    """Return a path below the host's /tmp, as this program sees it."""
    return host.folder / path.lstrip("/")


def furnish(host: NamespaceHost) -> None:
    """Give the host its own home, the project's dependencies in `~/raft-lab`, and no source of the project."""
    for package in PACKAGES:
        host.run("mount", "-t", "tmpfs", "tmpfs", str(ROOT / package))
    inside(host, f"{HOME}/project").mkdir(parents=True)
    host.run(sys.executable, "-m", "venv", "--without-pip", f"{HOME}/raft-lab", env={"PYTHONPATH": ""})
    # Hosts cannot reach a package index, so they share this environment's packages; pip sees them as installed.
    there = inside(host, f"{HOME}/raft-lab/lib/python{VERSIONS}/site-packages")
    for entry in Path(site.getsitepackages()[0]).iterdir():
        if "raft_lab" not in entry.name and entry.name != "__pycache__":
            (there / entry.name).symlink_to(entry)
    for command, module in (("ray", "ray.scripts.scripts"), ("pip", "pip._internal.cli.main")):
        script = inside(host, f"{HOME}/raft-lab/bin/{command}")
        script.write_text(f"#!{HOME}/raft-lab/bin/python\nimport sys\nfrom {module} import main\nsys.exit(main())\n")
        script.chmod(0o755)
    settings = inside(host, f"{HOME}/.config/pip/pip.conf")
    settings.parent.mkdir(parents=True)
    settings.write_text("[global]\nno-index = true\n")


def serve_ssh(host: NamespaceHost, keys: Path) -> None:
    """Start an ssh server for root, whose home is the host's."""
    accounts = Path("/etc/passwd").read_text(encoding="utf-8")
    inside(host, "/tmp/passwd").write_text(re.sub(r"(?m)^(root:.*:)[^:]+:[^:]+$", rf"\1{HOME}:/bin/bash", accounts))
    host.run("mount", "--bind", "/tmp/passwd", "/etc/passwd")
    # sshd needs the first and logs logins to the second; both would otherwise be the machine's own.
    for folder in ("/run", "/var/log"):
        host.run("mount", "-t", "tmpfs", "tmpfs", folder)
    host.run("mkdir", "/run/sshd")
    shutil.copytree(keys, inside(host, f"{HOME}/.ssh"))
    shutil.copy(keys / "id_ed25519.pub", inside(host, f"{HOME}/.ssh/authorized_keys"))
    inside(host, f"{HOME}/.ssh/config").write_text("StrictHostKeyChecking no\nLogLevel ERROR\n")
    options = {
        "ListenAddress": host.address,
        "HostKey": f"{HOME}/.ssh/id_ed25519",
        "PidFile": "none",
        "UsePAM": "no",
        "StrictModes": "no",
        "PermitRootLogin": "yes",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    assert SSH_SERVER is not None
    host.start(SSH_SERVER, "-D", "-f", "/dev/null", *words)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key without a passphrase, for users and hosts."""
    folder = tmp_path_factory.mktemp("keys")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "id_ed25519"], check=True)
    return folder


def copy_source(folder: Path) -> None:
    """Copy the files of a clone that a wheel or a job needs."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "requirements-dev.txt", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `dist` of `make wheel`, but without a way to a package index."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    copy_source(source)
    words = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", dist, source)
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *words], check=True)
    shutil.copy(source / "requirements-dev.txt", dist / "constraints.txt")
    return dist


JOB = page("ray job submit --address http://127.0.0.1:8265 --working-dir")
"""The command of a job that brings its own code."""


def everywhere(bed: Testbed, do: Callable[[NamespaceHost], object]) -> None:
    with ThreadPoolExecutor() as executor:
        list(executor.map(do, (bed.head, *bed.hosts)))


def eventually(condition: Callable[[], object], what: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.5)


def command_lines(host: NamespaceHost) -> dict[int, str]:
    """Return the command line of each process of the host, by process id."""
    found = {}
    for pid in host.pids():
        with suppress(OSError):  # it has ended meanwhile
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def environments(host: NamespaceHost, word: str) -> set[str]:
    """Return the environment variables that all processes with this word in their command line share."""
    found = [
        set(Path(f"/proc/{pid}/environ").read_text().split("\0"))
        for pid, line in command_lines(host).items()
        if word in line
    ]
    return set.intersection(*found)


def running(bed: Testbed, *words: str) -> list[str]:
    """Return the command lines, on any host, that contain one of these words."""
    lines = [line for host in (bed.head, *bed.hosts) for line in command_lines(host).values()]
    return [line for line in lines if any(word in line for word in words)]


def check_nothing_left(bed: Testbed) -> None:
    """Check that an ended sweep has left no process and no file."""
    eventually(lambda: not running(bed, *OURS), "no process of ours is left", 10)
    for host in (bed.head, *bed.hosts):
        assert host.run("sh", "-c", "find /tmp/raft-lab-* /var/tmp/raft-lab-* -type f 2>/dev/null; true") == ""


def check_ray_is_gone(bed: Testbed, timeout_s: float) -> None:
    eventually(lambda: running(bed, "/ray/") == [], "no process of Ray is left", timeout_s)


def counted(status: str) -> int:
    """Return the number of machines in the cluster, from the output of `ray status`."""
    return sum(map(int, re.findall(r"(?m)^ (\d+) local\.cluster\.node", status)))


def check_results(path: Path, hosts: Sequence[NamespaceHost]) -> None:
    run = Run.read(path / "quick/latest")
    [cell] = run.cells
    assert (cell.result["status"], cell.verdict) == ("ok", "ok")
    facts = json.loads((path / "quick/latest/manifest.json").read_text())
    assert all(host.address in facts["ray"] for host in hosts)
    assert facts["commit"] is None


def narrow_ports(host: NamespaceHost) -> None:
    """Narrow the range of ephemeral ports by the page's sysctl."""
    [(name, values)] = re.findall(r"sysctl -w ([\w.]+)='([\d ]+)'", PAGE)
    host.run("sh", "-c", f"echo {values} > /proc/sys/{name.replace('.', '/')}")


def opened() -> set[int]:
    """Return the ports that the page asks to open between hosts."""
    [words] = re.findall(r"then only ports ([^.]*) need to be open", PAGE.replace("\n", " "))
    ranges = [word.split("-") for word in re.findall(r"\d+(?:-\d+)?", words)]
    return {port for each in ranges for port in range(int(each[0]), int(each[-1]) + 1)}


def listening(host: NamespaceHost, *, loopback: bool = False) -> set[int]:
    """Return the ports of the host with a listener, either on interfaces that other hosts reach, or on loopback."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{host.pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, port = local.split(":")  # the address is in the machine's byte order, the port in network order
            here = address.endswith("0100007F") or address == "0" * 24 + "01000000"
            if state == "0A" and here == loopback:
                found.add(int(port, 16))
    return found


@pytest.mark.skipif(reason := lacking(SSH_SERVER, shutil.which("ssh"), shutil.which("rsync")), reason=str(reason))
def test_ray_up_and_a_job_by_wheel(keys: Path, wheels: Path) -> None:
    """The last host is the user's own machine, which is not part of the cluster."""
    with Testbed(3) as bed:
        everywhere(bed, furnish)
        everywhere(bed, lambda host: serve_ssh(host, keys))
        *workers, own = bed.hosts
        hosts = (bed.head, *workers)
        project = inside(own, f"{HOME}/project")
        shutil.copytree(wheels, project / "dist")
        settings = yaml.safe_load((CLUSTERS / "own-machines.yaml").read_text(encoding="utf-8"))
        settings["provider"] |= {"head_ip": bed.head.address, "worker_ips": [host.address for host in workers]}
        settings["auth"]["ssh_user"] = "root"
        (project / "own.yaml").write_text(yaml.safe_dump(settings))

        def user(command: str, timeout_s: float = 60.0) -> str:
            return shell(own, f"cluster=own.yaml; {command}", timeout_s)

        user(page("(umask 077; ray get-auth-token"))
        user(page("RAY_UP"), timeout_s=90)
        eventually(lambda: counted(user(page("ray exec"))) == 3, "all machines are in the cluster", 60)
        for host in hosts:
            assert inside(host, f"{HOME}/.ray/auth_token").stat().st_mode & 0o777 == 0o600
        with pytest.raises(TestbedError, match="token"):
            shell(bed.head, "RAY_AUTH_TOKEN=of-somebody-else ray status")

        looked = shell(bed.head, f"{page('sweep doctor')} --plain")
        assert all(f"name {host.name}; " in looked for host in hosts), looked
        assert "wrong" not in looked
        cleaned = shell(bed.head, f"{page('sweep clean')} --dry-run")
        assert cleaned.count("nothing is left over") == 3, cleaned

        tunnel = own.start(*typed("cluster=own.yaml; ray dashboard $cluster"))
        eventually(lambda: 8265 in listening(own, loopback=True), "there is a way to the head", 20)
        job = page("ray job submit --address http://127.0.0.1:8265 -- sweep")
        told = user(job.replace("scalability", f"quick {SWEEP}"), timeout_s=100)
        tunnel.kill()
        assert "succeeded" in told
        user(page("mkdir -p results"))
        user(page("ray rsync-down"))
        check_results(project / "results", workers)
        check_nothing_left(bed)

        user(page("ray down"))
        user(page("for host in WORKERS").replace("WORKERS", " ".join(host.address for host in workers)))
        check_ray_is_gone(bed, 10)


@contextmanager
def by_hand() -> Iterator[Testbed]:
    """A cluster of three machines, brought up in three commands; the source of the project is on the head only."""
    with Testbed(2) as bed:
        everywhere(bed, furnish)
        copy_source(inside(bed.head, f"{HOME}/project"))
        everywhere(bed, narrow_ports)
        shell(bed.head, page("(umask 077; ray get-auth-token"))
        for host in bed.hosts:
            shutil.copytree(inside(bed.head, f"{HOME}/.ray"), inside(host, f"{HOME}/.ray"))
        ports = page("ray start ...").removeprefix("ray start ...")
        shell(bed.head, f"{page('export RAY_JOB_STOP')}; {page('ray start --head')}{ports}")
        for host in bed.hosts:
            shell(host, page("ray start --address").replace("HEAD", bed.head.address) + ports)
        yield bed
        check_nothing_left(bed)
        everywhere(bed, lambda host: shell(host, "ray stop"))
        check_ray_is_gone(bed, 10)


@pytest.mark.skipif(reason := lacking(), reason=str(reason))
def test_by_hand_and_a_job_that_brings_its_code() -> None:
    """No process listens on ports that the page does not open."""
    with by_hand() as bed:
        results = inside(bed.head, f"{HOME}/project/results")
        results.mkdir()
        (results / "large").write_text("ignored by git")
        for host in bed.hosts:
            with pytest.raises(TestbedError, match="No module named 'sweeps'"):
                shell(host, "cd /; python -c 'import sweeps'")

        heard: set[int] = set()
        with ThreadPoolExecutor() as executor:
            told = executor.submit(shell, bed.head, JOB.replace("scalability", f"quick {SWEEP}"), 100)
            while not told.done():
                heard.update(*map(listening, (bed.head, *bed.hosts)))
                time.sleep(0.2)
        assert "succeeded" in told.result()
        check_results(inside(bed.head, "/var/tmp/raft-results"), bed.hosts)
        assert {6379, *range(8076, 8082)} <= heard
        assert any(port >= 40000 for port in heard), "of Raft nodes"
        assert heard - opened() == {10001}, "of which the page says that it is not used"
        for host in bed.hosts:
            [copy] = inside(host, "/tmp/ray").glob("session_2*/runtime_resources/working_dir_files/*/")
            assert "sweeps" in (names := {path.name for path in copy.iterdir()})
            assert "results" not in names


@pytest.mark.skipif(reason := lacking(), reason=str(reason))
def test_a_job_that_is_stopped_ends_in_order_and_its_run_is_completed() -> None:
    """The job ends within the time that the page allows; otherwise Ray kills it, and its results do not say so."""
    with by_hand() as bed:
        job = JOB.replace("submit", f"submit --no-wait --submission-id {STOPPED}")
        shell(bed.head, job.replace("scalability", f"quick {SWEEP} -o phases.measure=20s"))
        eventually(lambda: load_s(traces(bed)) > 2, "its cell is measured", 60)
        wait = page("export RAY_JOB_STOP").removeprefix("export ")
        assert wait in environments(bed.head, "sweeps."), "Ray waits for as long as the page says"
        begin = time.monotonic()
        told = shell(bed.head, page("ray job stop").replace("ID", STOPPED))
        assert "was stopped" in told, told
        eventually(lambda: not running(bed, *OURS), "nothing of ours runs on any host", 10)
        print(f"job stopped: nothing left after {time.monotonic() - begin:.1f} s")
        run = Run.read(inside(bed.head, "/var/tmp/raft-results/quick/latest"))
        manifest = json.loads((run.path / "manifest.json").read_text())
        assert (manifest["complete"], manifest["exit_code"]) == (False, 130)
        assert [cell.result["status"] for cell in run.cells] == ["interrupted"]

        assert "succeeded" in shell(bed.head, JOB.replace("run scalability", "resume"), 100)
        done = Run.read(inside(bed.head, "/var/tmp/raft-results/quick/latest"))
        assert done.path == run.path
        assert [(cell.result["status"], cell.verdict) for cell in done.cells] == [("ok", "ok")]
