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


def srun(rank: int, port: int) -> tuple[list[str], dict]:
    """What `srun litrl` starts on each machine: the command itself, and what SLURM says in its environment."""
    slurm = {
        "NTASKS": "2", "NTASKS_PER_NODE": "1", "NNODES": "2", "PROCID": str(rank), "LOCALID": "0", "NODEID": str(rank),
        "JOB_ID": "70001", "JOB_NAME": "leduc", "NODELIST": "127.0.0.1",
    }  # fmt: skip
    return [sys.executable, "-m", "lit_rl"], {f"SLURM_{k}": v for k, v in slurm.items()} | {"MASTER_PORT": str(port)}


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


def test_slurm_asks_to_stop_before_it_requeues(machines, whole):
    """SIGUSR1, as `sbatch --signal=USR1@120` sends it to every process: a checkpoint at the border, exit code 138."""
    machines.begin(srun, [*FIT, "--trainer.default_root_dir", "cut"], STOP="20", STOP_WITH="SIGUSR1")
    assert machines.end() == [138, 138], machines.said()
    assert machines.left() == [] and not list(machines.folder.rglob("hpc_ckpt*"))
    assert "stopped by SIGUSR1; go on with: litrl fit --config" in machines.logs[0].read_text()
    assert go_on(machines, srun, "cut") == whole
