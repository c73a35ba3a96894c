"""References on hand-made policies: what each keeps, when it changes, which one is closest, who leaves."""

import math
import warnings

import pytest
import torch
from torch import nn

from envs.game import load_game
from lit_rl.losses import reference_kl
from lit_rl.networks import MLP
from lit_rl.policy import ActorCritic, PolicyOutput, mask_logits
from lit_rl.references import Magnet, Magnets, Portfolio, Refreshed

STRATEGIES = ("recent", "best", "diverse")


class Biased(ActorCritic):
    """Everywhere the same: first action with probability `first`, the rest evenly; a hand-made policy."""

    def __init__(self, game, first):
        super().__init__()
        rest = (1 - first) / (game.num_actions - 1)
        self.logits = nn.Parameter(torch.tensor([first] + [rest] * (game.num_actions - 1)).log())

    def forward(self, obs, legal):
        return PolicyOutput(mask_logits(self.logits.expand(len(obs), -1), legal), torch.zeros(len(obs)))


@pytest.fixture
def place(kuhn, kuhn_tree):
    """(obs, legal, weight) of all of Kuhn's infostates."""
    return torch.from_numpy(kuhn_tree.obs), torch.from_numpy(kuhn_tree.legal), torch.ones(kuhn_tree.num_rows)


def first_prob(reference, place, learner=None):
    """What the reference gives the first action, as the learner (by default uniform) would be told."""
    obs, legal, weight = place
    log_probs = torch.log_softmax((learner or Biased(load_game("envs.kuhn_poker"), 0.5))(obs, legal).logits, -1)
    log_rho = reference(obs, legal, log_probs.detach(), weight)
    assert not log_rho.requires_grad
    return torch.softmax(log_rho, -1)[0, 0].item()


def test_magnet_is_the_average_of_weights(kuhn):
    network = MLP(kuhn, hidden=(8,))
    magnet = Magnet(network, kuhn, rate=0.25)
    expected = network.policy_head.weight.detach().clone()
    for iteration in range(3):
        nn.init.normal_(network.policy_head.weight)
        magnet.update(network, iteration)
        expected = 0.75 * expected + 0.25 * network.policy_head.weight.detach()
    assert torch.allclose(magnet.policy.policy_head.weight, expected)


def test_refreshed_copies_every_so_often(kuhn, place):
    reference = Refreshed(Biased(kuhn, 0.5), kuhn, every=3)
    seen = []
    for iteration in range(7):
        reference.update(Biased(kuhn, 0.1 + 0.1 * iteration), iteration)
        seen.append(round(first_prob(reference, place), 4))
    assert seen == [0.5, 0.5, 0.3, 0.3, 0.3, 0.6, 0.6]


def test_interpolation_glides_from_copy_to_copy(kuhn, place):
    """w = min(1, 2 (i + 1) / every) on log-probabilities, i iterations after the copy."""
    reference = Refreshed(Biased(kuhn, 0.5), kuhn, every=4, interpolate=True)
    for iteration in range(4):
        reference.update(Biased(kuhn, 0.9), iteration)
    mixed = []
    for iteration in range(4, 8):
        mixed.append(first_prob(reference, place))
        reference.update(Biased(kuhn, 0.2), iteration)
    half = math.sqrt(0.9 * 0.5) / (math.sqrt(0.9 * 0.5) + math.sqrt(0.1 * 0.5))
    assert mixed == pytest.approx([half, 0.9, 0.9, 0.9], abs=1e-5)
    assert first_prob(reference, place) == pytest.approx(0.6, abs=1e-5)


def portfolio(kuhn, members=(), main=0.5, **options):
    """A portfolio whose members give the first action these probabilities, and whose main reference never moves."""

    def fixed(policy, game):
        return Refreshed(Biased(game, main), game, every=10**9)

    made = Portfolio(Biased(kuhn, 0.5), kuhn, **({"capacity": 3, "add_every": 1, "main": fixed} | options))
    for iteration, first in enumerate(members):
        made.add(Biased(kuhn, first), iteration)
    made.counts.copy_(made.valid)
    return made


def kept(made):
    return sorted(
        round(torch.softmax(m.logits, -1)[0].item(), 3) for m, valid in zip(made.members, made.valid.tolist()) if valid
    )


