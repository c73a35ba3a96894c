"""Player files: they come back as they went, and what does not fit is named."""

import warnings

import lightning as L
import numpy as np
import pytest
import torch
from league_runs import SPEC, lively

from datamodules.self_play import SelfPlayDataModule
from lit_rl.armac.armac import ARMAC
from lit_rl.evaluation import policy_table
from lit_rl.league.player_file import build_network, load_network, save_player
from lit_rl.networks import MLP
from lit_rl.ppo import PPO
from lit_rl.rnad import RNaD
from lit_rl.run.errors import ArtefactError


def test_player_files_come_back_as_they_went(leduc, tmp_path):
    network = lively(leduc)
    before = torch.random.get_rng_state()
    for spec, make in ((SPEC, None), (None, lambda: MLP(leduc, hidden=(16,)))):
        sha = save_player(tmp_path / "p.pt", network, leduc, spec)
        loaded = load_network(tmp_path / "p.pt", leduc, sha, make)
        assert all(torch.equal(x, loaded.state_dict()[name]) for name, x in network.state_dict().items())
        assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    save_player(tmp_path / "p.pt", network, leduc, SPEC)
    torch.random.set_rng_state(before)
    load_network(tmp_path / "p.pt", leduc)
    assert torch.equal(torch.random.get_rng_state(), before)  # nobody's random numbers were used


@pytest.mark.parametrize("algorithm", [PPO, RNaD, ARMAC])
def test_a_checkpoint_plays_the_policy_that_its_run_exports(leduc, leduc_tree, tmp_path, algorithm):
    options = {} if algorithm is ARMAC else {"ema_decay": 0.9}
    model = algorithm("envs.leduc_poker", network=lambda game: MLP(game, hidden=(16,)), **options)
    model.hparams["network"] = SPEC  # as the command line leaves it
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, num_sanity_val_steps=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, SelfPlayDataModule("envs.leduc_poker", num_envs=32, num_steps=8))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = load_network(tmp_path / "last.ckpt", leduc)
    assert np.array_equal(policy_table(loaded, leduc_tree), policy_table(model.export_policy(), leduc_tree))
    assert not np.array_equal(policy_table(loaded, leduc_tree), policy_table(model.policy, leduc_tree))


def test_what_is_no_player_here_is_refused_by_name(leduc, kuhn, tmp_path):
    path = tmp_path / "p.pt"
    with pytest.raises(ArtefactError, match=r"p.pt: no such file"):
        load_network(path, leduc)
    sha = save_player(path, lively(leduc), leduc, SPEC)
    with pytest.raises(ArtefactError, match=r"is of leduc_poker .*not of kuhn_poker"):
        load_network(path, kuhn, sha)
    with pytest.raises(ArtefactError, match="SHA-256 is not the recorded one"):
        load_network(path, leduc, "0" * 64)
    save_player(path, lively(leduc), leduc, SPEC | {"init_args": {"hidden": [8]}})
    with pytest.raises(ArtefactError, match="weights are of another network"):
        load_network(path, leduc)
    save_player(path, lively(leduc), leduc)
    with pytest.raises(ArtefactError, match="does not say how its network is built"):
        load_network(path, leduc)
    torch.save({"player": 1, "code": torch.nn.Linear(1, 1)}, path)
    with pytest.raises(ArtefactError, match=r"cannot be loaded \(it holds torch"):
        load_network(path, leduc)
    for class_path in ("subprocess.Popen", "lit_rl.ppo.PPO", "no.such.Net"):
        with pytest.raises(ArtefactError, match=f"network {class_path}: cannot be built here"):
            build_network({"class_path": class_path, "init_args": {}}, leduc)
