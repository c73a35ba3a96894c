"""How a parser's long message becomes one line that says what is wrong and which name is nearest."""

import dataclasses
import difflib
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import lightning as L
import torch

from lit_rl.run.arguments import line_of, packaged_configs
from lit_rl.run.own_code import what_is_missing

OURS = ("lit_rl", "datamodules", "callbacks")

_SCAFFOLD = re.compile(
    r"Does not validate against|Subtypes:|Errors:|Given value|Expected a <class 'NoneType'>|Expected a path but"
    r"|Parser key \".*\":$|Problem with given class_path .*:$|Not a valid subclass|Unexpected import path format"
)


LONGEST = 200  # characters of a value that is quoted
_QUOTED = re.compile(
    rf"'[^']{{{LONGEST},}}'|\"[^\"]{{{LONGEST},}}\"|[\[({{][^\])}}]{{{LONGEST},}}[\])}}]|\S{{{LONGEST + 1},}}"
)


def one_line(message: str, given: Sequence[tuple[str, str]] = ()) -> str:
    """What is wrong, in one line: the innermost reason of a nested parser message, its key, and the nearest name.

    Where the name that is wrong stands in a config of the options `given`, (name, value), the line says in which line.
    Values are cut after `LONGEST` characters.
    """
    reason, name = _reason(_middle_out(message))
    for option, value in given:  # jsonargparse 4.53 hands null within a group of settings on as the word None
        group, _, field = option.rpartition(".")
        if value in ("null", "~") and field == name and group.count(".") and "None" in reason:
            return f"--{option} {value}: does not reach a group of settings so; use --{group} '{{{field}: null}}'"
    by_option = any(option.split(".")[-1] == name for option, _ in given)
    where = "" if by_option else line_of(name, [value for option, value in given if option == "config"])
    return _cut(f"{where}: {reason}" if where else reason)


def _cut(text: str) -> str:
    return _QUOTED.sub(lambda found: f"{found[0][:LONGEST]}…{found[0][-1] if found[0][-1] in '])}' else ''}", text)


def _middle_out(text: str, most: int = 20_000) -> str:
    """The first and the last of a text that nobody would read, its endless words cut first."""
    text = re.sub(r"(\S{250})\S{2000,}", r"\1…", text)
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 2 :]}"


def _reason(message: str) -> tuple[str, str]:
    """The line, and the name that it is about; "" if it names none."""
    key, reason = "", ""
    for line in (line.strip().removeprefix("- ") for line in message.splitlines()):
        if found := re.match(r"(?:Parser key|Problem with given class_path) [\"']([\w.+]+)[\"']:?\s*(.*)", line):
            key, line = found[1], found[2]
        if line and not _SCAFFOLD.match(line):
            reason = line
            break
    if not reason:
        return " ".join(message.split()), ""
    given = re.search(r"Given value: (\S+)\s*$", message)
    if reason.startswith("Expected a <class") and given:
        reason += f", got {given[1]}"
    text = f"{key}: {reason}" if key and key not in reason else reason
    wrong = re.search(r"(?:Option|Key) '?([\w.]+)'? is not|does not accept .* '([\w.]+)'", reason)
    name = (wrong[1] or wrong[2]) if wrong else key
    return text + _hint(reason), name.split(".")[-1]


def _hint(reason: str) -> str:
    if missing := what_is_missing(reason):
        return missing
    if found := re.search(r"(?:File does not exist: '|path but )([^\s']+)", reason):
        close = difflib.get_close_matches(Path(found[1]).stem, packaged_configs(), n=1)
        return f"; lit-rl's own go by their names: --config {close[0]}" if close else ""
    if found := re.search(r"Option '(\w+)' is not accepted|nrecognized arguments: --([\w.]+)", reason):
        wrong, names = found[1] or found[2].split(".")[-1], _argument_names()
    elif found := re.search(r"Expected a dot import path string: ([\w.]+)", reason):
        wrong, names = found[1], {c.__name__ for c in _known_classes()}
    elif found := re.search(r"Key '?([\w.]+)'? is not expected|Group '[\w.]*' does not accept .* '([\w.]+)'", reason):
        wrong, names = (found[1] or found[2]).split(".")[-1], _argument_names()
    else:
        return ""
    close = [*_settings_with(wrong), *difflib.get_close_matches(wrong, names - {wrong}, n=1)]
    return f"; did you mean {close[0]}?" if close else f"; '{wrong}' is no name known here, --help lists them"


def _known_classes() -> Iterator[type]:
    """All classes that a config may name: those of ours that are imported, and the libraries' that ours derive from."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in OURS:
            yield from (kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == name)
    roots = [L.LightningModule, L.LightningDataModule, L.Callback, L.pytorch.loggers.Logger]
    roots += [torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]
    while roots:
        root = roots.pop()
        yield root
        roots.extend(root.__subclasses__())


def _settings_with(field: str) -> list[str]:
    """Where `field` is part of a settings object that a class of ours takes: ["credit.gamma"]."""
    found = set()
    for owner in filter(_is_ours, _known_classes()):
        for argument in inspect.signature(owner.__init__).parameters.values():
            for kind in (argument.annotation, *get_args(argument.annotation)):
                if dataclasses.is_dataclass(kind) and field in {f.name for f in dataclasses.fields(kind)}:
                    found.add(f"{argument.name}.{field}")
    return sorted(found)


def _is_ours(kind: type) -> bool:
    return kind.__module__.split(".")[0] in OURS


def _argument_names() -> set[str]:
    ours = [c for c in _known_classes() if _is_ours(c)]
    names = {name for c in [*ours, L.Trainer] for name in inspect.signature(c.__init__).parameters}
    return names | {"model", "data", "trainer", "config", "ckpt_path", "seed_everything", "class_path", "init_args"}
