"""The callback Replay: recording leaves the training as it is, and a resumed run writes the same file."""

import os

import lightning as L
import pytest
import torch

from callbacks.replay import Replay
from lit_rl.networks import MLP
from lit_rl.run.errors import ArtefactError, ConfigError
from lit_rl.run.replay import verify
from lit_rl.run.replay_file import read


class Stop(Exception):
    pass


class SaveAndDie(L.Callback):
    """Saves in mid-iteration and stops the run at (iteration, batch) `die`."""

    def __init__(self, path, iteration, die):
        self.path, self.iteration, self.die = path, iteration, die

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (self.iteration, 5):
            trainer.save_checkpoint(self.path)
        if (trainer.current_epoch, batch_idx) == self.die:
            raise Stop


class Telling(MLP):
    """A policy that gives the rollout something to keep."""

    def forward(self, obs, legal, state=None):
        output = super().forward(obs, legal)
        return output._replace(extras={"twice": 2 * output.value})


def test_recording_leaves_the_training_as_it_is(make_fit):
    weights = []
    for callbacks in ([], [Replay(every=1, games=50)]):
        torch.manual_seed(1)
        trainer, model, data = make_fit(callbacks=callbacks)
        trainer.fit(model, data)
        weights.append(torch.cat([p.detach().flatten() for p in model.policy.parameters()]))
    assert torch.equal(*weights)
    assert (
        float(trainer.callback_metrics["replay/games"]) == 150
        and float(trainer.callback_metrics["replay/dropped"]) == 0
    )
    report = verify(callbacks[0].path, data.game, model.policy)
    assert report.games == 200 and report.games_of_weights == 50  # those of the end


def test_a_checkpoint_verifies_the_games_that_follow_it(make_fit, tmp_path):
    """A checkpoint at the end of iteration 0 holds the weights that play iteration 1."""
    keep = L.pytorch.callbacks.ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    replay = Replay(every=1, games=20)
    options = {"sampling_temperature": 2.0, "network": Telling}
    trainer, model, data = make_fit(options, callbacks=[replay, keep], enable_checkpointing=True)
    trainer.fit(model, data)
    checkpoint = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)
    model.load_state_dict(checkpoint["state_dict"])
    report = verify(replay.path, data.game, model.policy)
    played = [r for n, r in read(replay.path) if n > 1 and r["iteration"] == 1]
    assert report.games_of_weights == len(played) == 20
    assert checkpoint["callbacks"]["Replay"]["weights"] == played[0]["weights"]
    assert report.decisions_of_weights == sum(len(r["moves"]) - r["carried"] for r in played)
    assert all(m["extras"]["twice"] == 2 * m["value"] for r in played for m in r["moves"])


@pytest.mark.parametrize("at", [1, 2])
def test_a_resumed_run_writes_the_same_file(make_fit, tmp_path, at):
    """Killed two iterations after its checkpoint and resumed: bit by bit the file of a run that was left alone."""
    files = []
    for name, die in (("whole", None), ("killed", (at + 2, 3))):
        torch.manual_seed(2)
        callbacks = [Replay(every=1, games=7), SaveAndDie(tmp_path / f"{name}.ckpt", at, die)]
        trainer, model, data = make_fit(max_epochs=6, callbacks=callbacks, default_root_dir=tmp_path / name)
        if die:
            with pytest.raises(Stop):
                trainer.fit(model, data)
            assert verify(callbacks[0].path, data.game).games == 7 * (at + 3)
            with callbacks[0].path.open("ab") as file:
                file.write(b'{"kind":"ga')  # a kill in mid-write
            torch.manual_seed(3)
            trainer, model, data = make_fit(
                max_epochs=6, callbacks=[Replay(every=1, games=7)], default_root_dir=tmp_path / name
            )
            trainer.fit(model, data, ckpt_path=tmp_path / f"{name}.ckpt")
        else:
            trainer.fit(model, data)
        files.append((tmp_path / name / "replay.jsonl").read_bytes())
    assert files[0] == files[1] and len(files[0].splitlines()) == 2 + 7 * 7


def test_a_finished_run_that_goes_on_drops_its_closing_games(make_fit, tmp_path):
    files = []
    for name, halves in (("whole", [4]), ("halves", [2, 4])):
        ckpt = None
        for epochs in halves:
            torch.manual_seed(4)
            trainer, model, data = make_fit(
                max_epochs=epochs, callbacks=[Replay(every=2, games=3)], default_root_dir=tmp_path / name
            )
            trainer.fit(model, data, ckpt_path=ckpt)
            ckpt = tmp_path / f"{name}.ckpt"
            trainer.save_checkpoint(ckpt)
        files.append((tmp_path / name / "replay.jsonl").read_bytes())
    assert files[0] == files[1]


def test_resume_in_another_folder_or_beside_a_strange_file(make_fit, tmp_path):
    trainer, model, data = make_fit(callbacks=[Replay(every=1)], max_epochs=2, default_root_dir=tmp_path / "a")
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")

    elsewhere = Replay(every=1)
    trainer, model, data = make_fit(callbacks=[elsewhere], max_epochs=4, default_root_dir=tmp_path / "b")
    trainer.fit(model, data, ckpt_path=tmp_path / "a.ckpt")
    (_, header), *games = read(elsewhere.path)
    assert header["continues"] and [g["iteration"] for _, g in games] == [2] * 4 + [3] * 4 + [4] * 4
    assert verify(elsewhere.path, data.game).games == 12

    (tmp_path / "a/replay.jsonl").write_bytes(elsewhere.path.read_bytes())
    trainer, model, data = make_fit(callbacks=[Replay(every=1)], max_epochs=4, default_root_dir=tmp_path / "a")
    with pytest.raises(ArtefactError, match="does not hold the 8 games that the checkpoint knows of"):
        trainer.fit(model, data, ckpt_path=tmp_path / "a.ckpt")
    trainer, model, data = make_fit({"network": MLP}, callbacks=[Replay()], default_root_dir=tmp_path / "a")
    with pytest.raises(ArtefactError, match="games of another run"):
        trainer.fit(model, data)


def test_a_full_disk_closes_the_replay_and_training_goes_on(make_fit, tmp_path, monkeypatch):
    """The disk takes 30 kB; a torn line is never left behind."""
    real = os.pwrite

    def full(fd, data, offset):
        room = 30_000 - offset
        if room <= 0:
            raise OSError(28, "No space left on device")
        return real(fd, data[:room], offset)

    monkeypatch.setattr(os, "pwrite", full)
    replay = Replay(every=1, games=30)
    trainer, model, data = make_fit(callbacks=[replay], max_epochs=5)
    with pytest.warns(UserWarning, match="closed after the last whole game.*No space"):
        trainer.fit(model, data)
    games = verify(replay.path, data.game).games
    assert trainer.current_epoch == 5 and 30 < games < 150 and 28_000 < replay.path.stat().st_size <= 30_000
    assert float(trainer.callback_metrics["replay/games"]) == games
    assert float(trainer.callback_metrics["replay/dropped"]) == 150 - games


def test_ranges():
    with pytest.raises(ConfigError, match="every=0"):
        Replay(every=0)
