"""ARMAC as a whole: runs, what they leave behind, and what is refused."""

import csv
import functools
import importlib
import json
import warnings
from pathlib import Path

import lightning as L
import pytest
import torch

from callbacks.finite_guard import plain
from callbacks.scalar_schedule import ScalarSchedule
from datamodules.self_play import SelfPlayDataModule
from lit_rl.armac.armac import ARMAC, Batch
from lit_rl.armac.critic_memory import LastTargets
from lit_rl.armac.memory import ReservoirMemory, RowMemory
from lit_rl.armac.meta_regret import MetaRegret
from lit_rl.armac.mix_scheduler import MixScheduler
from lit_rl.armac.mix_utility import Hybrid
from lit_rl.armac.parameter_groups import Groups, GroupSettings
from lit_rl.armac.rows import Samples
from lit_rl.run.errors import ConfigError
from lit_rl.schedules import Linear

ROOT = Path(__file__).parents[2]
FADING = ["--model.critic_memory", "lit_rl.armac.critic_memory.FadingTargets"]
PAST = ["--data", "RetrospectiveDataModule", "--data.past_policies"]
TIERED = ["--model.state_keys", "TieredKeys", "--model.state_keys.facts", "envs.kuhn_poker.betting"]
SCHEDULED = ["--model.use_scheduler", "true", "--model.scheduler", "MixScheduler"]


def short_run(tmp_path, *arguments, config="kuhn_armac", iterations=6):
    from lit_rl.cli import main

    main([
        "fit", "--config", str(ROOT / "configs" / f"{config}.yaml"), "--data.num_envs", "32", "--trainer.max_epochs",
        str(iterations), "--trainer.check_val_every_n_epoch", str(iterations), "--trainer.log_every_n_steps", "1",
        "--trainer.default_root_dir", str(tmp_path), "--trainer.enable_progress_bar", "false", *arguments,
    ])  # fmt: skip
    return tmp_path / "version_0"


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("mode", ["discrete", "continuous"])
def test_a_scheduled_run_leaves_its_traces(tmp_path, quiet, mode):
    """Shares in the log, the replay and the picture; the replay verifies against the checkpoint's policy."""
    run = short_run(
        tmp_path, *SCHEDULED, "--model.scheduler.mode", mode, "--model.scheduler.warmup_iterations", "2",
        "--trainer.callbacks+=MixLambda", "--trainer.callbacks+=Replay", "--trainer.callbacks.every", "5",
    )  # fmt: skip
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["mix/lambda_mean"]]
    means = [float(row["mix/lambda_mean"]) for row in rows]
    assert means[0] == means[1] == 0.5 and len(set(means)) > 2  # warm-up, then its own choice
    assert (run / "mix_lambda.png").stat().st_size > 10_000
    games = [json.loads(line) for line in (run / "replay.jsonl").read_text().splitlines()][1:]
    extras = [move["extras"] for game in games for move in game.get("moves", ())]
    assert len(extras) > 20
    assert {0.0, 0.25, 0.5, 0.75, 1.0} >= {e["mix_lambda"] for e in extras} or mode == "continuous"
    main = importlib.import_module("scripts.replay").main
    main(["verify", str(run / "replay.jsonl"), "--ckpt_path", str(run / "checkpoints" / "last.ckpt")])


