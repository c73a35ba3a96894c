"""Rollouts: what is stored is what happened, and unfinished games are carried."""

import dataclasses

import lightning as L
import naive
import pytest
import torch

from envs.game import load_game
from envs.vector_env import VectorEnv
from lit_rl.networks import MLP
from lit_rl.policy import MASKED, ActorCritic, PolicyOutput, mask_logits
from lit_rl.rollout import Collecting, collect, explorer_seat

FIRST_LOSSES = [  # of `make_fit`, before there were opponents
    0.4381983876, 0.0698888972, 0.4461776614, 0.4780222774, 0.2627958059, 0.3251066208, 0.3480656743, 0.4118788838,
    0.4303283989, 0.3186036050,
]  # fmt: skip


@pytest.fixture
def network(leduc):
    return MLP(leduc, hidden=(16,))


@pytest.mark.parametrize("merge_rows", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_stored_numbers_are_those_of_the_policy(leduc, network, merge_rows, temperature):
    r = collect(
        VectorEnv(leduc, 64, seed=1),
        network,
        6,
        keep_logits=True,
        collecting=Collecting(temperature=temperature, merge_rows=merge_rows),
    )
    output = network(r.obs.flatten(0, 1), r.legal.flatten(0, 1))
    log_probs = torch.log_softmax(output.logits / temperature, -1)
    assert torch.allclose(r.logits.flatten(0, 1), output.logits / temperature, atol=1e-5)
    assert torch.allclose(r.log_prob.flatten(), log_probs.gather(1, r.action.flatten()[:, None])[:, 0], atol=1e-5)
    assert torch.allclose(r.value.flatten(), output.value, atol=1e-5)
    assert r.legal.gather(-1, r.action.unsqueeze(-1)).all()
    assert r.num_decisions == 6 * 64 and r.carried == 0 and r.played.all()


def test_an_exploring_player_draws_uniformly_and_log_probs_say_so(leduc, network):
    """With exploration 1, 0.5 and 0 in turn: log-probs of the mixture, frequencies to match."""
    torch.nn.init.normal_(network.policy_head.weight, std=2.0)
    everybody, one, nobody = (
        collect(
            VectorEnv(leduc, 1000, seed=5), network, 1, keep_logits=True, collecting=Collecting(**how, merge_rows=True)
        )
        for how in ({"exploration": 0.5}, {"exploration": 1.0, "explorers": "one"}, {})
    )
    explorer = explorer_seat(1000, 2).float()
    assert torch.equal(one.exploration[0], explorer.gather(1, one.player[0].long()[:, None])[:, 0])
    assert (everybody.exploration == 0.5).all() and (nobody.exploration == 0).all()
    for r in (everybody, one, nobody):
        check_exploration(leduc, r)


def check_exploration(leduc, r):
    policy, uniform = r.logits[0].softmax(-1), r.legal[0] / r.legal[0].sum(-1, keepdim=True)
    mixed = policy + r.exploration[0, :, None] * (uniform - policy)
    assert torch.allclose(r.log_prob[0], mixed.gather(1, r.action[0, :, None]).log()[:, 0], atol=1e-5)
    for rows in (r.exploration[0] == 1, r.exploration[0] < 1):
        if rows.any():
            drawn = torch.nn.functional.one_hot(r.action[0, rows], leduc.num_actions).float().mean(0)
            assert torch.allclose(drawn, mixed[rows].mean(0), atol=0.06)
    assert (policy - uniform).abs().max() > 0.3


def test_history_is_what_every_player_sees(leduc, network):
    env = VectorEnv(leduc, 20, seed=6, observe_all=True)
    r = collect(env, network, 7)
    player = r.player.long()[..., None, None].expand(-1, -1, 1, r.obs.shape[-1])
    assert torch.equal(r.history.gather(2, player)[:, :, 0], r.obs)
    seen = torch.zeros(leduc.obs_shape).numpy()
    for b in range(20):
        for p in range(2):
            seen[:] = 0
            leduc.observe(env.state[b], p, seen)
            assert (env.history[b, p] == seen).all()
    assert collect(VectorEnv(leduc, 20, seed=6), network, 7).history.numel() == 0


def test_games_go_on_from_rollout_to_rollout(leduc, network):
    """Two rollouts of 5 steps hold the same decisions as one of 10, and the second carries the first's open games."""
    env = VectorEnv(leduc, 50, seed=2)
    first = collect(env, network, 5)
    second = collect(env, network, 5, previous=first)
    whole = collect(VectorEnv(leduc, 50, seed=2), network, 10)
    assert torch.equal(torch.cat([first.action, second.action[second.carried :]]), whole.action)
    assert torch.equal(torch.cat([first.rewards, second.rewards[second.carried :]]), whole.rewards)
    assert 0 < second.carried <= 5
    open_games = first.unfinished()
    for b in range(50):
        count = int(open_games[:, b].sum())
        assert int(second.played[: second.carried, b].sum()) == count
        if count:
            assert torch.equal(second.action[second.carried - count : second.carried, b], first.action[5 - count :, b])


def test_unfinished_is_what_follows_the_last_end(leduc, network):
    r = collect(VectorEnv(leduc, 200, seed=3), network, 9)
    for b in range(200):
        ends = [t for t in range(9) if r.done[t, b]]
        last = ends[-1] if ends else -1
        assert r.unfinished()[:, b].tolist() == [t > last for t in range(9)]


class Broken(ActorCritic):
    def __init__(self, leduc):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, obs, legal):
        logits = torch.zeros(len(obs), 3)
        logits[-1] = torch.nan
        return PolicyOutput(mask_logits(logits, legal), torch.zeros(len(obs)))


