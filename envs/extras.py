"""Libraries that only some ask for: imported when needed, with one clear line where they are not installed."""

import importlib
from types import ModuleType


def need_extra(module: str, extra: str) -> ModuleType:
    """Import `module`, which comes with `pip install lit-rl[extra]`.

    Raises:
        ModuleNotFoundError: it is not installed; says how it is.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.split(".")[0]
        if error.name is None or error.name.split(".")[0] != root:
            raise  # it is there, and something that it imports is not
        raise ModuleNotFoundError(
            f"{root} is not installed: pip install -c constraints.txt 'lit-rl[{extra}]'", name=error.name
        ) from None
