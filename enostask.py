# SPDX-FileCopyrightText: the enostask authors
# SPDX-License-Identifier: MIT-0
# enostask: experiment steps that keep their state.  One file, standard library only; __version__ is below.
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
        env.bak1, env.bak2 ...              checkpoints that were replaced whole

and the way of the data: specifier -> directory -> load -> task -> save.  A *specifier* names an
environment: the path of its directory (a str or os.PathLike, relative to the working directory), an
Environment, or None for ``current``.

Traps: loading a checkpoint runs code, so load only what you trust (``python -m enostask PATH`` looks
into one without running anything).  A task that is killed leaves what it last saved: call
``env.dump()`` where it matters.  An Environment belongs to one thread; hand others its path.
"""
import contextlib
import errno
import functools
import gc
import io
import itertools
import os
import pickle
import re
import stat
import time
import types
from _thread import get_ident
from collections import UserDict
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from reprlib import recursive_repr

__all__ = [
    "ENV_FILENAME",
    "SYMLINK_NAME",
    "EnosError",
    "EnosFilePathError",
    "EnosSaveError",
    "Environment",
    "enostask",
    "get_or_create_env",
]
__version__ = "1.0.0"

SYMLINK_NAME = "current"
ENV_FILENAME = "env"


# ---- Tasks: load, run, save


def enostask(new=False, symlink=True):
    """Make a function a task: give it an environment, and save that when the function ends.

    Written ``@enostask``, ``@enostask()`` or ``@enostask(new=True)`` above a function, method,
    callable, partial, coroutine function or generator function that takes ``env``.  With *new*, each
    call starts a fresh environment; with *symlink*, ``current`` then points to it.

    Callers name the environment by ``env``, a specifier, or leave it out; a keyword ``--env`` that is
    not empty goes first (docopt), and ``env_symlink=False`` leaves ``current`` alone.  Both reach the
    function like any keyword, so it must take them.

    Raise TypeError, at decoration, if the function can take no ``env``, is an async generator, or is a
    staticmethod or classmethod; at a call, if it returns a coroutine without being declared as one.  A
    call raises what `get_or_create_env` and `Environment.reload_config` raise, then what the function
    raises, then what `Environment.dump` raises; after a failing function that last is only logged.
    """
    if callable(new) or isinstance(new, (staticmethod, classmethod)):  # bare: @enostask
        return _task(new, False, symlink)
    return lambda function: _task(function, new, symlink)


def get_or_create_env(new, env_name, symlink=True):
    """Return the environment that the specifier *env_name* names: loaded, or with *new* a fresh one.

    A fresh one stands in the directory *env_name*, made if need be; its other contents are kept, and
    a checkpoint in it is kept aside as ``env.bakN``.  None means ``current``, or with *new* a directory
    named after the date and time.  With *new* and *symlink*, ``current`` then points to it.

    Raise EnosFilePathError if *env_name* is not a specifier, if there is no environment that can be
    loaded, if the directory cannot be made, or if ``current`` stands in the way; OSError if the fresh
    checkpoint cannot be saved.
    """
    if isinstance(env_name, Environment):
        return env_name
    if not new:
        directory = SYMLINK_NAME if env_name is None else _path(env_name)
        return Environment.load_from_file(Path(directory, ENV_FILENAME))
    if symlink and os.path.lexists(SYMLINK_NAME) and not os.path.islink(SYMLINK_NAME):
        raise EnosFilePathError(SYMLINK_NAME, f"{_state(SYMLINK_NAME)}; move it away, or say symlink=False")
    env = Environment(_dated_directory() if env_name is None else env_name)
    env._start_over()
    if symlink:
        _point_current_to(env.env_name)
    return env


def _task(function, new, symlink):
    """Return the task that *function* becomes, of the same form: plain, coroutine or generator."""
    import inspect

    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    name = getattr(inner, "__name__", type(inner).__name__)
    parameter = _Parameter(function, name)
    body = inner if inspect.isroutine(inner) or inspect.isclass(inner) else inner.__call__
    if inspect.isasyncgenfunction(body):
        raise TypeError(f"{name} cannot be a task: it is an async generator; make it a coroutine or a generator")
    generated = _generator_task if inspect.isgeneratorfunction(body) else _plain_task
    form = _coroutine_task if inspect.iscoroutinefunction(body) else generated
    task = functools.update_wrapper(form(function, functools.partial(_Run, name, new, symlink, parameter)), inner)
    vars(task)["__wrapped__"] = function
    task.__name__ = name
    return task


def _coroutine_task(function, run):
    async def task(*args, **kwargs):
        with run(args, kwargs) as (positional, named):
            return await function(*positional, **named)

    return task


def _generator_task(function, run):
    def task(*args, **kwargs):
        with run(args, kwargs) as (positional, named):
            return (yield from function(*positional, **named))

    return task


def _plain_task(function, run):
    def task(*args, **kwargs):
        with run(args, kwargs) as (positional, named):
            result = function(*positional, **named)
            if isinstance(result, types.CoroutineType):  # it has yet to run, and would do so after the save
                result.close()
                raise TypeError(f"{task.__name__} returned a coroutine: declare what returns it as 'async def'")
            return result

    return task


class _Parameter:
    """The parameter ``env`` of *function*; TypeError if there is none."""

    def __init__(self, function, name):
        from inspect import Parameter, signature

        if isinstance(function, (staticmethod, classmethod)):
            raise TypeError(f"{name} cannot be a task: write @{type(function).__name__} above @enostask, not below")
        try:
            own, shown = signature(function, follow_wrapped=False).parameters, signature(function).parameters
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} cannot be a task: its parameters are not known ({error})") from error
        parameters = own if "env" in own else shown  # with functools.wraps, those of what is wrapped
        env = parameters.get("env", Parameter("env", Parameter.VAR_KEYWORD))
        in_order = env.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        self.position = list(parameters).index("env") if in_order else None
        kinds = {own["env"].kind} if "env" in own else {parameter.kind for parameter in own.values()}
        named = {Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY} if "env" in own else set()
        self.by_keyword = bool(kinds & {*named, Parameter.VAR_KEYWORD})
        self.has_name = env.kind != Parameter.POSITIONAL_ONLY
        if self.position is None and not self.by_keyword:
            raise TypeError(f"{name} cannot be a task: it takes no argument env; write def {name}(env, ...)")
        # A default counts if it is a specifier: that of a partial is what somebody gave.
        self.default = env.default if isinstance(env.default, (str, os.PathLike, Environment)) else None

    def given(self, args, kwargs):
        """Return the specifier that the caller gave; TypeError if the environment could not be handed on."""
        if not self.by_keyword and self.position is not None and len(args) < self.position:
            raise TypeError("give the arguments before env, too: it can be handed on by position only")
        if kwargs.get("--env"):
            return kwargs["--env"]
        if self.position is not None and len(args) > self.position and not (self.has_name and "env" in kwargs):
            return args[self.position]
        return kwargs.get("env", self.default)

    def filled(self, args, kwargs, env):
        """Return *args* and *kwargs* with *env* in its place."""
        if self.position is None or (len(args) <= self.position and self.by_keyword):
            return args, {**kwargs, "env": env}
        before, after = args[: self.position], args[self.position :]
        if self.has_name and "env" in kwargs:  # named, and others in order
            return (*before, env, *after), {name: value for name, value in kwargs.items() if name != "env"}
        return (*before, env, *after[1:]), kwargs


class _Run:
    """One call of a task: on entering, its environment is loaded or created; on leaving, it is saved."""

    def __init__(self, name, new, symlink, parameter, args, kwargs):
        self.name, self.new, self.symlink = name, new, symlink and kwargs.get("env_symlink", True)
        self.parameter, self.args, self.kwargs = parameter, args, kwargs

    def __enter__(self):
        self.env = get_or_create_env(self.new, self.parameter.given(self.args, self.kwargs), self.symlink)
        self.env.reload_config()
        _logger().info("Task %s started", self.name)
        self.start = time.monotonic()
        return self.parameter.filled(self.args, self.kwargs, self.env)

    def __exit__(self, _, error, __):
        exits = isinstance(error, SystemExit) and error.code in (None, 0)
        success = error is None or exits or isinstance(error, GeneratorExit)
        outcome = "failed after"
        try:
            self.env._save_after_task()
            outcome = "finished in" if success else outcome
        except Exception as loss:
            if success:
                raise
            _logger().exception("The environment of the failed task %s could not be saved", self.name)
            note = getattr(error, "add_note", _logger().debug)  # from Python 3.11
            note(f"The environment could not be saved either: {loss}")
        finally:
            _logger().info("Task %s %s %.1f s", self.name, outcome, time.monotonic() - self.start)


# ---- Environments


class Environment(UserDict):
    """A dict-like store for an experiment, kept in a directory.

    Items are in ``.data``; ``.env_name`` is the resolved Path of the directory.  A new one makes the
    directory *env_name* (a str or os.PathLike) with its parents, and holds ``resultdir`` (the
    directory), ``config_file`` (None), ``config`` ({}) and ``config_type`` ("yaml"); nothing is saved
    before `dump`.

    Raise EnosFilePathError if the directory cannot be made, or ``env`` in it is a directory.
    """

    # The pickle that this environment was loaded from, made with or last saved as, and so what changes
    # are measured against; None for one that came by pickle or copy, which knows no earlier state.
    _base = None
    # Whether it may have been on disk: only one that was made here and never saved is known not to.
    _stored = True

    def __init__(self, env_name):
        self.env_name = _made_directory(env_name)
        super().__init__(resultdir=self.env_name, config_file=None, config={}, config_type="yaml")
        self._base = io.BytesIO(self.dumps())
        self._stored = False

    def __getstate__(self):
        state = {name: value for name, value in vars(self).items() if name not in ("_base", "_stored")}
        if not isinstance(self.data, dict):  # somebody has set it to another mapping
            state["data"] = dict(self.data)
        return state

    def __copy__(self):
        return self._twin(dict(self.data))

    def __repr__(self):
        return f"<{type(self).__name__} {str(self.env_name)!r} {self.data!r}>"

    @classmethod
    def load_from_file(cls, env_file):
        """Return the environment whose checkpoint is *env_file*, a str or os.PathLike.

        Its directory is where the file is now, wherever it was when saved; ``resultdir`` follows if it
        was inside.  Loading a pickle runs code: load only what you trust.

        Raise EnosFilePathError if there is no file or it cannot be loaded; the cause is chained.
        """
        path = _path(env_file)
        try:
            image, directory = io.BytesIO(_content(path)), os.path.realpath(os.path.dirname(path))
        except (OSError, ValueError) as error:
            raise EnosFilePathError(env_file, _why_unreadable(path, error)) from error
        env = _revived(image, directory, env_file, cls)
        env._base = image
        return env

    def dump(self):
        """Save: once this returns, the checkpoint holds this environment, for good.

        What others saved meanwhile is kept, key by key, where this environment did not change it.

        Raise EnosSaveError, after saving everything else, if values cannot be pickled; OSError if
        nothing could be saved, and then the old checkpoint stays.
        """
        self._save_or_tell(self._checkpoint())

    def dumps(self):
        """Return this environment pickled.  Raise what pickling raises."""
        return pickle.dumps(self, _PROTOCOL)

    def reload_config(self):
        """Read the file ``env["config_file"]``, if set, and update ``env["config"]`` with it.

        The file is JSON by its suffix ``.json``, else what ``env["config_type"]`` says, "json" or
        "yaml" (by PyYAML).  If it is missing, that is logged and the stored config stays.

        Raise EnosFilePathError if it cannot be read, parsed, or is not a mapping; the config stays.
        """
        config_file = self.get("config_file")
        if not config_file:
            return
        path = _path(config_file)
        try:
            with open(path, "rb") as file:
                read = _parsed(file.read(), "json" if path.endswith(".json") else self.get("config_type"))
            config = {**(self.get("config") or {}), **read}
        except FileNotFoundError:
            _logger().warning("Config file %s is missing: keeping the config as it was stored", _absolute(path))
            return
        except Exception as error:
            why = f"cannot use config file {_absolute(path)}: {_told(error)}; mend the file or env['config_file']"
            raise EnosFilePathError(config_file, why) from error
        self["config"] = config

    def _save_after_task(self):
        """Save, unless the task tore its environment down and changed nothing in it."""
        checkpoint = self._checkpoint()
        if os.path.exists(checkpoint) or not self._stored or self._differs_from(self._last_saved()):
            self._save_or_tell(checkpoint)

    def _save_or_tell(self, checkpoint):
        """Save what can be saved; raise what keeps the rest from it."""
        try:
            self._save(checkpoint)
        except Exception as error:
            refused = _unpicklable(self.data)
            if isinstance(error, RuntimeError) and not refused:  # pickling changed a dict, and is now done with that
                self._save(checkpoint)
                return
            if refused:
                self._save_without(refused, checkpoint)
                why = "; ".join(f"{key!r} ({_told(reason)})" for key, reason in refused.items())
                why = f"{checkpoint}: cannot pickle {why}; all else is saved: store something picklable there instead"
                raise EnosSaveError(checkpoint, list(refused), why) from error
            read_only = isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
            if not read_only or not os.path.exists(checkpoint) or self._differs_from(self._last_saved()):
                raise

    def _save(self, checkpoint):
        """Bring *checkpoint* to this environment, and to what others have saved there since."""
        # The collector may close a forgotten task, which would save here in between.
        with _CollectorPaused(), _lock_beside(checkpoint) as lock:
            try:
                base = self._base
                # To be called only where it goes: what a name here held could not be changed in place.
                known = base.getvalue if base and self._stored else bytes
                with _Draft(checkpoint, known(), lambda: self._claim(checkpoint, lock, base)) as draft:
                    pickle.dump(self, draft, _PROTOCOL)
                    draft.commit(lambda: self._remember(draft, base))
            except _OvertakenError as overtaken:
                # Memory stays as it is, so the next save must not take the others' values for its own.
                own = io.BytesIO(self.dumps())  # now, as a signal handler may change something later
                with _Draft(checkpoint, overtaken.image) as draft:
                    pickle.dump(self._merged(overtaken.image, checkpoint), draft, _PROTOCOL)
                    draft.commit(lambda: vars(self).update(_base=own))
        self._stored = True

    def _claim(self, checkpoint, lock, base):
        """Get the right to replace *checkpoint*; raise _OvertakenError if others have replaced it."""
        _take_turn(lock, self.env_name)
        alone = base is self._base  # else a signal handler has saved since, and this is to be merged with that
        try:
            found = _unless_equal(checkpoint, base.getvalue()) if base and alone else _content(checkpoint)
        except FileNotFoundError:
            if self._stored:
                _logger().warning("%s is gone: making it again", checkpoint)
        else:
            if found is not None:
                raise _OvertakenError(found)

    def _remember(self, draft, base):
        """Take what *draft* wrote for what was last saved, which was *base*."""
        self._stored = True
        alone = base is self._base  # else a signal handler, or a value being pickled, saved in the midst of this save
        self._base = None  # of which a part is wrong for a moment
        try:
            self._base = draft.written(base) if base and alone else io.BytesIO(_content(draft.path))
        except OSError:  # it is saved all the same
            _logger().debug("Cannot read back %s", draft.path, exc_info=True)
        finally:
            if self._base is None:
                self._base = io.BytesIO(self.dumps())

    def _save_without(self, refused, checkpoint):
        """Save all but the *refused* keys: they stay as they were last saved."""
        last = self._last_saved()
        twin = self._twin({key: value for key, value in self.data.items() if key not in refused})
        twin.data.update((key, last[key]) for key in refused if key in last)
        # If there is no last one, the checkpoint cannot be loaded here, and must be kept aside.
        twin._base = io.BytesIO(self._base.getvalue()) if last and self._base else None
        twin._stored = self._stored
        try:
            twin._save(checkpoint)
        finally:
            self._base, self._stored = twin._base, twin._stored

    def _start_over(self):
        """Put this fresh environment in place of the checkpoint that may be there."""
        checkpoint = self._checkpoint()
        with _lock_beside(checkpoint) as lock, _Draft(checkpoint) as draft:
            _take_turn(lock, self.env_name)
            draft.write(self.dumps())
            draft.open()  # before anything is kept aside, as the disk may be full
            with contextlib.suppress(FileNotFoundError):
                try:
                    work = self._differs_from(self._items(io.BytesIO(_content(checkpoint))))
                except EnosFilePathError:
                    work = True
                if work:
                    self._keep_aside(checkpoint, "a new environment takes its place")
            draft.commit()
        self._stored = True

    def _keep_aside(self, checkpoint, why):
        """Give *checkpoint* a second name, ``env.bakN``, before another file takes its first."""
        prefix = f"{ENV_FILENAME}.bak"
        numbers = [name[len(prefix) :] for name in os.listdir(self.env_name) if name.startswith(prefix)]
        highest = max((int(number) for number in numbers if number.isdecimal()), default=0)
        last, backup = (os.path.join(self.env_name, f"{prefix}{number}") for number in (highest, highest + 1))
        if os.path.exists(last) and os.path.samefile(last, checkpoint):  # by a save that failed after that
            return
        try:
            os.link(checkpoint, backup)
            _sync_directory(self.env_name)
        except FileExistsError:
            raise
        except OSError:  # no hard links here
            with _Draft(backup, like=checkpoint) as draft:
                draft.write(_content(checkpoint))
                draft.commit()
        _logger().warning("Kept the checkpoint %s as %s: %s", checkpoint, os.path.basename(backup), why)

    def _merged(self, image, checkpoint):
        """Return this environment with what others changed in *image*, the checkpoint as they left it."""
        try:
            theirs = self._items(io.BytesIO(image))
        except EnosFilePathError as error:
            self._keep_aside(checkpoint, error)
            return self
        last, merged = self._last_saved(), dict(self.data)
        for key in {**last, **theirs}:
            if _same(last, theirs, key):
                continue
            if not _same(last, self.data, key):
                if not _same(theirs, self.data, key):
                    _logger().warning("Two tasks changed %r in %s: the later save wins", key, checkpoint)
            elif key in theirs:
                merged[key] = theirs[key]
            else:
                del merged[key]
        return self._twin(merged)

    def _differs_from(self, held):
        """Tell whether any value differs from the one in the dict *held*; in doubt, it does."""
        return not all(_same(held, self.data, key) for key in {**held, **self.data})

    def _last_saved(self):
        """Return the items that changes are measured against; none if nothing is known of them."""
        try:
            return {} if self._base is None else self._items(self._base)
        except EnosFilePathError:  # a value pickled but does not unpickle
            return {}

    def _items(self, image):
        """Return the items of the environment pickled as *image*, as they are in this one's directory."""
        image.seek(0)
        return _revived(image, str(self.env_name), self.env_name / ENV_FILENAME, Environment).data

    def _checkpoint(self):
        """Return where the checkpoint really is: one that is a link is written through."""
        path = os.path.join(self.env_name, ENV_FILENAME)
        return os.path.realpath(path) if os.path.islink(path) else path

    def _twin(self, data):
        twin = type(self).__new__(type(self))
        vars(twin).update(self.__getstate__(), data=data)
        return twin


