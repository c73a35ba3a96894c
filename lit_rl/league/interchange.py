"""The two foreign formats of a league: exploiter_registry.json and league.json, out of a `League` and into one.

Whatever comes in and cannot play here is quarantined, with its reason; the others play on.
"""

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lit_rl.league.league import League, Member, what_it_lacks
from lit_rl.league.player_file import interface_of
from lit_rl.league.ratings import Rating
from lit_rl.run.checkpoint_files import replace_file
from lit_rl.run.errors import ArtefactError

LARGEST = 64 << 20  # bytes of a JSON file


def export_registry(league: League, path: str | Path) -> None:
    """Write the exploiters as exploiter_registry.json: id, filepath, victim_step, win_rate, trained_date, notes."""
    folder = Path(path).absolute().parent
    entries = [
        {
            "id": m.name,
            "filepath": os.path.relpath(league.resolve(m.file), folder),
            "victim_step": int(m.notes.get("victim_step", 0)),
            "win_rate": float(m.notes.get("win_rate", 0.0)),
            "trained_date": m.created,
            "notes": str(m.notes.get("notes", "")),
        }
        for m in league.members("active", "retired")
        if m.role == "exploiter" and m.file
    ]
    _write_json(Path(path), {"exploiters": entries})


def import_registry(league: League, path: str | Path) -> list[Member]:
    """Take in the entries of an exploiter_registry.json; one whose file is missing is quarantined.

    Raises:
        ArtefactError: the file is no such registry; names the entry.
    """
    path = Path(path)
    taken = []
    for i, entry in enumerate(_entries(path, "exploiters")):
        with _field_of(path, i):
            member = Member(
                name=str(entry["id"]), role="exploiter", file=str(path.absolute().parent / entry["filepath"]),
                created=str(entry["trained_date"]), notes={
                    "victim_step": int(entry["victim_step"]), "win_rate": float(entry["win_rate"]),
                    "notes": str(entry.get("notes", "")),
                },
            )  # fmt: skip
        taken.append(_take_in(league, member))
    return taken


def export_json(league: League, path: str | Path) -> None:
    """Write the whole population in the shape of league.json, version 1."""
    folder = Path(path).absolute().parent
    games, payoffs = league.games(), league.payoffs()
    entries = []
    for m in league.members():
        score = sum(p.score for (name, _), p in payoffs.items() if name == m.name)
        kind = "heuristic" if m.role in ("heuristic", "random") else "candidate" if m.role == "main" else "commander"
        file = None if m.file is None else os.path.relpath(league.resolve(m.file), folder)
        meta = {"role": m.role, "state": m.state, "birth": m.birth, "parent": m.parent, "sha256": m.sha256}
        meta |= {"path": m.path, "init_args": m.init_args, "permanent": m.permanent, "reason": m.reason}
        meta |= {"notes": m.notes}
        entries.append(
            {
                "id": m.name, "ckpt_path": file, "kind": "retired" if m.state == "retired" else kind,
                "name": m.name, "created_at": m.created, "games": games.get(m.name, 0), "meta": meta,
                "rating": {"rating": m.rating.rating, "rd": m.rating.deviation, "vol": m.rating.volatility},
                "rating_history": [], "aggregate_stats": {"score": score},
            }
        )  # fmt: skip
    glicko2 = {"rating": 1500.0, "rd": 350.0, "vol": 0.06, "tau": 0.5}
    content = {"version": 1, "glicko2": glicko2, "env_signature": _signature(league), "entries": entries}
    _write_json(Path(path), content)


def import_json(league: League, path: str | Path) -> list[Member]:
    """Take in the entries of a league.json with their ratings; results are not part of it.

    Entries of another game (by `env_signature`), without a file, or of no role that could be told are quarantined.

    Raises:
        ArtefactError: the file is no league.json; names the entry.
    """
    path = Path(path)
    theirs, ours = _read_json(path).get("env_signature", {}), _signature(league)
    differs = sorted(k for k in ours if k in theirs and theirs[k] != ours[k])
    taken = []
    for i, entry in enumerate(_entries(path, "entries")):
        with _field_of(path, i):
            meta, kind = entry.get("meta") or {}, entry["kind"]
            role = meta.get("role") or ("heuristic" if kind == "heuristic" else "external")
            state = "retired" if kind == "retired" else meta.get("state", "active")
            rating = Rating(*(float(entry["rating"][k]) for k in ("rating", "rd", "vol")))
            member = Member(
                name=str(entry["id"]), role=role, state=state, birth=int(meta.get("birth", 0)),
                parent=meta.get("parent"), path=meta.get("path"), init_args=dict(meta.get("init_args") or {}),
                sha256=meta.get("sha256"), permanent=bool(meta.get("permanent", False)),
                created=str(entry.get("created_at", "")), reason=str(meta.get("reason", "")),
                notes=dict(meta.get("notes", {})), rating=rating,
                file=entry.get("ckpt_path") and str(path.absolute().parent / entry["ckpt_path"]),
            )  # fmt: skip
        reason = f"of another game: {differs[0]} is {theirs[differs[0]]}" if differs else ""
        taken.append(_take_in(league, member, reason))
    return taken


def _signature(league: League) -> dict:
    return {"game": league.game.name, "version": league.game.version} | interface_of(league.game)


def _take_in(league: League, member: Member, reason: str = "") -> Member:
    """Add the member, in quarantine if there is a `reason` for it, given or found."""
    if not reason and (lack := what_it_lacks(member)):
        reason = f"it has no {lack}"
    if not reason and member.file and not league.resolve(member.file).is_file():
        reason = f"no such file: {member.file}"
    if not reason:
        return league.add(member)
    member = league.add(member._replace(state="quarantined", sha256=member.sha256 or "", reason=reason))
    warnings.warn(f"league {league.path}: {member.name} is quarantined: {reason}; the others play on", stacklevel=3)
    return member


def _write_json(path: Path, content: dict) -> None:
    replace_file(path, (json.dumps(content, indent=2) + "\n").encode())


def _read_json(path: Path) -> dict:
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise ArtefactError(f"{path}: has {size} bytes, more than {LARGEST}; it is no list of players")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path}: is no JSON ({str(error)[:200]})") from error
    if not isinstance(content, dict):
        raise ArtefactError(f"{path}: must hold an object")
    return content


def _entries(path: Path, name: str) -> list:
    entries = _read_json(path).get(name)
    if not isinstance(entries, list):
        raise ArtefactError(f"{path}: has no list {name!r}")
    return entries


@contextmanager
def _field_of(path: Path, i: int) -> Iterator[None]:
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(f"{path}, entry {i}: is not as it should be ({type(error).__name__}: {error})") from error