def test_use_scheduler_false_has_nothing_of_it():
    model = ARMAC("envs.kuhn_poker", mix_lambda=0.5)
    assert model.meta_regret is None and model.utility is None and "scheduler" not in model.groups
    assert not list(model.policy.scheduler.parameters())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--model.mix_lambda", "1.5"], "mix_lambda"),
        ([*SCHEDULED, "--model.scheduler.bins", "[0.5,0.25]"], "must increase"),
        ([*SCHEDULED, "--model.scheduler.bins", "[0,0.5,0.5]"], "twice"),
        ([*SCHEDULED, "--model.scheduler.bins", "[0.5]"], "at least two"),
        ([*SCHEDULED, *TIERED, "--model.state_keys.tier", "huge"], "tier"),
        ([*SCHEDULED, *TIERED[:-1], "envs.kuhn_poker.nothing"], "facts='envs.kuhn_poker.nothing': no such function"),
        ([*SCHEDULED, "--model.utility", "lit_rl.armac.mix_utility.Advantage"], "Advantage"),
        ([*SCHEDULED, "--model.meta_regret", "MetaRegret", "--model.meta_regret.max_states", "0"], "max_states"),
        (["--data.game", "envs.biased_rps", "--model.groups.regret.lr", "0"], "lr"),
        (["--model.memory", "lit_rl.armac.memory.ReservoirMemory", "--model.memory.capacity", "0"], "capacity"),
        ([*SCHEDULED, "--model.scheduler", "FixedLambda"], "one share only"),
        ([*SCHEDULED, *PAST, "5"], "use_scheduler=false"),
        ([*PAST, "5", "--data.keep", "best"], "keep"),
        ([*PAST, "5", "--data.num_envs", "33"], "num_envs=33"),
        (["--model.explorers", "some"], "explorers"),
        (["--model.cache_rows", "-1"], "cache_rows"),
        ([*FADING, "--model.critic_memory.decay", "2"], "decay"),
        (["--data.num_envs", "33"], "num_envs=33"),
        (["--trainer.limit_train_batches", "2"], "limit_train_batches"),
        (["--trainer.precision", "bf16-true"], "bf16-true"),
        (["--model.critic", "lit_rl.networks.HistoryMLP", "--model.critic.hidden", "[]"], "hidden=[]"),
        (["--data.truncate_after", "2"], "truncate_after"),
    ],
)
def test_bad_input_is_refused_by_name(tmp_path, quiet, capsys, arguments, complaint):
    with pytest.raises(SystemExit) as stop:
        short_run(tmp_path, *arguments)
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err.strip().splitlines()[-1]


def test_networks_learn_kuhn_in_seconds(tmp_path, quiet):
    """A few hundred iterations, both memories: far below the uniform policy's 0.917."""
    for memory, bound in (("RowMemory", 0.3), ("ReservoirMemory", 0.6)):
        run = short_run(
            tmp_path / memory, "--model.memory", f"lit_rl.armac.memory.{memory}", config="kuhn_armac_1m", iterations=250
        )
        assert json.loads((run / "summary.json").read_text())["nash_conv"] < bound


def test_a_table_with_other_bins_is_refused():
    with pytest.raises(ConfigError, match="bins differ: scheduler has"):
        ARMAC("envs.kuhn_poker", use_scheduler=True, meta_regret=lambda bins: MetaRegret([0.0, 1.0]))


def test_a_batch_of_a_crash_loads_as_plain_data(tmp_path, kuhn):
    memory = RowMemory(kuhn)
    obs, legal = torch.zeros(1, *kuhn.obs_shape, dtype=torch.uint8), torch.ones(1, 2, dtype=torch.bool)
    samples = Samples(obs, legal, torch.ones(1, 2))
    memory.add(samples, samples, 1, torch.Generator())
    batch = Batch(memory.regret_rows(torch.Generator()), None, None, None, None)
    torch.save(plain(batch), tmp_path / "batch.pt")
    loaded = torch.load(tmp_path / "batch.pt", weights_only=True)
    assert torch.equal(loaded["regret"]["target"], batch.regret.target) and loaded["average"] is None


def make(**options):
    torch.manual_seed(3)
    steady = GroupSettings(lr=1e-2, lr_end=1e-2, steps=2)  # whatever the length of the run
    groups = Groups(steady, steady, steady, steady, steady)
    scheduler = functools.partial(MixScheduler, warmup_iterations=1)
    return ARMAC("envs.kuhn_poker", scheduler=scheduler, groups=groups, **options)


def fit(model, data, tmp_path, **options):
    ckpt_path = options.pop("ckpt_path", None)
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=tmp_path, **{"max_epochs": 6} | options,
    )  # fmt: skip
    trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
    return trainer


