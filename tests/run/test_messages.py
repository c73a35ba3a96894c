"""Bad input: one line that names the key, the value and the nearest name, and exit code 2."""

import re

import pytest
from harness import SMALL

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--model.clipp", "0.1"], "Option 'clipp' is not accepted; did you mean clip?"),
        (["--model", "PP0"], "PP0; did you mean PPO?"),
        (["--modell", "PPO"], "--modell PPO; did you mean model?"),
        (["--data.game", "envs.leduc_pokr"], "envs.leduc_pokr.*no such module"),
        (["--data.game", "envs.rng"], "defines neither GAME"),
        (["--model.entropy_coef", "-1"], "entropy_coef: .*-1"),
        (["--model.entropy_coef", "nan"], "entropy_coef: .*nan"),
        (["--model.entropy_coef", "inf"], "entropy_coef=inf: must be finite"),
        (["--model.credit.gamma", "1.5"], "gamma: .*1.5"),
        (["--data.num_envs", "0"], "num_envs: .*0"),
        (["--model.lr_schedule", "Cosin"], "Cosin; did you mean Cosine?"),
        (["--model.lr_schedule", "PowerLaw", "--model.lr_schedule.end", "0"], "end=0"),
        (["--model.gamma", "0.9"], "Option 'gamma' is not accepted; did you mean credit.gamma?"),
        (["--ckpt_path", "last"], "ckpt_path=last: .*kuhn_ppo.yaml lies in none"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--trainer.max_epochs", "many"], "max_epochs: .*many"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(command, args, words):
    code, _, err = command("fit", *SMALL, *args)
    assert code == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error[2]: ")]
    assert err.splitlines()[-1] == line and "Traceback" not in err
    assert re.search(words.replace("?", r"\?"), line), line


def test_a_schedule_with_a_misspelt_target_stops_at_start(command, tmp_path):
    overlay = tmp_path / "o.yaml"
    overlay.write_text(
        "trainer: {callbacks+: [{class_path: ScalarSchedule, init_args: {target: model.entropy_cof, "
        "schedule: {class_path: Linear}}}]}\n"
    )
    code, _, err = command("fit", *SMALL, "--config", overlay)
    assert code == 2 and "did you mean model.entropy_coef?" in err