def test_nan_logits_stop_before_sampling(leduc):
    with pytest.raises(FloatingPointError, match=r"leduc_poker, env row 7: cannot sample"):
        collect(VectorEnv(leduc, 8, seed=0), Broken(leduc), 3)


def test_check_finite_names_the_place(leduc, network):
    r = collect(VectorEnv(leduc, 8, seed=0), network, 3)
    r.check_finite()
    value = r.value.clone()
    value[1, 4] = torch.inf
    with pytest.raises(FloatingPointError, match=r"rollout value\[step 1, env row 4\] = inf"):
        dataclasses.replace(r, value=value).check_finite()


def test_an_actor_critic_must_say_forward():
    with pytest.raises(TypeError, match="does not define forward"):
        ActorCritic()(None, None)


@pytest.mark.parametrize("shared", [True, False])
def test_mlp(leduc, shared):
    network = MLP(leduc, hidden=(32, 16), shared=shared)
    obs = torch.randint(0, 2, (5, 30), dtype=torch.uint8)
    legal = torch.tensor([[False, True, True]] * 5)
    logits, value = network(obs, legal)[:2]
    assert logits.shape == (5, 3) and value.shape == (5,)
    assert (logits[:, 0] == MASKED).all() and logits[:, 1:].abs().max() < 0.2  # the policy head starts small
    assert (network.value_trunk is network.policy_trunk) == shared
    weight = network.policy_trunk[2].weight  # [16, 32]: orthogonal rows of length sqrt(2)
    assert torch.allclose(weight @ weight.T, 2 * torch.eye(16), atol=1e-5)
    with pytest.raises(ValueError, match="hidden"):
        MLP(leduc, hidden=())


class Nobody:
    """Opponents in no seat at all."""

    def learner_moves(self, env):
        return env.player >= 0

    def act(self, env, probs, part):
        raise AssertionError("nobody has nothing to do")

    def extras(self, env):
        return {}

    def stepped(self, env):
        pass


@pytest.mark.parametrize("merge_rows", [True, False])
def test_opponents_in_no_seat_change_no_bit(leduc, network, merge_rows):
    alone, beside = (
        collect(VectorEnv(leduc, 64, seed=1), network, 9, opponents=o, collecting=Collecting(merge_rows=merge_rows))
        for o in (None, Nobody())
    )
    for f in dataclasses.fields(alone):
        mine, theirs = getattr(alone, f.name), getattr(beside, f.name)
        assert torch.equal(mine, theirs) if torch.is_tensor(mine) else mine == theirs, f.name
    assert alone.learner.all()


