"""Exported policies say outside what they say here."""

import sys

import numpy as np
import pytest
import torch

from envs.vector_env import VectorEnv
from lit_rl.league.beside.export import export_policy
from lit_rl.league.game_policy import GamePolicy
from lit_rl.networks import MLP
from lit_rl.policy import ActorCritic, PolicyOutput, mask_logits
from lit_rl.run.errors import ConfigError


class Remembering(ActorCritic):
    """A GRU over what its seat has seen."""

    state_shape = (8,)

    def __init__(self, game):
        super().__init__()
        self.cell = torch.nn.GRUCell(game.obs_shape[0], 8)
        self.head = torch.nn.Linear(8, game.num_actions)

    def forward(self, obs, legal, state=None):
        state = self.cell(obs.float(), state)
        return PolicyOutput(mask_logits(self.head(state), legal), state.sum(1), state)


class Branching(ActorCritic):
    """Does what depends on numbers, which cannot be traced."""

    def __init__(self, game):
        super().__init__()
        self.layer = torch.nn.Linear(game.obs_shape[0], game.num_actions)

    def forward(self, obs, legal, state=None):
        x = obs.float()
        if x.sum() > 3:
            x = -x
        return PolicyOutput(mask_logits(self.layer(x), legal), x.sum(1))


def policy_of_kind(kind, game):
    network = MLP(game, hidden=(16,)) if kind is MLP else kind(game)
    return GamePolicy(network.eval().requires_grad_(False), game)


def inputs(game, n):
    env = VectorEnv(game, n, 5)
    for _ in range(7):
        env.step(env.sample_uniform())
    return torch.from_numpy(env.obs), torch.from_numpy(env.legal)


@pytest.mark.parametrize("kind", [MLP, Remembering])
def test_a_torch_program(leduc, tmp_path, kind):
    policy, path = policy_of_kind(kind, leduc), tmp_path / "leduc.pt2"
    assert export_policy(policy, path) <= 1e-5
    rows = inputs(leduc, 11)
    if kind is Remembering:
        rows = (*rows, torch.randn(11, 8))
    found, expected = torch.export.load(path).module()(*rows), policy.network(*rows)
    torch.testing.assert_close(found[0], expected.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1], expected.value, atol=1e-5, rtol=1e-5)
    if kind is Remembering:
        torch.testing.assert_close(found[2], expected.state, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [MLP, Remembering])
def test_onnx(leduc, tmp_path, kind):
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library)
    import onnxruntime

    policy, path = policy_of_kind(kind, leduc), tmp_path / "leduc.onnx"
    assert export_policy(policy, path) <= 1e-5
    rows = dict(zip(("obs", "legal"), inputs(leduc, 11)))
    if kind is Remembering:
        rows["state"] = torch.randn(11, 8)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [x.name for x in session.get_inputs()] == list(rows)
    names = ["logits", "value", "next_state"][: len(rows)]
    found = dict(zip(names, session.run(names, {name: x.numpy() for name, x in rows.items()})))
    expected = policy.network(*rows.values())
    np.testing.assert_allclose(found["logits"], expected.logits, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(found["value"], expected.value, atol=1e-5, rtol=1e-5)
    assert (found["logits"][~rows["legal"].numpy()] == np.float32(-1e30)).all()
    if kind is Remembering:
        np.testing.assert_allclose(found["next_state"], expected.state, atol=1e-5, rtol=1e-5)


def test_bad_input(leduc, tmp_path, monkeypatch):
    policy = policy_of_kind(MLP, leduc)
    with pytest.raises(ConfigError, match=r"leduc.h5: let it end with .pt2 \(torch.export\) or .onnx"):
        export_policy(policy, tmp_path / "leduc.h5")
    with pytest.raises(ConfigError, match="torch cannot export Branching") as caught:
        export_policy(policy_of_kind(Branching, leduc), tmp_path / "leduc.pt2")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr("lit_rl.league.beside.export.TOLERANCE", -1.0)
    with pytest.raises(ConfigError, match="says something else once exported, by 0; nothing is written"):
        export_policy(policy, tmp_path / "leduc.pt2")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"onnx is not installed: pip install .*lit-rl\[onnx\]"):
        export_policy(policy, tmp_path / "leduc.onnx")
    assert list(tmp_path.iterdir()) == []
