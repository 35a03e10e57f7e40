# enostask 1.1.0, MIT-0: experiment steps that keep their state, in one file that needs the standard library alone.
# SPDX-FileCopyrightText: the enostask authors; SPDX-License-Identifier: MIT-0
"""Tasks and environments: run an experiment step by step, and lose nothing between the steps.

A *task* is a function that gets an *environment*, a dict-like store that is loaded before the task
runs and saved after it, however the task ends.  Leave Python, mend a step, rerun only that one::

    # experiment.py
    import sys
    from enostask import enostask

    @enostask(new=True)
    def up(env):
        env["machines"] = ["m1", "m2"]

    @enostask()
    def measure(env, load=10):
        env["latency"] = {machine: 1.5 * load for machine in env["machines"]}

    {"up": up, "measure": measure}[sys.argv[1]]()

What ``python experiment.py up`` leaves in the working directory::

    current -> enos_2026-11-22_13-55-46     the environment in use
    enos_2026-11-22_13-55-46/
        env                                 the checkpoint: one pickle of the Environment
        .env.lock                           held only while saving, never removed
        env.bak1, env.bak2 ...              older checkpoints that a new environment replaced
        env.log                             which tasks ran, and how they ended

A call goes: specifier -> directory -> load -> task -> save.  A *specifier* names an environment: its
directory (a str or os.PathLike), an Environment, or None for ``current``.

Traps: loading a checkpoint runs code, so load only what you trust; ``python -m enostask PATH`` shows
one without.  A task that is killed leaves what it last saved: call ``env.dump()`` where it matters.
An Environment belongs to one thread; hand others its path.
"""
import contextlib
import errno
import functools
import gc
import importlib
import io
import os
import pickle
import re
import reprlib
import stat
import sys
import time
from _thread import get_ident  # threading, like inspect below, is slow to import
from collections import UserDict, abc
from hashlib import sha256
from pathlib import Path, PurePath

with contextlib.suppress(ImportError):
    import fcntl  # not on Windows

__all__ = ["ENV_FILENAME", "SYMLINK_NAME", "EnosError", "EnosFilePathError", "EnosSaveError"]
__all__ += ["Environment", "enostask", "get_or_create_env"]
__version__ = "1.1.0"

SYMLINK_NAME = "current"
ENV_FILENAME = "env"


# ---- Tasks: load, run, save
def enostask(new=False, symlink=True):
    """Make a function a task: give it an environment, and save that when the function ends.

    The function (method, callable, partial, coroutine or generator function) takes ``env`` by keyword.
    With *new*, each call starts a fresh environment; with *symlink*, ``current`` then points to it.
    A caller may name one by ``env``, a specifier; a keyword ``--env`` that is not empty goes first, and
    ``env_symlink=False`` leaves ``current`` alone.  The function receives these two like any keyword.

    Raise TypeError at decoration if *new* is no bool, *symlink* neither bool nor None, or if the function
    takes no ``env`` or is an async generator; at a call, if the arguments do not fit a *new* task, or if
    it returns a coroutine that was not declared.  Otherwise a call raises what `get_or_create_env` and
    `Environment.reload_config` raise, then what the function raises, or else what `Environment.dump` raises.
    """
    if callable(new) or hasattr(new, "__get__"):  # bare: @enostask
        return _task(False, symlink, new)
    if not isinstance(new, bool) or not isinstance(symlink, (bool, type(None))):
        raise TypeError(f"enostask({_shown(new)}, {_shown(symlink)}): say True or False, and name env at the call")
    return functools.partial(_task, new, symlink)


def get_or_create_env(new, env_name, symlink=True):
    """Return the environment that *env_name* names: an Environment itself, else loaded, or with *new* a fresh one.

    A fresh one stands in that directory, or in one named after the time for None; what is there is
    kept, a checkpoint as ``env.bakN``.  With *symlink*, ``current`` then points to it.  Raise
    EnosFilePathError if *env_name* is no specifier, if no environment can be loaded or made there, or
    if ``current`` stands in the way; OSError if the fresh one cannot be saved.
    """
    if isinstance(env_name, Environment):
        return env_name
    if not new:
        return Environment.load_from_file(Path(SYMLINK_NAME if env_name is None else _path(env_name), ENV_FILENAME))
    if symlink is not False and os.path.lexists(SYMLINK_NAME) and not os.path.islink(SYMLINK_NAME):
        raise EnosFilePathError(SYMLINK_NAME, f"{_where(SYMLINK_NAME)} is no link; move it away, or say symlink=False")
    env = Environment(_dated_directory() if env_name is None else env_name)
    env._start_over()
    if symlink is not False:
        _point_current_to(env.env_name)
    return env