def test_min_is_the_closest(kuhn, place):
    made = portfolio(kuhn, (0.1, 0.8), distance="min")
    for learner, closest, index in ((0.85, 0.8, 2), (0.05, 0.1, 1), (0.45, 0.5, 0), (0.9, 0.8, 2)):
        before = made.selected.clone()
        assert first_prob(made, place, Biased(kuhn, learner)) == pytest.approx(closest, abs=1e-5)
        assert (made.selected - before).tolist() == [int(i == index) for i in range(4)]
    expected = 0.9 * math.log(0.9 / 0.1) + 0.1 * math.log(0.1 / 0.9)
    assert made.metrics()["kl/member_0"].item() == pytest.approx(expected, abs=1e-5)
    assert set(made.metrics()) == {"size"} | {
        f"{what}/{name}" for what in ("kl", "selected") for name in ("main", "member_0", "member_1")
    }


def test_each_infostate_has_a_closest_of_its_own(kuhn, place):
    made = portfolio(kuhn, (0.1, 0.9), main=0.5, distance="each")
    obs, legal, weight = place
    first = torch.tensor([0.9, 0.05, 0.55, 0.2])[torch.arange(len(obs)) % 4]
    found = torch.softmax(made(obs, legal, torch.stack([first, 1 - first], 1).log(), weight), -1)[:, 0]
    expected = torch.tensor([0.9, 0.1, 0.5, 0.1])[torch.arange(len(obs)) % 4]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("distance", ["min", "each"])
def test_a_young_member_does_not_count(kuhn, place, distance):
    made = portfolio(kuhn, main=0.5, distance=distance, min_age=3, add_every=10)
    learner = Biased(kuhn, 0.9)
    found = []
    for iteration in range(9, 14):
        made.update(learner, iteration)
        found.append(first_prob(made, place, learner))
    assert found == pytest.approx([0.5, 0.5, 0.5, 0.9, 0.9], abs=1e-5)


def test_magnets_of_several_rates(kuhn, place):
    """At each infostate the closest; after one update each has gone its share of the way."""
    made = Magnets(Biased(kuhn, 0.5), kuhn, rates=[0.25, 0.75])
    made.update(Biased(kuhn, 0.9), 0)
    obs, legal, weight = place
    slow, fast = (
        math.exp(a) / (math.exp(a) + math.exp(b))
        for rate in (0.25, 0.75)
        for a, b in [[(1 - rate) * math.log(0.5) + rate * math.log(p) for p in (0.9, 0.1)]]
    )
    first = torch.tensor([0.5, 0.9])[torch.arange(len(obs)) % 2]
    found = torch.softmax(made(obs, legal, torch.stack([first, 1 - first], 1).log(), weight), -1)[:, 0]
    torch.testing.assert_close(found, torch.tensor([slow, fast])[torch.arange(len(obs)) % 2], atol=1e-5, rtol=0)
    share = float(weight[::2].sum() / weight.sum())
    assert [float(x) for x in made.metrics().values()] == pytest.approx([share, 1 - share])
    assert list(made.metrics()) == ["selected/0.25", "selected/0.75"]


def test_the_choice_counts_weights(kuhn, place):
    """An infostate of weight 0 has no say."""
    made = portfolio(kuhn, (0.1, 0.9), main=0.5, distance="min")
    obs, legal, weight = place
    probs = torch.full((len(obs), 2), 0.1)
    probs[:, 1] = 0.9
    probs[0] = torch.tensor([0.9, 0.1])
    one = torch.zeros_like(weight)
    one[0] = 1.0
    assert torch.softmax(made(obs, legal, probs.log(), weight), -1)[0, 0].item() == pytest.approx(0.1, abs=1e-5)
    assert torch.softmax(made(obs, legal, probs.log(), one), -1)[0, 0].item() == pytest.approx(0.9, abs=1e-5)


