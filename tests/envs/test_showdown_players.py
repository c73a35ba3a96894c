"""Teams, scripted opponents, network and datamodule of Pokémon Showdown; skipped where Node or the package is not."""

import itertools
from functools import partial

import lightning as L
import numpy as np
import pytest
import torch
from test_showdown import absent, needs_showdown

from datamodules.showdown import ShowdownDataModule
from envs.game import load_game, parts
from envs.showdown import FORCED, INTERFACE, LAYOUT, MOVE, PREVIEW, SWITCH
from envs.showdown.dex import load_dex
from envs.showdown.env import ShowdownEnv
from envs.showdown.host import Host
from envs.showdown.network import Damage, Embeddings, Hinted
from envs.showdown.players import FOE_1, MON, Doubles, MaxBasePower, MaxDamage
from envs.showdown.teams import generate_teams, read_teams
from lit_rl.evaluation import Matches
from lit_rl.league.match import match_players
from lit_rl.league.players import load_player
from lit_rl.league.seating import Seating
from lit_rl.networks import Encoded
from lit_rl.ppo import PPO
from lit_rl.returns import Credit
from lit_rl.rollout import Collecting, collect
from lit_rl.run.errors import ConfigError
from scripts.showdown_teams import main as write_teams

REGULATION = "gen9vgc2025regi"


@pytest.fixture(scope="module", autouse=True)
def one_host_answers_all_questions():
    """Starting one takes a second."""
    with pytest.MonkeyPatch.context() as patched:
        if not absent():
            host = Host()
            patched.setattr(host, "close", lambda: None)
            for module in ("teams", "dex"):
                patched.setattr(f"envs.showdown.{module}.Host", lambda: host)
        yield


@pytest.fixture(scope="module")
def teams(tmp_path_factory):
    """A folder of two teams that are legal in a VGC format."""
    if absent():
        pytest.skip(absent())
    folder = tmp_path_factory.mktemp("showdown") / "teams"
    write_teams(["--format", REGULATION, "--count", "2", "--folder", str(folder)])
    return folder


def test_generated_teams_are_legal_and_play(teams):
    made = [team for team in generate_teams(REGULATION, 0, 40) if team is not None][:2]
    assert made == [file.read_text() for file in sorted(teams.glob("*.txt"))]  # the same seed, the same teams
    packed = read_teams(teams, REGULATION)
    assert len(packed) == 2 and all(team.count("]") == 5 for team in packed)
    env = ShowdownEnv(2, seed=1, format=REGULATION, teams=packed)
    drawn = {battle.teams for battle in env._battles}
    for _ in range(12):
        env.step(env.sample(env.legal.astype(np.float32)))
    other = ShowdownEnv(2, seed=2, format=REGULATION, teams=packed)
    other.load_state_dict(env.state_dict())
    np.testing.assert_array_equal(other.observe_all(), env.observe_all())
    assert all(0 <= team < 2 for pair in drawn for team in pair)
    with pytest.raises(ValueError, match="generated"):
        other.load_state_dict(env.state_dict() | {"game": env._name[:-16] + "generated"})


def test_a_team_that_the_validator_refuses_is_named_in_its_own_words(teams, tmp_path):
    (tmp_path / "mine.txt").write_text(next(teams.glob("*.txt")).read_text().replace("Level: 50", "Level: 101"))
    data = ShowdownDataModule(teams=str(tmp_path), format=REGULATION, evaluation=[])
    with pytest.raises(ConfigError, match=rf"^data: teams: {tmp_path}/mine.txt: {REGULATION} refuses it: .*[Ll]evel"):
        data.make_env(2, 0)
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(ValueError, match="it has no Pokémon in it"):
        read_teams(tmp_path, REGULATION)
    with pytest.raises(ConfigError, match=r"^data: teams='nowhere': no \*.txt in it"):
        ShowdownDataModule(teams="nowhere", evaluation=[]).make_env(2, 0)


def test_the_script_says_what_is_wrong(teams, capsys):
    for arguments, words in (
        (["--folder", str(teams)], "is not empty; name a new one"),
        (["--folder", "new", "--count", "0"], "--count 0: needs at least 1"),
        (["--folder", "new", "--format", "nonsense"], "unknown format 'nonsense'"),
    ):
        with pytest.raises(SystemExit):
            write_teams(arguments)
        assert words in capsys.readouterr().err


