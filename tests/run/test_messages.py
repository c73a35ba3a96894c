"""Bad input: one line that names the key, the value and the nearest name, and exit code 2."""

import re
import time

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
        (["--model.minibatches.chunk_length", "null"], "use --model.minibatches '{chunk_length: null}'"),
        (["--model.clipp", "0.1"], "Option 'clipp' is not accepted; did you mean clip?"),
        (["--model", "PP0"], "PP0; did you mean PPO?"),
        (["--modell", "PPO"], "--modell PPO; did you mean model?"),
        (["--data.game", "envs.leduc_pokr"], "envs.leduc_pokr.*no such module"),
        (["--data.game", "envs.rng"], "defines neither GAME"),
        (["--model.entropy_coef", "-1"], "entropy_coef: .*-1"),
        (["--model.entropy_coef", "nan"], "entropy_coef: .*nan"),
        (["--model.value_coef", "inf"], "value_coef=inf: must be finite"),
        (["--model.credit.gamma", "1.5"], "gamma: .*1.5"),
        (["--data.num_envs", "0"], "num_envs: .*0"),
        (["--model.lr_schedule", "Cosin"], "Cosin; did you mean Cosine?"),
        (["--model.lr_schedule", "PowerLaw", "--model.lr_schedule.end", "0"], "end=0"),
        (["--model.gamma", "0.9"], "Option 'gamma' is not accepted; did you mean credit.gamma?"),
        (["--ckpt_path", "last"], "ckpt_path=last: .*kuhn_ppo.yaml lies in none"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--trainer.max_epochs", "many"], "max_epochs: .*many"),
        (["--seed_everything", str(2**32)], "seed_everything=4294967296: needs 0 to 4294967295"),
        (["--model.clip", "1e308"], "clip=1e.308: too large"),
        (["--model.optimizer", "SparseAdam"], "SparseAdam cannot take a step here"),
        (["--data.num_steps", str(10**18)], "data.num_steps=1000000000000000000: a rollout of at least"),
        (["--data.num_steps", str(10**9)], "data.num_steps=1000000000: a rollout of at least"),
        (["--data.num_envs", str(10**15)], "data.num_envs=1000000000000000"),
        (["--data.num_envs", str(10**400)], "num_envs=|int too large"),
        (["--config", "\udcff.yaml"], "is no UTF-8"),
        (["--trainer.default_root_dir", "\udcff"], "is no UTF-8"),
        (["--data.seed", "3"], "data.seed: is copied from seed_everything; set that instead"),
        (["--data.init_args.seed=0"], "data.seed: is copied from seed_everything"),
        (["--data", "{class_path: SelfPlayDataModule, init_args: {seed: 1}}"], "data.seed: is copied"),
        (["--model.game", "envs.kuhn_poker"], "model.game: is copied from data.game; set that instead"),
        (["--trainer.gradient_clip_val", "-1"], "trainer.gradient_clip_val=-1: needs at least 0"),
        (["--trainer.gradient_clip_val", "1e308"], "trainer.gradient_clip_val=1e.308"),
        (["--trainer.log_every_n_steps", "-5"], "trainer.log_every_n_steps=-5: needs at least 1"),
        (["--model.sampling_temperature", "1e-30"], "sampling_temperature: .*1e-30"),
        (["--model.entropy_coef", "0.3"], "model.entropy_coef=0.3: has no effect, since a ScalarSchedule sets it"),
        (["--model.entropy_coef", "0.05"], "model.entropy_coef=0.05: has no effect"),  # though it is the default
        (["--model.optimizer.lr", "-1"], "optimizer: Invalid learning rate: -1"),
        (["--model.optimizer.lr", ".inf"], "optimizer: lr=inf must be finite"),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=eval/nash_cov"],
            "EarlyStopping: monitor=eval/nash_cov: no evaluation logs it; did you mean eval/nash_conv?",
        ),
        (
            ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=val_loss"],
            "ModelCheckpoint: monitor=val_loss: no evaluation logs it; logged are eval/exploitability, eval/nash_conv",
        ),
        (
            ["--model.lr_schedule=lightning.pytorch.cli.ReduceLROnPlateau", "--model.lr_schedule.monitor=eval/winrate"],
            "lr_schedule: monitor=eval/winrate: no evaluation logs it",
        ),
        (["--without", "RunProgres"], "without=RunProgres: is not always on; those that are: FiniteGuard, "),
        (["--config", "configs/leduc_ppo.yaml"], "lit-rl's own go by their names: --config leduc_ppo"),
        (["--config", "leduc_pp"], "lit-rl's own go by their names: --config leduc_ppo"),
        (["--data.game", "games.endless"], "data.game=games.endless: .* no player comes to move within max_steps=9"),
        (["--data.game", "games.unbalanced"], "data.game=games.unbalanced: .* do not sum to 1"),
    ],
    ids=lambda value: " ".join(value)[:40].encode("ascii", "replace").decode() if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(command, args, words):
    code, _, err = command("fit", *SMALL, *args)
    assert code == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error[2]: ")]
    assert err.splitlines()[-1] == line and "Traceback" not in err
    assert re.search(words.replace("?", r"\?"), line), line


