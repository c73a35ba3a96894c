"""The benchmark: a row is measured once, a stopped one goes on, a changed config begins anew."""

import json
import shutil
from pathlib import Path

import pytest

from scripts import benchmark
from scripts.benchmark import ALGORITHMS, CONFIGS, GAMES, Row, decisions_per_iteration, main, measure, table

CONFIG = """
model:
  class_path: PPO
  init_args:
    network: {class_path: MLP, init_args: {hidden: [8]}}
    minibatches: {update_epochs: 1, num_minibatches: 1}
data: {class_path: SelfPlayDataModule, init_args: {game: envs.leduc_poker, num_envs: 50, num_steps: 4}}
trainer: {accelerator: cpu, enable_progress_bar: false}
"""


@pytest.fixture
def configs(tmp_path, monkeypatch):
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "tiny.yaml").write_text(CONFIG)
    monkeypatch.setattr(benchmark, "CONFIGS", folder)
    return folder


def test_rows_are_measured_once(configs, tmp_path, capsys):
    rows = [Row("tiny", "liars_dice_1x4", 0.001, seed) for seed in (1, 2)]
    found = measure(rows, tmp_path / "runs", jobs=2, niceness=0)
    assert [summary["decisions"] for summary in found.values()] == [1000, 1000]
    assert {summary["seed"] for summary in found.values()} == {1, 2}
    assert all(summary["game"] == "liars_dice_1x4" for summary in found.values())
    again = measure(rows, tmp_path / "runs", jobs=2, niceness=0)
    assert again == found and capsys.readouterr().out.count("(kept)") == 2
    values = [summary["exploitability"] for summary in found.values()]
    assert f"| tiny | 0.001 M | 2 | {sum(values) / 2:.4f} ({max(values):.4f}) |" in table(found)

    (configs / "tiny.yaml").write_text(CONFIG.replace("num_steps: 4", "num_steps: 8"))
    (other,) = measure(rows[:1], tmp_path / "runs", jobs=1, niceness=0).values()
    assert other["decisions"] == 1200 and other["iterations"] == 3


@pytest.mark.slow
def test_a_stopped_row_goes_on(configs, tmp_path):
    row = Row("tiny", "liars_dice_1x4", 0.001, 1)
    (whole,) = measure([row], tmp_path / "whole", 1, 0).values()
    folder = row.folder(tmp_path / "cut")
    shutil.copytree(row.folder(tmp_path / "whole"), folder)
    (folder / "version_0" / "summary.json").unlink()
    config = folder / "version_0" / "config.yaml"
    config.write_text(config.read_text().replace(str(tmp_path / "whole"), str(tmp_path / "cut")))
    (found,) = measure([row], tmp_path / "cut", 1, 0).values()
    assert found["exploitability"] == whole["exploitability"] and found["decisions"] == 1000
    assert "going on from" in (folder / "log").read_text()


@pytest.mark.slow
def test_a_row_that_fails_is_said_and_left_out(configs, tmp_path, capsys):
    (configs / "broken.yaml").write_text(CONFIG.replace("hidden: [8]", "hidden: [-8]"))
    rows = [Row(name, "liars_dice_1x4", 0.0005, 1) for name in ("broken", "tiny")]
    assert list(measure(rows, tmp_path / "runs", 1, 0)) == rows[1:]
    assert (
        "failed: broken liars_dice_1x4 0.0005 M seed 1: ended without a verdict (exit code 2" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--algorithms", "nfsp"], "--algorithms nfsp: there is no"),
        (["--games", "chess"], "invalid choice: 'chess'"),
        (["--jobs", "0"], "--jobs 0: needs at least 1"),
        (["--decisions", "0"], "--decisions 0: needs more than 0"),
    ],
)
def test_bad_input(arguments, said, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert said in capsys.readouterr().err


def test_every_row_has_its_config():
    """One for each algorithm, whatever the game; published settings differ by game."""
    for algorithm in ALGORITHMS:
        assert len({tuple(Row(algorithm, game, 3, 0).configs) for game in GAMES}) == 1
        assert decisions_per_iteration([CONFIGS / f"{algorithm}.yaml"]) >= 512
    names = [path.stem for path in Row("published_ppo", "dark_hex_3x3_abrupt", 10, 0).configs]
    assert names == ["published_ppo", "dark_hex_3x3_abrupt"]
    assert [path.stem for path in Row("published_mmd", "liars_dice_1x6", 10, 0).configs][1:] == ["liars_dice"]
    arguments = Row("published_ppo", "liars_dice_2x5", 10, 7).arguments()
    assert "--trainer.max_epochs=4883" in arguments and "--seed_everything=7" in arguments
    (limits,) = json.loads(Row("ppo", "dark_hex_3x3_abrupt", 3, 0).arguments()[-1])
    assert limits["class_path"] == "Exact"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(path.relative_to(CONFIGS) for path in CONFIGS.glob("**/*.yaml")), ids=str)
def test_every_config_is_one_that_fit_takes(name, command):
    over = [] if name.parent == Path(".") else ["--config", CONFIGS / f"{name.parent}.yaml"]
    code, said, error = command("fit", *over, "--config", CONFIGS / name, "--print_config")
    assert code == 0 and "class_path" in said, error