@needs_showdown
def test_the_type_chart_is_the_games():
    dex = load_dex()
    number = {name: i + 1 for i, name in enumerate(dex.names["types"])}
    for attack, on, factor in (
        ("Water", "Fire", 2.0), ("Fire", "Water", 0.5), ("Ground", "Flying", 0.0), ("Normal", "Ghost", 0.0),
        ("Dragon", "Fairy", 0.0), ("Fighting", "Normal", 2.0), ("Psychic", "Psychic", 0.5),
    ):  # fmt: skip
        assert dex.chart[number[attack], number[on]] == factor
    assert dex.species[dex.names["species"].index("Garchomp") + 1].tolist()[2:] == [108, 130, 95, 80, 85, 102]


class OneDecision:
    """A table of one row, set by hand: a move is due in the first slot."""

    def __init__(self, dex, moves, foes):
        self.obs = np.zeros((1, *INTERFACE.obs_shape), np.int16)
        self.legal = np.zeros((1, INTERFACE.num_actions), np.bool_)
        told, number = parts(INTERFACE, self.obs[0]), lambda kind, name: dex.names[kind].index(name) + 1
        told["choice"][0] = MOVE
        for i, (name, team) in enumerate([("Vaporeon", "own"), *((foe, "foe") for foe in foes)]):
            mon = told[team][max(i - 1, 0)]
            mon[[MON["species"], MON["level"], MON["hp"]]] = number("species", name), 50, 1000
            mon[[MON["atk"], MON["spa"]]] = 100
            mon[MON["place"]] = 3 + max(i - 1, 0)
        for i, move in enumerate(moves):
            told["own"][0][MON["move_1"] + i] = number("moves", move)
            self.legal[0, 10 * i : 10 * i + 10] = [0, 1, 0, 1, 1] * 2
        self.legal[0, SWITCH + 2] = True

    def choices(self, player):
        probs = np.zeros(self.legal.shape, np.float32)
        player.act(self, np.arange(1), probs)
        return {INTERFACE.action_names[a] for a in np.flatnonzero(probs[0])}


@needs_showdown
def test_scripted_players_choose_as_they_say():
    dex, strong, best = load_dex(), MaxBasePower(INTERFACE), MaxDamage(INTERFACE)
    table = OneDecision(dex, ["Scald", "Ice Beam", "Tackle", "Protect"], ["Arcanine", "Garchomp"])
    assert table.choices(strong) == {"move 2 +1", "move 2 +2"}  # 90 against 80, 40, 0; on any foe
    assert table.choices(best) == {"move 2 +2"}  # four times on Garchomp beats twice, with STAB, on Arcanine
    table = OneDecision(dex, ["Scald", "Ice Beam", "Tackle", "Protect"], ["Arcanine", "Sylveon"])
    assert table.choices(best) == {"move 1 +1"}
    parts(INTERFACE, table.obs[0])["choice"][0] = FORCED
    assert table.choices(best) == {INTERFACE.action_names[a] for a in np.flatnonzero(table.legal[0])}


PROTECTS = {"move 4", "move 4 +1", "move 4 +2"}


@needs_showdown
def test_the_doubles_player_finishes_and_protects():
    dex, doubles, alone = load_dex(), Doubles(INTERFACE), MaxDamage(INTERFACE)
    table = OneDecision(dex, ["Scald", "Ice Beam", "Tackle", "Protect"], ["Arcanine", "Sylveon"])
    told = parts(INTERFACE, table.obs[0])
    assert table.choices(doubles) == table.choices(alone) == {"move 1 +1"}
    told["foe"][0][MON["hp"]] = 150
    assert table.choices(alone) == {"move 1 +2"} and table.choices(doubles) == {"move 1 +1"}  # it goes down for sure
    told["foe"][0][MON["hp"]], told["own"][0][MON["spa"]], told["own"][0][MON["hp"]] = 1000, 20, 300
    assert table.choices(doubles) <= PROTECTS  # both foes may put it down, and it does not harm them much
    told["own"][0][MON["hp"]] = 1000
    assert table.choices(doubles) == {"move 1 +1"}
    told["own"][0][MON["hp"]], told["slots"][0][LAYOUT["slot"].index("stalled")] = 300, 1
    assert table.choices(doubles) == {"move 1 +1"}  # not twice in a row


