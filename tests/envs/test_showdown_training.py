"""The configs of Pokémon Showdown train: imitation, PPO, R-NaD with exploiters and memory; skipped without Node."""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_showdown import alive, needs_showdown

ENCODER = "{class_path: envs.showdown.network.Embeddings, init_args: {width: 8, embedding: 4}}"
SMALL = (
    "--data.num_envs", "4", "--data.num_steps", "40", "--data.num_hosts", "1", "--data.evaluation", "[]",
    "--trainer.max_epochs", "2", "--trainer.default_root_dir", "here", "--trainer.enable_progress_bar", "false",
    "--trainer.log_every_n_steps", "1",
)  # fmt: skip
MEMORY = (
    "--model.network", "{class_path: Recurrent, init_args: {memory: 8, encoder: " + ENCODER + "}}",
    "--model.minibatches.chunk_length", "16",
)  # fmt: skip
BODY = "{class_path: envs.showdown.network.Hinted, init_args: {width: 8, embedding: 4}}"
PLAIN = ("--model.network", "{class_path: Headed, init_args: {body: " + BODY + "}}")
FEW = ("--model.minibatches.num_minibatches", "1", "--model.minibatches.update_epochs", "1")


def folder(tmp_path):
    return tmp_path / "here" / "version_0"


def metrics(tmp_path):
    """Of each row of metrics.csv: name -> number."""
    names, *rows = [line.split(",") for line in (folder(tmp_path) / "metrics.csv").read_text().splitlines()]
    return [{name: float(x) for name, x in zip(names, row) if x} for row in rows]


@needs_showdown
@pytest.mark.filterwarnings("ignore")
def test_an_imitator_trains_and_ppo_begins_as_it(command, tmp_path):
    code, _, err = command("fit", "--config", "vgc_imitation", *SMALL, *PLAIN, *FEW)
    assert code == 0, err
    assert 0 <= metrics(tmp_path)[-1]["train/agreement"] <= 1
    imitator = tmp_path / "imitator.ckpt"
    (folder(tmp_path) / "checkpoints" / "last.ckpt").rename(imitator)
    (tmp_path / "here").rename(tmp_path / "before")
    start = ("--trainer.callbacks+=StartFrom", "--trainer.callbacks.policy", str(imitator))
    code, _, err = command(
        "fit", "--config", "vgc_ppo", *SMALL, *PLAIN, *FEW, "--model.credit.cut_games", "bootstrap", *start
    )
    assert code == 0, err
    assert "train/policy_loss" in metrics(tmp_path)[-1]


@needs_showdown
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("network", [PLAIN, MEMORY], ids=["plain", "memory"])
def test_rnad_trains_with_references_a_past_and_an_exploiter(command, tmp_path, network):
    exploiter = tmp_path / "exploiter.yaml"
    text = (Path(__file__).parents[2] / "configs" / "vgc_exploiter.yaml").read_text()
    theirs = "{class_path: Headed, init_args: {body: envs.showdown.network.Hinted}}"
    assert theirs in text
    exploiter.write_text(text.replace(theirs, network[1]))
    callbacks = json.dumps([
        {"class_path": "ExploiterSpawner", "init_args": {
            "config": str(exploiter), "every": 2, "mode": "inline", "games": 2, "threshold": -1.0,
            "arguments": ["--trainer.max_epochs=1", "--data.num_envs=2", "--data.num_steps=40", "--data.num_hosts=1",
                          "--model.minibatches.num_minibatches=1", "--model.credit.cut_games=bootstrap"]}},
        {"class_path": "Snapshot", "init_args": {"every": 1}},
    ])  # fmt: skip
    portfolio = "{class_path: lit_rl.references.Portfolio, init_args: {capacity: 2, add_every: 1, drop: best}}"
    code, _, err = command(
        "fit", "--config", "vgc_rnad", *SMALL, *network, *FEW, "--model.reference", portfolio,
        "--model.credit.cut_games", "bootstrap", "--data.refresh_every", "1", "--trainer.callbacks", callbacks,
    )  # fmt: skip
    assert code == 0, err
    last = metrics(tmp_path)[-1]
    assert last["reference/size"] == 2 and last["train/reference_kl"] >= 0
    (verdict,) = (folder(tmp_path) / "exploiters").glob("*/version_0/verdict.json")
    assert json.loads(verdict.read_text())["games"] == 2
    assert last["league/exploiters_registered"] + last["league/exploiters_rejected"] == 1


def children(pid):
    """Processes whose parent is `pid`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


@needs_showdown
def test_no_host_outlives_a_run_that_is_killed(tmp_path):
    words = (*SMALL, *PLAIN, *FEW, "--model.credit.cut_games", "bootstrap", "--data.num_hosts", "2")
    command = [sys.executable, "-m", "lit_rl", "fit", "--config", "vgc_ppo", *words, "--trainer.max_epochs", "1000"]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end, hosts = time.monotonic() + 120, []
        while len(hosts) < 2 or not (folder(tmp_path) / "metrics.csv").exists():
            assert run.poll() is None and time.monotonic() < end
            time.sleep(0.2)
            hosts = children(run.pid)
    finally:
        run.kill()
        run.wait()
    while any(map(alive, hosts)):
        assert time.monotonic() < end + 10, hosts
        time.sleep(0.1)
