"""ARMAC: conditional regrets against twin and exact tree, the tabular algorithm against CFR, then the module."""

import copy
import csv
import dataclasses
import importlib
import json
import warnings
from pathlib import Path

import lightning as L
import naive
import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from callbacks.finite_guard import plain
from datamodules.retrospective import RetrospectiveDataModule
from envs.game import load_game
from envs.vector_env import VectorEnv
from lit_rl.armac.armac import ARMAC, Batch
from lit_rl.armac.memory import Reservoir, ReservoirMemory, RowMemory, Samples, new_index
from lit_rl.armac.meta_regret import MetaRegret
from lit_rl.armac.mixing import regret_matching
from lit_rl.armac.parameter_groups import GroupSettings
from lit_rl.armac.past_policies import PastPolicies
from lit_rl.networks import MLP
from lit_rl.policy import ActorCritic, PolicyOutput, mask_logits
from lit_rl.returns import conditional_regrets
from lit_rl.rollout import collect
from lit_rl.row_index import infostates, merge_equal_rows
from lit_rl.run.errors import ArtefactError, ConfigError
from lit_rl.run.replay import EXCLUDED, finished_games, game_record, verify, weights_hash
from lit_rl.run.replay_file import ReplayWriter

ROOT = Path(__file__).parent.parent


class Table(ActorCritic):
    """A policy given as a table over infostates; anything not in it plays uniformly."""

    def __init__(self, probs: dict):
        super().__init__()
        self.probs, self.weight = probs, torch.nn.Parameter(torch.zeros(()))

    def rows(self, obs, legal):
        first, row = merge_equal_rows(obs, legal)
        uniform = legal[first] / legal[first].sum(-1, keepdim=True)
        found = [self.probs.get(o.numpy().tobytes()) for o in obs[first]]
        return torch.stack([u if p is None else torch.as_tensor(p).float() for p, u in zip(found, uniform)])[row]

    def forward(self, obs, legal):
        return PolicyOutput(mask_logits(self.rows(obs, legal).clamp_min(1e-30).log(), legal), torch.zeros(len(obs)))


def exploring(num_envs):
    """[B, 2]: player (row mod 2) explores."""
    return torch.nn.functional.one_hot(torch.arange(num_envs) % 2, 2).float()


@pytest.mark.parametrize(("trace_lambda", "ratio_cap"), [(1.0, float("inf")), (0.7, 1.2), (0.0, 3.0)])
@pytest.mark.parametrize("others", [False, True])
def test_twin(leduc, trace_lambda, ratio_cap, others):
    env, previous = VectorEnv(leduc, 30, seed=1, observe_all=True), None
    network = MLP(leduc, hidden=(16,))
    torch.nn.init.normal_(network.policy_head.weight, std=1.0)
    for _ in range(3):
        previous = r = collect(env, network, 6, previous=previous, exploration=exploring(30) * 0.6)
        if others:
            r = dataclasses.replace(r, learner=torch.rand(*r.done.shape) < 0.6)
        probs, critic = r.logits.softmax(-1), torch.randn(*r.legal.shape)
        found = conditional_regrets(r, probs, critic, trace_lambda, ratio_cap)
        twin = naive.conditional_regrets(r, probs.numpy(), critic.numpy(), trace_lambda, ratio_cap)
        assert (found.valid.numpy() == twin[2]).all() and twin[2].any()
        assert found.regrets.numpy() == pytest.approx(twin[0], abs=1e-3, rel=1e-4)
        assert found.targets.numpy() == pytest.approx(twin[1], abs=1e-4)
        assert found.values.numpy() == pytest.approx(twin[3], abs=1e-3, rel=1e-4)
        assert (probs * found.regrets).sum(-1).abs().max() < 1e-3  # nobody regrets having played as they do


def kuhn_policy(kuhn, seed):
    """A random policy, by (player, infostate bytes) and by infostate bytes alone."""
    rng = np.random.default_rng(seed)
    uniform = {key: np.full(2, 0.5) for key in naive.counterfactual_regrets(kuhn, Anything())}
    policy = {key: rng.dirichlet([1, 1]) for key in uniform}
    return policy, {obs: probs for (_, obs), probs in policy.items()}


