"""Memory: chunks and what is remembered against slow twins, one game at a time; ratios, gradients, compiling."""

import copy
from dataclasses import fields, replace
from functools import partial

import pytest
import torch
from conftest import grouped

from envs.game import load_game
from envs.vector_env import VectorEnv
from lit_rl import losses
from lit_rl.batches import Minibatches, cut_into_chunks, memories, minibatches
from lit_rl.networks import MLP, Dense, Recurrent
from lit_rl.policy import ActorCritic, Chunks, output_of
from lit_rl.ppo import PPO
from lit_rl.references import Magnet, Magnets, Portfolio, Refreshed
from lit_rl.returns import gae, two_player_v_trace
from lit_rl.rnad import RNaD
from lit_rl.rollout import STEPS, Collecting, Rollout, collect
from lit_rl.run.errors import ConfigError

FORGETFUL = load_game("envs.leduc_poker_last_card")


def network(cell="gru", game=FORGETFUL, gain=3.0):
    """A network whose output depends on what it remembers: an untrained head of gain 0.01 would hide it."""
    found = Recurrent(game, encoder=partial(Dense, hidden=(16,)), cell=cell, memory=12)
    with torch.no_grad():
        found.policy_head.weight.mul_(100 * gain)
    return found.eval()


def played(policy, num_steps=12, num_envs=20, rollouts=1, cut_games="carry", seed=0) -> Rollout:
    env, rollout = VectorEnv(FORGETFUL, num_envs, seed=seed), None
    for _ in range(rollouts):
        rollout = collect(env, policy, num_steps, previous=rollout, collecting=Collecting(cut_games=cut_games))
    return rollout


def sequences(rollout: Rollout) -> list[list[int]]:
    """The slow twin: the decisions among the T * B of each seat in each game, one list each."""
    found = []
    t_all, b_all = rollout.player.shape
    for b in range(b_all):
        running = {}
        for t in range(t_all):
            if rollout.played[t, b] and rollout.learner[t, b]:
                running.setdefault(int(rollout.player[t, b]), []).append(t * b_all + b)
            if rollout.done[t, b] or not rollout.played[t, b]:
                found += running.values()
                running = {}
        found += running.values()
    return found