@needs_showdown
def test_the_second_slot_reckons_with_what_the_first_one_does():
    dex, doubles = load_dex(), Doubles(INTERFACE)
    table = OneDecision(dex, ["Scald", "Ice Beam", "Tackle", "Protect"], ["Arcanine", "Garchomp"])
    told = parts(INTERFACE, table.obs[0])
    told["own"][1], told["own"][1][MON["place"]] = told["own"][0], 4
    told["foe"][:2, MON["hp"]], told["choice"][1] = (150, 300), 1
    action = {name: i for i, name in enumerate(INTERFACE.action_names)}
    told["choice"][-1] = action["move 1 +1"] + 1
    assert table.choices(doubles) == {"move 2 +2"}
    told["choice"][-1] = action["move 2 +2"] + 1  # Garchomp goes down already
    assert table.choices(doubles) == {"move 1 +1"}
    told["own"][:2, MON["hp"]], told["own"][:2, MON["spa"]], told["foe"][:2, MON["hp"]] = 100, 20, 1000
    told["choice"][-1] = action["move 4"] + 1
    assert not table.choices(doubles) & PROTECTS  # one of the two attacks


@needs_showdown
def test_who_is_sent_out_deals_more_than_it_takes():
    dex, doubles = load_dex(), Doubles(INTERFACE)
    table = OneDecision(dex, ["Scald", "Ice Beam", "Tackle", "Protect"], ["Garchomp"])
    told = parts(INTERFACE, table.obs[0])
    told["choice"][0], number = FORCED, lambda kind, name: dex.names[kind].index(name) + 1
    table.legal[:] = False
    for place, (name, move) in {2: ("Pikachu", "Thunderbolt"), 3: ("Glaceon", "Ice Beam")}.items():
        told["own"][place] = told["own"][0]
        told["own"][place][[MON["species"], MON["move_1"], MON["place"]]] = (
            number("species", name),
            number("moves", move),
            2,
        )
        told["own"][place][[MON["move_2"], MON["move_3"], MON["move_4"], MON["place"]]] = 0, 0, 0, 2
        table.legal[0, SWITCH + place] = True
    assert table.choices(doubles) == {"switch 4"}  # electricity does nothing to Garchomp


@needs_showdown
def test_a_league_seats_them_and_they_beat_the_random_player():
    player, weak = (load_player(name, INTERFACE) for name in ("envs.showdown.players.MaxDamage", "random"))
    match = match_players(lambda b, seed: ShowdownEnv(b, seed), player, weak, 12, 3)
    assert match.win_rate > 0.6


def test_players_and_network_refuse_another_game():
    kuhn = load_game("envs.kuhn_poker")
    with pytest.raises(ValueError, match="plays showdown, not kuhn"):
        MaxDamage(kuhn)
    with pytest.raises(ValueError, match="reads the obs of showdown"):
        Embeddings(kuhn)
    with pytest.raises(ConfigError, match=r"data.game=envs.kuhn_poker: this datamodule plays envs.showdown"):
        ShowdownDataModule(game="envs.kuhn_poker", evaluation=[])


@needs_showdown
def test_the_network_sees_all_of_an_observation():
    """Every number of an observation that the side was told reaches the output, and nothing is out of range."""
    torch.manual_seed(0)
    network, env, kinds = Encoded(INTERFACE, Embeddings), ShowdownEnv(4, seed=4), set()
    for _ in range(24):
        output = network(torch.from_numpy(env.obs), torch.from_numpy(env.legal))
        assert output.value.isfinite().all() and (output.logits > -1e29).numpy().tolist() == env.legal.tolist()
        kinds |= set(parts(INTERFACE, env.obs)["choice"][:, 0].tolist())
        env.step(env.sample(torch.softmax(output.logits, 1).detach().numpy()))
    assert kinds >= {PREVIEW, MOVE}
    obs, legal = torch.from_numpy(env.obs[:1].copy()), torch.from_numpy(env.legal[:1])
    before = network.encoder(obs)
    blind = [i for i in range(obs.shape[1]) if obs[0, i] > 0 and torch.equal(network.encoder(_less(obs, i)), before)]
    assert blind == [], legal


@needs_showdown
def test_expected_damage_is_what_the_scripted_player_reckons():
    """Of all damaging moves at decisions of random play, single, spread and on the ally."""
    damage, player, env, compared = Damage(), MaxDamage(INTERFACE), ShowdownEnv(8, seed=14), 0
    for _ in range(40):
        named = {name: torch.from_numpy(x.astype(np.int64)) for name, x in parts(INTERFACE, env.obs).items()}
        front = torch.zeros(8, 4, len(LAYOUT["mon"]), dtype=torch.int64)
        for b, side, mon in itertools.product(range(8), (0, 1), range(6)):
            row = named[("own", "foe")[side]][b, mon]
            if row[MON["place"]] >= 3:
                front[b, 2 * side + int(row[MON["place"]]) - 3] = row
        said = damage(front, named["slots"])
        for b in range(8):
            told = parts(INTERFACE, env.obs[b])
            standing = [slot for slot, _ in player.standing(told)]
            for slot, move, foe in itertools.product((0, 1), range(4), standing):
                user = front[b, slot].numpy()
                number = int(user[MON["move_1"] + move])
                if user[MON["hp"]] == 0 or player.dex.moves[number][4]:  # spread moves: both at once
                    continue
                expected = player.worth(told, slot, user, number, foe + FOE_1)
                assert float(said[b, slot, move, foe]) == pytest.approx(expected, abs=1e-5)
                compared += expected > 0
        env.step(env.sample(env.legal.astype(np.float32)))
    assert compared > 200


