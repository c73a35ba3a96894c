"""Two machines with one model, as torchrun and SLURM start them: here two processes on the loopback."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from harness import ROOT, digest

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]

FIT = [
    "fit", "--config", str(ROOT / "configs" / "kuhn_ppo.yaml"), "--trainer.accelerator", "cpu", "--data.num_envs", "64",
    "--trainer.strategy", "ddp", "--trainer.num_nodes", "2", "--trainer.devices", "1", "--trainer.max_epochs", "40",
    "--trainer.check_val_every_n_epoch", "9", "--trainer.log_every_n_steps", "1", "--trainer.enable_progress_bar",
    "false", "--ddp_timeout", "60", "--trainer.callbacks+=LastCheckpoint", "--trainer.callbacks.every_seconds", "0.1",
    "--trainer.callbacks+=trouble.Trouble",
]  # fmt: skip
ON = ["fit", "--config", "{}/version_0/config.yaml", "--ckpt_path", "last"]


class Machines:
    """Two machines that share a folder. `begin` starts the command on both, `end` waits: their exit codes."""

    def __init__(self, folder: Path):
        self.folder, self.mark, self.processes, self.logs = folder, f"{folder}-{os.getpid()}", [], []

    def begin(self, launch, args: list[str], **environment: str) -> None:
        shared = {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "MARK": self.mark}
        port = free_port()
        self.logs = [self.folder / f"machine{rank}.log" for rank in (0, 1)]
        for rank, log in enumerate(self.logs):
            command, own = launch(rank, port)
            with log.open("w") as file:
                self.processes.append(
                    subprocess.Popen(
                        [*command, *args], cwd=self.folder, env={**os.environ, **shared, **own, **environment},
                        stdout=file, stderr=file, start_new_session=True,
                    )
                )  # fmt: skip

    def end(self, timeout: float = 240) -> list[int]:
        give_up = time.monotonic() + timeout
        codes = [process.wait(max(1, give_up - time.monotonic())) for process in self.processes]
        self.processes = []
        return codes

    def said(self) -> str:
        return "\n".join(log.read_text()[-2500:] for log in self.logs)

    def left(self) -> list[int]:
        """Processes that one of the commands has started and that still run."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and f"MARK={self.mark}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def torchrun(rank: int, port: int) -> tuple[list[str], dict]:
    command = [
        str(Path(sys.executable).with_name("torchrun")), "--nnodes", "2", "--node_rank", str(rank), "--nproc_per_node",
        "1", "--master_addr", "127.0.0.1", "--master_port", str(port), "-m", "lit_rl",
    ]  # fmt: skip
    return command, {}


@pytest.fixture
def machines(tmp_path):
    both = Machines(tmp_path)
    yield both
    for pid in both.left():
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Digest of the run that nobody disturbs."""
    both = Machines(tmp_path_factory.mktemp("machines"))
    both.begin(torchrun, [*FIT, "--trainer.default_root_dir", "whole"])
    assert both.end() == [0, 0], both.said()
    return digest(both.folder / "whole" / "version_0")


def go_on(machines: Machines, launch, root: str) -> str:
    """Go on to the end: the run's digest."""
    machines.begin(launch, [arg.format(root) for arg in ON])
    assert machines.end() == [0, 0], machines.said()
    assert machines.left() == []
    return digest(machines.folder / root / "version_0")


def test_a_signal_to_one_machine_stops_both(machines, whole):
    """SIGTERM reaches the first one's process in mid-run; torchrun says 1 where a process of its own was stopped."""
    machines.begin(torchrun, [*FIT, "--trainer.default_root_dir", "cut"], STOP="20")
    assert machines.end() == [1, 1], machines.said()
    assert machines.left() == [] and "stopped by SIGTERM" in machines.said()
    assert go_on(machines, torchrun, "cut") == whole


@pytest.mark.parametrize("rank", [0, 1])
def test_the_death_of_a_machine_ends_the_other_and_loses_nothing(machines, whole, rank):
    """Killed together with its torchrun in mid-run, as when the plug is pulled."""
    machines.begin(torchrun, [*FIT, "--trainer.default_root_dir", "cut"], DIE=f"{rank} 21")
    codes = machines.end()
    assert codes[rank] == -signal.SIGKILL and codes[1 - rank] > 0, machines.said()
    assert machines.left() == []
    assert go_on(machines, torchrun, "cut") == whole


SRUN = """#!/bin/bash
[ "$1" = litrl ] && shift
for rank in 0 1; do
    SLURM_PROCID=$rank SLURM_NODEID=$rank {python} -m lit_rl "$@" > machine$rank.log 2>&1 &
    pids[$rank]=$!
done
worst=0
for pid in ${{pids[@]}}; do wait $pid; code=$?; [ $code -gt $worst ] && worst=$code; done
exit $worst
"""
SLURM = {
    "NTASKS": "2", "NTASKS_PER_NODE": "1", "NNODES": "2", "LOCALID": "0", "JOB_ID": "70001", "JOB_NAME": "leduc",
    "NODELIST": "127.0.0.1",
}  # fmt: skip


def test_the_job_script_of_the_manual(tmp_path, whole):
    """Word by word, with a srun that starts two processes here, by SLURM's variables, and a scontrol that notes why.

    SIGUSR1, as `sbatch --signal=USR1@120` sends it, comes in mid-run: a checkpoint, exit code 138, back into the queue;
    the next time the script goes on.
    """
    script = (ROOT / "lit_rl" / "run" / "README.md").read_text().split("```\n#!/bin/bash\n")[1].split("```")[0]
    for name, text in (
        ("srun", SRUN.format(python=sys.executable)), ("scontrol", '#!/bin/bash\necho "$@" >> scontrol.log\n'),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    config = yaml.safe_load((ROOT / "configs" / "kuhn_ppo.yaml").read_text())
    config["data"]["init_args"]["num_envs"] = 64
    config["trainer"] |= {
        "accelerator": "cpu", "max_epochs": 40, "check_val_every_n_epoch": 9, "log_every_n_steps": 1,
        "enable_progress_bar": False,
    }  # fmt: skip
    own = [{"class_path": "LastCheckpoint", "init_args": {"every_seconds": 0.1}}, {"class_path": "trouble.Trouble"}]
    config["trainer"]["callbacks"] += own
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "leduc_ppo.yaml").write_text(yaml.safe_dump(config))

    def run(**environment: str) -> None:
        env = os.environ | {f"SLURM_{name}": value for name, value in SLURM.items()} | environment
        env |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        env |= {"OMP_NUM_THREADS": "1", "MASTER_PORT": str(free_port())}
        subprocess.run(["bash", "-c", script], cwd=tmp_path, env=env, timeout=240)

    run(STOP="20", STOP_WITH="SIGUSR1")
    log = (tmp_path / "machine0.log").read_text()
    assert "stopped by SIGUSR1; go on with: litrl fit --config" in log, log
    assert (tmp_path / "scontrol.log").read_text() == "requeue 70001\n"
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    run()
    assert (tmp_path / "scontrol.log").read_text() == "requeue 70001\n"
    assert digest(tmp_path / "runs" / "70001" / "version_0") == whole