class Anything(dict):
    def __missing__(self, key):
        return np.full(2, 0.5)


@pytest.mark.parametrize("trace_lambda", [1.0, 0.0])
def test_regrets_are_unbiased_whatever_the_critic_says(kuhn, trace_lambda):
    """Summed over games they are CFR's, times how often exploring gets there; without the trace they are not."""
    policy, by_obs = kuhn_policy(kuhn, seed=3)
    exact = naive.counterfactual_regrets(kuhn, policy)
    num_envs, table = 60_000, Table(by_obs)
    env = VectorEnv(kuhn, num_envs, seed=2, observe_all=True)
    r = collect(env, table, 3, exploration=exploring(num_envs), merge_rows=True)  # one whole game per row, and more
    first_game = (r.done.cumsum(0) - r.done.long()) == 0
    critic = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))[r.history.flatten(2).sum(-1).long() % 8]
    found = conditional_regrets(r, r.logits.softmax(-1), critic, trace_lambda)
    worst = 0.0
    for (player, obs), (regrets, uniform_reach, _) in exact.items():
        here = first_game & (r.exploration > 0) & (r.player == player)
        here &= (r.obs == torch.from_numpy(np.frombuffer(obs, kuhn.obs_dtype).copy())).all(-1)
        per_game = torch.where(here.unsqueeze(-1), found.regrets, 0.0).sum(0)[player::2].double()  # [games, A]
        error = per_game.mean(0).numpy() - uniform_reach * regrets
        standard_error = per_game.std(0).numpy() / len(per_game) ** 0.5
        worst = max(worst, (np.abs(error) / standard_error).max())
    assert worst < 4.0 if trace_lambda == 1.0 else worst > 10.0, worst


def test_a_perfect_critic_leaves_no_noise(kuhn):
    """In Kuhn chance only deals: with exact values the regrets of one history are the same in every game."""
    policy, by_obs = kuhn_policy(kuhn, seed=4)
    env = VectorEnv(kuhn, 500, seed=2, observe_all=True)
    r = collect(env, Table(by_obs), 4, exploration=exploring(500), merge_rows=True)
    exact = history_values(kuhn, policy)
    found = conditional_regrets(r, r.logits.softmax(-1), critic_of(r, exact), 1.0)
    seen = {}
    for t, b in np.ndindex(*r.action.shape):
        if found.valid[t, b]:
            regrets = seen.setdefault(r.history[t, b].numpy().tobytes(), found.regrets[t, b])
            assert torch.allclose(regrets, found.regrets[t, b], atol=1e-5)
            target = exact[r.history[t, b].numpy().tobytes()][int(r.action[t, b])]
            assert found.targets[t, b].item() == pytest.approx(target, abs=1e-5)
    assert len(seen) > 20


def history_values(game, policy, state=None, found=None):
    """{bytes of both players' infostates: value of each action for player 0 [A]}, exactly."""
    root = state is None
    state, found = (game.new_state(), {}) if root else (state, found)
    player = game.current_player(state[0])
    if player == naive.TERMINAL:
        return 0.0
    probs = naive.chance_of(game, state[0]) if player == naive.CHANCE else None
    if player != naive.CHANCE:
        probs = policy[player, naive.obs_of(game, state[0], player).tobytes()]
    values = np.zeros(len(probs))
    legal = probs > 0 if player == naive.CHANCE else naive.legal_of(game, state[0])
    for a in np.flatnonzero(legal):
        nxt = naive.child(game, state, int(a))
        values[a] = naive.rewards_of(game, nxt[0])[0] + history_values(game, policy, nxt, found)
    if player != naive.CHANCE:
        both = [naive.obs_of(game, state[0], p).tobytes() for p in range(2)]
        found[b"".join(both)] = values.astype(np.float32)
    return found if root else float(probs @ values)


def critic_of(r, values):
    """Q [T, B, A] looked up by history."""
    index, (t, b) = new_index(load_game("envs.kuhn_poker"), 2), r.action.shape
    row = index.find_or_add(r.history.flatten(0, 1), r.legal.flatten(0, 1))
    table = torch.stack([torch.from_numpy(values[history.numpy().tobytes()]) for history in index.obs])
    return table[row].view(t, b, -1)