@needs_showdown
def test_hints_alone_choose_as_max_damage_does():
    """With trust in the expected damage and nothing else, the likeliest action is one of the scripted player's."""
    body, player, env, compared, agreed = (
        Hinted(INTERFACE, width=8, embedding=4),
        MaxDamage(INTERFACE),
        ShowdownEnv(8, 15),
        0,
        0,
    )
    for layer in (body.policy[-1], body.trust):
        torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
    body.trust.bias.data = torch.tensor([1.0, -1.0])
    for _ in range(40):
        logits, value = body(torch.from_numpy(env.obs))
        likeliest = torch.where(torch.from_numpy(env.legal), logits, -1e9).argmax(1)
        assert logits.shape == env.legal.shape and value.shape == (8,)
        for b in range(8):
            told = parts(INTERFACE, env.obs[b])
            score = player.scores(told, env.legal[b])
            if told["choice"][0] == MOVE and score.max() > 0.01:
                compared += 1
                agreed += score[likeliest[b]] >= score.max() - 1e-4
        env.step(env.sample(env.legal.astype(np.float32)))
    assert compared > 100 and agreed >= 0.97 * compared, (agreed, compared)


def _less(obs, i):
    changed = obs.clone()
    changed[0, i] -= 1
    return changed


class Waits(ShowdownEnv):
    """Nobody decides while the simulator is at work."""

    def send(self, action, part):
        super().send(action, part)
        for host, ticket, _ in self._flights[part.start]:
            host._answers[ticket] = "choose", {"ok": host.receive(ticket)}


@needs_showdown
def test_a_rollout_is_the_same_bytes_whether_or_not_the_network_waits_for_the_simulator():
    torch.manual_seed(0)
    network, found = Encoded(INTERFACE, partial(Embeddings, width=8, embedding=4)).eval(), []
    for kind, num_hosts in ((ShowdownEnv, 1), (Waits, 1), (ShowdownEnv, 2)):
        env = kind(5, seed=6, num_hosts=num_hosts, truncate_after=30)
        seating = Seating(env, seed=2)
        for name in ("random", "envs.showdown.players.MaxDamage"):
            seating.meet(name, load_player(name, INTERFACE))
        seating.draw_from({name: 0.5 for name in seating.names}, 0.3)
        seating.seat_all_rows()
        rollout = collect(env, network, 50, opponents=seating, collecting=Collecting(cut_games="bootstrap"))
        assert rollout.done.any() and not rollout.learner.all() and rollout.bootstrap.any()
        found.append([x for x in rollout.state_dict().values() if isinstance(x, torch.Tensor)] + [seating.tally])
    for other in found[1:]:
        for one, two in zip(found[0], other):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(two))


@needs_showdown
def test_a_run_in_a_league_resumes_in_the_midst_of_battles_bit_by_bit(short_trainer, tmp_path):
    def fit(epochs, ckpt_path=None):
        L.seed_everything(0, verbose=False)
        data = ShowdownDataModule(
            num_envs=3, num_steps=16, opponents=["random", "envs.showdown.players.MaxBasePower"],
            evaluation=[Matches(["random"], games=2)],
            league=str(tmp_path / "league.sqlite"), run="main",
        )  # fmt: skip
        network = partial(Encoded, encoder=partial(Embeddings, width=8, embedding=4))
        model = PPO("envs.showdown", network=network, credit=Credit(cut_games="bootstrap"))
        trainer = short_trainer(max_epochs=epochs, limit_val_batches=0)
        trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
        return trainer, model.state_dict(), data.env.observe_all()

    _, whole, seen = fit(2)
    half, *_ = fit(1)
    half.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed, seen_again = fit(2, tmp_path / "half.ckpt")
    np.testing.assert_array_equal(seen, seen_again)
    for key, x in whole.items():
        assert torch.equal(x, resumed[key]), key
