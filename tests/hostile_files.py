"""Player files, replays and leagues that somebody has tampered with: kind -> folder -> a function that tries one case.

That function takes a random generator and returns (outcome, where and what, path): refused, same, crashed, or other,
where the file was accepted with another content.
"""

import json
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from league_damage import content, damage, make_league
from league_runs import SPEC, lively
from replays import record_games
from tampering import flipped, mutated, same, tampered

from envs.game import load_game
from envs.vector_env import VectorEnv
from lit_rl.league import league_file
from lit_rl.league.league import League
from lit_rl.league.league_file import LeagueFile
from lit_rl.league.matchmaking import uniform
from lit_rl.league.opposition import Opposition
from lit_rl.league.player_file import load_network, save_player
from lit_rl.league.players import load_player
from lit_rl.league.seating import Seating
from lit_rl.run.errors import ArtefactError, ConfigError
from lit_rl.run.replay import verify, weights_hash
from lit_rl.run.replay_file import seal

Case = tuple[str, str, tuple]


def judged(where: str, path: tuple, read: Callable, original) -> Case:
    """What becomes of a file that `read` reads, to find `original`."""
    try:
        found = read()
    except (ArtefactError, ConfigError) as error:
        one = len(str(error).splitlines()) == 1 and len(str(error)) < 2000
        return ("refused" if one else "crashed"), f"{where}: {error}", path
    except Exception as error:
        return "crashed", f"{where}: {type(error).__name__}: {error}", path
    return ("same" if same(found, original) else "other"), where, path


def player_files(folder: Path) -> Callable[[random.Random], Case]:
    """Content and bytes of player files, and of checkpoints that are taken for one."""
    game, sound, path = load_game("envs.leduc_poker"), folder / "sound.pt", folder / "player.pt"
    network = lively(game)
    save_player(sound, network, game, SPEC)
    checkpoint = {
        "run": {"exports": "policy", "game": game.name, "version": game.version},
        "state_dict": {f"policy.{name}": x for name, x in network.state_dict().items()},
        "hyper_parameters": {"network": SPEC},
    }
    contents = [torch.load(sound, weights_only=True), checkpoint]
    env = VectorEnv(game, 8, seed=1)
    obs, legal = torch.from_numpy(env.obs), torch.from_numpy(env.legal)

    def read():
        policy = load_network(path, game)
        load_player(str(path), game)
        return {"weights": dict(policy.state_dict()), "says": policy(obs, legal).logits.detach(), "is": repr(policy)}

    shutil.copy(sound, path)
    original = read()

    def try_one(rng: random.Random) -> Case:
        if rng.random() < 0.25:
            what, data = flipped(sound.read_bytes(), rng)
            path.write_bytes(data)
            return judged(f"bytes {what}", ("player", "bytes"), read, original)
        before = rng.choice(contents)
        place, what, after = tampered(before, list(before), rng)
        torch.save(after, path)
        return judged(f"{'.'.join(map(str, place))} {what}", ("player", *place), read, original)

    return try_one


def replays(folder: Path) -> Callable[[random.Random], Case]:
    """Bytes of a replay, and records changed with hashes that are right again, held against rules and policy."""
    game, sound, path = load_game("envs.kuhn_poker"), folder / "sound.jsonl", folder / "replay.jsonl"
    policy = lively(game)
    record_games(sound, game, policy, num_envs=4, steps=6, limit=4)
    records = [json.loads(line) for line in sound.read_text().splitlines()]
    for record in records:
        record.pop("sha256")

    def read():
        report = verify(path, game, policy, weights_hash(policy))
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return {"games": report.games, "of weights": report.games_of_weights, "lines": lines}

    shutil.copy(sound, path)
    original = read()

    def try_one(rng: random.Random) -> Case:
        if rng.random() < 0.3:
            what, data = flipped(sound.read_bytes(), rng)
            path.write_bytes(data)
            return judged(f"bytes {what}", ("replay", "bytes"), read, original)
        place, what, after = tampered(dict(enumerate(records)), list(range(len(records))), rng)
        try:
            write_replay(path, [after[i] for i in sorted(after)])
        except (ValueError, TypeError, AttributeError):  # no JSON can say it
            return "refused", "cannot be written", ("replay", *place)
        return judged(f"{'.'.join(map(str, place))} {what}", ("replay", *place), read, original)

    return try_one


def write_replay(path: Path, records: list) -> None:
    text, previous = b"", ""
    for record in records:
        line, previous = seal(previous, record)
        text += line
    path.write_bytes(text)


def leagues(folder: Path) -> Callable[[random.Random], Case]:
    """Bytes of a league, and rows changed with hashes that are right again; those who can play are seated."""
    game, place = load_game("envs.kuhn_poker"), folder / "leagues"
    place.mkdir()
    make_league(place, game)
    path = place / "tampered.sqlite"

    def load(spec, sha256):
        return load_player(str(spec) if isinstance(spec, Path) else spec, game, sha256=sha256)

    def read():
        league = League(path, game)
        try:
            held = content(league)
            opposition = Opposition(
                Seating(VectorEnv(game, 4, seed=1), 2), uniform, load, league=league, folder=place, permanent=[]
            )
            opposition.refresh(10**6, 0, 0.0)
            return {"held": held, "seated": sorted(opposition.shares)}
        finally:
            league.close()

    def fresh() -> None:
        for left in place.glob("tampered.sqlite*"):
            left.unlink()
        shutil.copy(place / "league.sqlite", path)

    warnings.simplefilter("ignore")
    fresh()
    original = read()

    def try_one(rng: random.Random) -> Case:
        fresh()
        if rng.random() < 0.5:
            return judged(f"bytes {damage(path, rng)}", ("league", "bytes"), read, original)
        table = rng.choice(["members", "members", "members", "facts", "rosters"])
        file = LeagueFile(path, {})
        try:
            columns, rows = list(league_file._columns()[table]), file.rows(table)
            row, number = list(rng.choice(rows)), rng.randrange(1, len(columns))
            what, row[number] = mutated(row[number], rng, [x[number] for x in rows])
            with file.transaction():
                if table == "rosters":  # of the iteration at which `read` asks for one
                    what, roster = mutated_roster(rows[-1][-1], rng)
                    file.insert(table, ("main", 10**6, roster))
                else:
                    file.update(table, tuple(row))
        except (ValueError, TypeError, AttributeError, OverflowError, ArtefactError):
            return "refused", "cannot be written", ("league", table)
        finally:
            file.close()
        return judged(f"{table}.{columns[number]} {what}", ("league", table, columns[number]), read, original)

    return try_one


def mutated_roster(text: str, rng: random.Random) -> tuple[str, str]:
    """(what was done, the JSON of another roster)."""
    if rng.random() < 0.3:
        return "text", str(mutated(text, rng, [])[1])
    _, what, after = tampered({0: json.loads(text)}, [0], rng)
    return what, json.dumps(after[0], default=str)


KINDS = {"player file": player_files, "replay": replays, "league": leagues}