# ---- Errors


class EnosError(Exception):
    """Base of all errors of this module; the last argument is the message."""

    def __str__(self):
        return " ".join(str(self.args[-1]).splitlines()) if self.args else ""


class EnosFilePathError(EnosError):
    """There is no usable environment or config file at ``.filepath``, the path as it was given."""

    def __init__(self, filepath, msg=""):
        super().__init__(filepath, msg or f"no usable environment or config file at {filepath!r}; check the path")
        self.filepath = filepath


class EnosSaveError(EnosError):
    """Values could not be pickled, all else was saved: ``.filepath`` is the checkpoint, ``.keys`` a list."""

    def __init__(self, filepath, keys, msg=""):
        super().__init__(filepath, keys, msg or f"{filepath}: cannot pickle {keys!r}; store what can be pickled")
        self.filepath, self.keys = filepath, keys


def _logger():
    import logging  # half of what this module would take to import

    return logging.getLogger(__name__)


def _told(error):
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


# ---- From a specifier to a directory, and from there to `current`

_ADVICE = "run a task with new=True first, or name another environment"


def _path(specifier):
    """Return *specifier*, a str or os.PathLike, as a str; raise EnosFilePathError if it is anything else, or empty."""
    try:
        name = os.fspath(specifier)
    except TypeError:
        name = None
    if not isinstance(name, str) or not name:
        raise EnosFilePathError(specifier, f"{specifier!r} is not a path: give a str or an os.PathLike, not empty")
    return name