class _Run:
    """One call of a task: on entering, its environment is loaded or created; on leaving, it is saved."""

    def __init__(self, name, new, symlink, parameter, args, kwargs):
        self.name, self.new, self.args, self.kwargs, self.recording = name, new, args, kwargs, True
        self.symlink = symlink is not False and kwargs.get("env_symlink") is not False
        self.signature, self.position, self.default = parameter
        self.by_position = "env" not in kwargs and self.position is not None and self.position < len(args)

    def __enter__(self):
        if self.new:
            args, kwargs = self.arguments_with(None)
            self.signature.bind(*args, **kwargs)  # a call that cannot succeed: TypeError before anything is made
        given = self.args[self.position] if self.by_position else self.kwargs.get("env", self.default)
        self.env = get_or_create_env(self.new, self.kwargs.get("--env") or given, self.symlink)
        self.env.reload_config()
        if not os.access(self.env.env_name, os.W_OK):
            _logger().warning("%s cannot be written: what the task changes will not be saved", self.env.env_name)
        self.start = time.monotonic()
        host = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME")
        self.record("started", "started", f"host {host}, pid {os.getpid()}, Python {sys.version.split()[0]}")
        return self.arguments_with(self.env)

    def arguments_with(self, env):
        """Return the arguments of the call with *env* in its place."""
        if self.by_position:
            return (*self.args[: self.position], env, *self.args[self.position + 1 :]), self.kwargs
        return self.args, {**self.kwargs, "env": env}

    def __exit__(self, _, error, __):
        exits = isinstance(error, SystemExit) and error.code in (None, 0)
        failure = None if error is None or exits or isinstance(error, GeneratorExit) else type(error).__name__
        try:
            self.env._save_after_task()
        except BaseException as loss:
            if failure is None or not isinstance(loss, Exception):
                failure = failure or type(loss).__name__
                raise
            _logger().exception("The environment of the failed task %s could not be saved as it is", self.name)
            getattr(error, "add_note", _logger().debug)(f"When its environment was saved: {loss}")  # from 3.11 on
        finally:
            took = f"{time.monotonic() - self.start:.1f} s"
            event, how_long = ("failed", f"after {took}") if failure else ("finished", f"in {took}")
            self.record(event, f"{event} {how_long}", f"{took}, {failure}" if failure else took)

    def record(self, event, message, details):
        """Log *message* about the task, and append the *event* to ``env.log``, which people read."""
        _logger().info("Task %s %s in %s", self.name, message, self.env.env_name)
        try:
            if self.recording:
                with open(f"{self.env.env_name}/env.log", "ab", buffering=0) as file:
                    when = time.strftime("%Y-%m-%d %H:%M:%S")
                    file.write(f"{when}  {self.name:<8}  {event:<8}  {details}\n".encode())
        except OSError as error:
            self.recording = False
            _logger().debug("Cannot record the task %s in %s: %s", self.name, self.env.env_name, _told(error))


def _task(new, symlink, function):
    """Return the task that *function* becomes, of the same form: plain, coroutine or generator."""
    import inspect
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    name = getattr(inner, "__name__", type(inner).__name__)
    run = functools.partial(_Run, name, new, symlink, _env_parameter(function, inner, name))
    body = inner if inspect.isroutine(inner) or inspect.isclass(inner) else inner.__call__
    if inspect.isasyncgenfunction(body):
        raise TypeError(f"{name} cannot be a task: it is an async generator; make it a coroutine or a generator")
    form = _generator_task if inspect.isgeneratorfunction(body) else _plain_task
    form = _coroutine_task if inspect.iscoroutinefunction(body) else form
    task = functools.update_wrapper(form(function, run), inner)
    task.__wrapped__, task.__name__ = function, name
    return task


def _coroutine_task(function, run):
    async def task(*args, **kwargs):
        with run(args, kwargs) as (args, kwargs):
            return await function(*args, **kwargs)

    return task


def _generator_task(function, run):
    def task(*args, **kwargs):
        with run(args, kwargs) as (args, kwargs):
            return (yield from function(*args, **kwargs))

    return task


def _plain_task(function, run):
    def task(*args, **kwargs):
        with run(args, kwargs) as (args, kwargs):
            result = function(*args, **kwargs)
            if isinstance(result, abc.Coroutine):  # it has yet to run, and would do so after the save
                result.close()
                raise TypeError(f"{task.__name__} returned a coroutine: declare what returns it as 'async def'")
            return result

    return task


