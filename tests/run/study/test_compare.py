"""`litrl compare` and `litrl seeds`: run folders as they are read, one table, one picture."""

import json

import pytest
import yaml

from lit_rl.run.errors import ArtefactError, ConfigError
from lit_rl.run.study import compare, seeds
from lit_rl.run.study.runs import find_runs, flat, group, interpolated, read_metrics


@pytest.fixture
def make_run(tmp_path):
    """Write a run folder by hand: NashConv at given decisions, each validation a row of its own as Lightning's are."""

    def make(name, curve, seed=0, clip=0.1, summary=True, algorithm="lit_rl.PPO"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        rows = ["decisions,epoch,step,eval/nash_conv"]
        for epoch, (decisions, value) in enumerate(curve):
            rows += [f",{epoch},{epoch},{value}", f"{decisions},{epoch},{epoch},"]
        (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
        data = {"class_path": "SelfPlayDataModule", "init_args": {"game": "envs.kuhn_poker"}}
        model = {"class_path": algorithm, "init_args": {"clip": clip}}
        trainer = {"default_root_dir": f"runs/{name}", "max_epochs": 3}
        config = {"seed_everything": seed, "model": model, "data": data, "trainer": trainer}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        if summary:
            told = {"game": "kuhn_poker", "algorithm": "PPO", "decisions": curve[-1][0], "seconds": 5.0, "seed": seed}
            (folder / "summary.json").write_text(json.dumps(told | {"nash_conv": curve[-1][1]}))
            (folder / "status.json").write_text('{"state": "finished"}')
        return folder

    return make


CURVES = ([(100, 0.9), (200, 0.5), (300, 0.1)], [(100, 0.7), (200, 0.4), (300, 0.3)], [(100, 0.8), (200, 0.6)])


def test_validations_get_the_decisions_of_their_iteration(make_run):
    (run,) = find_runs([make_run("a", CURVES[0])])
    assert run.series("eval/nash_conv") == ([100.0, 200.0, 300.0], [0.9, 0.5, 0.1])
    assert (run.algorithm, run.game, run.seed, run.seconds, run.state) == ("PPO", "kuhn_poker", 0, 5.0, "finished")


def test_a_validation_between_two_logged_iterations_lies_between_them(tmp_path):
    (tmp_path / "metrics.csv").write_text("decisions,epoch,eval/x\n1000,9,\n,14,0.5\n2000,19,\n")
    (run,) = find_runs([tmp_path])
    assert run.series("eval/x") == ([1500.0], [0.5])
    assert interpolated([0.0, 1.0], [2.0, 4.0], 7.0) == 4.0


def test_median_and_band_go_as_far_as_all_runs(make_run, tmp_path):
    for i, curve in enumerate(CURVES):
        make_run(f"r/version_{i}", curve, seed=i, summary=i < 2)
    (found,) = group(find_runs([tmp_path / "r"]))
    assert found.label == "PPO" and len(found.runs) == 3
    assert found.band() == ([100.0, 200.0], [0.7, 0.4], [0.8, 0.5], [0.9, 0.6])
    assert sorted(found.finals()) == [0.1, 0.3, 0.6]


def test_table_says_median_worst_and_what_has_not_finished(make_run, tmp_path):
    for i, curve in enumerate(CURVES):
        make_run(f"r/version_{i}", curve, seed=i, summary=i < 2)
    make_run("other/version_0", [(100, 0.2)], clip=0.3)
    other, these = compare.table(group(find_runs([tmp_path]))).splitlines()[1:]
    assert other.split()[:8] == ["PPO", "kuhn_poker", "100", "5", "nash_conv", "0.20000", "0.20000", "1"]
    assert these.split()[:8] == ["PPO", "kuhn_poker", "300", "5", "nash_conv", "0.30000", "0.60000", "3"]
    assert other.endswith("PPO clip=0.3") and these.endswith("PPO clip=0.1 (1 not finished)")


def test_configurations_are_told_apart_by_what_differs(make_run, tmp_path):
    for name, clip in (("a", 0.1), ("b", 0.1), ("c", 0.3)):
        make_run(name, CURVES[2], clip=clip, seed=ord(name))
    assert [(each.label, len(each.runs)) for each in group(find_runs([tmp_path]))] == [
        ("PPO clip=0.1", 2),
        ("PPO clip=0.3", 1),
    ]


def test_seeds_folders_and_loggers_make_no_other_configuration():
    config = {"seed_everything": 3, "trainer": {"default_root_dir": "x", "logger": {"a": 1}, "max_epochs": 2}}
    assert flat(config) == {"trainer.max_epochs": 2}


@pytest.mark.parametrize(
    ("text", "said"),
    [("epoch,a\n1,x\n", "line 2: could not convert"), ("epoch,a\n1,2,3\n", "line 2: has more values")],
)
def test_a_damaged_metrics_file_is_refused_by_its_line(tmp_path, text, said):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ArtefactError, match=said):
        find_runs([tmp_path])


def test_half_a_line_is_left_out(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,eval/x\n0,1.5\n1,2.")
    assert read_metrics(tmp_path / "metrics.csv") == [{"epoch": 0.0, "eval/x": 1.5}]


def test_a_metric_that_was_not_logged_is_refused_with_those_that_were(make_run):
    runs = find_runs([make_run("a", CURVES[0])])
    with pytest.raises(ConfigError, match=r"has no eval/win_rate.*it has eval/nash_conv"):
        group(runs, "eval/win_rate")


def test_the_command_draws_and_refuses_in_one_line(make_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run("a", CURVES[0])
    make_run("b", CURVES[1], clip=0.2)
    compare.main(["a", "b", "--picture", "out/picture.png"])
    assert (tmp_path / "out" / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert "PPO clip=0.2" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        compare.main(["nowhere"])
    assert end.value.code == 2
    assert (
        capsys.readouterr().err
        == "error[2]: nowhere: holds no run, a folder with metrics.csv; name one such as runs/x/version_0\n"
    )


FEW = ["--", "--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "1", "--trainer.log_every_n_steps", "1"]


@pytest.mark.slow
def test_seeds_trains_each_and_tells_the_worst(tmp_path, capsys):
    seeds.main(["kuhn_ppo", "--seeds", "4", "5", "--jobs", "1", "--folder", str(tmp_path), *FEW])
    out = capsys.readouterr().out
    finals = [
        json.loads((tmp_path / "kuhn_ppo" / f"seed_{s}" / "version_0" / "summary.json").read_text())["nash_conv"]
        for s in (4, 5)
    ]
    assert finals[0] != finals[1]
    assert f"median {sum(finals) / 2:.5f}, worst {max(finals):.5f}, best seed {min(finals):.5f}" in out
    assert (tmp_path / "kuhn_ppo" / "seeds.png").exists()
    (found,) = group(find_runs([tmp_path]))
    assert [run.seed for run in found.runs] == [4, 5] and found.band()[0] == [128.0, 256.0, 384.0]


def test_seeds_says_what_a_training_said_last(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        seeds.main(["kuhn_ppo", "--seeds", "4", "--folder", str(tmp_path), "--", "--model.clap", "1"])
    err = capsys.readouterr().err
    assert end.value.code == 3 and "seed 4 failed with exit code 2: error[2]: " in err and "clap" in err
    with pytest.raises(SystemExit):
        seeds.main(["kuhn_ppo", "--seeds", "4", "4"])
    assert "4 is listed twice" in capsys.readouterr().err
