"""What a checkpoint holds of an algorithm's arguments: plain Python, from which the algorithm can be built again."""

import pytest

from lit_rl.armac.armac import ARMAC
from lit_rl.armac.parameter_groups import Groups, GroupSettings
from lit_rl.batches import Minibatches
from lit_rl.ppo import PPO
from lit_rl.returns import Credit
from lit_rl.rnad import RNaD
from lit_rl.run.errors import ConfigError


@pytest.mark.parametrize(
    "make",
    [
        lambda: PPO("envs.kuhn_poker", minibatches=Minibatches(3, 2), credit=Credit(gamma=0.9)),
        lambda: RNaD("envs.kuhn_poker", minibatches=Minibatches(3, 2), credit=Credit(gamma=0.9)),
        lambda: ARMAC("envs.kuhn_poker", groups=Groups(regret=GroupSettings(lr=0.5, lr_end=0.1))),
    ],
)
def test_settings_come_back_from_plain_hyperparameters(make):
    module = make()
    again = type(module)(**module.hparams)
    assert dict(again.hparams) == dict(module.hparams)
    for name in ("minibatches", "credit", "groups"):
        assert getattr(again, name, None) == getattr(module, name, None)
    with pytest.raises(ConfigError, match="unexpected keyword argument 'epochs'"):
        PPO("envs.kuhn_poker", minibatches={"epochs": 3})
