"""numba's `njit`, whose machine code is kept on disk: what one process compiled, the next one loads.

numba's own cache looks at the file of the outermost function only, so that a kernel compiled around a game would
outlive an edit of the game. Here the name of a kept file is a hash of all that the machine code depends on: the
bytecode and constants of the function and of every function and value that it reaches, the types of its arguments,
numba's options and version, and the processor. So no edit is missed, and nothing has to be thrown away by hand.
Where something cannot be hashed (a global of a kind that is not known here), or a function calls itself, it is
compiled as ever.
"""

import contextlib
import dis
import enum
import hashlib
import inspect
import itertools
import os
import pickle
import secrets
import sys
import tempfile
import time
import types
from pathlib import Path

import llvmlite
import numba
import numpy as np
from numba.core import config
from numba.core.bytecode import FunctionIdentity
from numba.core.caching import CompileResultCacheImpl, _Cache
from numba.core.compiler import Compiler, CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.dispatcher import Dispatcher
from numba.core.lowering import Lower
from numba.core.typed_passes import NativeLowering

FOLDER = "LITRL_KERNELS"  # environment variable: another folder for kept kernels; empty keeps none
UNUSED = 30 * 86400.0  # seconds after which a kept kernel that nobody loaded is removed
MEANT = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | inspect.CO_GENERATOR  # code flags; under a profiler others differ
LIBRARIES = ("numpy", "numba", "math", "builtins", "cmath", "operator")  # known by their versions

# A symbol's name ends with a number that numba counts from 1 in each process. Kernels of several processes meet in one,
# and the linker takes symbols of one name for one function, so every process begins to count somewhere else.
FunctionIdentity._unique_ids = itertools.count(secrets.randbits(48) << 14)


def njit(function=None, **options):
    """`numba.njit`, with or without options, the result `kept`."""
    if function is None:
        return lambda function: njit(function, **options)
    return kept(numba.njit(function, **options))


def apart(function):
    """`njit` of a function that is called and never inlined, for the larger ones of a game of many.

    A kernel that is inlined by force hands that down to all that it calls: a world of fifty functions becomes one, some
    of them copied a hundred times, takes minutes to compile, and runs no faster.
    """
    return kept(numba.njit(function, pipeline_class=_Apart))


class _LowerApart(Lower):
    def setup_function(self, fndesc):
        super().setup_function(fndesc)
        self.function.attributes.add("noinline")


@register_pass(mutates_CFG=True, analysis_only=False)
class _LoweringApart(NativeLowering):
    _name = "lowering_apart"

    @property
    def lowering_class(self):
        return _LowerApart


class _Apart(CompilerBase):
    """numba's compiler, but for that one attribute; and what is called from here is not inlined by force, either."""

    def _compile_core(self):
        self.state.flags.forceinline = False  # inherited from a caller that is
        return super()._compile_core()

    def define_pipelines(self):
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)
        pipeline.passes = [(_LoweringApart if each is NativeLowering else each, why) for each, why in pipeline.passes]
        pipeline._finalized = False
        pipeline.finalize()
        return [pipeline]


def kept(function):
    """Let a function that numba compiles look on disk first; anything else is returned as it is."""
    if isinstance(function, Dispatcher) and not isinstance(function._cache, _Kept):
        function._cache = _Kept(function)
    return function


def folder() -> Path | None:
    """Where kernels are kept: private to this user; None where there is no such place."""
    named = os.environ.get(FOLDER)
    if named == "":
        return None
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    path = Path(named) if named else Path(base).expanduser() / "lit_rl" / "kernels"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except (OSError, RuntimeError):
        return None
    private = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o022)
    return path if private else None  # machine code is run: nobody else may put it there


class _Kept(_Cache):
    """What a dispatcher asks before it compiles, one file per function and types of arguments."""

    def __init__(self, dispatcher: Dispatcher):
        self._dispatcher = dispatcher
        self._impl = CompileResultCacheImpl.__new__(CompileResultCacheImpl)  # without its search for a place

    @property
    def cache_path(self) -> str:
        return str(folder())

    def enable(self) -> None: ...

    def disable(self) -> None: ...

    def flush(self) -> None: ...

    def load_overload(self, sig, target_context):
        path = self._path(sig, target_context.codegen())
        if path is None:
            return None
        try:
            data = path.read_bytes()
            if hashlib.sha256(data[32:]).digest() != data[:32]:
                return None  # half a file, from a full disk
            with contextlib.suppress(OSError):
                os.utime(path)
            target_context.refresh()
            return self._impl.rebuild(target_context, pickle.loads(data[32:]))
        except OSError:
            return None

    def save_overload(self, sig, data) -> None:
        path = self._path(sig, data.codegen)
        if path is None or data.lifted or data.library.has_dynamic_globals:
            return
        payload = pickle.dumps(self._impl.reduce(data), protocol=pickle.HIGHEST_PROTOCOL)
        with contextlib.suppress(OSError):
            _remove_unused(path.parent)
            handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(payload).digest() + payload)
            os.replace(part, path)

    def _path(self, sig, codegen) -> Path | None:
        place = folder()
        if place is None:
            return None
        try:
            digest = fingerprint(self._dispatcher)
        except _Unknown:
            return None
        target = (numba.__version__, llvmlite.__version__, np.__version__, sys.version, codegen.magic_tuple())
        switches = (config.BOUNDSCHECK, config.OPT, config.ENABLE_AVX, config.DEBUG, config.FULL_TRACEBACKS)
        words = repr((digest, str(sig), target, switches))
        name = self._dispatcher.py_func.__name__
        return place / f"{name}-{hashlib.sha256(words.encode()).hexdigest()[:40]}.nbc"