def _env_parameter(function, inner, name):
    """Return the signature of *function* with position and default of its env; *inner* is it without partials."""
    from inspect import isclass, isroutine, signature
    try:
        own = signature(function, follow_wrapped=False)
        own.bind_partial(env=None)
        names = own.parameters if "env" in own.parameters else signature(function).parameters  # a wrapper's
        env = names.get("env")
        # An object that takes any keyword is most likely a command of click, and would fail at the call.
        if isinstance(inner, (staticmethod, classmethod)) or not (env or isroutine(inner) or isclass(inner)):
            raise TypeError  # told below
    except (TypeError, ValueError):
        raise TypeError(f"{name} takes no env by keyword: write @enostask right above def {name}(env, ...)") from None
    position = list(names).index("env") if env and env.kind is env.POSITIONAL_OR_KEYWORD else None
    return own, position, env.default if env and isinstance(env.default, (str, os.PathLike, Environment)) else None


# ---- Environments
class Environment(UserDict):
    """A dict-like store for an experiment: items in ``.data``, kept in the directory ``.env_name``, a resolved Path.

    A new one makes the directory *env_name* with its parents, and holds ``resultdir`` (the directory),
    ``config_file`` (None), ``config`` ({}) and ``config_type`` ("yaml"); `dump` saves it.
    Raise EnosFilePathError if there can be no environment.
    """

    # Its pickle as loaded, made or last saved, to tell its changes from others'.  None if it came by pickle or from
    # a backup: then all that it holds is a change.
    _base = None
    # Is the base durably on disk?  If not, the next save writes in any case, and does not warn of a missing file.
    _stored = True

    def __init__(self, env_name):
        self.env_name = _made_directory(env_name)
        super().__init__(resultdir=self.env_name, config_file=None, config={}, config_type="yaml")
        self._base, self._stored = self.dumps(), False

    def __missing__(self, key):
        raise KeyError(f"no {_shown(key)} in {self.env_name}: run the task that sets it, or name another environment")

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name not in ("_base", "_stored")}

    @classmethod
    def load_from_file(cls, env_file):
        """Return the environment whose checkpoint is *env_file*, a str or os.PathLike, as it is in that directory.

        Loading a pickle runs code.  Raise EnosFilePathError if there is no such file, or it cannot be loaded.
        """
        image = _content(env_file)
        directory, name = os.path.split(env_file)
        try:
            env = _revived(image, os.path.realpath(directory), cls)
        except Exception as error:
            why = f"cannot load {_where(env_file)}: {_told(error)}; mend that, or restore a backup (cp env.bakN env)"
            raise EnosFilePathError(env_file, why) from (error.__cause__ or error)
        env._base = image if name == ENV_FILENAME else None
        return env

    def dump(self):
        """Save: once this returns, the checkpoint holds this environment durably, and keys that only others changed.

        Raise EnosSaveError, after saving all else, if values cannot be pickled; OSError, or EnosFilePathError
        for a checkpoint that is no regular file, if it cannot be saved: it is the old one, or whole and new.
        """
        twin, mine, refused = self._pickled()
        checkpoint, base = self._checkpoint(), self._base  # only now: _pickled may drop the base
        gone = not os.path.exists(checkpoint)
        if gone or mine != base or not self._stored:
            try:
                if gone:
                    _make_directories(Path(checkpoint).parent)
                if gone and self._stored:
                    _logger().warning("%s is gone: making it again", checkpoint)
                with _locked(checkpoint):
                    others = _other_than(base, checkpoint)
                    content = mine if others is None else twin._merged(base, mine, others, checkpoint)
                    try:
                        _replace(checkpoint, content, like=checkpoint)
                        # Not the merge: it has keys that memory lacks, and the next save would think we deleted them.
                        self._base, self._stored = mine, False
                    except BaseException:
                        if os.path.exists(checkpoint) and _other_than(content, checkpoint) is None:
                            self._base, self._stored = mine, False  # the new file is there; the interrupt came after
                        raise
                    _sync_directory(os.path.dirname(checkpoint))
                    self._stored = True
            except OSError:  # read-only or full: nothing is lost if only the pickle changed, and no value
                if gone or not self._stored or self._differ(base, mine):
                    raise
        if refused:
            why = "; ".join(f"{_shown(key)} ({_told(error)})" for key, error in refused.items())
            why = f"{checkpoint} is saved, but for what cannot be pickled: {why}; store something else there"
            raise EnosSaveError(checkpoint, list(refused), why) from next(iter(refused.values()))

    def dumps(self):
        """Return this environment pickled.  Raise what pickling raises."""
        return pickle.dumps(self, 5)  # a protocol that every Python from 3.8 knows

    def reload_config(self):
        """Update ``env["config"]`` with what is in the file ``env["config_file"]``, if set.

        It is JSON if it ends in ``.json``, else what ``env["config_type"]`` says, "json" or "yaml".  That
        it is missing is logged.  Raise EnosFilePathError if it cannot be read or holds no mapping.
        """
        config_file = self.get("config_file")
        if not config_file:
            return
        try:
            path = os.fspath(config_file)
            with open(path, "rb") as file:
                read = _parsed(file.read(), "json" if path.endswith(".json") else self.get("config_type"))
            self["config"] = {**(self.get("config") or {}), **read}
        except FileNotFoundError:
            _logger().warning("The config file %s is missing: keeping the config as it was stored", _where(path))
        except Exception as error:
            why = f"cannot use env['config_file'], {_where(config_file)}: {_told(error)}; mend the file or name another"
            raise EnosFilePathError(config_file, why) from error

    def _save_after_task(self):
        """Save, but do not make an environment again that the task removed without changing a value in it."""
        if self._stored and not os.path.exists(os.path.join(self.env_name, ENV_FILENAME)):
            _, mine, refused = self._pickled()
            if not refused and not self._differ(self._base, mine):
                return
        self.dump()

    def _start_over(self):
        """Put this fresh environment in place of the checkpoint that may be there."""
        checkpoint = self._checkpoint()
        with _locked(checkpoint):
            old = _other_than(self._base, checkpoint)
            if old is not None and self._differ(self._base, old):
                self._keep_aside(old, checkpoint, "a new environment takes its place")
            _replace(checkpoint, self._base, like=checkpoint)
            _sync_directory(os.path.dirname(checkpoint))
            self._stored = True

    def _pickled(self):
        """Return what to save, its pickle, and the errors of keys that cannot be pickled, which are as last saved."""
        try:
            return self, self.dumps(), {}
        except Exception:
            refused = {}
            for key, value in self.items():
                try:
                    pickle.dumps((key, value), 5)
                except Exception as error:
                    refused[key] = error
            if not refused:
                raise
        twin, rest = self.__copy__(), {key: value for key, value in self.items() if key not in refused}
        try:
            last_saved = self._items(self._base)
            twin.data = {**rest, **{key: last_saved[key] for key in refused if key in last_saved}}
            return twin, twin.dumps(), refused
        except MemoryError:
            raise
        except Exception:  # the last saved one is of no use: without a base, the save keeps the checkpoint aside
            self._base, twin.data = None, rest
            return twin, twin.dumps(), refused

    def _merged(self, base, mine, others, checkpoint):
        """Merge three pickles: return *mine*, with the keys that changed from *base* to *others* but not to *mine*."""
        try:
            before, ours, theirs = map(self._items, (base, mine, others))
            merged = self.__copy__()
            for key in {**before, **theirs}:
                if _same(before, theirs, key):
                    continue
                if _same(before, ours, key):  # only they changed it
                    merged.data.pop(key, None)
                    merged.data.update({key: theirs[key]} if key in theirs else {})
                elif not _same(theirs, ours, key):
                    _logger().warning("Two tasks changed %s in %s: the later save wins", _shown(key), checkpoint)
            return merged.dumps()
        except MemoryError:  # which says nothing of the checkpoint
            raise
        except Exception as error:
            self._keep_aside(others, checkpoint, f"it cannot be merged ({_told(error)})")
            return mine

    def _differ(self, one, other):
        """Tell whether any value differs between the environments pickled as *one* and *other*; in doubt, it does."""
        try:
            before, now = self._items(one), self._items(other)
        except MemoryError:
            raise
        except Exception:
            return True
        return not all(_same(before, now, key) for key in {**before, **now})

    def _items(self, image):
        """Return the items of the environment pickled as *image*, as they are in this directory; none of None."""
        return {} if image is None else _revived(image, str(self.env_name), type(self)).data

    def _keep_aside(self, content, checkpoint, why):
        """Save *content*, which *checkpoint* holds, as ``env.bakN`` before another takes its place."""
        numbers = (int(name[7:]) for name in os.listdir(self.env_name) if re.fullmatch(r"env\.bak[0-9]+", name))
        backup = os.path.join(self.env_name, f"{ENV_FILENAME}.bak{1 + max(numbers, default=0)}")
        _replace(backup, content, like=checkpoint)
        _sync_directory(self.env_name)
        _logger().warning("Kept the checkpoint %s as %s: %s", checkpoint, os.path.basename(backup), why)

    def _checkpoint(self):
        """Return where the checkpoint really is: one that is a link is written through."""
        path = os.path.join(self.env_name, ENV_FILENAME)
        return os.path.realpath(path) if os.path.islink(path) else path


