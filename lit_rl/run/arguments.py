"""What is done with a command line before anything is parsed.

Packaged configs and the user's own code are found; unreadable names, exploding YAML and linked arguments are refused.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from jsonargparse import set_loader
from jsonargparse._loaders_dumpers import yaml_load

from lit_rl.run import own_code
from lit_rl.run.errors import ConfigError

LINKED = {("data", "seed"): "seed_everything", ("model", "game"): "data.game"}
MAX_VALUES = 10_000  # of a configuration with aliases, each counted as what it stands for
MAX_DEPTH = 50  # of values within values


def check_arguments(args: Sequence[str]) -> None:
    """Look through the words of a command line and the files of its --config, --data and --model.

    Raises:
        ConfigError: no UTF-8, aliases that stand for too much, or a value for what is copied from elsewhere.
    """
    for word in args:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{word!a}: is no UTF-8; rename it") from None
    for name, value in options(args):
        key = tuple(name.replace(".init_args", "").split("."))
        if key in LINKED:
            _refuse(key)
        if name in ("config", "data", "model"):
            content = _content(name, value)
            for part, field in LINKED:
                there = content if name == part else content.get(part) if name == "config" else None
                init_args = there.get("init_args") if isinstance(there, dict) else None
                if isinstance(init_args, dict) and field in init_args:
                    _refuse((part, field))


def with_packaged_configs(args: Sequence[str]) -> list[str]:
    """`--config leduc_ppo` becomes the path of the packaged config of that name, unless a file is called so."""
    found, is_config = [], False
    for word in args:
        name, equals, value = word.partition("=")
        if is_config:
            word = _packaged(word)
        elif name == "--config" and equals:
            word = f"--config={_packaged(value)}"
        is_config = word == "--config"
        found.append(word)
    return found


def packaged_configs() -> list[str]:
    """Their names: leduc_ppo, loggers/tensorboard ..."""
    folder = own_code.HOME / "configs"
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def _packaged(name: str) -> str:
    known = name in packaged_configs() and not Path(name).exists()
    return str(own_code.HOME / "configs" / f"{name}.yaml") if known else name


def find_own_code(args: Sequence[str]) -> None:
    """Let the user's own classes and games be imported: from the current folder, and from that of --code or, without
    it, of `code` in the last config that says so.

    Raises:
        ConfigError: --code names no folder.
    """
    given, recorded = None, None
    for name, value in options(args):
        if name == "code":
            given = value
        elif name == "config":
            recorded = _content(name, value).get("code") or recorded
    if given is not None and not Path(given).is_dir():
        raise ConfigError(f"code={given}: no such folder; name the one that your own classes and games lie in")
    folder = given or (recorded if isinstance(recorded, str) else None)
    own_code.import_from(None if folder is None else Path(folder))


def load_yaml(text: str):
    """What the parser reads everywhere: plain YAML, in which aliases do not explode.

    Raises:
        Bomb: its aliases stand for more than MAX_VALUES values, or it is deeper than MAX_DEPTH.
        yaml.YAMLError: it is none.
    """
    try:
        value = yaml_load(text)
        number = _num_values(value, {}, 0)
    except RecursionError:
        raise Bomb("is nested too deeply") from None
    if "*" in text and number > MAX_VALUES:
        raise Bomb(f"its aliases stand for more than {MAX_VALUES:,} values")
    return value


class Bomb(yaml.YAMLError):
    """YAML that is small to read and large to hold."""


set_loader("yaml", load_yaml, exceptions=(yaml.YAMLError,))


def _num_values(value, known: dict[int, int], depth: int) -> int:
    """Of a value and all below it; each object is looked at once, however often it occurs."""
    if not isinstance(value, dict | list):
        return 1
    if depth > MAX_DEPTH:  # also one that holds itself
        raise RecursionError
    if id(value) not in known:
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_num_values(part, known, depth + 1) for part in parts)
    return known[id(value)]


def options(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(name, value) of each option, as `--name value` or `--name=value`."""
    for word, after in zip(args, [*args[1:], ""]):
        if found := re.match(r"--([\w.+]+)(?:=(.*))?$", word, re.DOTALL):
            yield found[1], after if found[2] is None else found[2]


def _content(name: str, value: str) -> dict:
    """The dictionary that `value` is, or is the file of; {} where it is neither, which is the parser's to say."""
    try:
        is_file = Path(value).is_file()
    except (OSError, ValueError):
        is_file = False
    try:
        content = load_yaml(Path(value).read_text(encoding="utf-8") if is_file else value)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}={value}: is no UTF-8 ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"{name}={value}: cannot be read ({error.strerror})") from None
    except Bomb as error:
        raise ConfigError(f"{name}={value}: {error}") from None
    except yaml.YAMLError as error:
        if is_file:
            raise ConfigError(f"{name}={value}: {_where_in(error)}") from None
        return {}  # a word that is no YAML is the parser's to refuse
    return content if isinstance(content, dict) else {}


def _where_in(error: yaml.YAMLError) -> str:
    """Line, column and reason."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {reason}" if mark else f"is no YAML: {reason}"


def line_of(key: str, files: Sequence[str]) -> str:
    """Where the name `key` stands in the last of the YAML files that has it: "o.yaml, line 3"; "" if unclear."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the first is faster, and not everywhere
    for file in reversed(files) if key else ():
        try:
            pending = [yaml.compose(Path(file).read_text(encoding="utf-8"), Loader=loader)]
        except (OSError, ValueError, yaml.YAMLError, RecursionError):
            continue
        found, seen = [], set()
        while pending:
            node = pending.pop()
            if id(node) in seen:  # an alias
                continue
            seen.add(id(node))
            if isinstance(node, yaml.MappingNode):
                found += [name.start_mark.line + 1 for name, _ in node.value if name.value == key]
                pending += [value for _, value in node.value]
            elif isinstance(node, yaml.SequenceNode):
                pending += node.value
        if found:
            return f"{file}, line {found[0]}" if len(found) == 1 else ""
    return ""


def _refuse(key: tuple[str, str]) -> None:
    raise ConfigError(f"{'.'.join(key)}: is copied from {LINKED[key]}; set that instead")