def _made_directory(specifier):
    """Make the directory *specifier* with its parents, for good; return its resolved Path."""
    path = _path(specifier)
    try:
        directory = Path(os.path.realpath(path))
        _check_current(path, specifier)
        _make_directories(directory)
        _sync_directory(directory.parent)  # whoever made it may not have come to that
    except (OSError, ValueError) as error:
        why = f"cannot make the directory {path!r}: {_told(error)}; choose another path"
        raise EnosFilePathError(specifier, why) from error
    if os.path.isdir(directory / ENV_FILENAME):
        why = f"{directory / ENV_FILENAME} is a directory, but the checkpoint needs that name; choose another path"
        raise EnosFilePathError(specifier, why)
    return directory


def _check_current(path, specifier):
    """Raise EnosFilePathError if *path* leads by ``current`` and that is no link to a directory."""
    try:
        link = Path(os.path.realpath(os.curdir), SYMLINK_NAME)
    except FileNotFoundError:  # somebody has deleted the working directory
        return
    named = (Path(os.path.realpath(step.parent), step.name) for step in (Path(path), *Path(path).parents))
    if link in named and not (os.path.islink(link) and os.path.isdir(link)):
        raise EnosFilePathError(specifier, f"{_state(link)}; give the new environment a name of its own")


def _dated_directory():
    """Make a directory that nobody else has, named after the time; return its name."""
    moment = time.time()
    while True:
        name = time.strftime("enos_%Y-%m-%d_%H-%M-%S", time.localtime(moment))
        try:
            os.mkdir(name)
        except FileExistsError:
            moment += 1
        except OSError as error:
            why = f"cannot make the directory {_absolute(name)}: {_told(error)}; choose another path"
            raise EnosFilePathError(name, why) from error
        else:
            return name