_checked: set[Path] = set()


def _remove_unused(place: Path) -> None:
    """Once per process, before it keeps its first kernel."""
    if place in _checked:
        return
    _checked.add(place)
    for path in place.iterdir():
        with contextlib.suppress(OSError):
            if path.suffix in (".nbc", ".part") and time.time() - path.stat().st_mtime > UNUSED:
                path.unlink()


class _Unknown(Exception):
    """Something that machine code depends on, and whose content nobody here can tell."""


def fingerprint(function) -> str:
    """Hash of the code of a compiled function, and of every function and constant that the code reaches.

    Raises:
        _Unknown: it reaches a value of a kind that is not known here, or calls itself: numba 0.68's kept code of a
            function that calls itself with other types ends in a segmentation fault.
    """
    hasher = hashlib.sha256()
    seen: dict[int, int] = {}
    begun: set[int] = set()  # functions whose code is being read

    def put(*words) -> None:
        hasher.update(repr(words).encode())

    def add_code(code: types.CodeType, names: set[str], of_globals: set[str]) -> None:
        put(code.co_code, code.co_varnames, code.co_cellvars, code.co_freevars, code.co_names, code.co_argcount)
        put(code.co_kwonlyargcount, code.co_posonlyargcount, code.co_flags & MEANT, code.co_exceptiontable)
        names.update(code.co_names)
        of_globals.update(step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL")
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                add_code(constant, names, of_globals)
            else:
                add(constant, names)

    def add_function(function: types.FunctionType) -> None:
        names: set[str] = set()
        of_globals: set[str] = set()
        put(function.__module__)  # machine code, once loaded, imports the modules of all functions in it
        add_code(function.__code__, names, of_globals)
        add(function.__defaults__, names)
        add(tuple(sorted((function.__kwdefaults__ or {}).items())), names)
        for cell in function.__closure__ or ():
            add(cell.cell_contents, names)
        for name in sorted(of_globals & function.__globals__.keys()):
            put(name)
            add(function.__globals__[name], names)

    def add(value, names: set[str]) -> None:
        kind = type(value)
        put(kind.__module__, kind.__qualname__)
        if value is None or value is ... or isinstance(value, (bool, int, float, complex, str, bytes, enum.Enum)):
            put(repr(value))  # of an enum the repr has name and value
        elif isinstance(value, (np.ndarray, np.generic)) and not np.asarray(value).dtype.hasobject:
            put(np.asarray(value).dtype.descr, np.shape(value), np.asarray(value).tobytes())
        elif isinstance(value, np.dtype):
            put(str(value), value.itemsize)
        elif isinstance(value, (tuple, list, frozenset)):
            items = sorted(value, key=repr) if isinstance(value, frozenset) else value
            put(len(items), getattr(kind, "_fields", None))
            for item in items:
                add(item, names)
        elif isinstance(value, types.ModuleType):
            put(value.__name__)
            if value.__name__.split(".")[0] not in LIBRARIES:
                for name in sorted(names & vars(value).keys()):
                    put(name)
                    add(getattr(value, name), names)
        elif isinstance(value, (Dispatcher, types.FunctionType)):
            if id(value) in begun:
                raise _Unknown(f"{value} calls itself")
            if id(value) in seen:
                put(seen[id(value)])
                return
            seen[id(value)] = len(seen)
            begun.add(id(value))
            if isinstance(value, Dispatcher):
                put(sorted(value.targetoptions.items(), key=repr), sorted(value.locals.items(), key=repr))
                if value._compiler.pipeline_class is not Compiler:
                    put(value._compiler.pipeline_class.__qualname__)
                add_function(value.py_func)
            else:
                add_function(value)
            begun.remove(id(value))
        elif (getattr(value, "__module__", None) or "").split(".")[0] in LIBRARIES and hasattr(value, "__qualname__"):
            put(value.__module__, value.__qualname__)  # np.float32, a ufunc, len
        elif isinstance(value, numba.types.Type):
            put(str(value))
        elif isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields"):
            put(value.__qualname__, value._fields, value._field_defaults)
        else:
            raise _Unknown(repr(value)[:200])

    add(function, set())
    return hasher.hexdigest()
