"""Evaluation jobs: exact and by matches; known answers, and a game without a tree judged all the same."""

from types import SimpleNamespace

import constants
import numpy as np
import pytest
import torch
from conftest import small_mlp
from simulator import INTERFACE, Simulator

from envs.game import load_game
from envs.jit import njit
from lit_rl.evaluation import (
    Exact,
    Ladder,
    Matches,
    elo_of,
    exact_metrics,
    open_evaluation,
    policy_table,
    table_step,
)
from lit_rl.league.match import games_of
from lit_rl.league.players import NetworkPlayer, player_table
from lit_rl.networks import MLP
from lit_rl.policy import MASKED, ActorCritic, PolicyOutput, mask_logits
from lit_rl.run.errors import ConfigError


class Always(ActorCritic):
    """The same logits everywhere."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, obs, legal, state=None):
        return PolicyOutput(mask_logits(self.logits.expand(len(obs), -1), legal), torch.zeros(len(obs)))


def test_exact_is_the_known_constant(kuhn):
    job = Exact()
    job.open(kuhn, 0, games_of(kuhn))
    assert job(Always([0.0, 0.0]))["eval/nash_conv"] == pytest.approx(11 / 12)
    assert job.yardsticks()["uniform policy"] == pytest.approx(11 / 12)
    assert job.yardsticks()["CFR+ (tabular)"] < 0.01
    (line, *_) = job.lines(job(Always([0.0, 0.0])))
    assert line.startswith("NashConv        0.916667")


def test_matches_agree_with_the_exact_return(kuhn):
    """Always bet against the random player: mean over the seats of the exact return, within four standard errors."""
    exact, job = Exact(), Matches(["random"], games=40_000)
    for each in (exact, job):
        each.open(kuhn, 7, games_of(kuhn))
    bets, table = Always([MASKED, 0.0]), exact.tree.uniform_policy()
    returns = []
    for p in range(2):
        mixed = np.where((exact.tree.row_player == p)[:, None], [0.0, 1.0], table)
        returns.append(exact.tree.evaluate(mixed).returns[p])
    metrics = job(bets)
    low, high = job.matches["sampled"]["random"].return_interval(z=4.0)
    assert low < np.mean(returns) < high and high - low < 0.15
    assert metrics["eval/return/mean"] == metrics["eval/return/random"] == metrics["eval/return/worst"]
    assert job(bets) == metrics  # the same deals each time
    assert "random" in job.lines(metrics)[0] and job.summary(metrics)["against"]["random"]["games"] == 40_000


def test_matches_of_a_simulator_are_slow(kuhn):
    """So they are played beside training; those of compiled rules are over at once."""
    for game, make_env, slow in ((kuhn, games_of(kuhn), False), (INTERFACE, Simulator, True)):
        job = Matches(["random"], games=10)
        job.open(game, 7, make_env)
        assert job.slow is slow


@njit
def scissors(obs, legal, probs):
    probs[2] = 1.0


SCISSORS = "test_evaluation.scissors"


def test_greedy_play_is_the_argmax(capsys, tmp_path):
    """Rock, but only a little likelier than the rest, against a player of scissors alone: greedy play wins every game
    by three, sampled play as often as it takes rock; scissors against scissors is a draw."""
    game = load_game("envs.biased_rps")
    policy = Always([0.5, 0.0, 0.0])
    job = Matches([SCISSORS], games=4000, metric="win_rate", play=["sampled", "greedy"])
    job.open(game, 3, games_of(game))
    metrics = job(policy)
    assert set(metrics) == job.metrics(game) and job.headline == "eval/win_rate/worst"
    for name in ("scissors", "mean", "worst"):
        assert metrics[f"eval/greedy/win_rate/{name}"] == 1.0 and metrics[f"eval/greedy/return/{name}"] == 3.0
    rock = np.exp(0.5) / (2 + np.exp(0.5))
    low, high = job.matches["sampled"]["scissors"].win_interval(z=4.0)
    assert low < rock + (1 - rock) / 2 / 2 < high
    low, high = job.matches["sampled"]["scissors"].return_interval(z=4.0)
    assert low < 3 * rock - (1 - rock) / 2 < high
    summary = job.summary(metrics)
    assert summary["win_rate"] == metrics["eval/win_rate/scissors"] < 0.8
    assert summary["greedy"]["win_rate"] == summary["greedy"]["worst_win_rate"] == 1.0
    assert summary["greedy"]["against"]["scissors"]["games"] == 4000
    low, high = summary["greedy"]["against"]["scissors"]["win_rate_interval"]
    assert low == pytest.approx(4000 / (4000 + 1.96**2)) and high == pytest.approx(1.0)  # Wilson's, of 4,000 of 4,000
    header, line, mean, worst = job.lines(metrics)
    assert header.split()[-2:] == ["sampled", "greedy"] and "1.000 [0.999, 1.000]    +3.000" in line
    assert mean.split()[0] == "mean" and worst.split()[0] == "worst" and mean.split()[1:] == worst.split()[1:]
    assert job.draw("biased_rps", tmp_path / "matches.png")
    assert (tmp_path / "matches.png").read_bytes().startswith(b"\x89PNG")


def test_greedy_play_agrees_with_the_exact_return(kuhn):
    """Argmax always bets: the exact return of that table, not of the softmax; with merged rows the same."""
    exact, job = Exact(), Matches(["random"], games=40_000, play=["greedy"])
    for each in (exact, job):
        each.open(kuhn, 7, games_of(kuhn))
    policy, table = Always([0.0, 0.1]), exact.tree.uniform_policy()
    expected = [
        exact.tree.evaluate(np.where((exact.tree.row_player == p)[:, None], [0.0, 1.0], table)).returns[p]
        for p in range(2)
    ]
    metrics = job(policy)
    low, high = job.matches["greedy"]["random"].return_interval(z=4.0)
    assert low < np.mean(expected) < high and high - low < 0.15
    assert job.headline == "eval/greedy/return/worst" and job.headline in metrics
    assert not any(name.startswith("eval/return") for name in metrics)
    assert "greedy: mean win rate" in job.lines(metrics)[-1] and set(job.summary(metrics)) == {"greedy"}
    for merge_rows in (False, True):
        probs = player_table(NetworkPlayer(policy, merge_rows=merge_rows, greedy=True), exact.tree)
        assert (probs == [0.0, 1.0]).all()


def test_sampled_alone_is_what_it_was(kuhn):
    """The other way to play costs nothing and changes nothing where it is not asked for."""
    alone, both = Matches(["random"], games=100), Matches(["random"], games=100, play=["sampled", "greedy"])
    for job in (alone, both):
        job.open(kuhn, 0, games_of(kuhn))
    metrics, more = alone(Always([0.3, 0.0])), both(Always([0.3, 0.0]))
    assert list(alone.matches) == ["sampled"] and not any("greedy" in name for name in metrics)
    assert {name: more[name] for name in metrics} == metrics
    assert {name for name in more if name not in metrics} == {name.replace("eval/", "eval/greedy/") for name in metrics}


def test_the_worst_and_the_mean_of_several(leduc):
    job = Matches(["random", "envs.leduc_heuristics.always_call"], games=400, metric="return")
    job.open(leduc, 0, games_of(leduc))
    policy = small_mlp(leduc)
    policy.train()
    metrics = job(policy)
    returns = [metrics["eval/return/random"], metrics["eval/return/always_call"]]
    assert metrics[job.headline] == min(returns) and metrics["eval/return/mean"] == pytest.approx(np.mean(returns))
    assert policy.training  # its mode stays


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Matches([]), "needs opponents"),
        (lambda: Matches(["random"], games=0), "games=0"),
        (lambda: Matches(["random"], metric="elo"), "metric='elo'"),
        (lambda: Matches(["random"], play=["loud"]), r"play=\['loud'\]: use \[sampled\]"),
        (lambda: Matches(["random"], play=["greedy", "greedy"]), "play="),
        (lambda: Matches(["random"], play=[]), "play="),
        (lambda: Exact(max_nodes=0), "max_nodes=0"),
    ],
)
def test_bad_input(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


def test_too_large_to_be_exact(leduc):
    """By default a fit goes on unjudged and says so; who asked for it, or has nothing else to do, is refused."""
    with pytest.raises(ConfigError, match=r"data\.evaluation: .*max_bytes=100.*raise max_seconds or max_bytes"):
        open_evaluation([Exact(max_nodes=100, max_bytes=100)], leduc, 0, games_of(leduc), needed=False)
    assert open_evaluation([], leduc, 0, games_of(leduc), needed=True) == []


def test_exact_without_a_tree(leduc, leduc_tree, capsys):
    """The same numbers, by another way; what needs a tree says so."""
    policy = MLP(leduc, hidden=(8,))
    (job,) = open_evaluation([Exact(max_nodes=100)], leduc, 0, games_of(leduc), needed=True)
    assert job.tree is None and "936 infosets" in capsys.readouterr().out
    metrics, expected = job(policy), exact_metrics(policy, leduc_tree)
    assert metrics == pytest.approx(expected, abs=1e-9)
    assert job.yardsticks() == {"uniform policy": pytest.approx(constants.LEDUC_UNIFORM_NASH_CONV)}
    assert "uniform policy 4.747222" in job.lines(metrics)[0]
    module = SimpleNamespace(export_policy=lambda: policy)
    table, expected = table_step(module, job, 0).numpy(), policy_table(policy, leduc_tree)
    assert sorted(map(tuple, table.round(6))) == sorted(map(tuple, expected.round(6)))
    assert job.seconds["forward"] > 0 and job.seconds["sums"] > 0 and not job.slow


def test_a_table_has_an_end(leduc, monkeypatch):
    monkeypatch.setattr("lit_rl.evaluation.LONGEST_TABLE", 900)
    (job,) = open_evaluation([Exact()], leduc, 0, games_of(leduc), needed=True)
    with pytest.raises(ConfigError, match="predict: leduc_poker has 936 infostates, and a table has 900 at most"):
        table_step(None, job, 0)


def test_trained_and_judged_without_a_tree(make_fit, tmp_path):
    """One config for a game without a tree: matches are validated, drive the best checkpoint and fill the curve."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    best = ModelCheckpoint(tmp_path, monitor="eval/win_rate/worst", mode="max", filename="best")
    trainer, model, data = make_fit(
        data={"evaluation": [Matches(["random"], games=100)]}, callbacks=[best], enable_checkpointing=True
    )
    trainer.fit(model, data)
    assert data.tree is None
    assert float(trainer.callback_metrics["eval/win_rate/worst"]) == pytest.approx(
        float(best.best_model_score), abs=0.5
    )
    assert (tmp_path / "best.ckpt").exists()
    (metrics,) = trainer.validate(model, data, verbose=False)
    assert metrics["eval/win_rate/mean"] == pytest.approx(float(trainer.callback_metrics["eval/win_rate/mean"]))