def test_early_means_before_anything_is_compiled(command, monkeypatch, tmp_path):
    """No game is rehearsed, no env made, no tree built; and no run folder stays."""

    def too_late(*args, **kwargs):
        raise AssertionError("compiled")

    monkeypatch.setattr("datamodules.self_play.rehearse", too_late)
    monkeypatch.setattr("datamodules.self_play.open_evaluation", too_late)
    overlay = tmp_path / "o.yaml"
    schedule = "{class_path: ScalarSchedule, init_args: {target: model.entropy_cof, schedule: {class_path: Linear}}}"
    overlay.write_text(f"trainer: {{callbacks+: [{schedule}]}}\n")
    for words in (
        ["--model.optimizer.lr", "-1"],
        ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=eval/nash_cov"],
        ["--config", overlay],
    ):
        code, _, err = command("fit", *SMALL, *words, "--trainer.default_root_dir", "deep/runs")
        assert code == 2 and "compiled" not in err, err
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trainer:\n  max_epochs: 3\n  logger: [\n", "config=o.yaml: line 4, column 1: "),
        ("a: 1\n b: 2\n", "config=o.yaml: line 2, column 3: mapping values are not allowed"),
        ("model:\n  init_args:\n    clipp: 3\n", "o.yaml, line 3: model: Option 'clipp' is not accepted; did you"),
        ("model:\n  init_args:\n    clip: wide\n", "o.yaml, line 3: clip: "),
    ],
)
def test_a_config_that_is_wrong_is_named_with_the_line(command, tmp_path, text, words):
    (tmp_path / "o.yaml").write_text(text)
    code, _, err = command("fit", *SMALL, "--config", "o.yaml")
    assert code == 2 and words in err.splitlines()[-1], err


def test_two_schedules_of_one_number_are_refused(command, tmp_path):
    schedule = "{class_path: ScalarSchedule, init_args: {target: model.entropy_coef, schedule: {class_path: Linear}}}"
    (tmp_path / "o.yaml").write_text(f"trainer: {{callbacks+: [{schedule}]}}\n")
    code, _, err = command("fit", *SMALL, "--config", "o.yaml")
    assert code == 2 and "two schedules set model.entropy_coef" in err


BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (BOMB.encode(), "its aliases stand for more than"),
        (b"model: &a [*a]\n", "is nested too deeply"),
        (b"model: " + b"[" * 5000 + b"]" * 5000, "is nested too deeply"),
        (b"model: {class_path: PPO} # \xff\n", "is no UTF-8"),
        (b"data: {init_args: {seed: 3}}\n", "data.seed: is copied from seed_everything"),
    ],
    ids=["bomb", "circle", "deep", "latin", "linked"],
)
@pytest.mark.parametrize("option", ["--config", "--config=", "--model"])
def test_files_that_are_refused_at_once(command, tmp_path, content, words, option):
    if words.startswith("data.seed") and option == "--model":
        return
    path = tmp_path / "o.yaml"
    path.write_bytes(content)
    began = time.perf_counter()
    code, _, err = command("fit", *SMALL, *([option + str(path)] if option.endswith("=") else [option, path]))
    assert code == 2 and words in err.splitlines()[-1] and "Traceback" not in err
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("name", ["--data.game", "--model", "--model.entropy_coef", "--model.lr_schedule"])
@pytest.mark.parametrize("value", ["x" * 50_000, "[" + "1, " * 20_000 + "1]"], ids=["word", "list"])
def test_a_long_value_is_cut(command, name, value):
    code, _, err = command("fit", *SMALL, name, value)
    assert code == 2 and len(err.splitlines()[-1]) < 1000, err[:3000]


def test_rules_that_go_wrong_in_mid_run_are_numerics(command, tmp_path):
    code, _, err = command(
        "fit",
        *SMALL,
        "--data.game",
        "games.late",
        "--data.num_steps",
        "80",
        "--data.evaluation",
        "[]",
        "--model.credit.cut_games",
        "bootstrap",
    )
    line = err.splitlines()[-1]
    assert code == 4 and "no player comes to move" in line and line.startswith("error[4]: ")


def test_a_network_beyond_all_memory(command):
    code, _, err = command("fit", *SMALL, "--model.network.hidden", "[3000000, 3000000]")
    line = err.splitlines()[-1]
    assert code == 2 and line.startswith("error[2]: more memory than there is (") and "model.network" in line


def test_exact_evaluation_of_rules_without_an_end(command):
    """Where nothing but the tree is looked at."""
    code, _, err = command("validate", *SMALL, "--data.game", "games.unending")
    assert code == 2
    assert err.splitlines()[-1].startswith("error[2]: data.game: unending: a game goes on after max_steps=1000 actions")


def test_a_schedule_with_a_misspelt_target_stops_at_start(command, tmp_path):
    overlay = tmp_path / "o.yaml"
    overlay.write_text(
        "trainer: {callbacks+: [{class_path: ScalarSchedule, init_args: {target: model.entropy_cof, "
        "schedule: {class_path: Linear}}}]}\n"
    )
    code, _, err = command("fit", *SMALL, "--config", overlay)
    assert code == 2 and "did you mean model.entropy_coef?" in err