def _make_directories(directory):
    """Make *directory* with its parents, each for good."""
    for made in (*reversed(directory.parents), directory):
        if not made.is_dir():
            made.mkdir(exist_ok=True)
            _sync_directory(made.parent)


def _point_current_to(directory):
    """Make ``current`` a link to *directory*, relative if it lies below, with no moment without a link."""
    try:
        here = Path(os.path.realpath(os.curdir))
        target = directory.relative_to(here) if here in (directory, *directory.parents) else directory
        new = here / f".{SYMLINK_NAME}.enostask"
        with _Lock(str(here)) as lock:
            lock.take()  # hence one name is enough, and what a killed process left can go
            if os.path.islink(new):
                os.unlink(new)
            os.symlink(target, new, target_is_directory=True)
            try:
                os.replace(new, here / SYMLINK_NAME)
            finally:
                _remove(new)
            _sync_directory(here)
    except OSError as error:
        _logger().warning("Cannot point %s to %s: %s", _absolute(SYMLINK_NAME), directory, _told(error))


def _absolute(path):
    """Return *path* as messages show it."""
    try:
        return os.path.abspath(path)
    except FileNotFoundError:  # somebody has deleted the working directory
        return os.fspath(path)


def _state(link):
    """Say what is wrong with *link*, which is no link to a directory that exists."""
    if os.path.islink(link):
        wrong = "is no directory" if os.path.exists(link) else "is gone"
        return f"{_absolute(link)} points to {os.readlink(link)}, which {wrong}"
    return f"{_absolute(link)} is {'not a link to an environment' if os.path.exists(link) else 'absent'}"


