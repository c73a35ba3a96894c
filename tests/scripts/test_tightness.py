"""The tightness of exploiters: against the policies of a benchmark, measured once."""

import pytest
from test_benchmark import CONFIG

from scripts import benchmark
from scripts.benchmark import CONFIGS
from scripts.tightness import main


@pytest.mark.slow
def test_a_row_for_each_policy_of_the_benchmark(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "tiny.yaml").write_text(CONFIG)
    exploiter = (CONFIGS / "exploiter.yaml").read_text()
    for name, small in (("max_epochs: 240", "max_epochs: 3"), ("num_envs: 512", "num_envs: 32")):
        assert name in exploiter
        exploiter = exploiter.replace(name, small)
    (folder / "exploiter.yaml").write_text(exploiter.replace("temperature: 0.25", "temperature: 0.25, games: 500"))
    monkeypatch.setattr(benchmark, "CONFIGS", folder)
    asked = ["--games", "liars_dice_1x4", "--algorithms", "tiny", "--decisions", "0.0004", "--seeds", "1"]
    asked += ["--folder", str(tmp_path / "runs")]
    with pytest.raises(SystemExit):
        main(asked)
    assert "holds none of these rows; run scripts/benchmark.py first" in capsys.readouterr().err
    benchmark.main(asked)
    main(asked)
    said = capsys.readouterr().out
    assert "against tiny liars_dice_1x4" in said and "share" in said
    table = (tmp_path / "runs" / "tightness.md").read_text().splitlines()
    assert len(table) == 3 and table[2].startswith("| liars_dice_1x4 | tiny, 0.0004 M | 1 | ")
    main(asked)
    assert "(kept)" in capsys.readouterr().out