def test_opponents_that_cannot_be_told_apart(kuhn):
    with pytest.raises(ConfigError, match=r"\['random'\] cannot be told apart by name"):
        open_evaluation(
            [Matches(["random", "envs.heuristics.uniform", "random"])], kuhn, 0, games_of(kuhn), needed=True
        )
    with pytest.raises(ConfigError, match="Matches is listed twice"):
        open_evaluation([Matches(["random"]), Matches(["random"])], kuhn, 0, games_of(kuhn), needed=True)


def test_elo_over_a_ladder():
    """Against one rung Elo's formula turned round, half a game apart; among equals their rating; a point for a win."""
    assert elo_of([(0.75, 1e9)], [100.0]) == pytest.approx(100 + 400 * np.log10(3), abs=1e-3)
    assert elo_of([(0.5, 10), (0.5, 10)], [300.0, 300.0]) == pytest.approx(300)
    assert elo_of([(0.9, 200), (0.5, 200), (0.1, 200)], [0.0, 400.0, 800.0]) == pytest.approx(400)
    finite = elo_of([(1.0, 200), (1.0, 200)], [0.0, 600.0])
    assert elo_of([(1.0, 200), (0.99, 200)], [0.0, 600.0]) < finite < 4600


def test_a_ladder_measures(kuhn):
    job = Ladder(["random"], [50.0], games=2000)
    job.open(kuhn, 3, games_of(kuhn))
    metrics = job(Always([0.0, 0.0]))
    assert metrics.keys() == job.metrics(kuhn) and metrics["eval/elo"] == pytest.approx(50, abs=60)
    assert job.summary(metrics)["elo"] == {"sampled": metrics["eval/elo"]} and job.yardsticks() == {"random": 50.0}
    both = Ladder(["random"], [50.0], games=2000, play=["sampled", "greedy"])
    both.open(kuhn, 3, games_of(kuhn))
    metrics = both(Always([0.0, 0.1]))
    assert metrics.keys() == both.metrics(kuhn) and metrics["eval/greedy/elo"] != metrics["eval/elo"]
    assert "sampled" in both.lines(metrics)[-1] and "greedy; the rungs have [50.0]" in both.lines(metrics)[-1]
    for ratings in ([], [1.0, 2.0], [float("nan")]):
        with pytest.raises(ConfigError, match="Ladder needs a finite one for each opponent"):
            Ladder(["random"], ratings)