# ---- Errors
class EnosError(Exception):
    """Base of all errors of this module; the last argument is the message."""

    def __str__(self):
        return " ".join(str(self.args[-1]).splitlines()) if self.args else ""


class EnosFilePathError(EnosError):
    """There is no usable environment or config file at ``.filepath``, the path as it was given."""

    def __init__(self, filepath, msg=""):
        super().__init__(filepath, msg or f"no usable environment or config file at {_shown(filepath)}; check the path")
        self.filepath = filepath


class EnosSaveError(EnosError):
    """Values could not be pickled, all else was saved: ``.filepath`` is the checkpoint, ``.keys`` a list."""

    def __init__(self, filepath, keys, msg=""):
        super().__init__(filepath, keys, msg or f"{filepath}: cannot pickle {_shown(keys)}; store something else there")
        self.filepath, self.keys = filepath, keys


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 200


def _shown(value):
    return " ".join(_REPR.repr(value).split())


def _where(path):
    return _shown(os.path.abspath(path) if isinstance(path, (str, os.PathLike)) else path)


def _told(error):
    """Return what *error* says, with its kind, on one short line."""
    mark = getattr(error, "problem_mark", None)  # of PyYAML, whose text has lines of the file in it
    said = f"{error.problem} in line {mark.line + 1}, column {mark.column + 1}" if mark else None
    said = said or getattr(error, "strerror", None) or " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:300]}" if said else type(error).__name__


