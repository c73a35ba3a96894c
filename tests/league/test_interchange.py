"""The foreign formats of a league: what goes out comes in again; what does not fit is named and set aside."""

import json

import pytest
from league_runs import with_file

from lit_rl.league.interchange import export_json, export_registry, import_json, import_registry
from lit_rl.league.league import League, Member, Result
from lit_rl.league.player_file import sha256_of
from lit_rl.run.errors import ArtefactError


@pytest.fixture
def league(tmp_path, kuhn):
    league = League(tmp_path / "league.sqlite", kuhn)
    yield league
    league.close()


def test_exploiter_registry_goes_out_and_comes_in(league, tmp_path, kuhn):
    with_file(league, "spy", role="exploiter", notes={"victim_step": 5000, "win_rate": 0.61, "notes": "seat 0"})
    with_file(league, "p1")
    export_registry(league, tmp_path / "exploiter_registry.json")
    entry = json.loads((tmp_path / "exploiter_registry.json").read_text())["exploiters"][0]
    assert entry | {"trained_date": ""} == {
        "id": "spy", "filepath": "spy.pt", "victim_step": 5000, "win_rate": 0.61, "trained_date": "", "notes": "seat 0",
    }  # fmt: skip
    content = {"exploiters": [entry, entry | {"id": "gone", "filepath": "gone.pt"}]}
    (tmp_path / "exploiter_registry.json").write_text(json.dumps(content))
    other = League(tmp_path / "sub" / "league.sqlite", kuhn)
    with pytest.warns(UserWarning, match="gone is quarantined: no such file"):
        spy, gone = import_registry(other, tmp_path / "exploiter_registry.json")
    assert (
        spy.sha256 == sha256_of(tmp_path / "spy.pt") and spy.notes["win_rate"] == 0.61 and gone.state == "quarantined"
    )
    assert [m.name for m in other.members("active")] == ["spy"]
    other.close()
    (tmp_path / "bad.json").write_text('{"exploiters": [{"id": "x"}]}')
    with pytest.raises(ArtefactError, match=r"bad.json, entry 0: is not as it should be \(KeyError: 'filepath'\)"):
        import_registry(league, tmp_path / "bad.json")


def test_league_json_goes_out_and_comes_in(league, tmp_path, kuhn):
    league.add(Member("run", "main"))
    with_file(league, "p1", birth=7, parent="run")
    with_file(league, "spy", role="exploiter")
    league.add(Member("calls", "heuristic", path="envs.leduc_heuristics.always_call", permanent=True))
    league.add(Member("search", "external", path="my_pkg.MySearch", init_args={"depth": 2}))
    league.record("run", 0, "train", [Result("run", "p1", 0, 3, 0, 1), Result("run", "calls", 1, 0, 0, 5)])
    league.set_state("retired", {"spy": "old"})
    export_json(league, tmp_path / "league.json")
    content = json.loads((tmp_path / "league.json").read_text())
    assert content["version"] == 1 and content["env_signature"]["num_actions"] == 2
    assert [e["kind"] for e in content["entries"]] == ["candidate", "commander", "retired", "heuristic", "commander"]
    assert content["entries"][0]["games"] == 9 and content["entries"][0]["rating"]["rd"] < 350
    other = League(tmp_path / "other" / "league.sqlite", kuhn)
    import_json(other, tmp_path / "league.json")
    paths = {m.name: m.file and str(other.resolve(m.file)) for m in other.members()}
    assert paths["p1"] == str(tmp_path / "p1.pt")
    assert [m._replace(file=None) for m in other.members()] == [m._replace(file=None) for m in league.members()]
    other.close()
    content["env_signature"]["num_actions"] = 9
    (tmp_path / "league.json").write_text(json.dumps(content))
    third = League(tmp_path / "third" / "league.sqlite", kuhn)
    with pytest.warns(UserWarning, match="of another game: num_actions is 9"):
        import_json(third, tmp_path / "league.json")
    assert third.members("active") == [] and len(third.members("quarantined")) == 5
    third.close()


def test_enormous_and_endless_files_are_refused(tmp_path, kuhn):
    league = League(tmp_path / "league.sqlite", kuhn)
    path = tmp_path / "league.json"
    path.write_text("[" * 100_000)
    with pytest.raises(ArtefactError, match="is no JSON"):
        import_json(league, path)
    with path.open("wb") as file:
        file.truncate(10**12)  # a hole
    with pytest.raises(ArtefactError, match="has 1000000000000 bytes"):
        import_json(league, path)
    league.close()