def test_tabular_armac_follows_cfr(kuhn, kuhn_tree):
    """With tables for networks: the summed regrets of sampled games stay beside exact CFR+'s of the same policies, and
    the average policy approaches an equilibrium."""
    memory, num_envs = RowMemory(kuhn), 16_000
    env = VectorEnv(kuhn, num_envs, seed=5, observe_all=True)
    exact, uniform = {}, {}
    policy = Anything()
    for iteration in range(1, 61):
        table = Table({obs: probs for (_, obs), probs in policy.items()})
        env.reset()
        r = collect(env, table, 3, exploration=exploring(num_envs), merge_rows=True)
        probs = table.rows(r.obs.flatten(0, 1), r.legal.flatten(0, 1)).view(*r.legal.shape)
        found = conditional_regrets(r, probs, critic_of(r, history_values(kuhn, policy)))
        first_game = (r.done.cumsum(0) - r.done.long()) == 0  # played to its end within three steps
        learns, shows, games = first_game & (r.exploration > 0), first_game & (r.exploration == 0), num_envs / 2
        memory.add(
            Samples(r.obs[learns], r.legal[learns], found.regrets[learns] / games),
            Samples(r.obs[shows], r.legal[shows], probs[shows]),
            iteration,
            torch.Generator(),
        )
        for key, (regrets, reach, _) in naive.counterfactual_regrets(kuhn, policy).items():
            exact[key] = np.maximum(exact.get(key, 0) + reach * regrets, 0)
            uniform[key] = reach
        row = dict(zip((o.numpy().tobytes() for o in memory.index.obs), range(len(memory.index))))
        rows = regret_matching(torch.from_numpy(memory.regrets), memory.index.legal).numpy()
        policy = Anything({key: rows[row[key[1]]] for key in exact})
    sampled = np.stack([memory.regrets[row[key[1]]] for key in exact])
    truth = np.stack(list(exact.values()))
    assert np.abs(sampled - truth).max() < 0.12 * truth.max()
    assert np.corrcoef(sampled.flat, truth.flat)[0, 1] > 0.98
    average = memory.average_rows(torch.Generator())
    table = np.stack([average.target[row[o.tobytes()]].numpy() for o in kuhn_tree.obs])
    assert kuhn_tree.evaluate(table.astype(np.float64)).nash_conv < 0.06


def test_a_reservoir_keeps_every_sample_equally_often(kuhn):
    kept = np.zeros(60)
    for seed in range(400):
        reservoir, generator = Reservoir(kuhn, 10), torch.Generator().manual_seed(seed)
        for start in range(0, 60, 7):
            n = min(7, 60 - start)
            numbers = torch.arange(start, start + n).float()
            legal = torch.ones(n, 2, dtype=torch.bool)
            obs = torch.zeros(n, *kuhn.obs_shape, dtype=torch.uint8)
            reservoir.add(Samples(obs, legal, numbers.unsqueeze(1).expand(-1, 2)), 1.0, generator)
        assert len(reservoir) == 10
        kept[reservoir.vector[:, 0].long().numpy()] += 1
    assert kept.sum() == 4000 and (np.abs(kept - 4000 / 60) < 5 * (4000 / 60) ** 0.5).all()


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


SCHEDULED = ["--model.use_scheduler", "true", "--model.scheduler", "MixScheduler"]


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
    assert any("utilities" in e and any(e["utilities"]) for e in extras)
    main = importlib.import_module("scripts.replay").main
    main(["verify", str(run / "replay.jsonl"), "--ckpt_path", str(run / "checkpoints" / "last.ckpt")])


def test_a_share_of_0_is_regret_matching_and_1_is_the_actor(kuhn):
    obs, legal = torch.rand(50, *kuhn.obs_shape), torch.ones(50, 2, dtype=torch.bool)
    for mix_lambda, of in ((0.0, "regret"), (1.0, "actor"), (0.25, None)):
        model = ARMAC("envs.kuhn_poker", network=sharp_mlp, use_scheduler=False, mix_lambda=mix_lambda)
        if mix_lambda == 0:
            assert model.policy.actor is None and "actor" not in model.groups
            continue
        mixture = model.policy.mixture(obs, legal)
        assert (mixture.actor - mixture.regret).abs().max() > 0.3
        if of:
            assert torch.equal(mixture.probs, getattr(mixture, of))
        else:
            assert torch.allclose(mixture.probs, 0.25 * mixture.actor + 0.75 * mixture.regret)
        logits = model.policy(obs, legal).logits
        assert torch.allclose(logits.softmax(-1), mixture.probs, atol=1e-6)