def _logger():
    import logging  # half of what this module would take to import
    return logging.getLogger(__name__)


# ---- From a specifier to a directory, and from there to `current`
def _path(specifier):
    """Return *specifier*, a str or os.PathLike, as a str; raise EnosFilePathError if it is anything else, or empty."""
    path = os.fspath(specifier) if isinstance(specifier, (str, os.PathLike)) else None
    if isinstance(path, str) and path:
        return path
    why = "give the directory of an environment (a str or os.PathLike), an Environment or None"
    raise EnosFilePathError(specifier, f"env is {_shown(specifier)}: {why}; it may be meant for a later argument")


def _made_directory(specifier):
    """Make the directory *specifier* with its parents, durably; return its resolved Path."""
    path = _path(specifier)
    link = os.path.abspath(SYMLINK_NAME)
    if os.path.abspath(path) == link and not (os.path.islink(link) and os.path.isdir(link)):
        raise EnosFilePathError(specifier, _why_absent(os.path.join(path, ENV_FILENAME)))
    try:
        directory = Path(os.path.realpath(path))
        if (directory / ENV_FILENAME).exists() and not (directory / ENV_FILENAME).is_file():
            raise FileExistsError(f"{ENV_FILENAME} in it is no regular file, but the checkpoint goes there")
        _make_directories(directory)
    except (OSError, ValueError) as error:
        why = f"cannot make an environment in {_where(path)}: {_told(error)}; choose another path"
        raise EnosFilePathError(specifier, why) from error
    return directory


def _make_directories(directory):
    """Make *directory*, a Path, with its parents, durably."""
    new = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for path in new or [directory]:  # also if it is there: its maker may have been killed before the sync
        _sync_directory(path.parent)


def _dated_directory():
    """Make a directory that nobody else has, named after the time; return its name."""
    moment = time.time()
    while True:
        name = time.strftime("enos_%Y-%m-%d_%H-%M-%S", time.localtime(moment))
        try:
            os.mkdir(name)
            return name
        except FileExistsError:
            moment += 1
        except OSError as error:
            raise EnosFilePathError(name, f"cannot make the directory {_where(name)}: {_told(error)}") from error