# ---- From the bytes of a checkpoint to an environment


def _revived(file, directory, env_file, cls):
    """Return the environment, a *cls*, that is pickled in *file*, as it is in *directory*, a str."""
    reader = _Reader(file)
    reader.cls = cls
    try:
        with _CollectorPaused():
            env = reader.load()
        whole = _moved(env, directory)
    except Exception as error:
        why = f"{_absolute(env_file)} {_why_unloadable(file, '.'.join(reader.missing), error)}"
        raise EnosFilePathError(env_file, why) from error
    if not whole:
        why = f"{_absolute(env_file)} is the pickle of something else, not of an Environment; {_ADVICE}"
        raise EnosFilePathError(env_file, why)
    return env


def _moved(env, directory):
    """Let *env* be where *directory*, a str, is now; tell whether it is an environment at all."""
    state = vars(env) if isinstance(env, Environment) else {}
    home, data = state.get("env_name"), state.get("data")
    if not isinstance(home, (str, PurePath)) or not isinstance(data, dict):
        return False
    results = data.get("resultdir")
    if str(home) != directory or isinstance(home, str):
        env.env_name = Path(directory)
        if isinstance(results, (str, PurePath)):
            with contextlib.suppress(ValueError):  # it lies elsewhere, and stays there
                data["resultdir"] = type(results)(env.env_name / PurePath(results).relative_to(home))
    return True


def _find_class(self, module, name):
    """Find what a checkpoint calls *name* of *module*, whichever copy of this module, or EnOSlib, saved it."""
    if not self.home:  # what a checkpoint names first is its own class
        self.home = module if name == "Environment" else __name__
    if module == self.home and name in __all__:
        return self.cls if name == "Environment" else globals()[name]
    self.missing = module, name
    found = self.look_up("pathlib" if module == "pathlib._local" else module, name)  # that is 3.13's
    self.missing = ()
    return found


class _Reader(pickle.Unpickler):
    cls, home, missing = Environment, "", ()
    look_up = pickle.Unpickler.find_class
    find_class = _find_class


class _SlowReader(pickle._Unpickler):
    """The same in Python: when it fails, its frames tell what it was building."""

    cls, home, missing = Environment, "", ()
    look_up = pickle._Unpickler.find_class
    find_class = _find_class


class _CollectorPaused:
    """A big pickle is many new objects and no garbage, in which the collector would look for some."""

    def __enter__(self):
        self.enabled = gc.isenabled()
        if self.enabled:  # else another thread may be about to switch it on again, and this would keep it off
            gc.disable()

    def __exit__(self, *_):
        if self.enabled:
            gc.enable()


def _why_unreadable(path, error):
    """Say why there is no file *path* to load, where *error* came of trying."""
    directory = os.path.dirname(path) or os.curdir
    if isinstance(error, FileNotFoundError) and not os.path.isdir(directory):
        return f"{_state(directory)}; {_ADVICE}"
    return f"cannot read the checkpoint {path!r}: {_told(error)}; {_ADVICE}"


def _why_unloadable(file, missing, error):
    """Say why *file* failed to load with *error*, if need be for lack of the class *missing*."""
    if missing.startswith("__main__."):
        return f"needs {missing}, a class of the script that saved it: move it to a module that can be imported"
    if missing:
        return f"needs {missing}, which cannot be found ({_told(error)}): install or restore it"
    if not file.seek(0, os.SEEK_END):
        return f"is empty; restore a backup ({ENV_FILENAME}.bakN), or {_ADVICE}"
    # Errors that only the format causes need no second look, which takes long for a big file.
    culprit = None if isinstance(error, (pickle.UnpicklingError, EOFError)) else _culprit(file)
    if culprit:
        return f"holds an object of {culprit} that cannot be unpickled ({_told(error)}): mend that class"
    return f"is damaged or no checkpoint ({_told(error)}); restore a backup ({ENV_FILENAME}.bakN), or {_ADVICE}"


def _culprit(file):
    """Return the name of the class or function by which *file* fails to load, if it is by one."""
    found = None
    file.seek(0)
    try:
        _SlowReader(file).load()
    except Exception as error:
        trace = error.__traceback__
        while trace:
            if trace.tb_frame.f_globals is vars(pickle):
                here = trace.tb_frame.f_locals
                found = type(here["inst"]) if "inst" in here else here.get("func", here.get("cls", found))
            trace = trace.tb_next
    name = getattr(found, "__qualname__", None)
    return name and f"{found.__module__}.{name}"


# ---- From an environment to its checkpoint

_PROTOCOL = 5
_TEMPORARY = re.compile(rf"\.{ENV_FILENAME}\.[0-9a-f]{{16}}\.tmp")


