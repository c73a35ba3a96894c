"""What MixLambda logs, saves and draws, on a PPO that only pretends to mix."""

import pytest
import torch
from conftest import small_mlp
from lightning.pytorch.loggers import CSVLogger

import callbacks.mix_lambda
from callbacks.mix_lambda import MixLambda, plot_mix_lambda, states_most_met
from lit_rl.armac.meta_regret import MetaRegret
from lit_rl.armac.mix_scheduler import MixStatistics
from lit_rl.armac.state_keys import TieredKeys
from lit_rl.ppo import PPO

BINS = (0.0, 0.25, 0.5, 0.75, 1.0)


class Mixing(PPO):
    """Player 0 plays bin 3, player 1 bin 0; regrets are those of one observation."""

    def __init__(self, off=False, **options):
        super().__init__("envs.kuhn_poker", network=small_mlp, **options)
        self.off = off
        self.state_keys = TieredKeys(self.game, facts="envs.kuhn_poker.betting")
        self.meta_regret = MetaRegret(BINS)

    def mix_statistics(self):
        rollout = self.trainer.train_dataloader.rollout
        new = slice(rollout.carried, None)  # those before it belong to the iteration before
        player = rollout.player[new].flatten().long()
        if self.off:
            return MixStatistics((0.25,), torch.full((len(player),), 0.25), torch.zeros_like(player))
        bin = torch.where(player == 0, 3, 0)
        key = self.state_keys(rollout.obs[new].flatten(0, 1), player)
        self.meta_regret.update(key, torch.tensor(BINS).expand(len(key), 5))
        table = self.meta_regret
        return MixStatistics(
            BINS, torch.tensor(BINS)[bin], bin, key, self.state_keys.describe, table.mean_regrets(), table.statistics()
        )


def fitted(make_fit, tmp_path, off=False, **trainer):
    watcher = MixLambda()
    trainer, _, data = make_fit(logger=CSVLogger(tmp_path), callbacks=[watcher], **trainer)
    trainer.fit(Mixing(off), data)
    return watcher, trainer


def test_what_is_logged(make_fit, tmp_path):
    watcher, trainer = fitted(make_fit, tmp_path)
    logged = {k.removeprefix("mix/"): float(v) for k, v in trainer.logged_metrics.items() if k.startswith("mix/")}
    share = logged["share/0.75"]
    assert 0.4 < share < 0.7 and logged["share/0"] == pytest.approx(1 - share)
    assert logged["share/0.25"] == logged["share/0.5"] == logged["share/1"] == 0
    assert logged["lambda_mean"] == pytest.approx(0.75 * share, abs=1e-6)
    assert logged["lambda_std"] == pytest.approx(0.75 * (share * (1 - share)) ** 0.5, abs=1e-6)
    regrets = [logged[f"regret/{b:g}"] for b in BINS]
    assert regrets == sorted(regrets) and regrets[-1] > 0
    assert logged["table/size"] == 4 and logged["table/misses"] == 4 and logged["table/evictions"] == 0
    assert logged["table/hits"] == 3 * 512 - 4 and logged["table/mean_age"] > 1400
    assert len(watcher._curve) == 3 and [p[0] for p in watcher._curve] == [512, 1024, 1536]
    assert {(words, mean) for words, _, mean in watcher._states} == {
        ("round 0, player 0, pot 5, stack 5", 0.75), ("round 0, player 0, pot 7, stack 5", 0.75),
        ("round 0, player 1, pot 5, stack 5", 0.0), ("round 0, player 1, pot 7, stack 5", 0.0),
    }  # fmt: skip
    assert sum(n for _, n, _ in watcher._states) == 512
    picture = tmp_path / "lightning_logs" / "version_0" / "mix_lambda.png"
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 20_000


def test_off_has_neither_table_nor_states(make_fit, tmp_path):
    watcher, trainer = fitted(make_fit, tmp_path, off=True)
    logged = {k: float(v) for k, v in trainer.logged_metrics.items() if k.startswith("mix/")}
    assert logged == {"mix/lambda_mean": 0.25, "mix/lambda_std": 0.0, "mix/share/0.25": 1.0}
    assert watcher._states == [] and (tmp_path / "lightning_logs" / "version_0" / "mix_lambda.png").exists()


def test_only_at_log_iterations(make_fit, tmp_path):
    watcher, _ = fitted(make_fit, tmp_path, max_epochs=6, log_every_n_steps=4)
    assert [p[0] / 512 for p in watcher._curve] == [1, 5, 6]


def test_it_goes_on_where_it_was(make_fit, tmp_path):
    watcher, _ = fitted(make_fit, tmp_path)
    torch.save(watcher.state_dict(), tmp_path / "callback.pt")
    other = MixLambda()
    other.load_state_dict(torch.load(tmp_path / "callback.pt", weights_only=True))
    assert other.state_dict() == watcher.state_dict() and other._curve


def test_the_curve_stays_short(make_fit, tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks.mix_lambda, "MOST_POINTS", 8)
    watcher, _ = fitted(make_fit, tmp_path, max_epochs=30)
    reached = [p[0] for p in watcher._curve]
    assert len(reached) <= 8 and reached[0] == 512 and reached == sorted(reached) and reached[-1] > 29 * 512 / 2


def test_states_by_number_of_decisions():
    key = torch.tensor([5, 7, 7, -2, 7, 5])
    mix_lambda = torch.tensor([1.0, 0.0, 0.5, 0.25, 1.0, 0.5])
    assert states_most_met(key, mix_lambda, "state {}".format) == [
        ("state 7", 3, 0.5), ("state 5", 2, 0.75), ("state -2", 1, 0.25)
    ]  # fmt: skip
    many = torch.arange(1000)
    assert len(states_most_met(many, torch.rand(1000), str)) == 24


def test_an_algorithm_that_does_not_mix_is_refused(make_fit):
    trainer, model, data = make_fit(callbacks=[MixLambda()])
    with pytest.raises(ValueError, match=r"PPO has no mix_statistics\(\): leave the callback out"):
        trainer.fit(model, data)


def test_a_picture_of_one_point(tmp_path):
    plot_mix_lambda([[512.0, 0.5, 0.1, 0.0, 1.0]], [], (0.0, 1.0), "one", tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 10_000
