"""Conditional regrets against twin and exact tree, the tabular algorithm against CFR, and who learns from what."""

import dataclasses

import naive
import numpy as np
import pytest
import torch
from tables import Anything, Table, critic_of, exact_reach, exploring, history_values, kuhn_policy, sharp_mlp

from envs.vector_env import VectorEnv
from lit_rl.armac.armac import ARMAC
from lit_rl.armac.credit import Judge, Lessons, actor_rows, credit, explorer_moves, lessons
from lit_rl.armac.infostates import infostates
from lit_rl.armac.memory import RowMemory
from lit_rl.armac.mixed_policy import Mixture
from lit_rl.armac.rows import Samples
from lit_rl.losses import regret_matching
from lit_rl.networks import MLP
from lit_rl.returns import conditional_regrets
from lit_rl.rollout import collect


@pytest.mark.parametrize(("trace_lambda", "ratio_cap"), [(1.0, float("inf")), (0.7, 1.2), (0.0, 3.0)])
@pytest.mark.parametrize("others", [False, True])
def test_twin(leduc, trace_lambda, ratio_cap, others):
    env, previous = VectorEnv(leduc, 30, seed=1, observe_all=True), None
    network = MLP(leduc, hidden=(16,))
    torch.nn.init.normal_(network.policy_head.weight, std=1.0)
    for _ in range(3):
        previous = r = collect(env, network, 6, previous=previous, collecting=exploring(0.6), keep_logits=True)
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


@pytest.mark.parametrize("trace_lambda", [1.0, 0.0])
def test_regrets_are_unbiased_whatever_the_critic_says(kuhn, trace_lambda):
    """Summed over games they are CFR's, times how often exploring gets there; without the trace they are not."""
    policy, by_obs = kuhn_policy(kuhn, seed=3)
    exact = naive.counterfactual_regrets(kuhn, policy)
    num_envs, table = 60_000, Table(by_obs)
    env = VectorEnv(kuhn, num_envs, seed=2, observe_all=True)
    r = collect(
        env, table, 3, collecting=exploring(merge_rows=True), keep_logits=True
    )  # one whole game per row, and more
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
    r = collect(env, Table(by_obs), 4, collecting=exploring(merge_rows=True), keep_logits=True)
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
        r = collect(env, table, 3, collecting=exploring(merge_rows=True), keep_logits=True)
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
    r = collect(env, model.policy, 3, collecting=exploring())
    learns = explorer_moves(r) & ~r.unfinished()
    states = infostates(r.obs[learns], r.legal[learns])
    there = model.policy.mixture(states.obs, states.legal)
    q = critic_of(r, history_values(kuhn, policy))[learns] * (1 - 2 * r.player[learns].float()).unsqueeze(1)
    judge = Judge(model.utility, model.policy.mixer, model.state_keys, model.meta_regret)
    seen = []
    utility, model.utility.forward = model.utility.forward, lambda *args: seen.append(utility(*args)) or seen[-1]
    judge.judge(states, there, r.player[learns][states.first], q, torch.zeros(len(q)))
    (utilities,) = seen
    exact, checked = naive.counterfactual_regrets(kuhn, policy), 0
    for row, key in enumerate(policy):
        (here,) = (states.obs == torch.from_numpy(kuhn_tree.obs[row])).all(-1).nonzero().flatten().tolist()
        got = (utilities[here, -1] - utilities[here, 0]).item()
        apart = (mixture.actor[row] - mixture.regret[row]).double().numpy()
        expected = float(apart @ exact[key][0]) / exact_reach(kuhn, policy, key)
        assert got == pytest.approx(expected, abs=0.15), key
        checked += abs(expected) > 0.3
    assert checked >= 4


def rollout_and_mixture(game, mix_lambda=0.25, num_envs=40):
    model = ARMAC(f"envs.{game.name}", network=sharp_mlp, mix_lambda=mix_lambda)
    env, previous = VectorEnv(game, num_envs, seed=7, observe_all=True), None
    for _ in range(2):  # the second carries games of the first
        previous = r = collect(env, model.policy, 3, previous=previous, collecting=exploring(0.5))
    assert r.carried
    return r, Mixture(*model.policy.mixture(r.obs[r.played], r.legal[r.played]))