class _Draft:
    """What is to replace the file *path*: pickle writes here what that is to hold.

    No file is made while that is what *known*, bytes, holds, nor before `commit` for a little more; just before one
    is made, *claim* is called.  It is never more widely readable than *like*, which is *path* if not given.
    """

    file, name, streamed = None, "", False

    def __init__(self, path, known=b"", claim=None, like=None):
        self.path, self.known, self.claim, self.like = path, known, claim, like or path
        self.same, self.rest = 0, bytearray()  # how much of known was written, and what after that, while it is little

    def __enter__(self):
        return self

    def write(self, chunk):
        chunk = pickle.PickleBuffer(chunk).raw()  # it may be of several dimensions, in any order
        if self.streamed:
            _write(self.file, chunk)
        elif not self.rest and self.known.startswith(chunk, self.same):
            self.same += len(chunk)
        elif len(self.rest) + len(chunk) < 2**16:
            self.rest += chunk
        else:
            self.open()
            self.streamed = True
            _write(self.file, chunk)

    def open(self):
        """Make the file, with what has been written so far; return its descriptor."""
        if self.claim:
            self.claim()
        self.name = f"{os.path.dirname(self.path)}/.{ENV_FILENAME}.{os.urandom(8).hex()}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            model = os.stat(self.like)
        except FileNotFoundError:
            self.file = os.open(self.name, flags, 0o666)
        else:
            self.file = os.open(self.name, flags, 0o600)
            _dress(self.file, self.like, model)
        if self.same:
            with memoryview(self.known) as known, known[: self.same] as same:
                _write(self.file, same)
        _write(self.file, self.rest)
        return self.file

    def commit(self, remember=lambda: None):
        """Put what was written in place of *path*, for good, unless that holds it already; then *remember* it."""
        if self.file is None and not self.rest and os.path.exists(self.path):
            return
        file = self.open() if self.file is None else self.file
        os.fsync(file)
        made, replaced = os.fstat(file), False
        self.close()
        try:
            os.replace(self.name, self.path)
            replaced, self.name = True, ""
            _sync_directory(os.path.dirname(self.path))
        finally:  # an error or an interrupt may come right after that, too
            if replaced or (os.path.exists(self.path) and os.path.samestat(os.stat(self.path), made)):
                remember()

    def written(self, image):
        """Return a BytesIO of what was written, made of *image*, one that begins as what was known.

        In place, since two big ones may be too many, and fresh memory takes longer than what it is filled with.
        """
        self.known = b""
        image.seek(self.same)
        image.truncate()
        if self.streamed:
            with open(self.path, "rb", buffering=0) as file:
                file.seek(self.same)
                for piece in iter(lambda: file.read(2**20), b""):
                    image.write(piece)
        else:
            image.write(self.rest)
        return io.BytesIO(image.getvalue())  # it shares the memory; that it is another tells that there was a save

    def close(self):
        file, self.file = self.file, None
        if file is not None:
            os.close(file)

    def __exit__(self, _, error, __):
        try:
            with contextlib.suppress(OSError):  # of a full disk once more
                self.close()
        finally:
            if self.name:
                _remove(self.name)
        if isinstance(error, OSError) and error.errno and not isinstance(error.filename, str):
            error.filename = self.path


def _write(file, chunk):
    """Write the whole of *chunk*, bytes-like, of which the system may take a part at a time."""
    done = os.write(file, chunk)
    while done < len(chunk):
        done += os.write(file, memoryview(chunk)[done:])


class _OvertakenError(Exception):
    """Others have saved since: ``.image`` is what they saved."""

    def __init__(self, image):
        super().__init__()
        self.image = image


_locked: set = set()  # the locks that are held, as process, thread and path


class _Lock:
    """The lock of the file or directory *path*, a str, held from `take` until it is left."""

    file = mine = None

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        return self

    def take(self):
        """Wait for it; tell whether there is such a thing here."""
        try:
            import fcntl
        except ImportError:  # Windows
            return False
        mine = os.getpid(), get_ident(), self.path
        how = fcntl.LOCK_EX
        if mine in _locked:
            how |= fcntl.LOCK_NB
        else:  # noted before it is held, as a signal handler may come between
            self.mine = mine
            _locked.add(mine)
        self.file = _open_lock(self.path)
        try:
            supported = _unless_unsupported(fcntl.flock, self.file, how)
        except BlockingIOError as error:  # a signal handler, or a value being pickled, saves in the midst of a save
            why = "This thread is saving here already; save again when that is done"
            raise OSError(errno.EDEADLK, why, self.path) from error
        self.mine = mine  # also if an interrupt has left it noted
        return supported

    def __exit__(self, *_):
        _locked.discard(self.mine)
        if self.file is None:
            return
        import fcntl

        with contextlib.suppress(OSError):
            try:
                fcntl.flock(self.file, fcntl.LOCK_UN)  # closing is not enough if a child was forked meanwhile
            finally:
                os.close(self.file)


def _lock_beside(checkpoint):
    return _Lock(f"{os.path.dirname(checkpoint)}/.{ENV_FILENAME}.lock")


def _take_turn(lock, env_name):
    """Have the one right to replace the checkpoint beside *lock*, and remove what a killed save left."""
    directory = os.path.dirname(lock.path)
    if not os.path.isdir(directory):
        _make_directories(Path(directory))
    if lock.take():  # so nobody else is at work, also where backups are, if the checkpoint is a link
        for place in {directory, str(env_name)}:
            with contextlib.suppress(OSError):
                for name in filter(_TEMPORARY.fullmatch, _names_in(place)):
                    os.unlink(os.path.join(place, name))


def _names_in(directory):
    """List *directory*, if possible without changing its time of access, which would be one more block to sync."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_NOATIME)
    except (AttributeError, PermissionError):  # not on Linux, not one's own
        return os.listdir(directory)
    try:
        return os.listdir(descriptor)
    finally:
        os.close(descriptor)


def _open_lock(path):
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except (PermissionError, IsADirectoryError):
        if not os.path.exists(path):
            raise
        return os.open(path, os.O_RDONLY)  # another user's; that is enough on a local disk


def _unless_unsupported(call, *args):
    """Call, and return True; or False where the file system cannot do that."""
    try:
        call(*args)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF):
            raise
        return False
    return True


def _content(path):
    with open(path, "rb", buffering=0) as file:
        return file.read()


def _unless_equal(path, image):
    """Return the content of the file *path*, or None if that is *image*."""
    with open(path, "rb", buffering=0) as file:
        # Compared piece by piece, as there may be no memory for two.
        starts = range(0, len(image) + 1, 2**16)
        same = all(image.startswith(file.read(2**16), start) for start in starts)
        if not same or file.tell() < len(image):
            file.seek(0)
            return file.read()
        if len(image) > 2**20 and hasattr(os, "posix_fadvise"):  # the memory that caches it can serve its successor
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return None


def _dress(file, like, model):
    """Give *file* the mode and, as far as permitted, the owner of *like*, of which *model* is the stat result."""
    if not hasattr(os, "fchown"):  # Windows has neither
        return
    mode, own = stat.S_IMODE(model.st_mode), os.fstat(file)
    if (own.st_uid, own.st_gid) != (model.st_uid, model.st_gid):
        for owner in (model.st_uid, -1):
            try:
                os.fchown(file, owner, model.st_gid)
                break
            except OSError:
                continue
        else:  # it has another group now: let that and everybody do what both could
            both = mode >> 3 & mode & 0o007
            mode = mode & ~0o077 | both << 3 | both
    if hasattr(os, "listxattr"):  # where there are access control lists, a mode alone would grant something else
        name = "system.posix_acl_access"
        theirs = ours = False
        try:
            theirs, ours = name in os.listxattr(like), name in os.listxattr(file)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENOSYS):  # what knows no such lists
                raise
        if theirs:
            os.setxattr(file, name, os.getxattr(like, name))
        elif ours:
            os.removexattr(file, name)
    os.fchmod(file, mode)


def _sync_directory(directory):
    """Make the names in *directory* last through a power cut."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except PermissionError:  # of one that may not be listed, and on Windows of any
        return
    try:
        _unless_unsupported(os.fsync, descriptor)
    finally:
        os.close(descriptor)