def test_the_first_losses_of_seed_0_are_what_they_were_before_there_were_opponents(make_fit):
    losses = []

    class Listen(L.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            losses.append(float(outputs["loss"]))

    torch.manual_seed(0)
    trainer, model, data = make_fit(callbacks=[Listen()], limit_val_batches=0)
    trainer.fit(model, data)
    assert losses[:10] == pytest.approx(FIRST_LOSSES, rel=1e-5)


@pytest.mark.parametrize("merge_rows", [True, False])
def test_opponents_act_in_their_rows_and_leave_filler(leduc, network, merge_rows):
    env, previous = VectorEnv(leduc, 64, seed=1), None
    strangers = naive.Strangers(env)
    for _ in range(3):
        seats = strangers.seat.copy()
        r = collect(
            env, network, 5, opponents=strangers, previous=previous, keep_logits=True,
            collecting=Collecting(temperature=0.5, exploration=0.25, merge_rows=merge_rows),
        )  # fmt: skip
        theirs = r.played & ~r.learner
        assert (r.learner[r.carried] == torch.from_numpy(seats != r.player[r.carried].numpy())).all()
        assert not theirs[:, ::2].any() and theirs[:, 1::2].any()
        last_legal = r.legal.shape[-1] - 1 - r.legal.flip(-1).int().argmax(-1)
        assert torch.equal(r.action[theirs], last_legal[theirs])
        for name in ("log_prob", "exploration", "value"):
            assert (getattr(r, name)[theirs] == 0).all()
        assert torch.equal(r.logits[theirs], torch.where(r.legal[theirs], 0.0, MASKED))
        output = network(r.obs[r.learner], r.legal[r.learner])
        assert torch.allclose(r.logits[r.learner], output.logits / 0.5, atol=1e-5)
        assert torch.allclose(r.value[r.learner], output.value, atol=1e-5)
        assert (r.exploration[r.learner & r.played] == 0.25).all()
        assert torch.equal(r.extras["theirs"][r.carried], torch.from_numpy(seats))
        previous = r


class Counter(ActorCritic):
    """A policy with memory: it counts its own decisions in the game, and says the number as its value."""

    state_shape = (1,)

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, obs, legal, state=None):
        counted = state + 1
        return PolicyOutput(mask_logits(torch.zeros(legal.shape), legal), counted[:, 0], counted)


@pytest.mark.parametrize("strangers", [False, True])
@pytest.mark.parametrize("truncate_after", [None, 3])
def test_memory_belongs_to_a_seat_and_ends_with_the_game(leduc, truncate_after, strangers):
    """Over several rollouts, carried or not: a decision's memory is the number of that seat's own decisions before."""
    for cut_games in ("carry", "drop"):
        env, previous = VectorEnv(leduc, 50, seed=1, truncate_after=truncate_after), None
        opponents = naive.Strangers(env) if strangers else None
        counts = torch.zeros(50, 2)
        for _ in range(4):
            previous = r = collect(
                env, Counter(), 5, previous=previous, opponents=opponents, collecting=Collecting(cut_games=cut_games)
            )
            assert r.state.shape == (len(r.obs), 50, 1) and r.last_state.shape == (50, 2, 1)
            for t in range(r.carried, len(r.obs)):
                for b in range(50):
                    p = int(r.player[t, b])
                    if r.learner[t, b]:
                        assert r.state[t, b, 0] == counts[b, p] and r.value[t, b] == counts[b, p] + 1
                        counts[b, p] += 1
                    else:
                        assert r.state[t, b, 0] == 0
                    if r.done[t, b]:
                        counts[b] = 0
            assert torch.equal(r.last_state[..., 0], counts)
            assert torch.equal(r.tail().last_state, r.last_state)