def test_one_explores_and_the_others_show(leduc):
    """Each decision of a finished game teaches regrets or shows the policy; where all explore, it does both."""
    r, mixture = rollout_and_mixture(leduc)
    q = torch.randn(mixture.probs.shape)
    one, every = (credit(r, mixture, q, explorers) for explorers in ("one", "all"))
    over = ~r.unfinished()[r.played]
    explores = (r.player == torch.arange(40) % 2)[r.played]
    assert torch.equal(one.valid, over) and torch.equal(every.learned, over) and over.any() and (~over).any()
    assert torch.equal(one.learned, over & explores)
    assert len(one.regrets.obs) + len(one.policies.obs) == int(over.sum()) == len(every.policies.obs)
    assert torch.equal(one.policies.vector, mixture.probs[over & ~explores])
    assert torch.equal(one.advantages, every.advantages) and torch.equal(one.targets, every.targets)
    assert (one.advantages * mixture.probs).sum(-1).abs().max() < 1e-3
    assert (one.regrets.vector * mixture.regret[one.learned]).sum(-1).abs().max() < 1e-3  # as if it alone had played


def test_against_the_past_the_game_is_the_pasts(leduc):
    """Regrets are of the policy that sat there, at the decisions of the learner alone; the others' show that policy."""
    r, mixture = rollout_and_mixture(leduc)
    past = torch.softmax(torch.where(r.legal, torch.randn(r.legal.shape), -1e30), -1)
    r = dataclasses.replace(r, learner=explorer_moves(r), extras=r.extras | {"past_probs": past})
    found = credit(r, mixture, torch.randn(mixture.probs.shape), "one")
    over = ~r.unfinished()[r.played]
    assert torch.equal(found.learned, over & r.learner[r.played])
    assert torch.equal(found.policies.vector, past[r.played][over & ~r.learner[r.played]])
    assert (found.regrets.vector * past[r.played][found.learned]).sum(-1).abs().max() < 1e-3
    assert torch.equal(found.regrets.vector, found.advantages[found.learned])


def test_shares_are_those_that_were_played(leduc):
    r, mixture = rollout_and_mixture(leduc)
    assert {"mix_lambda", "bin"} == r.extras.keys() and (r.extras["mix_lambda"] == 0.25).all()
    r.extras["mix_lambda"][: r.carried] = 0.75  # as if the iteration before had played otherwise
    q = torch.randn(mixture.probs.shape)
    taught = lessons(r, mixture, q, credit(r, mixture, q, "one"), None)
    assert taught.scheduler is None and taught.shares.key is None
    assert torch.equal(taught.shares.mix_lambda, r.extras["mix_lambda"][r.played])
    assert {0.25, 0.75} == set(taught.shares.mix_lambda.tolist())


def test_the_actors_rows_are_means_against_itself(leduc):
    r, mixture = rollout_and_mixture(leduc)
    found = credit(r, mixture, torch.randn(mixture.probs.shape), "one")
    states = infostates(found.regrets.obs, found.regrets.legal)
    actor = mixture.actor[found.learned][states.first]
    rows = actor_rows(states, found.advantages[found.learned], actor)
    assert rows.weight[:, 0].sum().item() == pytest.approx(1.0)
    for m in range(len(rows.obs)):
        here = (found.regrets.obs == rows.obs[m]).all(-1)
        mean = found.advantages[found.learned][here].mean(0)
        expected = (mean - actor[m] @ mean) * rows.legal[m]
        assert rows.target[m].tolist() == pytest.approx(expected.tolist(), abs=1e-4)


def test_lessons_are_saved_as_plain_tensors(tmp_path, leduc):
    r, mixture = rollout_and_mixture(leduc)
    q = torch.randn(mixture.probs.shape)
    for taught in (Lessons(), lessons(r, mixture, q, credit(r, mixture, q, "one"), None)):
        torch.save(taught.state_dict(), tmp_path / "lessons.pt")
        loaded = Lessons.of_state(torch.load(tmp_path / "lessons.pt", weights_only=True), leduc, 1)
        for ours, theirs in zip(taught, loaded):
            assert type(ours) is type(theirs)
            for a, b in zip(ours or (), theirs or ()):
                assert (a is None and b is None) or torch.equal(a, b)