def alone(policy: ActorCritic, rollout: Rollout) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The slow twin: logits, values and memories of every decision, one game and one seat at a time."""
    obs, legal, stored = rollout.obs.flatten(0, 1), rollout.legal.flatten(0, 1), rollout.state.flatten(0, 1)
    logits, values, states = torch.zeros(legal.shape), torch.zeros(len(obs)), stored.clone()
    for rows in sequences(rollout):
        state = stored[rows[:1]]
        for row in rows:
            states[row] = state[0]
            output = policy(obs[row : row + 1], legal[row : row + 1], state)
            logits[row], values[row], state = output.logits[0], output.value[0], output.state
    return logits, values, states


@pytest.mark.parametrize("cut_games", ["carry", "bootstrap", "drop"])
@pytest.mark.parametrize(("length", "burn_in"), [(None, 0), (1, 0), (2, 0), (2, 1), (2, 5), (3, 2), (99, 1)])
def test_chunks_are_what_the_slow_twin_cuts(length, burn_in, cut_games):
    rollout = played(network(), rollouts=3, cut_games=cut_games)
    valid = gae(rollout, 1.0, 0.95)[1]
    expected = set()
    for rows in sequences(rollout):
        rows = [row for row in rows if valid.flatten()[row]]
        for i in range(0, len(rows), length or max(len(rows), 1)):
            warm = rows[max(i - burn_in, 0) : i]
            own = rows[i : i + (length or len(rows))]
            expected.add((*warm, *own, len(warm)))
    rows, learned = cut_into_chunks(rollout, valid, length, burn_in)
    found = {(*row[row >= 0].tolist(), int((~mine[row >= 0]).sum())) for row, mine in zip(rows, learned)}
    assert found == expected
    assert sorted(rows[learned].tolist()) == valid.flatten().nonzero().squeeze(1).tolist()


def test_opponents_have_no_place_in_a_chunk():
    rollout = played(network())
    learner = rollout.player == 0
    rollout = replace(rollout, learner=learner)
    rows, learned = cut_into_chunks(rollout, torch.ones_like(learner), 2, 1)
    assert learner.flatten()[rows[rows >= 0]].all() and int(learned.sum()) == int((learner & rollout.played).sum())


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_two_games_in_one_row_are_as_two_rows_and_seats_share_nothing(cell):
    """What is remembered while many games are played side by side is what each seat of each game alone would."""
    policy = network(cell)
    rollout = played(policy, num_steps=30, rollouts=2)
    logits, values, states = alone(policy, rollout)
    mine = (rollout.played & rollout.learner).flatten()
    new = mine & (torch.arange(len(mine)) >= rollout.carried * 20)
    assert int(rollout.done.sum()) > 60 and new.sum() > 500
    for found, expected in ((rollout.value.flatten(), values), (rollout.state.flatten(0, 1), states)):
        assert torch.allclose(found[mine], expected[mine], atol=1e-5)
    assert torch.allclose(memories(policy, rollout).flatten(0, 1)[mine], states[mine], atol=1e-5)
    by_obs = {}
    for row in mine.nonzero().flatten().tolist():
        by_obs.setdefault(rollout.obs.flatten(0, 1)[row].numpy().tobytes(), []).append(logits[row].detach())
    assert max(float((torch.stack(x) - x[0]).abs().max()) for x in by_obs.values()) > 0.1  # the past does matter


def permuted(rollout: Rollout, order: torch.Tensor) -> Rollout:
    steps = {name: getattr(rollout, name)[:, order] for name in STEPS}
    last = {name: getattr(rollout, name)[order] for name in ("last_value", "last_known", "last_state")}
    assert {f.name for f in fields(Rollout)} == {*steps, *last, "extras", "carried", "num_actions", "temperature"}
    return replace(rollout, **steps, **last)


def test_permuted_envs_permute_what_is_remembered():
    policy = network()
    rollout = played(policy, rollouts=2)
    order = torch.randperm(20)
    shuffled = permuted(rollout, order)
    assert torch.allclose(memories(policy, shuffled), memories(policy, rollout)[:, order], atol=1e-6)
    loss, other = (float(loss_of(policy, batch_of(r, chunk_length=2)).detach()) for r in (rollout, shuffled))
    assert loss == pytest.approx(other, rel=1e-4)


def batch_of(rollout, policy=None, **settings):
    """All of a rollout as one minibatch."""
    advantages, valid = gae(rollout, 1.0, 0.95)
    how = Minibatches(update_epochs=1, num_minibatches=1, **settings)
    generator = torch.Generator().manual_seed(0)
    return next(minibatches(rollout, advantages, advantages + rollout.value, valid, how, generator, policy, {}))


def loss_of(policy, batch):
    output = policy.unroll(batch.obs, batch.legal, batch.chunks)
    log_prob = torch.log_softmax(output.logits, -1)[batch.row, batch.action]
    surrogate = losses.clipped_surrogate(log_prob, batch.log_prob, batch.advantages, 0.2)
    return (surrogate + losses.value_loss(output.value[batch.row], batch.returns, batch.value, None)).mean()


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("settings", [{}, {"chunk_length": 1}, {"chunk_length": 2, "burn_in": 1}])
@pytest.mark.parametrize("rollouts", [1, 3])
def test_the_first_ratio_is_1_in_every_row(cell, settings, rollouts):
    """Also of chunks that begin in the middle of a game, and of carried ones while the weights stay."""
    policy = network(cell)
    batch = batch_of(played(policy, rollouts=rollouts), **settings)
    output = policy.unroll(batch.obs, batch.legal, batch.chunks)
    ratio = (torch.log_softmax(output.logits, -1)[batch.row, batch.action] - batch.log_prob).exp()
    assert len(ratio) > 100 and torch.allclose(ratio, torch.ones(len(ratio)), atol=1e-5)
    assert torch.allclose(output.value[batch.row], batch.value, atol=1e-5)


def gradients(policy, loss):
    policy.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in policy.parameters()]


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_gradients_of_chunks_as_long_as_games_are_those_of_whole_games(cell):
    """And of the slow twin, one game and one seat at a time; a shorter chunk has another gradient."""
    policy = network(cell)
    rollout = played(policy, num_steps=24)
    batch = batch_of(rollout)
    whole = gradients(policy, loss_of(policy, batch))
    longer = gradients(policy, loss_of(policy, batch_of(rollout, chunk_length=24)))
    logits, values, _ = alone(policy, rollout)
    advantages, valid = gae(rollout, 1.0, 0.95)
    which = valid.flatten()
    action, log_prob, value = (x.flatten()[which] for x in (rollout.action, rollout.log_prob, rollout.value))
    new = torch.log_softmax(logits[which], -1).gather(1, action.unsqueeze(1)).squeeze(1)
    twin = losses.clipped_surrogate(new, log_prob, advantages.flatten()[which], 0.2)
    twin = twin + losses.value_loss(values[which], advantages.flatten()[which] + value, value, None)
    slow = gradients(policy, twin.mean())
    short = gradients(policy, loss_of(policy, batch_of(rollout, chunk_length=1)))
    for a, b, c in zip(whole, longer, slow):
        assert torch.allclose(a, b, atol=1e-6) and torch.allclose(a, c, atol=1e-5)
    assert max(float((a - b).abs().max()) for a, b in zip(whole, short)) > 1e-3


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_all_rows_at_once_are_as_step_by_step(cell):
    policy = network(cell)
    batch = batch_of(played(policy), chunk_length=2, burn_in=1)
    fast = policy.unroll(batch.obs, batch.legal, batch.chunks)
    slow = ActorCritic.unroll(policy, batch.obs, batch.legal, batch.chunks)
    assert torch.allclose(fast.logits, slow.logits, atol=1e-5) and torch.allclose(fast.value, slow.value, atol=1e-5)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_forward_and_unroll_compile_without_a_graph_break(cell):
    policy = network(cell)
    batch = batch_of(played(policy), chunk_length=2)
    forward = torch.compile(policy.forward, fullgraph=True, backend="aot_eager")
    unroll = torch.compile(policy.unroll, fullgraph=True, backend="aot_eager")
    state = torch.randn(len(batch.obs), *policy.state_shape)
    for found, expected in (
        (forward(batch.obs, batch.legal, state), policy(batch.obs, batch.legal, state)),
        (unroll(batch.obs, batch.legal, batch.chunks), policy.unroll(batch.obs, batch.legal, batch.chunks)),
    ):
        assert torch.allclose(found.logits, expected.logits, atol=1e-5)

    def loss(output):
        return (output.value + torch.softmax(output.logits, -1)[:, 1]).mean()

    plain = gradients(policy, loss(policy.unroll(batch.obs, batch.legal, batch.chunks)))
    compiled = gradients(policy, loss(unroll(batch.obs, batch.legal, batch.chunks)))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(plain, compiled))


def test_burn_in_moves_what_a_chunk_begins_with_and_refresh_replaces_it():
    """Once the weights have changed stored memories are old, those of burn-in nearer, refreshed ones exact."""
    policy = network()
    rollout = played(policy, num_steps=24)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.1 * torch.randn_like(p))
    logits, _, states = alone(policy, rollout)

    advantages, valid = gae(rollout, 1.0, 0.95)
    errors = []
    for burn_in in (0, 1, 9):
        rows, learned = cut_into_chunks(rollout, valid, 1, burn_in)
        by_time = rows.T
        place = (by_time >= 0).flatten().nonzero().squeeze(1)
        m = by_time.flatten()[place]
        first = Chunks(rollout.state.flatten(0, 1)[by_time[0]], place, len(by_time), by_time[0])
        output = policy.unroll(rollout.obs.flatten(0, 1)[m], rollout.legal.flatten(0, 1)[m], first)
        own = learned.T.flatten()[place]
        errors.append(float((output.logits - logits[m])[own].detach().abs().mean()))
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-5
    kept = {}
    how = Minibatches(update_epochs=2, num_minibatches=1, chunk_length=1, refresh=True)
    dealt = list(
        minibatches(rollout, advantages, advantages, valid, how, torch.Generator().manual_seed(0), policy, kept)
    )
    assert torch.equal(dealt[0].chunks.state, rollout.state.flatten(0, 1)[dealt[0].chunks.first])
    assert torch.allclose(dealt[1].chunks.state, states[dealt[1].chunks.first], atol=1e-5)
    assert set(kept) == {"refreshed", "refreshed_for"} and int(kept["refreshed_for"]) == 1


def test_a_run_resumed_within_a_pass_begins_with_the_memories_of_its_start():
    policy, how = network(), Minibatches(update_epochs=3, num_minibatches=2, chunk_length=1, refresh=True)
    rollout = played(policy)
    advantages, valid = gae(rollout, 1.0, 0.95)

    def deal(kept):
        return minibatches(rollout, advantages, advantages, valid, how, torch.Generator().manual_seed(0), policy, kept)

    kept, stream = {}, None
    stream = deal(kept)
    for _ in range(3):
        next(stream)
    saved = dict(kept)
    with torch.no_grad():
        policy.encoder.layers[0].weight.mul_(1.5)  # the weights move between two minibatches
    rest, again = list(stream), list(deal(saved))[3:]
    for a, b in zip(rest, again, strict=True):
        assert torch.equal(a.chunks.state, b.chunks.state) and torch.equal(a.action, b.action)


def copied(policy, change: float):
    """Another policy of the same make."""
    other = copy.deepcopy(policy)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(change * torch.randn_like(p))
    return other


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("settings", [{}, {"chunk_length": 2}, {"chunk_length": 1, "burn_in": 1}])
def test_each_policy_of_a_reference_remembers_by_itself(cell, settings):
    """Chunks begin in the middle of games; what each reference says there is as if it had seen all of the game."""
    glide = partial(Refreshed, every=10, interpolate=True)
    portfolio = partial(Portfolio, capacity=2, distance="mixture", drop="recent", main=glide)
    model = RNaD(
        "envs.leduc_poker_last_card", network=lambda game: network(cell), reference=portfolio,
        minibatches=Minibatches(update_epochs=1, num_minibatches=1, **settings),
    )  # fmt: skip
    rollout = played(model.policy, rollouts=2)
    batch = next(model.make_batches(rollout, torch.Generator().manual_seed(0)))
    same = torch.log_softmax(output_of(model.policy, batch.obs, batch.legal, batch.chunks).logits, -1)
    counts = torch.ones(len(batch.obs))
    kept = torch.zeros(len(batch.obs), dtype=torch.bool).index_fill_(0, batch.row, True)  # not burn-in
    assert torch.allclose(model._refer(batch, same, counts)[kept], same[kept], atol=1e-4)  # all are copies so far
    others = [copied(model.policy, 0.2) for _ in range(4)]
    for mine, other in zip(model.reference.consulted(), others, strict=True):
        mine.load_state_dict(other.state_dict())
    model.reference.counts.fill_(True)
    model.reference.main.share.fill_(0.25)
    batch = next(model.make_batches(rollout, torch.Generator().manual_seed(0)))
    found = model._refer(batch, same, counts)[batch.row]
    rows = cut_into_chunks(
        rollout, gae(rollout, 1.0, 0.95)[1], settings.get("chunk_length"), settings.get("burn_in", 0)
    )
    which = rows[0][torch.randperm(len(rows[0]), generator=torch.Generator().manual_seed(0))].T
    m = which.flatten()[(which >= 0).flatten()][batch.row]
    logs = [torch.log_softmax(alone(other, rollout)[0][m], -1) for other in others]
    main = torch.lerp(logs[1], logs[0], 0.25)
    expected = torch.logsumexp(torch.stack([main, *logs[2:]]), 0) - torch.tensor(3.0).log()
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("reference", [Magnet, Magnets, Refreshed])
def test_a_reference_that_is_a_copy_says_the_same(reference):
    how = Minibatches(update_epochs=1, num_minibatches=1, chunk_length=2)
    model = RNaD("envs.leduc_poker_last_card", network=lambda game: network(), reference=reference, minibatches=how)
    batch = next(model.make_batches(played(model.policy), torch.Generator().manual_seed(0)))
    same = torch.log_softmax(output_of(model.policy, batch.obs, batch.legal, batch.chunks).logits, -1)
    assert torch.allclose(model._refer(batch, same, torch.ones(len(batch.obs))), same, atol=1e-4)


def test_v_trace_sees_policy_target_and_reference_each_with_its_own_memory():
    model = RNaD(
        "envs.leduc_poker_last_card", form="neurd", network=lambda game: network(), ema_decay=0.9, eta=0.3,
        minibatches=Minibatches(update_epochs=1, num_minibatches=1),
    )  # fmt: skip
    rollout = played(model.policy, rollouts=2)
    policy, target, reference = (copied(model.policy, 0.2) for _ in range(3))
    for mine, other in (
        (model.policy, policy), (model.average.module, target), (model.reference.policy, reference),
    ):  # fmt: skip
        mine.load_state_dict(other.state_dict())
    next(model.make_batches(rollout, torch.Generator().manual_seed(0)))
    with torch.no_grad():
        logs, rho = (torch.log_softmax(alone(x, rollout)[0], -1) for x in (policy, reference))
        value = alone(target, rollout)[1].view(rollout.value.shape)
    log_prob = logs.gather(1, rollout.action.view(-1, 1)).view(value.shape)
    kl = losses.reference_kl(logs, rho).view(value.shape)
    expected = two_player_v_trace(rollout, value, log_prob, kl, eta=0.3, gamma=1.0, trace_lambda=0.95)
    for name, x in zip(("returns", "advantages", "valid"), expected):
        assert torch.allclose(model.kept[name].float(), x.float(), atol=1e-3), name


def test_rnad_with_alpha_0_is_ppo_and_every_term_has_a_gradient():
    how = {"minibatches": Minibatches(update_epochs=1, num_minibatches=1, chunk_length=2), "entropy_coef": 0.05}
    ppo, rnad = (
        kind("envs.leduc_poker_last_card", network=lambda game: network(), **how, **more)
        for kind, more in ((PPO, {}), (RNaD, {"reference_coef": 0.0}))
    )
    rnad.policy.load_state_dict(ppo.policy.state_dict())
    rollout, found = played(ppo.policy), []
    for model in (ppo, rnad):
        batch = next(model.make_batches(rollout, torch.Generator().manual_seed(0)))
        found.append(gradients(model.policy, model.training_step(batch, 0)))
    assert all(torch.equal(a, b) for a, b in zip(*found))
    with torch.no_grad():
        for p in rnad.policy.parameters():
            p.add_(0.1 * torch.randn_like(p))
    rnad.training_step(next(rnad.make_batches(rollout, torch.Generator().manual_seed(0))), 0)
    for term in ("policy_loss", "value_loss", "entropy", "reference_kl"):
        rnad.policy.zero_grad()
        rnad.meter.terms[term].backward(retain_graph=True)
        assert rnad.policy.weight_h.grad.abs().sum() > 0, term


def test_a_portfolio_that_compares_single_infostates_refuses_a_memory():
    with pytest.raises(ConfigError, match=r"drop='diverse': .* Recurrent has a memory; use best or recent"):
        RNaD("envs.leduc_poker_last_card", network=Recurrent, reference=Portfolio)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"chunk_length": 4}, "minibatches.chunk_length=4: MLP has no memory; use chunk_length=null"),
        ({"burn_in": 1}, "minibatches.burn_in=1: MLP has no memory; use burn_in=0"),
        ({"refresh": True}, "minibatches.refresh=True: MLP has no memory; use refresh=false"),
        ({"network": Recurrent, "visit_exponent": 0.5}, "minibatches.visit_exponent=0.5: counts infostates by obs"),
        ({"network": Recurrent, "chunk_length": 0}, "chunk_length=0"),
        ({"network": Recurrent, "burn_in": -1}, "burn_in=-1"),
        ({"network": partial(Recurrent, cell="rnn")}, "cell='rnn': must be one of gru, lstm"),
        ({"network": partial(Recurrent, memory=0)}, "memory=0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said.replace(".", r"\.")):
        PPO("envs.kuhn_poker", **grouped({"network": MLP} | arguments))


def test_a_chunk_longer_than_the_rollout_is_refused_before_anything_is_played(make_fit):
    trainer, model, data = make_fit({"network": Recurrent, "chunk_length": 9}, {"num_steps": 8})
    with pytest.raises(ConfigError, match=r"chunk_length=9: longer than a rollout, data\.num_steps=8"):
        trainer.fit(model, data)
    assert data.env is None


def test_armac_refuses_a_memory_by_name():
    from lit_rl.armac.armac import ARMAC

    with pytest.raises(ConfigError, match=r"model\.network=Recurrent: has a memory, and ARMAC"):
        ARMAC("envs.kuhn_poker", network=Recurrent)


def test_too_few_chunks():
    rollout = played(network(), num_envs=2)
    advantages, valid = gae(rollout, 1.0, 0.95)
    settings = Minibatches(num_minibatches=int(valid.sum()))
    with pytest.raises(ConfigError, match=r"num_minibatches=.*chunks of decisions"):
        next(minibatches(rollout, advantages, advantages, valid, settings, torch.Generator()))