@pytest.mark.parametrize("cut_games", ["carry", "bootstrap"])
def test_the_tail_is_all_that_the_next_rollout_needs(leduc, network, cut_games):
    how = Collecting(cut_games=cut_games)
    env, other = VectorEnv(leduc, 40, seed=2), VectorEnv(leduc, 40, seed=2)
    first, same = (collect(e, network, 5, collecting=how) for e in (env, other))
    whole = collect(env, network, 5, previous=first, collecting=how)
    from_tail = collect(other, network, 5, previous=same.tail(), collecting=how)
    for f in dataclasses.fields(whole):
        mine, theirs = getattr(whole, f.name), getattr(from_tail, f.name)
        assert torch.equal(mine, theirs) if torch.is_tensor(mine) else mine == theirs, f.name
    assert len(same.tail().obs) == (whole.carried if cut_games == "carry" else 0)


def test_bonus_and_team_share_are_learned_from_and_nothing_else():
    """Two against two: rewards are outcomes and bonus, shared within a team; outcomes stay those of the rules."""
    game = load_game("games.pairs")
    network = MLP(game, hidden=(8,))
    plain, shaped = (
        collect(VectorEnv(game, 32, seed=4), network, 9, bonus_coef=coef, team_share=share)
        for coef, share in ((0.0, 0.0), (0.5, 0.25))
    )
    assert plain.rewards is plain.outcomes and torch.equal(plain.outcomes, shaped.outcomes)
    env = VectorEnv(game, 32, seed=4)
    for t in range(9):
        env.step(shaped.action[t].numpy())
        earned = torch.from_numpy(env.rewards) + 0.5 * torch.from_numpy(env.bonus)
        for p in range(4):
            mates = [q for q in range(4) if game.team[q] == game.team[p]]
            expected = 0.75 * earned[:, p] + 0.25 * earned[:, mates].mean(1)
            assert torch.allclose(shaped.rewards[t, :, p], expected, atol=1e-6)
    assert not torch.equal(shaped.rewards, shaped.outcomes)


def test_logits_may_be_wanted_from_one_rollout_on(leduc, network):
    """A recorder that joins or leaves a resumed run: carried decisions have no logits, new ones do."""
    env = VectorEnv(leduc, 20, seed=1)
    first = collect(env, network, 5)
    second = collect(env, network, 5, previous=first, keep_logits=True)
    third = collect(env, network, 5, previous=second)
    assert second.carried and not second.logits[: second.carried].any() and second.logits[second.carried :].any()
    assert first.logits.shape[-1] == third.logits.shape[-1] == 0


class Square(ActorCritic):
    """Plays anything; its value tells who looks: 10 for the mover's obs, 1 for anybody else's."""

    def __init__(self, game):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, obs, legal, state=None):
        mine = obs.flatten(1)[:, -1].float()
        return PolicyOutput(mask_logits(torch.zeros(legal.shape), legal) + self.weight, 1 + 9 * mine)


@pytest.mark.parametrize("bonus_coef", [0.0, 1.0])
def test_a_truncated_game_is_valued_by_its_mover_where_nothing_is_hidden(bonus_coef):
    """Minus that for the other one, whose obs the critic never learns from; also where a bonus sums to 0."""
    game = load_game("envs.shogi")
    env = VectorEnv(game, 8, seed=1, truncate_after=3)
    r = collect(
        env, Square(game), 6, collecting=Collecting(cut_games="bootstrap", merge_rows=False), bonus_coef=bonus_coef
    )
    for t, mover in ((2, 1), (5, 1)):
        assert (
            r.done[t].all() and (r.bootstrap[t, :, mover] == 10).all() and (r.bootstrap[t, :, 1 - mover] == -10).all()
        )
    assert (r.last_value == torch.tensor([10.0, -10.0])).all() and r.last_known.all()


def test_a_bonus_that_does_not_sum_to_zero_asks_everybody():
    game = dataclasses.replace(load_game("envs.shogi"), bonus_zero_sum=False)
    r = collect(
        VectorEnv(game, 4, seed=1, truncate_after=3), Square(game), 3, bonus_coef=1.0,
        collecting=Collecting(cut_games="bootstrap"),
    )  # fmt: skip
    assert (r.bootstrap[2] == torch.tensor([1.0, 10.0])).all()
