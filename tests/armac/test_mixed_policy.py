"""The policy that plays: its ends, its draws, what it remembers, and that a replay of it can be verified."""

import copy

import pytest
import torch
from tables import exploring, sharp_mlp

from envs.vector_env import VectorEnv
from lit_rl.armac.armac import ARMAC
from lit_rl.armac.memory import ReservoirMemory
from lit_rl.rollout import collect
from lit_rl.run.errors import ArtefactError
from lit_rl.run.replay import EXCLUDED, finished_games, game_record, verify, weights_hash
from lit_rl.run.replay_file import ReplayWriter


def test_a_share_of_0_is_regret_matching_and_1_is_the_actor(kuhn):
    obs = torch.randint(0, 2, (50, *kuhn.obs_shape), dtype=torch.uint8)
    legal = torch.ones(50, 2, dtype=torch.bool)
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


def test_a_policy_that_does_not_draw_plays_the_likeliest_bins(kuhn_tree):
    model = ARMAC("envs.kuhn_poker", network=sharp_mlp, use_scheduler=True)
    policy, obs, legal = model.policy, torch.from_numpy(kuhn_tree.obs), torch.from_numpy(kuhn_tree.legal)
    policy.scheduler.iteration.fill_(100)  # past the warm-up

    def bins(key):
        policy.draw_key.fill_(key)
        policy.renew()
        return policy.eval().mixture(obs, legal).bin

    assert not torch.equal(bins(1), bins(2)) and torch.equal(bins(1), bins(1))
    policy.draws = False
    policy.renew()
    mixture = policy.eval().mixture(obs, legal)
    assert torch.equal(bins(1), bins(2))
    assert torch.equal(bins(1), policy.scheduler.logits(obs, mixture.actor, mixture.regret).argmax(-1))


def test_replays_of_actions_that_regret_matching_excludes_are_verified_too(tmp_path, kuhn):
    policy = ARMAC("envs.kuhn_poker", network=sharp_mlp, memory=ReservoirMemory).policy
    rollout = collect(VectorEnv(kuhn, 40, seed=3), policy, 6, collecting=exploring(), keep_logits=True)
    facts = {"iteration": 0, "decisions": 0, "precision": "32-true", "weights": weights_hash(policy)}
    games = [facts | game_record(kuhn, rollout, *found) for found in finished_games(rollout)]
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


@pytest.mark.parametrize("mix_lambda", [0.0, 0.25])
def test_a_memo_says_what_the_networks_say(leduc_tree, mix_lambda):
    """Whatever was asked before, in whatever portions; and after a change of weights and `renew`, the new policy."""
    obs, legal = torch.from_numpy(leduc_tree.obs), torch.from_numpy(leduc_tree.legal)
    model = ARMAC("envs.leduc_poker", network=sharp_mlp, mix_lambda=mix_lambda)
    bare = ARMAC("envs.leduc_poker", network=sharp_mlp, mix_lambda=mix_lambda, cache_rows=0)
    assert bare.policy.memo is None and bare.policy.state_dict().keys() == model.policy.state_dict().keys()
    bare.policy.load_state_dict(model.policy.state_dict())
    for part in torch.randperm(936).split(400):
        with torch.no_grad():
            said, expected = (policy.mixture(obs[part], legal[part]) for policy in (model.policy, bare.policy))
        assert all(torch.allclose(a.float(), b.float(), atol=1e-6) for a, b in zip(said, expected))
    output = model.policy(obs, legal, None)
    assert output.state is None and output.extras.keys() == ({"mix_lambda", "bin"} if mix_lambda else set())
    with torch.no_grad():
        model.policy.regret.policy_head.bias += torch.tensor([5.0, 0.0, -5.0])
    assert torch.equal(model.policy(obs, legal).logits, output.logits)  # it does not look again by itself
    model.policy.renew()
    assert not torch.equal(model.policy(obs, legal).logits, output.logits)


def test_a_memo_forgets_when_it_is_full(leduc_tree):
    obs, legal = torch.from_numpy(leduc_tree.obs), torch.from_numpy(leduc_tree.legal)
    policy = ARMAC("envs.leduc_poker", network=sharp_mlp, cache_rows=500).policy
    policy(obs[:500], legal[:500])
    policy.renew()
    assert len(policy.memo.index) == 500
    policy(obs, legal)
    assert len(policy.memo.index) == 936  # within an iteration it remembers all
    policy.renew()
    assert len(policy.memo.index) == 0
