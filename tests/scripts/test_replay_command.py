"""The command litrl-replay: what it verifies and shows, and what it refuses of strangers' files."""

import sys
import warnings
from pathlib import Path

import pytest
import torch
from replays import forge

from lit_rl.cli import main as litrl
from scripts.replay import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def litrl_replay(capsys, monkeypatch, tmp_path):
    """Run the command in this process from an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*args):
        code = 0
        try:
            main([str(a) for a in args])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """What `litrl fit` leaves behind with Replay in its config."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "o.yaml").write_text("trainer: {callbacks+: [{class_path: Replay, init_args: {every: 1, games: 3}}]}\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        litrl(
            ["fit", "--config", str(ROOT / "configs/kuhn_ppo.yaml"), "--config", str(folder / "o.yaml"),
             "--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=3", "--trainer.accelerator=cpu",
             "--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={folder}"]
        )  # fmt: skip
    return folder / "version_0"


def test_verify_and_show(litrl_replay, run_folder, tmp_path):
    file, last = run_folder / "replay.jsonl", run_folder / "checkpoints/last.ckpt"
    code, out, err = litrl_replay("verify", file, "--ckpt_path", last)
    assert code == 0, err
    assert "ok, 12 games" in out and "by these weights: 3 games" in out and "other weights or precision: 9 games" in out
    code, out, _ = litrl_replay("show", file, "--game", 11)
    assert code == 0 and "game 11 | iteration 3" in out and "cards" in out and "rewards" in out
    code, _, err = litrl_replay("show", file, "--game", 12)
    assert code == 2 and "holds 12 games" in err
    code, _, err = litrl_replay("verify", "nowhere")
    assert code == 2 and "no such file" in err
    assert litrl_replay("verify")[0] == 2


def test_a_poisoned_checkpoint_is_named_with_the_line(litrl_replay, run_folder, tmp_path):
    file = run_folder / "replay.jsonl"
    checkpoint = torch.load(run_folder / "checkpoints/last.ckpt", weights_only=True)
    checkpoint["state_dict"]["policy.policy_head.bias"][0] += 1e-3
    torch.save(checkpoint, "poisoned.ckpt")
    code, out, err = litrl_replay("verify", file, "--ckpt_path", "poisoned.ckpt")
    assert code == 3 and not out and err.count("\n") == 1
    assert "error[3]" in err and "line 11: logits are off by 0.001" in err  # the first of the closing games
    checkpoint["state_dict"]["policy.policy_head.bias"][0] -= 1e-3
    checkpoint["state_dict"]["policy.policy_head.bias"][0] += 1e-9  # too little for the logits to tell
    checkpoint["callbacks"]["Replay"]["weights"] = "0" * 64
    torch.save(checkpoint, "odd.ckpt")
    code, out, err = litrl_replay("verify", file, "--ckpt_path", "odd.ckpt")
    assert code == 3 and "not those it was saved with" in err


def test_strangers_files_run_no_code(litrl_replay, run_folder, tmp_path):
    Path("evil.py").write_text("raise SystemExit('evil code ran')\n")
    Path("r.jsonl").write_bytes((run_folder / "replay.jsonl").read_bytes())
    forge(Path("r.jsonl"), lambda header: header.update(game="evil"), line=1)
    code, _, err = litrl_replay("verify", "r.jsonl")
    assert code == 3 and "names evil, code that is not ours; if you trust it, say --allow" in err
    checkpoint = torch.load(run_folder / "checkpoints/last.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["network"]["class_path"] = "evil.Net"
    torch.save(checkpoint, "evil.ckpt")
    for name, words in (("evil.ckpt", "names evil.Net"), ("r.jsonl", "checkpoint r.jsonl: is none")):
        code, _, err = litrl_replay("verify", run_folder / "replay.jsonl", "--ckpt_path", name)
        assert code == 3 and words in err and "Traceback" not in err
    (tmp_path / "mine.py").write_text("from envs.kuhn_poker import GAME\n")
    forge(Path("r.jsonl"), lambda header: header.update(game="mine"), line=1)
    assert litrl_replay("verify", "r.jsonl", "--allow", "mine")[0] == 0
    sys.modules.pop("mine")
    (tmp_path / "there").mkdir()
    (tmp_path / "mine.py").rename(tmp_path / "there" / "mine.py")
    code, _, err = litrl_replay("verify", "r.jsonl", "--allow", "mine")
    assert code == 3 and "start in the folder that holds it, or say --code <folder>" in err.splitlines()[-1]
    assert litrl_replay("verify", "r.jsonl", "--allow", "mine", "--code", "there")[0] == 0
    assert litrl_replay("verify", "r.jsonl", "--allow", "mine", "--code", "nowhere")[0] == 2
    sys.modules.pop("mine")


def test_checkpoints_of_strangers_name_no_code_in_any_way(litrl_replay, run_folder, tmp_path):
    Path("evil.py").write_text("open('mark', 'w')\n")
    network = {"class_path": "lit_rl.networks.MLP", "init_args": {"hidden": [30_000, 30_000]}}
    for change, words in (
        ({"network": {"class_path": "evil.Net"}}, "names evil.Net"),
        ({"network": {"class_path": "lit_rl.networks.MLP", "init_args": {"activation": "evil.f"}}}, "names evil.f"),
        ({"network": "evil.Net"}, "names evil.Net"),
        ({"network": '{"class_path": "evil.Net"}'}, "names evil.Net"),
        ({"network": '{"class_path": "\\x65vil.Net"}'}, "too long, or holds a backslash"),
        ({"network": network}, "its weights are of another"),
    ):
        checkpoint = torch.load(run_folder / "checkpoints/last.ckpt", weights_only=True)
        checkpoint["hyper_parameters"] |= change
        torch.save(checkpoint, "c.ckpt")
        code, _, err = litrl_replay("verify", run_folder / "replay.jsonl", "--ckpt_path", "c.ckpt")
        assert code == 3 and words in err, err
    assert not Path("mark").exists()


@pytest.mark.parametrize(
    "part",
    [
        "{class_path: os.system, init_args: {command: touch ran}}",
        {"class_path": "lit_rl.run.checkpoint_io.os.system", "init_args": {"command": "touch ran"}},
        {"class_path": "lit_rl.run.checkpoint_files.replace_file", "init_args": {"path": "ran", "content": "x"}},
        "evil.yaml",
        ["lit_rl.networks.MLP"],
    ],
)
def test_nothing_in_a_checkpoint_is_called_but_a_network(litrl_replay, run_folder, part):
    Path("evil.yaml").write_text("class_path: os.system\ninit_args: {command: touch ran}\n")
    checkpoint = torch.load(run_folder / "checkpoints/last.ckpt", weights_only=True)
    for name in ("network", "optimizer", "lr_schedule", "game"):
        changed = checkpoint | {"hyper_parameters": checkpoint["hyper_parameters"] | {name: part}}
        torch.save(changed, "evil.ckpt")
        code, _, err = litrl_replay("verify", run_folder / "replay.jsonl", "--ckpt_path", "evil.ckpt")
        assert not Path("ran").exists() and "Traceback" not in err
        assert code == (3 if name == "network" else 0), (name, err)
