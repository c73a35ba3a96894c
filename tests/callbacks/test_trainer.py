"""The Trainer of Python: what the command line leaves and shows, and nothing else."""

import json
import os
import signal
import threading
import warnings
from functools import partial

import lightning as L
import pytest
import torch

from callbacks.replay import Replay
from callbacks.run_summary import RunSummary
from callbacks.throughput import Throughput
from callbacks.trainer import ALWAYS, Trainer, always_on, own_loggers, with_whole_checkpoints
from datamodules.self_play import SelfPlayDataModule
from lit_rl.league.game_policy import save_policy
from lit_rl.networks import MLP
from lit_rl.ppo import PPO
from lit_rl.run.checkpoint_io import VerifiedCheckpointIO
from lit_rl.run.errors import ArtefactError, ConfigError
from scripts.replay import main as replay


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Build (trainer, model, data) of a short run in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def build(**options):
        model = PPO("envs.kuhn_poker", network=partial(MLP, hidden=(32,)))
        data = SelfPlayDataModule("envs.kuhn_poker", num_envs=16, num_steps=8)
        return Trainer(**{"max_epochs": 3, "accelerator": "cpu"} | options), model, data

    return build


def test_a_run_from_python_leaves_its_folder_and_says_nothing_else(parts, tmp_path, capfd):
    trainer, model, data = parts()
    assert trainer.run_folder is None and list(tmp_path.iterdir()) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.fit(model, data)
    folder = tmp_path / "runs" / "version_0"
    assert trainer.run_folder.absolute() == folder
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints", "learning_curve.png", "lock", "metrics.csv", "status.json", "summary.json",
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    said = capfd.readouterr()
    assert said.err == ""
    assert 'lit_rl.load_policy("runs/version_0/checkpoints/last.ckpt")' in said.out and "litrl" not in said.out
    nash_conv = json.loads((folder / "summary.json").read_text())["nash_conv"]
    assert f"NashConv        {nash_conv:.6f}" in said.out
    assert trainer.validate(model, data)[0]["eval/nash_conv"] == pytest.approx(nash_conv, abs=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trainer.test(model, data)[0]["eval/nash_conv"] == pytest.approx(nash_conv, abs=1e-6)
        assert trainer.predict(model, data)[0].shape == (12, 2)
    said = capfd.readouterr()
    assert said.out.count(f"NashConv        {nash_conv:.6f}") == 2 and "policy of 12 infostates" in said.out
    assert said.err == ""


def test_a_trainer_has_one_run(parts):
    trainer, model, data = parts(max_epochs=1)
    trainer.fit(model, data)
    with pytest.raises(ConfigError, match=r"has had its run \(.*version_0\); make a new one"):
        trainer.fit(model, data)


def test_mistakes_are_told_before_anything_is_written(parts, tmp_path):
    trainer, model, data = parts()
    with pytest.raises(ConfigError, match="the model plays kuhn_poker, the datamodule leduc_poker; give both the same"):
        trainer.fit(model, SelfPlayDataModule("envs.leduc_poker"))
    with pytest.raises(ConfigError, match=r"needs a datamodule such as SelfPlayDataModule\(game\), got a NoneType"):
        trainer.fit(model, None)
    save_policy(model, tmp_path / "policy.pt")
    for path, why in (("none.ckpt", "no such file"), ("policy.pt", "is no checkpoint of a run")):
        for use in (trainer.fit, trainer.validate):
            with pytest.raises(ArtefactError, match=why):
                use(model, data, ckpt_path=path)
    assert [path.name for path in tmp_path.iterdir()] == ["policy.pt"]


@pytest.mark.parametrize(("variable", "threads", "expected"), [(None, None, 1), ("3", None, 2), (None, 3, 3)])
def test_torch_has_as_many_threads_as_asked_for_and_its_own_again(parts, monkeypatch, variable, threads, expected):
    """OMP_NUM_THREADS has told torch already, so what torch has then stays."""
    seen = []

    class Look(L.Callback):
        def on_train_start(self, trainer, pl_module):
            seen.append(torch.get_num_threads())

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    torch.set_num_threads(2)
    trainer, model, data = parts(max_epochs=1, logger=False, threads=threads, callbacks=[Look()])
    trainer.fit(model, data)
    assert seen == [expected] and torch.get_num_threads() == 2
    with pytest.raises(ConfigError, match="threads=0: needs at least 1"):
        Trainer(threads=0)


def test_a_second_trainer_goes_on_from_the_checkpoint_of_the_first(parts):
    first, model, data = parts(max_epochs=2)
    first.fit(model, data)
    second, again, data = parts(max_epochs=4)
    second.fit(again, data, ckpt_path=first.run_folder / "checkpoints" / "last.ckpt")
    straight, whole, data = parts(max_epochs=4)
    straight.fit(whole, data)
    assert second.run_folder.name == "version_1" and int(again.decisions) == int(whole.decisions)
    assert not torch.equal(model.policy.policy_head.weight, again.policy.policy_head.weight)


def test_games_of_a_run_from_python_are_verified_with_its_weights(parts, capsys):
    trainer, model, data = parts(callbacks=[Replay(every=1, games=2)])
    trainer.fit(model, data)
    folder = trainer.run_folder
    replay(["verify", str(folder / "replay.jsonl"), "--ckpt_path", str(folder / "checkpoints" / "last.ckpt")])
    assert "error of logits 0.00e+00, of values 0.00e+00" in capsys.readouterr().out


def test_without_a_logger_there_is_no_folder(parts, tmp_path, capsys):
    trainer, model, data = parts(logger=False)
    trainer.fit(model, data)
    assert trainer.run_folder is None and list(tmp_path.iterdir()) == []
    assert "NashConv" in capsys.readouterr().out


def test_ctrl_c_saves_and_comes_out_as_a_keyboard_interrupt(parts):
    class Interrupt(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.current_epoch == 1:
                os.kill(os.getpid(), signal.SIGINT)

    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    trainer, model, data = parts(callbacks=Interrupt(), max_epochs=50)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(model, data)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
    status = json.loads((trainer.run_folder / "status.json").read_text())
    assert status["state"] == "stopped" and (trainer.run_folder / "checkpoints" / "last.ckpt").exists()


def test_a_run_may_be_in_another_thread(parts):
    """Where nobody can take over signals."""
    trainer, model, data = parts(max_epochs=1)
    errors = []

    def fit():
        try:
            trainer.fit(model, data)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=fit)
    thread.start()
    thread.join()
    assert errors == [] and (trainer.run_folder / "summary.json").exists()


def test_a_callback_of_the_user_takes_the_place_of_ours():
    mine = RunSummary(plot=False)
    kinds = [type(callback) for callback in always_on([mine], checkpoints=True, bar=True)]
    assert kinds == [kind for kind in ALWAYS if kind is not RunSummary]
    names = {kind.__name__ for kind in ALWAYS} - {"LastCheckpoint", "RunProgress"}
    assert {type(callback).__name__ for callback in always_on(None, checkpoints=False, bar=False)} == names
    assert Throughput in ALWAYS


def test_loggers_and_plugins_of_the_user_stay(tmp_path):
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    from lit_rl.run.run_folder import RunTensorBoard

    board = TensorBoardLogger(tmp_path)
    assert own_loggers(board, None) == own_loggers([CSVLogger(tmp_path), board], tmp_path) == [board]
    assert own_loggers(True, tmp_path) == own_loggers(None, None) == []
    beside = RunTensorBoard()
    assert own_loggers(beside, None) == [] and own_loggers(beside, tmp_path) == [beside]
    assert beside.log_dir == str(tmp_path / "tensorboard")
    mine = VerifiedCheckpointIO()
    assert with_whole_checkpoints([mine]) == with_whole_checkpoints(mine) == [mine]
    assert [type(plugin) for plugin in with_whole_checkpoints(None)] == [VerifiedCheckpointIO]