def _point_current_to(directory):
    """Make ``current`` a link to *directory*, relative if it lies below, with no moment without a link."""
    here = Path(os.path.realpath(os.curdir))
    target = directory.relative_to(here) if here in (directory, *directory.parents) else directory
    link, temporary = here / SYMLINK_NAME, here / f".{SYMLINK_NAME}.{os.urandom(8).hex()}.tmp"
    try:
        os.symlink(target, temporary, target_is_directory=True)
        os.replace(temporary, link)
        _sync_directory(here)
    except OSError as error:
        why = f"cannot point {_where(link)} to {directory}: {_told(error)}"
        if os.path.lexists(link) and os.path.realpath(link) != str(directory):  # the next task would use that
            raise EnosFilePathError(SYMLINK_NAME, f"{why}; remove it, or say symlink=False") from error
        _logger().warning("%s", why)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _why_absent(checkpoint):
    """Say why there is no file *checkpoint*, and what to do."""
    directory, name = os.path.split(checkpoint)
    where = _where(directory)
    if os.path.isdir(directory or os.curdir):
        return f"no {name} in {where}: name the directory of an environment, or restore a backup (cp env.bakN env)"
    if os.path.exists(directory):
        return f"{where} is a file: name the directory of an environment, not a file in it"
    gone = f"points to {_shown(os.readlink(directory))}, which is gone" if os.path.islink(directory) else "is absent"
    return f"{where} {gone}: run a task with new=True first, or name another environment"


# ---- From the bytes of a checkpoint to an environment
def _content(path):
    """Return what the checkpoint *path* holds; raise EnosFilePathError if it cannot be read."""
    _path(path)
    try:
        with _opened(path) as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        raise EnosFilePathError(path, _why_absent(path)) from None
    except (OSError, ValueError) as error:
        raise EnosFilePathError(path, f"cannot read {_where(path)}: {_told(error)}; check disk and access") from error