def _remove(path):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


# ---- What changed, and what cannot be saved


def _same(one, other, key):
    """Tell whether *key* has the same value in both dicts or is in neither; in doubt, it has not."""
    if key not in one or key not in other:
        return (key in one) == (key in other)
    with contextlib.suppress(Exception):  # what cannot be compared has changed
        plain = [_pickled(pickle.Pickler, held[key]) for held in (one, other)]
        if plain[0].digest() == plain[1].digest():
            return True
        # A pickle depends on the layout in memory, too: on which strings are one object, on the order of sets.
        limit = 16 * max(sink.size for sink in plain) + 2**16
        try:
            canonical = [_pickled(_CanonicalPickler, held[key], limit) for held in (one, other)]
        except (ValueError, RecursionError):  # it contains itself, or one thing too often: lay it out as after loading
            settled = [pickle.loads(pickle.dumps(held[key], _PROTOCOL)) for held in (one, other)]
            canonical = [_pickled(_SetPickler, value, limit) for value in settled]
        return canonical[0].digest() == canonical[1].digest()
    return False


def _pickled(pickler, value, limit=float("inf"), outer=None):
    """Return a sink with what *pickler*, a class, makes of *value*."""
    sink = _Sink(limit, outer)
    pickler(sink, _PROTOCOL).dump(value)
    return sink


class _SetPickler(pickle.Pickler):
    """Pickles sets in an order that their elements alone make, and a Path as its text, which 3.13 does not."""

    def __init__(self, sink, protocol):
        super().__init__(sink, protocol)
        self.outer = sink.outer

    def persistent_id(self, value):
        if type(value) in (set, frozenset):
            elements = [_pickled(_CanonicalPickler, element, outer=self.outer).digest() for element in value]
            return type(value).__name__, sorted(elements)
        return (type(value).__name__, str(value)) if isinstance(value, PurePath) else None


class _CanonicalPickler(_SetPickler):
    """Pickles what depends on the value alone."""

    def __init__(self, sink, protocol):
        super().__init__(sink, protocol)
        self.fast = True  # no memo, so what is shared is written each time


class _Sink:
    """A file that keeps a digest of what is written, and the size of that, or *outer* does.

    ValueError beyond *limit* bytes: a small value can share so much that it would be written without end.
    """

    def __init__(self, limit, outer):
        import hashlib

        self.limit, self.size, self.outer = limit, 0, outer or self
        hashed = hashlib.blake2b(digest_size=16)
        self.update, self.digest = hashed.update, hashed.digest

    def write(self, chunk):
        chunk = pickle.PickleBuffer(chunk).raw()
        self.update(chunk)
        self.outer.size += len(chunk)
        if self.outer.size > self.outer.limit:
            raise ValueError("too much is shared")


def _unpicklable(data):
    """Return the keys of *data* that cannot be pickled, each with the exception that says why."""
    refused = {}
    with open(os.devnull, "wb") as nowhere:
        for key, value in dict(data).items():
            try:
                pickle.dump((key, value), nowhere, _PROTOCOL)
            except Exception as error:
                refused[key] = error
    return refused


def _parsed(content, kind):
    """Return the mapping in *content*, the bytes of a config file of *kind*; empty YAML is an empty one."""
    if kind == "json":
        import json

        read = json.loads(content)
    elif kind == "yaml":
        from importlib import import_module

        try:
            yaml = import_module("yaml")
        except ImportError:
            raise ImportError("YAML needs PyYAML, which is not installed (pip install pyyaml)") from None
        read = yaml.safe_load(content)
        read = {} if read is None else read
    else:
        raise ValueError(f"config_type is {kind!r}, not 'json' or 'yaml'")
    if not isinstance(read, dict):
        raise TypeError(f"it holds a {type(read).__name__}, not a mapping")
    return read


# ---- Looking into environments without running anything in them: python -m enostask