def sharp_mlp(game):
    network = MLP(game, hidden=(16,), shared=True)
    torch.nn.init.normal_(network.policy_head.weight, std=2.0)
    return network


def test_each_network_has_its_own_rate_clip_and_steps(tmp_path, quiet):
    """Networks whose steps of the iteration are over stay as they are, moments included."""
    model = ARMAC(
        "envs.kuhn_poker", mix_lambda=0.5, regret_group=GroupSettings(1e-2, 1e-2, clip=1e-3, steps=3),
        average_group=GroupSettings(1e-3, 1e-4, steps=2), critic_group=GroupSettings(3e-3, 1e-3, every=3),
    )  # fmt: skip
    data = RetrospectiveDataModule("envs.kuhn_poker", num_envs=16, num_steps=4)
    seen = []

    class Watch(L.Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            groups = {group["name"]: group for group in optimizer.param_groups}
            state = optimizer.state
            steps = {n: {int(state[p]["step"]) for p in g["params"] if p in state} for n, g in groups.items()}
            norms = {
                n: sum(float(p.grad.square().sum()) for p in g["params"] if p.grad is not None) ** 0.5
                for n, g in groups.items()
            }
            seen.append((steps, norms, {n: g["lr"] for n, g in groups.items()}))

    trainer = L.Trainer(
        max_epochs=4, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[Watch()], default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(model, data)
    steps, _, rates = seen[-1]
    assert trainer.global_step == 12
    last = {name: max(s, default=0) for name, s in steps.items()}
    assert last["regret"] >= 11 and last["average"] == 8 and last["critic"] == 2 and last["actor"] == 4
    assert max(n["regret"] for _, n, _ in seen) <= 1.001e-3 < max(n["critic"] for _, n, _ in seen)
    assert seen[0][2]["average"] == pytest.approx(1e-3) and rates["average"] == pytest.approx(1e-4)


def test_utilities_say_what_the_exact_game_says(kuhn, kuhn_tree):
    """Judged with exact action values, the actor's advantage over the regret policy at each infostate is that of the
    counterfactual values: chance and the other player's own policy weigh the histories, not how the other explored."""
    model = ARMAC("envs.kuhn_poker", network=sharp_mlp, use_scheduler=True)
    model.policy.scheduler.iteration.fill_(100)  # past the warm-up
    with torch.no_grad():
        mixture = model.policy.mixture(torch.from_numpy(kuhn_tree.obs), torch.from_numpy(kuhn_tree.legal))
    probs = (mixture.probs.double() / mixture.probs.double().sum(-1, keepdim=True)).numpy()
    policy = {(int(p), o.tobytes()): q for p, o, q in zip(kuhn_tree.row_player, kuhn_tree.obs, probs)}
    env = VectorEnv(kuhn, 20_000, seed=1, observe_all=True)
    r = collect(env, model.play, 3, exploration=exploring(20_000))
    explores = r.player == torch.arange(20_000) % 2
    learns = explores & ~r.unfinished()
    states = infostates(r.obs[learns], r.legal[learns])
    q = critic_of(r, history_values(kuhn, policy))[learns] * (1 - 2 * r.player[learns].float()).unsqueeze(1)
    found = model._judge(
        states, model.play.mixture(states.obs, states.legal), r.player[learns][states.first], q, torch.zeros(len(q))
    )
    exact, checked = naive.counterfactual_regrets(kuhn, policy), 0
    for row, key in enumerate(policy):
        (here,) = (states.obs == torch.from_numpy(kuhn_tree.obs[row])).all(-1).nonzero().flatten().tolist()
        got = (found["utilities"][here, -1] - found["utilities"][here, 0]).item()
        apart = (mixture.actor[row] - mixture.regret[row]).double().numpy()
        expected = float(apart @ exact[key][0]) / exact_reach(kuhn, policy, key)
        assert got == pytest.approx(expected, abs=0.15), key
        checked += abs(expected) > 0.3
    assert checked >= 4


def exact_reach(game, policy, key, state=None, reach=1.0):
    """Chance's and the other player's probability of an infostate (player, bytes)."""
    state = game.new_state() if state is None else state
    player = game.current_player(state[0])
    if player == naive.TERMINAL:
        return 0.0
    here = None if player == naive.CHANCE else (player, naive.obs_of(game, state[0], player).tobytes())
    if here == key:
        return reach
    probs = naive.chance_of(game, state[0]) if player == naive.CHANCE else policy[here]
    legal = probs > 0 if player == naive.CHANCE else naive.legal_of(game, state[0])
    return sum(
        exact_reach(game, policy, key, naive.child(game, state, int(a)), reach * (1 if player == key[0] else probs[a]))
        for a in np.flatnonzero(legal)
    )


@pytest.mark.parametrize("keep", ["reservoir", "fifo"])
def test_past_policies_are_kept_seated_and_saved(kuhn, keep):
    model = ARMAC("envs.kuhn_poker", network=sharp_mlp)
    env = VectorEnv(kuhn, 40, seed=1, observe_all=True)
    past = PastPolicies(env, model.policy, capacity=3, keep=keep, seated=2, seed=5)
    weights = []
    for iteration in range(8):
        with torch.no_grad():
            model.policy.regret.policy_head.bias += 1.0
        model.play.renew()
        weights.append(parameters_to_vector(model.policy.parameters()).clone())
        before = [parameters_to_vector(player.policy.parameters()) for player in past.players]
        past.begin(model.policy, iteration)
        if iteration:  # who does not make room stays as it is, also if the buffer drops it
            stays = (iteration + 1) % 2
            assert torch.equal(parameters_to_vector(past.players[stays].policy.parameters()), before[stays])
        r = collect(env, model.play, 3, exploration=exploring(40), opponents=past)
        slots = torch.stack(past.slots)
        assert slots.shape == r.action.shape and {0, 1} == set(slots.flatten().tolist())
        assert torch.equal(r.learner, r.player == torch.arange(40) % 2)
        same_game = ~r.done[:-1]
        assert torch.equal(slots[1:][same_game], slots[:-1][same_game])  # drawn as a game begins, and then stays
    kept = [next(i for i, w in enumerate(weights) if torch.equal(w, v)) for v in past.kept]
    assert sorted(kept) == [5, 6, 7] if keep == "fifo" else len(set(kept)) == 3
    for player in past.players:
        seated = parameters_to_vector(player.policy.parameters())
        assert any(torch.equal(seated, w) for w in weights)
    twin = PastPolicies(env, model.policy, capacity=3, keep=keep, seated=2, seed=99)
    twin.load_state_dict(past.state_dict())
    twin.seed = past.seed
    for each in (past, twin):
        each.begin(model.policy, 8)
    obs, legal = torch.from_numpy(env.obs), torch.from_numpy(env.legal)
    assert torch.equal(twin.probs(obs, legal, twin.slot), past.probs(obs, legal, past.slot))
    assert (twin.streams == past.streams).all() and torch.equal(twin.kept, past.kept)


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
        ([*SCHEDULED, "--model.state_keys", "TieredKeys", "--model.state_keys.tier", "huge"], "tier"),
        ([*SCHEDULED, "--model.utility", "lit_rl.armac.mix_utility.Advantage"], "Advantage"),
        ([*SCHEDULED, "--model.meta_regret", "MetaRegret", "--model.meta_regret.max_states", "0"], "max_states"),
        (["--data.game", "envs.biased_rps", "--model.regret_group.lr", "0"], "lr"),
        (["--model.memory", "lit_rl.armac.memory.ReservoirMemory", "--model.memory.capacity", "0"], "capacity"),
        ([*SCHEDULED, "--model.scheduler", "FixedLambda"], "one share only"),
        ([*SCHEDULED, "--data.past_policies", "5"], "use_scheduler=false"),
        (["--data.past_policies", "5", "--data.keep", "best"], "keep"),
        (["--data.num_envs", "33"], "num_envs=33"),
        (["--trainer.limit_train_batches", "2"], "limit_train_batches"),
        (["--trainer.precision", "bf16-true"], "bf16-true"),
        (["--model.critic", "lit_rl.networks.HistoryMLP", "--model.critic.hidden", "[]"], "hidden=[]"),
        (["--data", "SelfPlayDataModule", "--data.truncate_after", "2"], "truncate_after"),
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


def test_the_sums_of_a_reservoir_are_those_of_its_samples(kuhn):
    reservoir, generator = Reservoir(kuhn, 50, adds_up=True), torch.Generator().manual_seed(0)
    for iteration in range(1, 30):
        obs = torch.randint(0, 2, (9, 1), generator=generator).expand(-1, *kuhn.obs_shape).to(torch.uint8)
        legal = torch.ones(9, 2, dtype=torch.bool)
        reservoir.add(Samples(obs, legal, torch.randn(9, 2, generator=generator)), float(iteration), generator)
        rows, _, sums, total = reservoir.sums()
        for row, s, t in zip(rows, sums, total):
            here = (reservoir.obs[: len(reservoir)] == row).all(-1)
            weight = reservoir.weight[: len(reservoir)][here]
            assert t.item() == pytest.approx(weight.sum().item())
            expected = (weight.unsqueeze(1) * reservoir.vector[: len(reservoir)][here]).sum(0)
            assert s.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


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


def test_replays_of_actions_that_regret_matching_excludes_are_verified_too(tmp_path, kuhn):
    policy = ARMAC("envs.kuhn_poker", network=sharp_mlp, memory=ReservoirMemory).policy
    rollout = collect(VectorEnv(kuhn, 40, seed=3, record=True), policy, 6, exploration=exploring(40))
    facts = {"iteration": 0, "decisions": 0, "precision": "32-true", "weights": weights_hash(policy)}
    games = [facts | game_record(kuhn, rollout, *found, {}) for found in finished_games(rollout, whole_games=True)]
    excluded = [i for i, game in enumerate(games) if any(min(logits_of(move)) < EXCLUDED for move in game["moves"])]
    assert len(excluded) > 5

    def verified(records):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        writer = ReplayWriter(path)
        writer.begin({"run": "test", "game": "envs.kuhn_poker", "name": kuhn.name, "version": kuhn.version})
        for record in records:
            writer.append(record)
        return verify(path, kuhn, policy).games_of_weights

    assert verified(games) == len(games)
    for change in ("log_prob", "logits"):
        wrong = copy.deepcopy(games[excluded[0]])
        move = next(m for m in wrong["moves"] if min(logits_of(m)) < EXCLUDED)
        if change == "log_prob":
            move["log_prob"] = float(move["log_prob"]) - 0.5
        else:
            move["logits"] = [max(x, -3.0) for x in logits_of(move)]
        with pytest.raises(ArtefactError, match=change):
            verified([wrong])


def logits_of(move):
    return [float(x) for x in move["logits"]]


def test_its_data_module_is_for_armac_alone(make_fit):
    trainer, ppo, _ = make_fit()
    with pytest.raises(ConfigError, match="use SelfPlayDataModule for PPO"):
        trainer.fit(ppo, RetrospectiveDataModule("envs.kuhn_poker", num_envs=4))


def test_a_policy_that_does_not_draw_plays_the_likeliest_bins(kuhn_tree):
    model = ARMAC("envs.kuhn_poker", network=sharp_mlp, use_scheduler=True)
    policy, obs, legal = model.policy, torch.from_numpy(kuhn_tree.obs), torch.from_numpy(kuhn_tree.legal)
    policy.scheduler.iteration.fill_(100)  # past the warm-up

    def bins(key):
        policy.draw_key.fill_(key)
        return policy.eval().mixture(obs, legal).bin

    assert not torch.equal(bins(1), bins(2)) and torch.equal(bins(1), bins(1))
    policy.draws = False
    mixture = policy.eval().mixture(obs, legal)
    assert torch.equal(bins(1), bins(2))
    assert torch.equal(bins(1), policy.scheduler.logits(obs, mixture.actor, mixture.regret).argmax(-1))