@pytest.mark.parametrize("distance", ["min", "softmin", "mixture"])
def test_gradient_is_that_of_the_distance(kuhn, place, distance):
    """KL to the effective reference has the gradient of the distance written down directly."""
    softness = 0.3
    made = portfolio(kuhn, (0.1, 0.8), distance=distance, softness=softness)
    obs, legal, weight = place

    def gradient(loss):
        logits = torch.full((len(obs), 2), 0.0)
        logits[:, 0] = 0.4
        logits.requires_grad_()
        log_probs = torch.log_softmax(logits, -1)
        return torch.autograd.grad(loss(log_probs), logits)[0]

    def ours(log_probs):
        return reference_kl(log_probs, made(obs, legal, log_probs.detach(), weight)).mean()

    def direct(log_probs):
        rho = torch.tensor([[0.5, 0.5], [0.1, 0.9], [0.8, 0.2]])
        if distance == "mixture":
            return reference_kl(log_probs, rho.mean(0).log().expand_as(log_probs)).mean()
        kl = torch.stack([reference_kl(log_probs, r.log().expand_as(log_probs)).mean() for r in rho])
        return kl.min() if distance == "min" else -softness * torch.logsumexp(-kl / softness, 0)

    assert torch.allclose(gradient(ours), gradient(direct), atol=1e-6)
    assert gradient(ours).abs().max() > 1e-4


@pytest.mark.parametrize(("drop", "expected"), [("recent", [0.3, 0.5, 0.95]), ("best", [0.1, 0.5, 0.95])])
def test_who_leaves(kuhn, place, drop, expected):
    """0.1, 0.3, 0.5 joined in this order; 0.3 was never the closest."""
    made = portfolio(kuhn, (0.1, 0.3, 0.5), main=0.99, drop=drop)
    for learner in (0.1, 0.1, 0.5):
        first_prob(made, place, Biased(kuhn, learner))
    made.add(Biased(kuhn, 0.95), 3)
    assert kept(made) == expected


def test_best_counts_per_iteration(kuhn, place):
    """An old member's many selections do not protect it from one that is chosen more often since it joined."""
    made = portfolio(kuhn, (), capacity=2, main=0.99, drop="best")
    made.add(Biased(kuhn, 0.1), 0)
    for _ in range(5):
        first_prob(made, place, Biased(kuhn, 0.1))
    made.add(Biased(kuhn, 0.6), 90)
    for _ in range(3):
        first_prob(made, place, Biased(kuhn, 0.6))
    made.add(Biased(kuhn, 0.9), 100)  # 5 in 100 iterations against 3 in 10
    assert kept(made) == [0.6, 0.9]


@pytest.mark.parametrize(
    ("members", "newcomer", "expected"),
    [
        ((0.1, 0.12, 0.5), 0.9, [0.1, 0.5, 0.9]),  # the closest pair breaks up; 0.12 is nearer to the others
        ((0.1, 0.5, 0.9), 0.52, [0.1, 0.5, 0.9]),  # a newcomer beside a member is turned away where that is worse
    ],
)
def test_diverse_keeps_the_widest_set(kuhn, members, newcomer, expected):
    made = portfolio(kuhn, members, drop="diverse")
    made.add(Biased(kuhn, newcomer), 10)

    def spread(policies):
        def kl(a, b):
            return a * math.log(a / b) + (1 - a) * math.log((1 - a) / (1 - b))

        return min(kl(a, b) + kl(b, a) for a in policies for b in policies if a < b)

    everyone = [*members, newcomer]
    widest = max(spread([x for x in everyone if x != leaver]) for leaver in everyone)
    assert spread(kept(made)) == pytest.approx(widest, rel=0.02)
    assert kept(made) == pytest.approx(expected)


def test_diverse_prefers_the_newcomer_on_a_tie(kuhn, place):
    """Without 0.1 or without its twin 0.105 the closest pair is the other one: the older policy leaves."""
    made = portfolio(kuhn, (0.1, 0.9, 0.88), drop="diverse")
    first_prob(made, place, Biased(kuhn, 0.1))
    made.add(Biased(kuhn, 0.105), 10)
    assert kept(made) == [0.105, 0.88, 0.9]


def test_a_portfolio_of_one(kuhn):
    for drop in STRATEGIES:
        made = portfolio(kuhn, (0.1, 0.2, 0.3), capacity=1, drop=drop)
        assert kept(made) == [0.3]


def test_the_main_reference_never_touches_a_member(kuhn):
    """The documents' fault: refreshing the main reference overwrote the newest member."""
    made = Portfolio(
        Biased(kuhn, 0.5), kuhn, capacity=3, add_every=4, main=lambda policy, game: Refreshed(policy, game, every=1)
    )
    for iteration in range(10):
        made.update(Biased(kuhn, 0.05 + 0.05 * iteration), iteration)
    assert kept(made) == [0.2, 0.4]  # of iterations 3 and 7
    assert torch.softmax(made.main.policy.logits, -1)[0].item() == pytest.approx(0.5)