def main(arguments=None):
    """Show the environments in the working directory, or what is in one; return the exit status."""
    import argparse
    import shutil
    import sys

    about = "Show the environments in the working directory, or what one holds. Nothing in it is run."
    parser = argparse.ArgumentParser(prog="enostask", description=about)
    parser.add_argument("environment", nargs="?", help="a directory, or a checkpoint file such as current/env.bak1")
    environment = parser.parse_args(arguments).environment
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        for line in _list() if environment is None else _show(environment, width):
            print(line)
        sys.stdout.flush()
    except EnosError as error:
        print(f"enostask: {_printable(str(error))}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `| head`; what is left in the buffer must not raise it again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _list():
    """Give a line for each environment in the working directory, newest first, and for a stray ``current``."""
    in_use = os.path.realpath(SYMLINK_NAME) if os.path.islink(SYMLINK_NAME) else None
    names = [name for name in os.listdir() if os.path.isfile(os.path.join(name, ENV_FILENAME))]
    names = sorted(names, key=lambda name: -os.stat(os.path.join(name, ENV_FILENAME)).st_mtime_ns)
    shown = [name for name in names if name != SYMLINK_NAME or not in_use]
    width = max(map(len, shown), default=0)
    for name in shown:
        checkpoint = os.path.join(name, ENV_FILENAME)
        try:
            keys = f"{len(_inert(checkpoint))} keys"
        except EnosError as error:
            keys = str(error)
        mark = f"   <- {SYMLINK_NAME}" if os.path.realpath(name) == in_use else ""
        yield _printable("  {:{}}   {}   {:>8}   {}{}".format(name, width, *_when_and_size(checkpoint), keys, mark))
    if in_use and in_use not in map(os.path.realpath, shown):
        gone = "" if os.path.exists(in_use) else ", which is gone"
        yield _printable(f"  {SYMLINK_NAME} -> {os.readlink(SYMLINK_NAME)}{gone}")
    elif not shown:
        yield _printable(f"no environments in {os.getcwd()}")


def _show(environment, width):
    """Give the lines that show what *environment*, a directory or a checkpoint file, holds; cut to *width* if given."""
    checkpoint = os.path.join(environment, ENV_FILENAME) if os.path.isdir(environment) else environment
    data = _inert(checkpoint)
    directory, file = os.path.split(os.path.realpath(checkpoint))
    title = os.path.basename(directory) + ("" if file == ENV_FILENAME else f"/{file}")
    yield _printable("{}: saved {}, {}".format(title, *_when_and_size(checkpoint)))
    limit = width or 10**6 + 100 * os.path.getsize(checkpoint)
    names = [str(key) if isinstance(key, str) else _text(key, limit) for key in data]
    longest = max(map(len, names), default=0)
    for name, value in zip(names, data.values()):
        home = "" if type(value).__module__ == "builtins" else f"{type(value).__module__}."
        try:
            text = str(value) if isinstance(value, (str, PurePath)) else _text(value, limit)
        except Exception as error:  # of a path without its parts, which a damaged pickle can make
            text = f"<{_told(error)}>"
        line = _printable(f"  {name:{longest}}   {home}{type(value).__qualname__}   {text[: limit + 1]}")
        yield line if len(line) <= limit else f"{line[: limit - 3]}..."


def _when_and_size(checkpoint):
    found = os.stat(checkpoint)
    size = f"{found.st_size / 1e3:.1f} kB" if found.st_size < 1e6 else f"{found.st_size / 1e6:.1f} MB"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(found.st_mtime)), size


def _inert(checkpoint):
    """Return the items of the environment in the file *checkpoint*, built without anything that it names."""
    try:
        with _CollectorPaused():
            # Read whole: a damaged pickle may ask a file for any amount.
            env = _InertReader(io.BytesIO(_content(checkpoint))).load()
        return {**env.state["data"]}
    except Exception as error:
        why = f"cannot show {checkpoint!r}: it is absent, damaged or no checkpoint ({_told(error)})"
        raise EnosFilePathError(checkpoint, why) from error


class _InertReader(pickle.Unpickler):
    """Builds plain data as it is, and anything else of stand-ins."""

    def find_class(self, module, name):
        import datetime

        # Always a new class: a pickle can set attributes of what it finds.
        if module.startswith("pathlib"):
            flavour = PureWindowsPath if "Windows" in name else PurePosixPath
            return type("Path", (flavour,), {"__module__": "builtins"})
        plain = module == "datetime" and name in ("date", "datetime", "time", "timedelta")
        # Of what a stand-in is made, it may be the zone of a datetime.
        return type(name, (getattr(datetime, name),) if plain else (_StandIn, datetime.tzinfo), {"__module__": module})


class _StandIn:
    """An object of a class that is not here: whatever is done to it, it keeps."""

    args, state, items, pairs = (), None, (), ()

    def __new__(cls, *args, **kwargs):
        self = object.__new__(cls)
        if args or kwargs:
            vars(self)["args"] = (*args, kwargs) if kwargs else args
        return self

    def __call__(self, *args, **kwargs):
        return type(self)(*args, **kwargs)

    @recursive_repr()
    def __repr__(self):
        return _text(self, 10**3)

    def utcoffset(self, _):
        """Let a datetime with this zone have a hash."""

    def __setstate__(self, state):
        self.state = state

    def __setitem__(self, key, value):
        vars(self).setdefault("pairs", {})[key] = value

    def append(self, value):
        vars(self).setdefault("items", []).append(value)

    def parts(self):
        """Give what it holds, each value with the text to show before it."""
        yield from zip(itertools.repeat(""), self.args)
        for state in self.state if isinstance(self.state, tuple) else (self.state,):  # with slots, two dicts
            if isinstance(state, dict):
                yield from ((f"{name}=", value) for name, value in state.items())
            elif state is not None:
                yield "", state
        yield from (("", contents) for contents in (self.items, self.pairs) if contents)


def _text(value, room, around=()):
    """Return *value* as text, of one longer than *room* at least as much; *around* are the ids of what it is in.

    What is shared is shown each time, so a short pickle may have a text without end.
    """
    if isinstance(value, _StandIn) and set(vars(value)) in ({"items"}, {"pairs"}):
        value = value.items or value.pairs  # a list or dict of a class of its own
    inside = (*around, id(value))
    if isinstance(value, _StandIn):
        opening, closing, parts = f"{type(value).__name__}(", ")", value.parts()
    elif isinstance(value, dict):
        opening, closing = "{", "}"
        parts = ((f"{_text(key, room, inside)}: ", part) for key, part in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)) and value:
        opening, closing = {list: ("[", "]"), tuple: ("(", ")")}.get(type(value), ("{", "}"))
        closing = ",)" if isinstance(value, tuple) and len(value) == 1 else closing
        parts = zip(itertools.repeat(""), value)
    elif isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    else:
        return "<a very long int>" if isinstance(value, int) and value.bit_length() > 10**4 else repr(value)
    if id(value) in around or len(around) > 30:
        return "..."
    pieces = []
    for before, part in parts:
        pieces.append(before + _text(part, room, inside))
        room -= len(pieces[-1])
        if room < 0:
            break
    return opening + ", ".join(pieces) + closing


def _printable(text):
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


if __name__ == "__main__":
    raise SystemExit(main())