def _opened(path):
    """Open the file *path*; raise EnosFilePathError if it is no regular file, as opening a fifo would hang."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise EnosFilePathError(path, f"{_where(path)} is no regular file, so no checkpoint: name another")
    return open(path, "rb", buffering=0)


def _revived(image, directory, cls):
    """Return the environment, a *cls*, that is pickled in *image*, as it is in *directory*, a str."""
    reader = _Reader(io.BytesIO(image))
    reader.cls = cls
    collecting = gc.isenabled()
    try:
        gc.disable()  # a big pickle is many new objects, among which the collector would look for garbage
        env = reader.load()
    finally:
        if collecting:
            gc.enable()
    if not isinstance(env, Environment) or not isinstance(env.data, dict):
        raise pickle.UnpicklingError(f"it holds a {type(env).__name__}, not an Environment")
    home, results = vars(env)["env_name"], env.data.get("resultdir", "")
    if str(home) != directory or not isinstance(home, Path):  # if not, leave all: an equal copy changes the pickle
        env.env_name = Path(directory)
        with contextlib.suppress(TypeError, ValueError):  # it is no path, or lies elsewhere, and stays there
            env.data["resultdir"] = type(results)(env.env_name / PurePath(results).relative_to(home))
    return env


# What 3.13 calls pathlib, and what a worker process that was spawned calls the script.
_RENAMED = {"pathlib._local": "pathlib", "__mp_main__": "__main__"}


class _Reader(pickle.Unpickler):
    """Reads environments, whichever copy of this module, or EnOSlib, saved them."""

    cls, home = None, ""

    def find_class(self, module, name):
        if not self.home:  # a checkpoint names its own class first: this is the module that saved it
            self.home = module if name == "Environment" else __name__
        if module == self.home and name in __all__:
            return self.cls if name == "Environment" else globals()[name]
        try:
            return super().find_class(_RENAMED.get(module, module), name)
        except (ImportError, AttributeError) as error:
            advice = f"which cannot be found ({_told(error)}): install or restore it"
            if module in ("__main__", "__mp_main__"):
                advice = f"a class of the script that saved it: move {name} to a module, and import it in this script"
            raise pickle.UnpicklingError(f"it needs {module}.{name}, {advice}") from error


# ---- From an environment to its checkpoint

_held: set = set()  # the locks that are held, each as process, thread and path


@contextlib.contextmanager
def _locked(checkpoint):
    """Hold the lock on *checkpoint*, where that is supported and permitted; first remove what a killed save left."""
    path = os.path.join(os.path.dirname(checkpoint), f".{ENV_FILENAME}.lock")
    holder = os.getpid(), get_ident(), path
    if holder in _held:  # a signal handler saves in the midst of a save, and would wait for itself
        raise OSError(errno.EDEADLK, "This thread is saving here already; save again when that is done", path)
    try:
        _held.add(holder)
        with contextlib.ExitStack() as closing:
            with contextlib.suppress(NameError), _if_possible():
                writable = os.access(path, os.W_OK) or not os.path.exists(path)
                file = closing.enter_context(open(path, "ab" if writable else "rb", buffering=0))  # or another's
                fcntl.flock(file, fcntl.LOCK_EX)
                _remove_leftovers(os.path.dirname(checkpoint))
            try:
                yield
            finally:
                with contextlib.suppress(NameError, OSError):
                    fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough if a child was forked meanwhile
    finally:
        _held.discard(holder)  # last: a signal handler that saved before that would wait for itself


@contextlib.contextmanager
def _if_possible():
    """Pass over what this system or this file system does not know, or does not permit."""
    try:
        yield
    except OSError as error:
        unknown = errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF
        if error.errno not in unknown and not isinstance(error, PermissionError):
            raise


def _remove_leftovers(directory):
    with contextlib.suppress(OSError):
        for name in filter(re.compile(r"\.env\.[0-9a-f]{16}\.tmp").fullmatch, os.listdir(directory)):
            os.unlink(os.path.join(directory, name))


def _other_than(base, path):
    """Return what the file *path* holds, or None if that is *base*, bytes or None, or if there is no such file."""
    known, step = base or b"", 2**16  # in steps, as there may be no memory for one more copy
    with contextlib.suppress(FileNotFoundError), _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != len(known) or any(file.read(step) != known[at : at + step] for at in range(0, size, step)):
            file.seek(0)
            return file.read()
    return None


def _replace(path, content, like):
    """Put a file with *content*, bytes, in place of *path*, with the mode and owner of the file *like*, if that exists.

    At any instant *path* is the old file or the new one, also where locks do not work, as nobody else
    has the random name of the new one.  `_sync_directory` makes that survive a power cut.
    """
    temporary = os.path.join(os.path.dirname(path), f".{ENV_FILENAME}.{os.urandom(8).hex()}.tmp")
    try:
        model = None
        with contextlib.suppress(FileNotFoundError):
            model = os.stat(like)
        with open(temporary, "xb", opener=functools.partial(os.open, mode=0o600 if model else 0o666)) as file:
            if model and hasattr(os, "fchown"):  # Windows has neither
                _take_mode_and_owner(file.fileno(), model)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _take_mode_and_owner(file, model):
    """Give *file*, a descriptor, the mode and, where permitted, the owner and group of the stat result *model*."""
    mode, made = stat.S_IMODE(model.st_mode), os.fstat(file)
    if (made.st_uid, made.st_gid) != (model.st_uid, model.st_gid):
        try:
            os.fchown(file, model.st_uid, model.st_gid)
        except OSError:
            try:
                os.fchown(file, -1, model.st_gid)
            except OSError:
                mode &= ~stat.S_IRWXG  # it has another group now
    if mode != stat.S_IMODE(made.st_mode):  # some network shares refuse even what would change nothing
        os.fchmod(file, mode)


def _sync_directory(directory):
    """Make the names in *directory* survive a power cut."""
    with _if_possible():  # not for one that may not be listed, and on Windows for none
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _same(one, other, key):
    """Tell whether *key* has the same value in both dicts of unpickled values, or is in neither; in doubt, not."""
    if key not in one or key not in other:
        return (key in one) == (key in other)
    try:
        plain = [pickle.dumps(items[key], 5) for items in (one, other)]
        return plain[0] == plain[1] or _digest(pickle.loads(plain[0])) == _digest(pickle.loads(plain[1]))
    except MemoryError:  # which says nothing of the values
        raise
    except Exception:
        return False


def _digest(value):
    """Return a digest of *value* that does not depend on the order of sets, or on which strings are one object."""
    file = io.BytesIO()
    _CanonicalPickler(file, 5).dump(value)
    return sha256(file.getbuffer()).digest()


class _CanonicalPickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, (set, frozenset)):
            return type(value), sorted(map(_digest, value)), getattr(value, "__dict__", None)
        if isinstance(value, PurePath):
            return "path", str(value)
        if type(value) is str:  # as an int: a pickle writes equal ints alike, but equal strings as one object or two
            return int.from_bytes(sha256(value.encode("utf-8", "surrogatepass")).digest(), "big")
        return None


def _parsed(content, kind):
    """Return the mapping in *content*, the bytes of a config file of *kind*; empty YAML is an empty one."""
    if kind not in ("json", "yaml"):
        raise ValueError(f"env['config_type'] is {_shown(kind)}, not 'json' or 'yaml'")
    try:
        module = importlib.import_module(kind)
    except ImportError:
        raise ImportError("YAML needs PyYAML, which is not installed (pip install pyyaml)") from None
    read = module.loads(content) if kind == "json" else module.safe_load(content)
    read = {} if read is None and kind == "yaml" else read
    if not isinstance(read, dict):
        raise TypeError(f"it holds a {type(read).__name__}, not a mapping")
    return read


# ---- Looking into environments without running anything in them: python -m enostask
def main(arguments=None):
    """Show the environments in the working directory, or what is in one; return the exit status."""
    import argparse
    import shutil
    parser = argparse.ArgumentParser("enostask", description="Show environments, without running anything in them.")
    parser.add_argument("environment", nargs="?", help="a directory, or a checkpoint file such as current/env.bak1")
    environment = parser.parse_args(arguments).environment
    width = shutil.get_terminal_size().columns
    try:
        for line in map(_printable, _list() if environment is None else _item_lines(environment)):
            print(line if len(line) <= width else f"{line[: width - 3]}...")
        sys.stdout.flush()
    except EnosError as error:
        print(_printable(f"enostask: {error}"), file=sys.stderr)
        return 1
    except BrokenPipeError:  # `| head`; what is left in the buffer must not raise it again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _printable(text):
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _list():
    """Give a line that says where ``current`` leads, and one for each environment here, newest first."""
    used = os.path.realpath(SYMLINK_NAME)
    yield f"{SYMLINK_NAME} -> {used}{'' if os.path.exists(used) else ', which is not there'}"
    found = [Path(name, ENV_FILENAME) for name in os.listdir() if not os.path.islink(name)]
    for checkpoint in sorted(filter(os.path.isfile, found), key=os.path.getmtime, reverse=True):
        yield f"  {checkpoint.parent}   {_when_and_size(checkpoint)}"


def _item_lines(environment):
    """Give the lines that show what *environment*, a directory or a checkpoint file, holds."""
    checkpoint = os.path.join(environment, ENV_FILENAME) if os.path.isdir(environment) else environment
    data, view = _inert(checkpoint), _View()
    view.maxstring = view.maxother = 100
    yield f"{os.path.realpath(checkpoint)}: saved {_when_and_size(checkpoint)}"
    for key, value in data.items():
        kind = f"{type(value).__module__}.{type(value).__qualname__}".replace("builtins.", "")
        yield f"  {key if type(key) is str else view.repr(key):<12}   {kind}   {view.repr(value)}"


def _when_and_size(checkpoint):
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(os.path.getmtime(checkpoint)))
    return f"{when}   {os.path.getsize(checkpoint) / 1e3:,.1f} kB"


def _inert(checkpoint):
    """Return the items of the environment in the file *checkpoint*, built without anything that it names."""
    content = _content(checkpoint)
    try:
        return {**dict(_InertReader(io.BytesIO(content)).load().parts)["data"]}
    except Exception as error:
        raise EnosFilePathError(checkpoint, f"{_where(checkpoint)} is no whole checkpoint: {_told(error)}") from error


class _InertReader(pickle.Unpickler):
    """Builds plain data as it is, and anything else of stand-ins."""

    def find_class(self, module, name):
        import datetime
        # Always a new class, as a pickle can set attributes of what it finds; a tzinfo, as a datetime may take it.
        plain = module == "datetime" and name in ("date", "datetime", "time", "timedelta")
        return type(name, (getattr(datetime, name),) if plain else (_StandIn, datetime.tzinfo), {"__module__": module})


class _StandIn:
    """An object of a class that is not looked up: it keeps what is done to it, as named parts, and does nothing."""

    parts: list

    def __new__(cls, *args, **kwargs):
        self = object.__new__(cls)
        self.parts = [*(("", arg) for arg in args), *kwargs.items()]
        return self

    def __setstate__(self, state):
        for part in state if isinstance(state, tuple) else (state,):  # with slots, it is two dicts
            self.parts.extend(part.items() if isinstance(part, dict) else [("", part)])

    def __setitem__(self, key, value):
        self.parts.append((key, value))

    def append(self, value):
        self.parts.append(("", value))

    def utcoffset(self, _):
        """Let a datetime with this zone have a hash."""

    def __repr__(self):
        return f"{type(self).__name__}(...)"


class _View(reprlib.Repr):
    def repr1(self, value, level):
        if isinstance(value, _StandIn):  # first, as what follows goes by the name of the class
            if type(value).__module__.startswith("pathlib"):
                return os.path.join("", *(part for _, part in value.parts if isinstance(part, str)))
            shown = ((f"{name}=" if name != "" else "") + self.repr1(part, level - 1) for name, part in value.parts[:9])
            return f"{type(value).__name__}({', '.join(shown)})" if level > 0 else repr(value)
        if isinstance(value, (bytes, bytearray)):
            return f"{len(value)} bytes"
        if isinstance(value, int) and value.bit_length() > 1000:
            return f"an int of {value.bit_length()} bits"
        return super().repr1(value, level)


if __name__ == "__main__":
    raise SystemExit(main())