LARGE = {"memory": functools.partial(ReservoirMemory, capacity=300, batch_size=32), "critic_memory": LastTargets}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_scheduler": True, "utility": Hybrid},
        {"mix_lambda": 0.5, "explorers": "all", "exploration": 0.1},
        {"mix_lambda": 0.5, "cache_rows": 0, **LARGE},
    ],
    ids=["regret", "scheduler", "all explore", "large"],
)
@pytest.mark.parametrize("steps", [4, 7], ids=["between", "within"])
def test_a_run_goes_on_bit_by_bit(tmp_path, quiet, options, steps):
    """From a checkpoint between two iterations or in the middle of one, under other global random states."""

    def data():
        return SelfPlayDataModule("envs.kuhn_poker", num_envs=16, num_steps=3, seed=4)

    class Save(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == steps:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    whole = make(**options)
    fit(whole, data(), tmp_path, callbacks=[Save()])
    torch.manual_seed(99)
    resumed = make(**options)
    torch.manual_seed(98)
    fit(resumed, data(), tmp_path, ckpt_path=tmp_path / "half.ckpt")
    ours, theirs = whole.state_dict(), resumed.state_dict()
    assert int(whole.rollouts) == 6 and ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for name in ("memory", "critic_memory"):
        a, b = (getattr(model, name).state_dict() for model in (whole, resumed))
        assert str(a) == str(b)


@pytest.mark.parametrize("steps", [4, 7], ids=["between", "within"])
def test_the_share_may_follow_a_schedule(tmp_path, quiet, steps):
    """Each iteration plays its own share, a resumed run too."""

    class Watch(L.Callback):
        def __init__(self):
            self.played = []

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if batch_idx == 0:
                self.played.append(round(module.mix_statistics().mix_lambda[-1].item(), 6))
            if trainer.global_step == steps:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    def run(**options):
        model, watch = make(mix_lambda=0.5), Watch()
        schedule = ScalarSchedule("model.mix_lambda", Linear(start=0.5, end=0.0))
        data = SelfPlayDataModule("envs.kuhn_poker", num_envs=16, num_steps=3, seed=4)
        fit(model, data, tmp_path, callbacks=[schedule, watch], **options)
        return model, watch.played

    whole, played = run()
    assert played == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
    resumed, rest = run(ckpt_path=tmp_path / "half.ckpt")
    assert rest == played[-len(rest) :]
    ours, theirs = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_share_that_nobody_can_play_is_refused(tmp_path, quiet):
    for options in ({"mix_lambda": 0.0}, {"use_scheduler": True}):
        schedule = ScalarSchedule("model.mix_lambda", Linear(start=0.0, end=0.5))
        with pytest.raises(ConfigError, match="mix_lambda=0"):
            fit(make(**options), SelfPlayDataModule("envs.kuhn_poker", num_envs=16), tmp_path, callbacks=[schedule])


def test_what_the_scheduler_learned_from_is_told(tmp_path, quiet):
    model = make(use_scheduler=True)
    fit(model, SelfPlayDataModule("envs.kuhn_poker", num_envs=16, num_steps=3, seed=4), tmp_path)
    told, shares = model.mix_statistics(), model._lessons.shares
    assert told.bins == model.policy.scheduler.bins and len(told.mix_lambda) == len(told.key) == len(shares.bin) > 0
    assert torch.equal(torch.tensor(told.bins)[told.bin], told.mix_lambda)
    assert told.table["size"] == len(told.key.unique()) or told.table["size"] > 0
    assert isinstance(told.words(int(told.key[0])), str) and told.regrets.shape == (5,)
    off = make()
    fit(off, SelfPlayDataModule("envs.kuhn_poker", num_envs=16, num_steps=3), tmp_path)
    told = off.mix_statistics()
    assert told.mix_lambda.tolist() == [0.0] and told.key is None


def test_large_games_need_no_index(tmp_path, quiet):
    """Reservoirs, targets of the last rollout and no memo: nothing grows with the infostates met, and it learns."""
    run = short_run(
        tmp_path, "--model.memory", "lit_rl.armac.memory.ReservoirMemory", "--model.critic_memory",
        "lit_rl.armac.critic_memory.LastTargets", "--model.cache_rows", "0", config="kuhn_armac_1m", iterations=250,
    )  # fmt: skip
    assert json.loads((run / "summary.json").read_text())["nash_conv"] < 0.7
