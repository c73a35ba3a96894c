"""Past policies: which are kept, where they sit, what they say, and that they go on where they were saved."""

import pytest
import torch
from tables import exploring, sharp_mlp
from torch.nn.utils import parameters_to_vector

from envs.vector_env import VectorEnv
from lit_rl.armac.armac import ARMAC
from lit_rl.armac.past_policies import PastPolicies
from lit_rl.networks import MLP
from lit_rl.rollout import collect


class Watched:
    """Opponents whose slots are noted down at each step."""

    def __init__(self, past, slots):
        self.past, self.slots = past, slots

    def learner_moves(self, env):
        self.slots.append(self.past.slot.clone())
        return self.past.learner_moves(env)

    def __getattr__(self, name):
        return getattr(self.past, name)


@pytest.mark.parametrize("keep", ["reservoir", "fifo"])
def test_past_policies_are_kept_seated_and_saved(kuhn, keep):
    model = ARMAC("envs.kuhn_poker", network=sharp_mlp)
    env = VectorEnv(kuhn, 40, seed=1, observe_all=True)
    past = PastPolicies(env, model.policy, capacity=3, keep=keep, seated=2, seed=5)
    weights = []
    for iteration in range(8):
        with torch.no_grad():
            model.policy.regret.policy_head.bias += 1.0
        model.policy.renew()
        weights.append(parameters_to_vector(model.policy.parameters()).clone())
        before = [parameters_to_vector(player.parameters()) for player in past.players]
        past.begin(model.policy, iteration)
        if iteration:  # who does not make room stays as it is, also if the buffer drops it
            stays = (iteration + 1) % 2
            assert torch.equal(parameters_to_vector(past.players[stays].parameters()), before[stays])
        slots = []
        r = collect(env, model.policy, 3, collecting=exploring(), opponents=Watched(past, slots))
        slots = torch.stack(slots)
        assert slots.shape == r.action.shape and {0, 1} == set(slots.flatten().tolist())
        assert torch.equal(r.learner, r.player == torch.arange(40) % 2)
        same_game = ~r.done[:-1]
        assert torch.equal(slots[1:][same_game], slots[:-1][same_game])  # drawn as a game begins, and then stays
    kept = [next(i for i, w in enumerate(weights) if torch.equal(w, v)) for v in past.kept]
    assert sorted(kept) == [5, 6, 7] if keep == "fifo" else len(set(kept)) == 3
    for player in past.players:
        seated = parameters_to_vector(player.parameters())
        assert any(torch.equal(seated, w) for w in weights)
    twin = PastPolicies(env, model.policy, capacity=3, keep=keep, seated=2, seed=99)
    twin.load_state_dict(past.state_dict())
    for each in (past, twin):
        each.begin(model.policy, 8)
    assert torch.equal(twin.probs(env), past.probs(env)) and torch.equal(twin.slot, past.slot)
    assert (twin.streams == past.streams).all() and torch.equal(twin.kept, past.kept)


def test_what_the_past_would_do_stands_at_every_decision(kuhn):
    """Also at the learner's own, and carried decisions keep what was said by the one who sat there."""
    model = ARMAC("envs.kuhn_poker", network=sharp_mlp)
    env = VectorEnv(kuhn, 40, seed=1, observe_all=True)
    past = PastPolicies(env, model.policy, capacity=9, keep="fifo", seated=2, seed=5)
    previous = None
    for iteration in range(4):
        with torch.no_grad():
            model.policy.regret.policy_head.bias += torch.randn(2)
        model.policy.renew()
        past.begin(model.policy, iteration)
        said = [player(*rows_of(env)).logits.softmax(-1) for player in past.players]
        slot = past.slot.clone()
        r = collect(env, model.policy, 2, previous=previous, opponents=past)
        probs = r.extras["past_probs"]
        assert torch.allclose(probs.sum(-1)[r.played], torch.ones(int(r.played.sum())))
        for row in range(40):
            assert torch.allclose(probs[r.carried, row], said[slot[row]][row], atol=1e-6)
        others = r.played & ~r.learner
        others[: r.carried] = False
        assert (r.action[others] == 0).any()
        if r.carried:
            kept = r.played[: r.carried]
            assert torch.equal(probs[: r.carried][kept], previous.extras["past_probs"][-r.carried :][kept])
        previous = r


def rows_of(env):
    return torch.from_numpy(env.obs.copy()), torch.from_numpy(env.legal.copy())


def test_any_policy_has_a_past(kuhn):
    network = MLP(kuhn, hidden=(8,))
    env = VectorEnv(kuhn, 20, seed=1)
    past = PastPolicies(env, network, capacity=4, keep="fifo", seated=2, seed=0)
    past.begin(network, 0)
    r = collect(env, network, 4, opponents=past)
    expected = network(r.obs.flatten(0, 1), r.legal.flatten(0, 1)).logits.softmax(-1).view(r.legal.shape)
    assert torch.allclose(r.extras["past_probs"], expected, atol=1e-6)
    state = past.state_dict()
    other = PastPolicies(env, MLP(kuhn, hidden=(8,)), capacity=4, keep="fifo", seated=2, seed=0)
    other.load_state_dict(state)
    assert torch.equal(other.probs(env), past.probs(env))
    heir = PastPolicies(env, network, capacity=4, keep="fifo", seated=3, seed=0)
    heir.inherit(state)
    assert torch.equal(heir.kept, past.kept) and heir.seen == 1