def test_a_member_that_is_not_finite_leaves_with_a_warning(kuhn, place):
    made = portfolio(kuhn, (0.1, 0.8), distance="mixture")
    with torch.no_grad():
        made.members[0].logits.fill_(math.nan)
    assert math.isfinite(first_prob(made, place))  # at once, and for good at the next update
    with pytest.warns(UserWarning, match=r"member \[0\] of the portfolio"):
        made.update(Biased(kuhn, 0.4), 5)
    assert kept(made) == [0.4, 0.8]
    with pytest.warns(UserWarning, match="not finite and stays out"):
        made.add(Biased(kuhn, math.nan), 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first_prob(made, place)
        made.update(Biased(kuhn, 0.4), 6)


@pytest.mark.parametrize("distance", ["min", "softmin", "mixture"])
def test_masked_by_the_same_legal_set(distance):
    """Leduc forbids folding at times: no reference gives an illegal action anything, and one legal action costs 0."""
    game = load_game("envs.leduc_poker")
    made = Portfolio(MLP(game, hidden=(8,)), game, capacity=2, add_every=1, distance=distance)
    made.add(MLP(game, hidden=(8,)), 0)
    legal = torch.tensor([[False, True, True], [True, True, True], [False, True, False]])
    obs = torch.from_numpy(game.new_state().view("u1")[:1].repeat(3 * 30).reshape(3, 30)).float()
    logits = torch.randn(3, 3, requires_grad=True)
    log_probs = torch.log_softmax(mask_logits(logits, legal), -1)
    log_rho = made(obs, legal, log_probs.detach(), torch.ones(3))
    assert (torch.softmax(log_rho, -1)[~legal] == 0).all()
    kl = reference_kl(log_probs, log_rho)
    kl.sum().backward()
    assert torch.isfinite(kl).all() and torch.isfinite(logits.grad).all()
    assert kl[2] == 0 and logits.grad[2].abs().sum() == 0


def test_saved_and_loaded_whole(kuhn, place, tmp_path):
    made = portfolio(kuhn, (0.1, 0.7), capacity=2, drop="best")
    first_prob(made, place, Biased(kuhn, 0.2))
    torch.save(made.state_dict(), tmp_path / "reference.pt")
    loaded = portfolio(kuhn, (), capacity=2, drop="best")
    loaded.load_state_dict(torch.load(tmp_path / "reference.pt", weights_only=True))
    for made_by in (made, loaded):
        made_by.add(Biased(kuhn, 0.9), 20)
    assert kept(made) == kept(loaded) == [0.1, 0.9]


def test_another_games_policy_is_refused(kuhn):
    leduc = load_game("envs.leduc_poker")
    with pytest.raises(ValueError, match="must come from the same game and network"):
        Magnet(MLP(kuhn, hidden=(8,)), kuhn).update(MLP(leduc, hidden=(8,)), 0)
    with pytest.raises(ValueError, match=r"policy_trunk.0.weight has shape \(16, 11\)"):
        Refreshed(MLP(kuhn, hidden=(8,)), kuhn, every=1).update(MLP(kuhn, hidden=(16,)), 0)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (Portfolio, {"capacity": 0}, "capacity=0"),
        (Portfolio, {"add_every": 0}, "add_every=0"),
        (Portfolio, {"drop": "newest"}, "drop='newest': unknown; use one of recent, best, diverse"),
        (Portfolio, {"distance": "max"}, "distance='max': unknown"),
        (Portfolio, {"min_age": -1}, "min_age=-1"),
        (Magnets, {"rates": [0.1, 1.0]}, "rates=.0.1, 1.0.: need to be distinct and between 0 and 1"),
        (Portfolio, {"softness": 0.0}, "softness=0"),
        (Refreshed, {"every": 0}, "every=0"),
        (Magnet, {"rate": 0.0}, "rate=0"),
        (Magnet, {"rate": 1.5}, "rate=1.5"),
    ],
)
def test_bad_arguments_are_refused_by_name(kuhn, kind, options, words):
    with pytest.raises(ValueError, match=words):
        kind(MLP(kuhn, hidden=(8,)), kuhn, **options)
