# enostask 2.0.0, MIT-0: experiment steps that keep their state, in one file without dependencies
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

    if __name__ == "__main__":
        {"up": up, "measure": measure}[sys.argv[1]]()

What ``python experiment.py up`` leaves in the working directory::

    current -> enos_2026-11-22_13-55-46     the environment in use
    enos_2026-11-22_13-55-46/
        env                                 the checkpoint: a pickle of the Environment, a checksum
        .env.lock                           held only while saving, never removed
        env.bak1, env.bak2 ...              checkpoints that `new` dropped, or that did not load
        env.log                             which tasks ran, and how they ended; one without an end
                                            was killed, or still runs

The way of a call: specifier -> directory -> load -> task -> save.  A *specifier* names an
environment: its directory (a str or os.PathLike), an Environment, or None for ``current``.

How a save works.  A *used key* is one whose value the program has got, set or deleted.  Before its
first use its *digest* is noted, the hash of its pickled value; if that is another at the save, the
key has changed.  If no key has, and the checkpoint is there, nothing is written.  Else, with the
lock on the environment held where there are locks, the save

1. writes all that memory holds, if the checkpoint is still the one that was loaded or saved here;
2. else loads what others have saved, puts the changed keys on top of it, and writes that;
3. leaves out what cannot be pickled: such a key stays as it was last saved.

It writes a new file, which then takes the place of the old one in a single step.

How a load works.  An object whose class is missing here, or which cannot be rebuilt, is loaded as a
*stand-in*, which remembers how to build it, and is saved as that object.  All else loads as usual.

Traps: loading a checkpoint runs code, so load only what you trust; ``python -m enostask PATH``
shows one and runs nothing.  A task that is killed outright leaves what it last saved: call
``env.dump()`` where it matters.  Ctrl-C during a save ends the save, which changes nothing then.
An Environment belongs to one thread at a time, and a copy of it that is saved puts old values back:
hand others its path.
"""

import contextlib
import copyreg
import errno
import functools
import gc
import importlib
import io
import os
import pickle
import re
import signal
import stat
import sys
import time
from _thread import get_ident  # threading takes long to import, as inspect and logging do
from collections import UserDict, abc
from pathlib import Path, PurePath
from weakref import WeakSet, WeakValueDictionary
from zlib import crc32

# What signal wraps in Python code, which takes longer, and which Ctrl-C may stop half-way.
import _signal  # type: ignore[import]

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "ENV_FILENAME",
    "SYMLINK_NAME",
    "EnosError",
    "EnosFilePathError",
    "EnosKeyError",
    "EnosMissingError",
    "EnosSaveError",
    "Environment",
    "enostask",
    "get_or_create_env",
]
__version__ = "2.0.0"

SYMLINK_NAME = "current"
ENV_FILENAME = "env"


# ---- Tasks: load, run, save


def enostask(new=False, symlink=True):
    """Make a function a task: give it an environment, and save that when the function ends.

    The function (method, callable, partial, coroutine or generator function) takes ``env`` by
    keyword.  With *new*, each call starts a fresh environment; with *symlink*, ``current`` then
    points to it.  A caller may name one by ``env``, a specifier.  A keyword ``--env`` that is not
    empty takes precedence, and ``env_symlink=False`` leaves ``current`` alone; the function gets
    these two as any keyword.  While a task runs in the main thread, SIGTERM and SIGHUP end it as
    Ctrl-C does, by ``SystemExit(128 + number)``, unless the program handles them itself.

    Raise TypeError at decoration if *new* is no bool, *symlink* neither bool nor None, or if the
    function takes no ``env`` or is an async generator; at a call, if the arguments do not fit a
    *new* task, or if it returns a coroutine that was not declared.  Otherwise a call raises what
    `get_or_create_env` and `Environment.reload_config` raise, then what the function raises, or
    else what `Environment.dump` raises.
    """
    if callable(new) or hasattr(new, "__get__"):  # without parentheses: @enostask
        return _task(new, False, symlink)
    if not isinstance(new, bool) or not isinstance(symlink, (bool, type(None))):
        raise TypeError("enostask(new, symlink) takes True or False; name env at the call")
    return functools.partial(_task, new=new, symlink=symlink)


def get_or_create_env(new, env_name, symlink=True):
    """Return the environment that *env_name* names: itself, else loaded, or with *new* a fresh one.

    A fresh one stands in that directory, or in one named after the time for None; what is there is
    kept, a checkpoint as ``env.bakN``.  With *symlink*, ``current`` then points to it.  Raise
    EnosFilePathError if *env_name* is no specifier, if no environment can be loaded or made there,
    or if ``current`` stands in the way; OSError if the fresh one cannot be saved.
    """
    if isinstance(env_name, Environment):
        return env_name
    if not new:
        directory = SYMLINK_NAME if env_name is None else _path(env_name)
        return Environment.load_from_file(Path(directory, ENV_FILENAME))
    links = symlink is not False
    if links and os.path.lexists(SYMLINK_NAME) and not os.path.islink(SYMLINK_NAME):
        why = f"{_where(SYMLINK_NAME)} is no link; move it away, or pass symlink=False"
        raise EnosFilePathError(SYMLINK_NAME, why)
    env = Environment(_make_dated_directory() if env_name is None else env_name)
    env._start_over()
    if links:
        _point_current_to(env.env_name)
    return env


class _Run:
    """One call of a task: on entering, its environment is loaded or made; on leaving, saved."""

    def __init__(self, task, args, kwargs):
        self.task = task
        self.args = list(args)
        self.kwargs = kwargs
        # Is the function running, so that a signal may end the task?  Not while it saves.
        self.in_task = False
        # The name of the signal that ended it.
        self.signal = None
        # Can ``env.log`` be written?
        self.recording = True

    def __enter__(self):
        """Load or make the environment, and note that the task runs."""
        specifier = self.kwargs.get("env", self.task.default)
        position = self.task.position
        by_position = (
            "env" not in self.kwargs and position is not None and position < len(self.args)
        )
        if by_position:
            specifier = self.args[position]
        specifier = self.kwargs.get("--env") or specifier
        if self.task.new:  # the others make nothing that a failing call would leave behind
            self.put(None, by_position)
            self.task.refuse_unless_they_fit(self.args, self.kwargs)
        symlink = self.task.symlink is not False and self.kwargs.get("env_symlink") is not False
        self.env = get_or_create_env(self.task.new, specifier, symlink)
        self.env.reload_config()
        self.put(self.env, by_position)
        if not os.access(self.env.env_name, os.W_OK):
            _logger().warning("%s cannot be written: no change will be saved", self.env.env_name)
        self.start = time.monotonic()
        self.record("started", "started", f"host {_host()}, Python {sys.version.split()[0]}")
        _let_signals_end(self)
        return self

    def put(self, env, by_position):
        """Make *env* an argument of the call: where it was given by position, else by keyword."""
        if by_position:
            self.args[self.task.position] = env
        else:
            self.kwargs["env"] = env

    @contextlib.contextmanager
    def body(self):
        """Let signals end the task while its function runs."""
        self.in_task = True
        try:
            _end_if_signalled()  # by one that came just before
            yield
        finally:
            self.in_task = False

    def __exit__(self, _, error, __):
        """Save, and note how the task ended; its own exception takes precedence over the save's."""
        failure = self.failure(error)
        try:
            self.env._save_after_task()
        except BaseException as loss:
            succeeded = failure is None and not _remembered  # a signal will end it
            if succeeded or not isinstance(loss, Exception):
                failure = type(loss).__name__
                raise
            _logger().error("After the failed task %s: %s", self.task.name, _told(loss))
            if hasattr(error, "add_note"):  # from Python 3.11 on
                error.add_note(f"When its environment was saved: {_told(loss)}")
        finally:
            if _remembered and self in _running:  # a signal that came during the save
                failure = signal.Signals(_remembered[-1]).name
            self.end(failure)
            _end_if_signalled()

    def failure(self, error):
        """Return the name of what ended the task, or None if it succeeded."""
        if self.signal and error is not None and not isinstance(error, Exception):
            return self.signal
        succeeded = isinstance(error, SystemExit) and error.code in (None, 0)
        if error is None or isinstance(error, GeneratorExit) or succeeded:
            return None
        return type(error).__name__

    def end(self, failure):
        """Note that the task has ended, by what is called *failure*, or well if that is None."""
        took = f"{time.monotonic() - self.start:.1f} s"
        try:
            if failure is None:
                self.record("finished", f"finished in {took}", took)
            else:
                self.record("failed", f"failed after {took}", f"{took}, {failure}")
        finally:
            _running.discard(self)
            if not _running:
                _act_by_default()

    def record(self, event, message, details):
        """Log *message* about the task, and append *event* to ``env.log``, which people read."""
        directory = self.env.env_name
        _logger().info("Task %s %s in %s", self.task.name, message, directory)
        if not self.recording:
            return
        when = time.strftime("%Y-%m-%d %H:%M:%S%z")
        line = f"{when}  {self.task.name:<8}  {event:<8}  pid {os.getpid()}, {details}\n"
        try:
            with open(f"{directory}/env.log", "ab", buffering=0) as file:
                file.write(line.encode())
        except (OSError, UnicodeError) as error:  # a host name may be no text
            self.recording = False
            _logger().debug("No record of the task %s: %s", self.task.name, _told(error))


class _Declaration:
    """What a call must know of a task: its function, how that was decorated, where env stands."""

    def __init__(self, function, new, symlink):
        self.function = function
        self.new = new
        self.symlink = symlink
        # The function without partials.
        self.inner = function
        while isinstance(self.inner, functools.partial):
            self.inner = self.inner.func
        written = _without_wrapper(self.inner)
        self.name = getattr(written, "__name__", type(written).__name__)
        # Where a caller may give env by position, if anywhere.
        self.position = None
        # The specifier of a call that gives none.
        self.default = None
        try:
            self.find_env()
        except (TypeError, ValueError):
            advice = "takes no env by keyword: write @enostask right above"
            if hasattr(self.inner, "callback"):
                advice = "is a command: write @enostask below @click.command, right above"
            raise TypeError(f"{self.name} {advice} def {self.name}(env, ...)") from None

    def find_env(self):
        """Find the parameter env; raise TypeError or ValueError if the function takes none."""
        import inspect

        self.signature = inspect.signature(self.function, follow_wrapped=False)
        self.signature.bind_partial(env=None)
        parameters = self.signature.parameters
        if "env" not in parameters:  # perhaps the wrapper of a function that has one
            parameters = inspect.signature(_without_wrapper(self.function)).parameters
        env = parameters.get("env")
        # An object that takes any keyword is most likely a command of click; the call would fail.
        if env is None and not inspect.isroutine(self.inner):
            raise TypeError
        if env and env.kind is env.POSITIONAL_OR_KEYWORD:
            self.position = list(parameters).index("env")
        if env and isinstance(env.default, (str, os.PathLike, Environment)):
            self.default = env.default

    def refuse_unless_they_fit(self, args, kwargs):
        """Raise TypeError if the function cannot be called so, before anything is made."""
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}") from None


def _without_wrapper(function):
    """Return what a decorator without `functools.wraps` hides behind *function*, or itself."""
    if getattr(function, "__name__", None) in ("wrapper", "wrapped", "inner", "decorated"):
        for cell in getattr(function, "__closure__", None) or ():
            with contextlib.suppress(ValueError):  # a cell may be empty as yet
                if hasattr(cell.cell_contents, "__code__"):
                    return cell.cell_contents
    return function


def _task(function, new, symlink):
    """Return the task that *function* becomes, of the same form: plain, coroutine or generator."""
    import inspect

    declared = _Declaration(function, new, symlink)
    body = declared.inner
    if not inspect.isroutine(body):
        body = body.__call__
    if inspect.isasyncgenfunction(body):
        why = "cannot be a task: it is an async generator; make it a coroutine or a generator"
        raise TypeError(f"{declared.name} {why}")
    task = _plain_task(declared)
    if inspect.iscoroutinefunction(body):
        task = _coroutine_task(declared)
    elif inspect.isgeneratorfunction(body):
        task = _generator_task(declared)
    functools.update_wrapper(task, declared.inner)
    task.__wrapped__ = function
    task.__name__ = declared.name
    return task


def _plain_task(declared):
    """Return a function that runs the task."""

    def task(*args, **kwargs):
        with _Run(declared, args, kwargs) as run, run.body():
            result = declared.function(*run.args, **run.kwargs)
            # A coroutine has yet to run, and would do so after the save.
            if isinstance(result, abc.Coroutine):
                result.close()
                raise TypeError(f"{declared.name} returned a coroutine: declare it as 'async def'")
            return result

    return task


def _coroutine_task(declared):
    """Return a coroutine function that runs the task, and saves after the last await."""

    async def task(*args, **kwargs):
        with _Run(declared, args, kwargs) as run, run.body():
            return await declared.function(*run.args, **run.kwargs)

    return task


def _generator_task(declared):
    """Return a generator function that runs the task, and saves when it ends or is closed."""

    def task(*args, **kwargs):
        with _Run(declared, args, kwargs) as run, run.body():
            return (yield from declared.function(*run.args, **run.kwargs))

    return task


# -- Signals that end a task as Ctrl-C does

# The runs of tasks in the main thread; weak, as Ctrl-C may keep one from being taken out.
_running: WeakSet = WeakSet()
# For each thread that saves, what closes its lock: the thread cannot begin another save meanwhile,
# and signals wait.  Weak, as an interrupt may keep one from being taken out.
_saving: WeakValueDictionary = WeakValueDictionary()
# The signals that came while they could not end a task.
_remembered: list = []
# Holds something while this process forks: what a signal raises then would be lost.
_forking: list = []
_SIGNALS = [signal.SIGTERM]
if hasattr(signal, "SIGHUP"):  # not on Windows
    _SIGNALS.append(signal.SIGHUP)


def _in_main_thread():
    """Tell whether this is the thread that handles signals."""
    import threading

    return threading.current_thread() is threading.main_thread()


def _let_signals_end(run):
    """Have signals end *run*, if their action is the default, and this is the main thread."""
    if hasattr(os, "register_at_fork"):  # not on Windows
        _hold_signals_in_forks()
    if _in_main_thread():
        for number in _SIGNALS:
            if _signal.getsignal(number) == _signal.SIG_DFL:
                _signal.signal(number, _handle)
        _running.add(run)


def _handle(number, frame):
    """Handle a signal: end the tasks that run, but never in the midst of a save."""
    if not _running:  # do what the signal does by default
        _signal.signal(number, _signal.SIG_DFL)
        os.kill(os.getpid(), number)
    elif get_ident() in _saving or not all(run.in_task for run in _running):
        _remembered.append(number)
    elif _forking or _is_waking_coroutines(frame):
        import threading

        threading.Timer(0.01, os.kill, (os.getpid(), number)).start()  # send it again
    else:
        _end_tasks(number)


def _is_waking_coroutines(frame):
    """Tell whether asyncio is at work in *frame*: SystemExit might keep it from waking one up."""
    module = str(frame.f_globals.get("__name__"))
    # While uvloop waits, which may take long, the frame is that of asyncio.runners.
    return module.startswith("asyncio.") and module != "asyncio.runners"


def _end_tasks(number):
    """End the tasks that run by the signal of that *number*."""
    for run in _running:
        run.signal = signal.Signals(number).name
    raise SystemExit(128 + number)


def _end_if_signalled():
    """Let a signal that was remembered end the tasks now, if all of them are in their functions."""
    if _remembered and _in_main_thread() and all(run.in_task for run in _running):
        number = _remembered[-1]
        _remembered.clear()
        _end_tasks(number)


def _act_by_default():
    """Let signals do again what they do by default."""
    for number in _SIGNALS:
        if _signal.getsignal(number) is _handle:
            with contextlib.suppress(ValueError):  # not in the main thread
                _signal.signal(number, _signal.SIG_DFL)


def _forget_tasks():
    """In a forked child, which counts none but its own tasks: let signals act by default."""
    for state in (_running, _saving, _remembered, _forking):
        state.clear()
    _act_by_default()


@functools.lru_cache(maxsize=None)  # once, as hooks cannot be taken away
def _hold_signals_in_forks():
    """Let signals wait during each fork, so that the child gets those that are meant for it.

    The hooks in the parent are no Python code: Ctrl-C in that could make the signals wait for good.
    After a fork they come, even if the program had blocked them.
    """
    mask = _signal.pthread_sigmask
    let_come = functools.partial(mask, signal.SIG_UNBLOCK, _SIGNALS)
    os.register_at_fork(
        before=functools.partial(mask, signal.SIG_BLOCK, _SIGNALS),
        after_in_parent=let_come,
        after_in_child=_forget_tasks,
    )
    # Those before a fork run in reverse order, so this comes first.
    os.register_at_fork(
        before=functools.partial(_forking.append, True),
        after_in_parent=_forking.clear,
        after_in_child=let_come,
    )


# ---- Environments

# Stands for the digest of a key that is not there.
_ABSENT = "absent"
# Stands for the digest of a key that was not used, and so cannot have changed.
_UNUSED = "unused"
# Stands for the digest of a key of which nobody knows what is on disk: it differs from any other.
_UNKNOWN = object()


class Environment(UserDict):
    """A dict-like store for an experiment; ``.env_name`` is its directory, a resolved Path.

    A new one makes the directory *env_name* with its parents, and holds ``resultdir`` (that
    directory), ``config_file`` (None), ``config`` ({}) and ``config_type`` ("yaml"); `dump` saves
    it.  Raise EnosFilePathError if there can be no environment.
    """

    # What it holds; `data` is the same, for those who use it.
    _items: dict
    # For each key the digest of what it held before its first use, or at the last save; _UNUSED if
    # it came from the checkpoint and was not used since.  A key that is not in it is new.
    _before: dict
    # The seal, length and checksum, of the checkpoint that was last loaded or saved here, if memory
    # holds all that is in it; _UNKNOWN after a save on top of what others saved; None if there is
    # no such checkpoint.
    _seen: object

    def __new__(cls, *_, **__):
        """Make one that holds nothing and knows no earlier state, also for pickle and copy."""
        env = super().__new__(cls)
        env._items = {}
        env._before = {}
        env._seen = None
        return env

    def __init__(self, env_name):
        self.env_name = _make_environment_directory(env_name)
        self._items.update(resultdir=self.env_name, config_file=None, config={}, config_type="yaml")
        self._before.update(dict.fromkeys(self._items, _UNUSED))

    # -- The mapping, which notes what is used

    def _is_unused(self, key):
        """Tell whether *key* came from the checkpoint and was not used since."""
        return self._before.get(key) is _UNUSED

    def _use(self, key):
        """Note what *key* holds before its first use, from which on it may change."""
        if self._before.setdefault(key, _ABSENT) is _UNUSED:
            self._before[key] = _UNKNOWN  # if it cannot be pickled now
            with contextlib.suppress(Exception):
                self._before[key] = _digest(self._items, key)

    def _use_all(self):
        """Note what every key holds."""
        for key in list(self._items):
            self._use(key)

    @property
    def data(self):
        """The dict of all items; to ask for it is to use every key."""
        self._use_all()
        return self._items

    @data.setter
    def data(self, items):
        self._use_all()
        self._items = items

    def __getitem__(self, key):
        if key not in self._items:
            why = "run the task that sets it first, or name another environment"
            raise EnosKeyError(key, f"no {_shown(key)} in {self.env_name}: {why}")
        self._use(key)
        return self._items[key]

    def __setitem__(self, key, value):
        self._use(key)
        self._items[key] = value

    def __delitem__(self, key):
        self[key]  # which uses the key, or raises
        del self._items[key]

    def __contains__(self, key):
        return key in self._items

    def __iter__(self):
        return iter(self._items)

    def __len__(self):
        return len(self._items)

    def __or__(self, _):
        """Refuse, as another Environment would need a directory; ``{**env, **other}`` is a dict."""
        return NotImplemented

    __ror__ = __or__

    def __getstate__(self):
        """Return what is pickled and copied: as EnOSlib does it, items and other attributes."""
        state = {**vars(self), "data": {**self._items}}
        for name in ("_items", "_before", "_seen"):
            del state[name]
        return state

    def __setstate__(self, state):
        vars(self).update(state)
        self._items = vars(self).pop("data")
        self._before = dict.fromkeys(self._items, _UNKNOWN)  # as a copy knows no earlier state

    def _copied(self):
        """Return a copy, which is no use of the keys here."""
        twin = type(self).__new__(type(self))
        twin.__setstate__(self.__getstate__())
        return twin

    def __copy__(self):
        self._use_all()  # the copy hands out the same values
        return self._copied()

    copy = __copy__

    # -- Load

    @classmethod
    def load_from_file(cls, env_file):
        """Return the environment in the checkpoint *env_file*, a str or os.PathLike.

        Its directory is that of the file.  Loading a pickle runs code.  What cannot be found or
        rebuilt here is loaded as a stand-in, with a warning.  Raise EnosFilePathError if there is
        no such file, or it cannot be loaded.
        """
        path = _path(env_file)
        directory, name = os.path.split(path)
        load = functools.partial(_loaded, directory=directory, cls=cls)
        env, missing = _read_checkpoint(path, env_file, load)
        for why, names in missing.items():
            _logger().warning(
                "%s: stand-ins for %s, %s", _where(path), ", ".join(dict.fromkeys(names)), why
            )
        if name != ENV_FILENAME:  # a backup: what is on disk has not come from it
            return env._copied()
        return env

    # -- Save

    def dump(self):
        """Save: once this returns, the checkpoint holds for good what changed in this environment.

        What others saved meanwhile is kept.  Raise EnosSaveError, after saving all else, if values
        cannot be pickled; OSError, or EnosFilePathError for a checkpoint that is no regular file,
        if nothing could be saved.
        """
        self._save(*self._changes())

    def dumps(self):
        """Return this environment pickled.  Raise what pickling raises."""
        return pickle.dumps(self, 5)  # a protocol that every Python from 3.8 knows

    def _save_after_task(self):
        """Save what a task changed; if that is nothing, the task may have removed its directory."""
        changed, refused = self._changes()
        if changed or refused or self._seen is None:
            self._save(changed, refused)

    def _changes(self):
        """Return {key: digest} of used keys that changed, {key: error} of those that fail."""
        keys = {**self._items, **self._before}
        used = [key for key in keys if not self._is_unused(key)]
        digests, refused = _digests(self._items, used)
        changed = {}
        for key, digest in digests.items():
            if digest != self._before.get(key, _ABSENT):
                changed[key] = digest
        return changed, refused

    def _save(self, changed, refused):
        """Put on disk what *changed*, then raise for what is *refused*: see "How a save works"."""
        checkpoint = self._checkpoint()
        if changed or not os.path.exists(checkpoint):
            with _locked(checkpoint):
                on_disk = _seal_on_disk(checkpoint)
                if on_disk is None and self._seen is not None:
                    _logger().warning("%s is gone: making it again", checkpoint)
                alone = on_disk in (None, self._seen)
                with _replacing(checkpoint, like=checkpoint) as file:
                    seal = self._put_in(file, checkpoint, changed, refused, alone)
                    # At the end of this block the file takes its place.  If that is interrupted,
                    # nobody knows which of the two is there.
                    self._before.update(dict.fromkeys(changed, _UNKNOWN))
                self._seen = seal if alone else _UNKNOWN
                self._before.update((key, changed[key]) for key in changed if key not in refused)
        if refused:
            raise _save_error(checkpoint, refused) from next(iter(refused.values()))

    def _put_in(self, file, checkpoint, changed, refused, alone):
        """Put into *file* what is to be saved, add to *refused*, and return the seal.

        If it is *alone*, nobody else has saved, and memory may replace what is on disk.
        """
        put = changed
        if alone:
            seal = self._pickle_into(file)[0]
            if seal is not None:
                return seal
            # A refused key must stay as it is on disk, so all others are put on top of that.  An
            # unused key fails, too, if it shares an object with one that does.
            unused = [key for key in self._items if self._is_unused(key)]
            refused.update(_digests(self._items, unused)[1])
            put = {key: None for key in self._items if key not in refused}  # not by digest
            put.update(changed)
        merged = self._load_or_keep_aside(checkpoint)
        saved = {}
        if merged is None:
            merged = self._copied()
        else:
            saved.update(merged._items)
            self._put_on_top(merged, put, alone)
        seal, left_out = merged._pickle_what_can_be(file, saved)
        refused.update(left_out)
        if any(key in saved and key not in merged for key in left_out):
            self._keep_aside(checkpoint, "a value in it can no longer be pickled")
        return seal

    def _checkpoint(self):
        """Return where the checkpoint really is: one that is a link is written through."""
        return os.path.realpath(self.env_name / ENV_FILENAME)

    def _pickle_into(self, file):
        """Pickle this environment into *file*; return its seal and None, or None and the error."""
        summing = _Summing(file)
        try:
            pickle.Pickler(summing, 5).dump(self)
        except MemoryError:  # which says nothing of the values
            raise
        except Exception as error:
            if summing.failed:
                raise
            file.seek(0)
            file.truncate()
            return None, error
        file.write(_MARK + b"%08x" % summing.checksum)
        return (summing.length, summing.checksum), None

    def _load_or_keep_aside(self, checkpoint):
        """Return what is on disk, or None if that is nothing; keep aside what cannot load."""
        load = functools.partial(_loaded, directory=self.env_name, cls=type(self))
        try:
            env, _ = _read(checkpoint, load) or (None, {})
            return env
        except (MemoryError, OSError, EnosFilePathError):  # which say nothing of what is in it
            raise
        except Exception as error:
            self._keep_aside(checkpoint, f"it cannot be loaded ({_told(error)})")
            return None

    def _put_on_top(self, merged, put, alone):
        """Set or delete the keys of *put* in *merged*; warn of what others have changed, too."""
        items = merged._items
        alike = _by_pickle(items)
        for key, digest in put.items():
            there = key if key in items else alike.get(pickle.dumps(key, 5), key)
            before = self._before.get(key, _ABSENT)
            if not alone and self._seen is not None and before is not _UNKNOWN:
                if _digests(items, [there])[0].get(there) not in (before, digest):
                    what = "Two tasks changed %s in %s, and the later save wins: %s"
                    advice = "give each result a key of its own, or hand on env to the inner task"
                    _logger().warning(what, _shown(key), self.env_name, advice)
            if digest is _ABSENT:
                items.pop(there, None)
            else:
                items[there] = self._items[key]

    def _pickle_what_can_be(self, file, saved):
        """Pickle this one, what is on disk with changes on top, into *file*.

        A value that cannot be pickled gives way to what was *saved* under its key, or goes.  Return
        the seal, and {key: error} of what failed.
        """
        left_out: dict = {}
        for _ in range(9):  # what was saved may fail, too, or what another thread changes
            seal, error = self._pickle_into(file)
            if seal is not None:
                return seal, left_out
            for key, refusal in _digests(self._items, list(self._items))[1].items():
                left_out[key] = refusal
                mine = self._items.pop(key)
                if key in saved and saved[key] is not mine:  # else the saved one itself fails
                    self._items[key] = saved[key]
        raise error

    def _start_over(self):
        """Put this fresh environment in the place of the checkpoint that may be there."""
        checkpoint = self._checkpoint()
        try:
            with _locked(checkpoint):
                old = self._load_or_keep_aside(checkpoint)
                if old is not None and old._items != self._items:
                    self._keep_aside(checkpoint, "a new environment takes its place")
                with _replacing(checkpoint, like=checkpoint) as file:
                    seal, error = self._pickle_into(file)
                    if error:
                        raise error
                self._seen = seal
        except BaseException:
            _remove_if_nothing_was_saved(self.env_name)
            raise

    def _keep_aside(self, checkpoint, why):
        """Copy *checkpoint* to ``env.bakN`` before another takes its place."""
        highest = max(map(_backup_number, os.listdir(self.env_name)))
        backup = f"{ENV_FILENAME}.bak{highest + 1}"
        with _replacing(os.path.join(self.env_name, backup), like=checkpoint) as file:
            file.write(_read(checkpoint, io.BufferedReader.read))
        _logger().warning("Kept the checkpoint %s as %s: %s", checkpoint, backup, why)

    # -- The config file

    def reload_config(self):
        """Update ``env["config"]`` with what is in the file ``env["config_file"]``, if set.

        It is JSON if it ends in ``.json``, else what ``env["config_type"]`` says, "json" or "yaml".
        That it is missing is logged.  Raise EnosFilePathError if it cannot be read or holds no
        mapping.
        """
        config_file = self._items.get("config_file")  # which is no use of the key
        if not config_file:
            return
        try:
            path = os.fspath(config_file)
            kind = "json" if path.endswith(".json") else self._items.get("config_type")
            with open(path, "rb") as file:
                read = _parsed(file.read(), kind)
            config = self.get("config") or {}
            updated = {**config, **read}
            if repr(updated) != repr(config):  # 1, 1.0 and True are equal, but not the same
                self["config"] = updated
        except FileNotFoundError:
            what = "The config file %s is missing: keeping the config as it was stored"
            _logger().warning(what, _where(config_file))
        except Exception as error:
            what = f"cannot use env['config_file'], {_where(config_file)}: {_told(error)}"
            raise EnosFilePathError(config_file, f"{what}; mend it or name another") from error


# ---- Errors


class EnosError(Exception):
    """Base of all errors of this module; the last argument is the message, but of EnosKeyError."""

    def __str__(self):
        return " ".join(str(part) for part in self.args[-1:]).replace("\n", " ")


class EnosFilePathError(EnosError):
    """There is no usable environment or config file at ``.filepath``, the path as it was given."""

    def __init__(self, filepath, msg=""):
        why = f"no usable environment or config file at {_where(filepath)}; check the path"
        super().__init__(filepath, msg or why)
        self.filepath = filepath


class EnosKeyError(EnosError, KeyError):
    """A key is not there; as with any KeyError, ``args`` holds the key alone."""

    def __init__(self, key, msg=""):
        super().__init__(key)
        self.msg = msg or f"no {_shown(key)} in the environment; run the task that sets it first"

    def __str__(self):
        return self.msg.replace("\n", " ")


class EnosMissingError(EnosError, AttributeError, TypeError):
    """A value cannot be used: it is a stand-in, as its class cannot be found or rebuilt here.

    Also a TypeError, as `pprint` expects of what has no order.
    """


class EnosSaveError(EnosError):
    """All was saved but the values of ``.keys``, a list; ``.filepath`` is the checkpoint."""

    def __init__(self, filepath, keys, msg):
        super().__init__(filepath, keys, msg)
        self.filepath = filepath
        self.keys = keys


def _save_error(checkpoint, refused):
    """Return the error that says which keys were *refused*, {key: error}, and why."""
    why = "; ".join(f"{_shown(key)} ({_told(error)})" for key, error in refused.items())
    advice = "store something else there, or load again if its class was defined anew"
    message = f"{checkpoint} is saved, but for what cannot be pickled: {why}; {advice}"
    return EnosSaveError(checkpoint, list(refused), message)


def _shown(value):
    """Return a key or a path as text, on one line and not too long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a key of a class of the user's
        return f"a {type(value).__name__}"
    if len(text) > 200:
        return f"{text[:100]}...{text[-97:]}"
    return text


def _where(path):
    """Return *path* as text: absolute, or its type if it is no path, as it may be a secret."""
    if isinstance(path, (str, os.PathLike)):
        return _shown(os.path.abspath(path))
    return f"something of type {type(path).__name__}"


# The text of these speaks of files and names.
_DISCREET = (EnosError, OSError, ImportError, EOFError, pickle.UnpicklingError)
# So do these texts of pickle's and of this module; any other might show a stored value.
_HARMLESS = re.compile(
    r"cannot pickle '[\w.]+' object|Can't (get|pickle) (local object|attribute) |"
    r"Can't pickle <(function|class) |\w+ changed size during iteration|"
    r"it holds a |env\['config_type'\] is "
)


def _told(error):
    """Return the kind of *error*, and what it says if that shows no stored value, on one line."""
    kind = type(error).__name__
    place = getattr(error, "problem_mark", None)
    if place:  # PyYAML
        problem = re.sub("'[^'<]{3,}'", "...", error.problem)  # it may quote a value
        return f"{kind}: {problem} in line {place.line + 1}, column {place.column + 1}"
    if hasattr(error, "colno"):  # json
        return f"{kind}: {error.msg} in line {error.lineno}, column {error.colno}"
    said = " ".join(str(getattr(error, "strerror", None) or error).split())
    if not said or not (isinstance(error, _DISCREET) or _HARMLESS.match(said)):
        return kind
    return f"{kind}: {said[:300]}"


def _logger():
    """Return the logger of this module."""
    import logging  # half of what this module would take to import

    return logging.getLogger(__name__)


# ---- From a specifier to a directory, and from there to `current`


def _path(specifier):
    """Return *specifier*, a str or os.PathLike, as a str; raise EnosFilePathError if it is none."""
    if isinstance(specifier, (str, os.PathLike)):
        path = os.fspath(specifier)
        if isinstance(path, str) and path:
            return path
    what = "empty" if specifier == "" else f"of type {type(specifier).__name__}"
    why = "give the directory of an environment (a str or os.PathLike), an Environment or None"
    message = f"env is {what}: {why}; it may be meant for a later argument"
    raise EnosFilePathError(specifier, message)


def _make_environment_directory(specifier):
    """Make the directory *specifier* with its parents, durably; return its resolved Path."""
    path = _path(specifier)
    link = os.path.abspath(SYMLINK_NAME)
    if os.path.abspath(path) == link and not (os.path.islink(link) and os.path.isdir(link)):
        raise EnosFilePathError(specifier, _why_absent(os.path.join(path, ENV_FILENAME)))
    try:
        directory = Path(os.path.realpath(path))
        with contextlib.suppress(FileNotFoundError):
            _refuse_if_irregular(directory / ENV_FILENAME)
        _make_directories(directory)
    except (OSError, ValueError) as error:
        what = f"cannot make an environment in {_where(path)}: {_told(error)}"
        raise EnosFilePathError(specifier, f"{what}; choose another path") from error
    return directory


def _make_directories(directory):
    """Make *directory*, a Path, with its parents, durably."""
    new = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    # Also if it was there: whoever made it may have been killed before the sync.
    for path in new or [directory]:
        _sync_directory(path.parent)


def _make_dated_directory():
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
            why = f"cannot make the directory {_where(name)}: {_told(error)}"
            raise EnosFilePathError(name, f"{why}; work in another directory") from error


def _remove_if_nothing_was_saved(directory):
    """Remove *directory* if it holds no more than a lock, as the first save in it has failed."""
    with contextlib.suppress(OSError):
        if os.listdir(directory) == [_LOCK_NAME]:
            os.unlink(directory / _LOCK_NAME)
        os.rmdir(directory)  # refuses if there is anything else


def _point_current_to(directory):
    """Make ``current`` a link to *directory*, relative if it lies below; it is never missing."""
    here = Path(os.path.realpath(os.curdir))
    target = directory
    if here in (directory, *directory.parents):
        target = directory.relative_to(here)
    link = here / SYMLINK_NAME
    temporary = here / f".{SYMLINK_NAME}.{os.urandom(8).hex()}.tmp"
    try:
        os.symlink(target, temporary, target_is_directory=True)
        os.replace(temporary, link)
        _sync_directory(here)
    except OSError as error:
        why = f"cannot point {_where(link)} to {directory}: {_told(error)}"
        # The next task would work on what the old link leads to.
        if os.path.lexists(link) and os.path.realpath(link) != str(directory):
            why += "; remove it, or pass symlink=False"
            raise EnosFilePathError(SYMLINK_NAME, why) from error
        _logger().warning("%s", why)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _why_absent(checkpoint):
    """Say why there is no file *checkpoint*, and what to do."""
    import shlex

    directory, name = os.path.split(checkpoint)
    where = _where(directory)
    if os.path.isdir(directory or os.curdir):
        advice = f"name the directory of an environment{_or_a_backup(directory)}"
        for newest in _environments(directory)[:1]:
            advice = f"name an environment there, such as {newest}"
        return f"no {name} in {where}; {advice}"
    gone = "is absent"
    advice = "name another environment, or run a task with new=True first"
    if os.path.exists(directory):
        gone = "is a file"
        advice = "name the directory of an environment, not a file in it"
    elif os.path.islink(directory):
        gone = f"points to {_shown(os.readlink(directory))}, which is gone"
    if os.path.basename(directory) == SYMLINK_NAME:
        for newest in _environments(os.path.dirname(directory))[:1]:
            link = f"ln -sfn {shlex.quote(newest)} current"
            advice = f"{link} makes it lead to the newest environment there"
    return f"{where} {gone}; {advice}"


def _environments(directory):
    """Return the names of the environments in *directory*, the one that was saved last first."""
    found = {}
    with contextlib.suppress(OSError):  # it may not be listed, or others delete some meanwhile
        for entry in os.scandir(directory or os.curdir):
            checkpoint = os.path.join(entry.path, ENV_FILENAME)
            if not entry.is_symlink() and os.path.isfile(checkpoint):
                found[entry.name] = os.path.getmtime(checkpoint)
    return sorted(found, key=found.__getitem__, reverse=True)


def _or_a_backup(directory):
    """Return the advice to go back to the newest backup in *directory*, if there is one."""
    with contextlib.suppress(OSError, ValueError):
        newest = max(os.listdir(directory or os.curdir), key=_backup_number, default="")
        if _backup_number(newest):
            return f", or go back to a backup there (cp {newest} env)"
    return ""


def _backup_number(name):
    """Return N of a backup, ``env.bakN``, and 0 of any other name."""
    found = re.fullmatch(r"env\.bak([0-9]+)", name)
    return int(found[1]) if found else 0


def _host():
    """Return the name of this machine."""
    import platform

    return platform.node()


# ---- From a checkpoint to an environment

# What stands between a pickle and its checksum, the CRC-32 in eight hexadecimal digits.
_MARK = b"\n# crc-32: "
_SEAL = re.compile(_MARK + b"([0-9a-f]{8})")
_SEAL_LENGTH = len(_MARK) + 8
# How many bytes are read at once.
_PIECE = 1_000_000


def _written_seal(file):
    """Return the length of the pickle in *file*, and the checksum behind it, or None."""
    size = _status(file).st_size
    file.seek(max(0, size - _SEAL_LENGTH))
    seal = _SEAL.fullmatch(file.read(_SEAL_LENGTH))
    if seal:
        return size - _SEAL_LENGTH, int(seal[1], 16)
    return size, None  # saved by EnOSlib or version 1


def _seal(file):
    """Return length and checksum of the pickle in *file*; raise UnpicklingError if damaged."""
    length, written = _written_seal(file)
    checksum = 0
    file.seek(0)
    for start in range(0, length, _PIECE):
        checksum = crc32(file.read(min(length - start, _PIECE)), checksum)
    if written not in (None, checksum):
        raise pickle.UnpicklingError("it is damaged, as its checksum shows")
    return length, checksum


def _seal_on_disk(checkpoint):
    """Return the seal of the file *checkpoint*, or None; read no more than it takes."""
    seal = _read(checkpoint, _written_seal)
    if seal and seal[1] is None:
        return _read(checkpoint, _seal)
    return seal


def _read_checkpoint(path, given, use):
    """Return what *use* makes of the file *path*, or raise EnosFilePathError on it as *given*."""
    try:
        made = _read(path, use)
    except EnosFilePathError:
        raise
    except Exception as error:
        what = f"cannot load {_where(path)}: {_told(error)}"
        advice = f"copy it again{_or_a_backup(os.path.dirname(path))}"
        if isinstance(error, (OSError, MemoryError)):
            advice = "check disk, memory and access"
        raise EnosFilePathError(given, f"{what}; {advice}") from error
    if made is None:
        raise EnosFilePathError(given, _why_absent(path))
    return made


def _read(path, use):
    """Return what *use* makes of the file *path*, open for reading; None if there is no such file.

    Where NFS may be behind, look again.
    """
    for tries_left in (3, 2, 1, 0):
        try:
            _refuse_if_irregular(path)
            with open(path, "rb") as file:
                return use(file)
        except (FileNotFoundError, NotADirectoryError):
            if not tries_left or not _may_come_back(path):
                return None
        except OSError as error:  # stale: another client has replaced it meanwhile
            if not tries_left or error.errno != errno.ESTALE:
                raise
        time.sleep(0.02)


def _may_come_back(path):
    """Tell whether the file *path*, which is not there, is being replaced."""
    directory, name = os.path.split(os.path.abspath(path))
    try:
        names = os.listdir(directory)  # which makes NFS look afresh
    except OSError:
        return False
    return name in names or any(map(_is_temporary, names))


def _status(file):
    """Return the stat of *file*, which is open."""
    return os.fstat(file.fileno())


def _refuse_if_irregular(path):
    """Raise EnosFilePathError if *path* is no regular file: opening a fifo would hang."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        why = f"{_where(path)} is no regular file, so no checkpoint; name another"
        raise EnosFilePathError(path, why)


def _loaded(file, directory, cls):
    """Return the environment, a *cls*, in *file*, a checkpoint in *directory*.

    Return also {reason: names} of what is a stand-in in it.
    """
    seal = _seal(file)
    env, missing = _unpickled(file, cls)
    if not isinstance(env, Environment) or not isinstance(env._items, dict):
        raise _no_environment(env)
    home = vars(env)["env_name"]
    here = os.path.realpath(directory)
    if str(home) != here or not isinstance(home, Path):
        env.env_name = Path(here)
        if "resultdir" in env._items:
            env._items["resultdir"] = _moved(env._items["resultdir"], home, env.env_name)
    env._before = dict.fromkeys(env._items, _UNUSED)
    env._seen = seal
    return env, missing


def _no_environment(held):
    """Return the error of a pickle that has *held* something else."""
    return pickle.UnpicklingError(f"it holds a {type(held).__name__}, not an Environment")


def _moved(path, old, new):
    """Return *path* as it is after the directory *old* has become *new*."""
    try:
        moved = new / PurePath(path).relative_to(PurePath(old))
    except (TypeError, ValueError):  # it is no path, or lies elsewhere, and stays there
        return path
    if isinstance(path, str):
        return str(moved)
    return moved


def _unpickled(file, cls):
    """Return the object that is pickled in *file*, and {reason: names} of its stand-ins."""
    file.seek(0)
    collecting = gc.isenabled()
    gc.disable()  # many new objects, and none of them is garbage: it would only take time
    try:
        return _StrictReader(file, cls).load(), {}
    except MemoryError:  # which says nothing of what is missing
        raise
    except Exception:
        pass
    finally:
        if collecting:
            gc.enable()
    unfit: dict = {}
    while True:
        file.seek(0)
        known = len(unfit)
        reader = _LenientReader(file, cls, unfit)
        loaded = reader.load()
        if len(unfit) == known:
            return loaded, reader.missing


# What 3.13 calls pathlib, and what a worker process that was spawned calls the script.
_RENAMED = {"pathlib._local": "pathlib", "__mp_main__": "__main__"}
# The paths of other systems, which can only be looked at here.
_FOREIGN_PATHS = ("pathlib", "PosixPath" if os.name == "nt" else "WindowsPath")


class _Names:
    """What both readers know of names: another copy of this module, or EnOSlib, may have saved."""

    # The module that has saved: a checkpoint begins with the class Environment.
    home = None

    def __init__(self, file, cls):
        super().__init__(file)  # type: ignore[call-arg]
        # What to load the class Environment as.
        self.cls = cls

    def find_class(self, module, name):
        """Return the class or function of that *module* and *name*."""
        if self.home is None:
            self.home = module if name == "Environment" else __name__
        if name == "_enostask_named":  # of any copy of this module; no other function is called so
            return self.find_class
        if module == self.home and name == "Environment":
            return self.cls
        if module == self.home and name in __all__:
            return globals()[name]
        module = _RENAMED.get(module, module)
        if (module, name) == _FOREIGN_PATHS:
            name = f"Pure{name}"
        try:
            return super().find_class(module, name)  # type: ignore[misc]
        except SystemExit as error:
            if any(run.signal for run in _running):
                raise
            raise ImportError(f"{module} exits when it is imported") from error


class _StrictReader(_Names, pickle.Unpickler):
    """Reads as pickle does: what cannot be found or rebuilt raises."""


# What pickle's reader in Python does at each opcode.
_STEPS = getattr(pickle._Unpickler, "dispatch")
# What makes an object without a call of its class; its arguments begin with that.
_NEW = getattr(copyreg, "__newobj__")
_NEW_WITH_KEYWORDS = getattr(copyreg, "__newobj_ex__")


class _LenientReader(_Names, pickle._Unpickler):
    """Reads as far as possible: makes stand-ins of what cannot be found or rebuilt.

    It does what pickle's reader in Python does at some of the *opcodes*, the steps of a pickle.
    """

    dispatch = _STEPS.copy()
    # What pickle keeps: the objects that are being made, also those below a mark, and those made.
    stack: list
    metastack: list
    memo: dict

    def __init__(self, file, cls, unfit):
        super().__init__(file, cls)
        # Which objects cannot be filled or be a key, by their numbers, and which names lead to what
        # cannot make them, and why.  When all is read once more, these become stand-ins.
        self.unfit = unfit
        # All objects that calls make, in their order, and by their ids, their numbers in it.
        # That order is the pickle's, so the numbers are the same each time.
        self.made = []
        self.numbers = {}
        # Why there are stand-ins: {reason: names}.
        self.missing = {}
        # The names by which something was found that calls itself otherwise, by its id.
        self.aliases: dict = {}

    def find_class(self, module, name):
        """Return the class or function of that *module* and *name*, or a stand-in for it."""
        is_first = self.home is None
        try:
            if (module, name) in self.unfit:
                raise self.unfit[module, name]
            found = super().find_class(module, name)
            if _own_name(found) != (module, name):
                self.aliases.setdefault(id(found), []).append((module, name))
            return found
        except Exception as error:
            why = f"not found ({_told(error)}): to use them, install or restore that"
        if module in ("__main__", "__mp_main__"):
            why = "of another script: to use them, move that to a module"
        self.missing.setdefault(why, []).append(f"{module}.{name}")
        if is_first:  # a subclass of Environment
            return self.cls
        return _missing_class(module, name)

    def load_newobj(self):
        """Make an object by ``cls.__new__``."""
        args = self.stack.pop()
        cls = self.stack.pop()
        self.stack += [_NEW, (cls, *args)]
        self.load_reduce()

    def load_newobj_ex(self):
        """Make an object by ``cls.__new__`` with keywords."""
        self.stack[-3:] = [_NEW_WITH_KEYWORDS, tuple(self.stack[-3:])]
        self.load_reduce()

    def load_reduce(self):
        """Make an object by a call, or if that fails, a stand-in that remembers the call."""
        args = self.stack.pop()
        function = self.stack.pop()
        number = len(self.made)
        try:
            if number in self.unfit:
                raise self.unfit[number]
            made = function(*args)
            if isinstance(made, _StandIn) and not vars(made):  # made by object.__new__
                raise EnosMissingError
        except MemoryError:
            raise
        except Exception as error:
            made = self.stand_in(function, args, error)
        self.made.append(made)
        self.numbers[id(made)] = number
        self.stack.append(made)

    def stand_in(self, function, args, error):
        """Return a stand-in for what *function* makes of *args*, but for this *error*."""
        cls = _StandIn
        missing = function
        if function in (_NEW, _NEW_WITH_KEYWORDS):
            missing = args[0]
            cls = missing
            if not isinstance(missing, _MissingClass):
                cls = _missing_class(*_own_name(missing))
            args = (cls, *args[1:])
        # Something else may have the name of a class now, such as None where a library is missing.
        self.unfit.update(dict.fromkeys(self.aliases.get(id(missing), ()), error))
        # What is missing is named already; getattr finds a method of that.
        if not isinstance(missing, _MISSING) and missing is not getattr:
            why = f"failed ({type(error).__name__}): to use them, mend or update that"
            self.missing.setdefault(why, []).append(_full_name(missing))
        stand_in = object.__new__(cls)
        vars(stand_in)["_enostask"] = _Recipe(function, args)
        return stand_in

    def load_pop(self):
        """Drop what a function returns that has given an object its state, as pickle does.

        Pickle has stored that as: the object, the function, (the object, its state), call, pop.
        """
        below, dropped = (None, None, *self.stack)[-2:]
        if type(dropped) is _StandIn and all(dropped is not other for other in self.memo.values()):
            target, *state = dropped._enostask.args or [None]
            if target is below and len(state) == 1:
                if not isinstance(target, _StandIn):
                    self.refuse(EnosMissingError(), [target])
                else:
                    target._enostask.setter = dropped._enostask.function
                    target._enostask.state = state[0]
        pop = _STEPS[pickle.POP[0]]
        pop(self)

    def load_frozenset(self):
        """Make a frozenset, or if that fails, an empty one: then all will be read once more."""
        keys = list(self.stack)
        try:
            _STEPS[pickle.FROZENSET[0]](self)
        except Exception as error:
            self.refuse(error, self.unhashable(keys))
            self.stack.append(frozenset())

    def fill(self, load, stack, place, keys):
        """Let pickle's *load* fill the object in that *place* of *stack*; it hashes the *keys*."""
        target = stack[place]
        if isinstance(target, (type, PurePath)):  # only a hostile pickle does that
            raise pickle.UnpicklingError("it fills a class or a path")
        if isinstance(target, _StandIn):
            stack[place] = target._enostask  # the recipe is filled as the object would be
        try:
            load(self)
        except Exception as error:
            self.refuse(error, self.unhashable(keys), [target], keys)
        self.stack[-1] = target

    def unhashable(self, keys):
        """Return those of *keys* that cannot be hashed, and of a tuple the parts to blame."""
        found = []
        for key in keys:
            try:
                hash(key)
            except Exception:
                if type(key) is tuple:
                    found += self.unhashable(key)
                else:
                    found.append(key)
        return found

    def refuse(self, error, *suspects):
        """Note who is to blame for *error* and must be a stand-in: those that were made here.

        They are in the first of the lists *suspects* that holds such objects.
        """
        if isinstance(error, MemoryError):
            raise error
        for objects in suspects:
            numbers = [self.numbers[id(item)] for item in objects if id(item) in self.numbers]
            if numbers:
                self.unfit.update(dict.fromkeys(numbers, error))
                return
        raise pickle.UnpicklingError("an object cannot be filled") from error

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex
    dispatch[pickle.POP[0]] = load_pop
    dispatch[pickle.FROZENSET[0]] = load_frozenset


def _let_fill(opcode, place, keys):
    """Have the lenient reader watch what is done at *opcode*: filling what is in that *place*.

    *keys* is the slice of the stack that is hashed by that.
    """
    load = _STEPS[opcode[0]]

    def load_and_watch(reader):
        stack = reader.stack
        if place == -1:  # a mark lies between the target, on top of the stack below, and items
            stack = reader.metastack[-1]
        reader.fill(load, stack, place, reader.stack[keys])

    _LenientReader.dispatch[opcode[0]] = load_and_watch


_let_fill(pickle.BUILD, -2, slice(0))
_let_fill(pickle.APPEND, -2, slice(0))
_let_fill(pickle.SETITEM, -3, slice(-2, -1))
_let_fill(pickle.APPENDS, -1, slice(0))
_let_fill(pickle.SETITEMS, -1, slice(None, None, 2))
_let_fill(pickle.ADDITEMS, -1, slice(None))


# ---- Stand-ins for what is missing


class _Recipe:
    """How pickle builds the object that a stand-in stands for; filled as that object would be."""

    def __init__(self, function, args):
        # A call makes it, ...
        self.function = function
        self.args = args
        # ... these are appended, as to a list, ...
        self.items = []
        # ... these, keys and values, are set, as in a dict, ...
        self.pairs = []
        # ... and this is its state, unless None, ...
        self.state = None
        # ... given by this function, unless that is None.
        self.setter = None

    def append(self, item):
        """Remember an item."""
        self.items.append(item)

    def __setitem__(self, key, value):
        self.pairs.append((key, value))

    def __setstate__(self, state):
        self.state = state


class _MissingClass(type):
    """The type of the stand-ins for classes and functions."""

    def __repr__(cls):
        return f"<stand-in for {_full_name(cls)}>"


class _StandIn(metaclass=_MissingClass):
    """Stands for an object that cannot be rebuilt: can be kept, copied and saved, not used."""

    # How the object is built; under a name that no object has.
    _enostask: _Recipe

    def __new__(cls, *_, **__):
        """Refuse: only a reader makes stand-ins."""
        _refuse_use(cls)

    def __reduce_ex__(self, _):
        """Tell pickle how the object is built."""
        recipe = self._enostask
        contents = iter(recipe.items), iter(recipe.pairs)
        return (recipe.function, recipe.args, recipe.state, *contents, recipe.setter)

    def __copy__(self, _=None):
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))  # the recipe can be shared, as nobody can change it
        return twin

    __deepcopy__ = __copy__

    def __repr__(self):
        return _text(self, set())

    def __format__(self, how):
        if how:
            _refuse_use(self)
        return repr(self)


def _missing_class(module, name):
    """Return the stand-in for the class or function of that *module* and *name*."""
    return _MissingClass("StandIn", (_StandIn,), {"__module__": module, "__qualname__": name})


def _enostask_named(module, name):
    """Return the class or function of that *module* and *name*: a stand-in for it is pickled so."""
    return functools.reduce(getattr, name.split("."), importlib.import_module(module))


def _reduced_class(cls):
    """Tell pickle how to find the class that *cls* stands for."""
    return _enostask_named, (cls.__module__, cls.__qualname__)


copyreg.pickle(_MissingClass, _reduced_class)


def _own_name(function):
    """Return module and name of a class or function, or of the class of another object."""
    if not hasattr(function, "__qualname__"):
        function = type(function)
    return function.__module__, function.__qualname__


def _full_name(function):
    """Return module and name as one text."""
    module, name = _own_name(function)
    return f"{module}.{name}"


def _maker(stand_in):
    """Return the class or function that makes the object; where that is a method, its class."""
    maker = type(stand_in)
    if maker is _StandIn:
        maker = stand_in._enostask.function
    if isinstance(maker, _StandIn) and maker._enostask.args:
        maker = maker._enostask.args[0]
    return maker


def _refuse_use(stand_in, *_, **__):
    """Raise EnosMissingError: *stand_in* is not the object that it stands for."""
    missing = stand_in
    while isinstance(missing, _StandIn):
        parts = [part for part in missing._enostask.args if isinstance(part, _MISSING)]
        missing = parts[0] if parts else _maker(missing)
    why = "cannot be found or rebuilt here, so this is a stand-in"
    what_to_do = "install or mend it, and load again"
    raise EnosMissingError(f"{_full_name(missing)} {why}: {what_to_do}")


# What stands for something that is missing.
_MISSING = (_MissingClass, _StandIn)

# The usual ways to use an object, but for equality, hash and the type.
_USES = """
    getattr setattr delattr call getitem setitem delitem iter next reversed len contains enter exit
    bool int float complex index round trunc floor ceil lt le gt ge neg pos abs invert
    add radd sub rsub mul rmul matmul rmatmul truediv rtruediv floordiv rfloordiv mod rmod
    divmod rdivmod pow rpow and rand or ror xor rxor lshift rlshift rshift rrshift
"""
for _name in _USES.split():
    type.__setattr__(_StandIn, f"__{_name}__", _refuse_use)
    type.__setattr__(_MissingClass, f"__{_name}__", _refuse_use)


# ---- From an environment to its checkpoint


def _digests(items, keys):
    """Return {key: digest} of *keys* in *items*, and {key: error} of those not to be pickled."""
    digests = {}
    refused = {}
    for key in keys:
        try:
            digests[key] = _digest(items, key)
        except MemoryError:  # which says nothing of the value
            raise
        except Exception as error:
            refused[key] = error
    return digests, refused


def _digest(items, key):
    """Return the digest of what *key* holds; raise what pickling this or the key raises."""
    if key not in items:
        return _ABSENT
    pickle.dumps(key, 5)  # alone: together, an equal key that is another object would differ
    return hash(pickle.dumps(items[key], 5))


def _by_pickle(keys):
    """Return *keys* by their pickles: an object that is a key may not equal itself loaded again."""
    alike = {}
    for key in keys:
        with contextlib.suppress(Exception):
            alike[pickle.dumps(key, 5)] = key
    return alike


_LOCK_NAME = f".{ENV_FILENAME}.lock"


@contextlib.contextmanager
def _locked(checkpoint):
    """Hold the lock on *checkpoint* for a save, where there are locks; say what was not saved."""
    thread = get_ident()
    # A signal handler that saves in the midst of a save would wait for itself.
    if thread in _saving:
        why = "this environment is not saved, as this thread is in the midst of a save"
        raise OSError(errno.EDEADLK, why, checkpoint)
    directory = os.path.dirname(checkpoint)
    closing = contextlib.ExitStack()
    try:
        _saving[thread] = closing
        if not os.path.exists(checkpoint):
            _make_directories(Path(directory))
        with closing:
            with contextlib.suppress(OSError):
                _wait_for_lock(os.path.join(directory, _LOCK_NAME), closing)
            _remove_leftovers(directory)
            yield
    except OSError as error:
        what = f"{error.strerror or error}: this environment is not saved; mend that and save again"
        raise OSError(error.errno, what, checkpoint) from error
    finally:
        _saving.pop(thread, None)
        _end_if_signalled()


# What says that a lock is held; on SMB, the second.  Any other error: there are no locks.
_HELD = (errno.EAGAIN, errno.EACCES)


def _wait_for_lock(path, closing):
    """Take the lock *path* until *closing* is closed; raise OSError where there are no locks."""
    if fcntl is None:
        return
    try:
        file = open(path, "ab", buffering=0)  # for writing: NFS gives no exclusive lock otherwise
    except PermissionError:  # it is somebody else's
        file = open(path, "rb", buffering=0)
    closing.enter_context(file)
    closing.callback(_unlock, file)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in _HELD:
                raise
        _unlock(file)  # on SMB a try that fails may leave the lock taken at the server
        time.sleep(0.005)
    why = "held for a minute, perhaps by a machine that crashed"
    _logger().warning("%s was %s: saving without it", path, why)


def _unlock(file):
    """Let go of the lock on *file*; to close it is not enough if a child was forked meanwhile."""
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)


def _remove_leftovers(directory):
    """Remove what killed saves left, once nobody has written to it for an hour."""
    with contextlib.suppress(OSError):
        # To list the directory also makes NFS look afresh.
        for name in filter(_is_temporary, os.listdir(directory)):
            path = os.path.join(directory, name)
            if time.time() - os.path.getmtime(path) > 3600:
                os.unlink(path)


def _is_temporary(name):
    """Tell whether that is the name of the new file of a save."""
    return re.fullmatch(r"\.env\.[0-9a-f]{16}\.tmp", name)


@contextlib.contextmanager
def _replacing(path, like):
    """Give a new file to write, which then takes the place of *path*, or goes if anything fails.

    It gets mode and owner of *like*.  At any instant *path* is the old file or the new one, also
    where locks do not work, as nobody else has the random name of the new one.  In the end, it is
    the new one for good.
    """
    temporary = os.path.join(os.path.dirname(path), f".{ENV_FILENAME}.{os.urandom(8).hex()}.tmp")
    model = _read(like, _status)
    mode = 0o666 if model is None else 0o600
    try:
        # Not "xb": NFS 3 would tell others a time long ago, and they would take it for a leftover.
        with open(temporary, "wb", opener=functools.partial(os.open, mode=mode)) as file:
            if model is not None and hasattr(os, "fchown"):  # Windows has neither this nor fchmod
                _take_mode_and_owner(file.fileno(), model)
            yield file
            file.flush()
            _sync(file.fileno())
        _rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_directory(os.path.dirname(path))


class _Summing:
    """A file to write to, which sums up what is written."""

    def __init__(self, file):
        self.file = file
        self.length = 0
        self.checksum = 0
        # Has the file raised what was raised?
        self.failed = False

    def write(self, piece):
        """Write *piece*, which is like bytes."""
        self.failed = True
        self.length += self.file.write(piece)
        self.failed = False
        self.checksum = crc32(piece, self.checksum)


def _rename(temporary, path):
    """Give *temporary* the name *path*; if that fails and *path* is gone, keep what there is."""
    was_there = os.path.exists(path)
    try:
        _replace_in_time(temporary, path)
    except BaseException as error:
        if was_there and _is_gone(path) and os.path.exists(temporary):
            rescued = f"{temporary}.saved"  # which no later save takes for a leftover
            os.rename(temporary, rescued)
            if isinstance(error, OSError):
                error.strerror = f"{path} is gone; rename {rescued}, which has all"
        raise


def _replace_in_time(temporary, path):
    """Replace *path*; wait while somebody has that open, for two seconds (Windows, SMB)."""
    deadline = time.monotonic() + 2
    while True:
        try:
            os.replace(temporary, path)
            return
        except PermissionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def _is_gone(path):
    """Tell whether the file *path* is gone, or on SMB goes when its readers close it: no link."""
    try:
        return os.stat(path).st_nlink == 0
    except OSError:
        return True


def _take_mode_and_owner(file, model):
    """Give *file*, a descriptor, the mode and, where permitted, the owner of the stat *model*."""
    mode = stat.S_IMODE(model.st_mode)
    made = os.fstat(file)
    if (made.st_uid, made.st_gid) != (model.st_uid, model.st_gid):
        try:
            os.fchown(file, model.st_uid, model.st_gid)
        except OSError:
            try:
                os.fchown(file, -1, model.st_gid)
            except OSError:
                mode &= ~stat.S_IRWXG  # it has another group now
    # Some network shares refuse even what would change nothing.
    if mode != stat.S_IMODE(made.st_mode):
        os.fchmod(file, mode)


# What says that a file system cannot sync; 524 is ENOTSUPP, which some network ones let through.
_CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOTTY, 524)


def _sync(descriptor):
    """Wait until what was written survives a power cut, where the file system can sync."""
    try:
        os.fsync(descriptor)
        if hasattr(fcntl, "F_FULLFSYNC"):  # macOS, where fsync stops at the cache of the disk
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def _sync_directory(directory):
    """Make the names in *directory* survive a power cut."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except PermissionError:  # one that may not be listed, and on Windows any
        return
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _parsed(content, kind):
    """Return the mapping in *content*, the bytes of a config file of *kind*."""
    if kind == "json":
        import json

        read = json.loads(content)
    elif kind == "yaml":
        try:
            yaml = importlib.import_module("yaml")
        except ImportError:
            why = "YAML needs PyYAML, which is not installed (pip install pyyaml)"
            raise ImportError(why) from None
        read = yaml.safe_load(content)
        if read is None:  # an empty file
            read = {}
    else:
        raise TypeError("env['config_type'] is neither 'json' nor 'yaml'")
    if not isinstance(read, dict):
        raise TypeError(f"it holds a {type(read).__name__}, not a mapping")
    return read


# ---- Looking into environments without running anything in them: python -m enostask


def main(arguments=None):
    """Show the environments in the working directory, or what is in one; return the exit status."""
    import argparse

    what = "Show environments, without running anything in them."
    parser = argparse.ArgumentParser("enostask", description=what)
    parser.add_argument("environment", nargs="?", help="a directory, or a file such as env.bak1")
    parser.add_argument("key", nargs="?", help="show its value, whole")
    given = parser.parse_args(arguments)
    try:
        for line in _lines(given.environment, given.key):
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`; what is left in the buffer must not raise it again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        print(_printable(f"enostask: {str(error) or type(error).__name__}"), file=sys.stderr)
        return 1
    return 0


def _lines(environment, key):
    """Give the lines to show: the environments here, the items of one, or the value of one key."""
    import shutil

    width = shutil.get_terminal_size((400, 24)).columns or 400  # in a pipe
    if environment is None:
        for line in _list():
            yield _cut(line, width)
        return
    checkpoint = environment
    if not os.path.isfile(environment):
        checkpoint = os.path.join(environment, ENV_FILENAME)
    directory = os.path.dirname(os.path.realpath(checkpoint))
    load = functools.partial(_inert_items, directory=directory)
    items = _read_checkpoint(_path(checkpoint), checkpoint, load)
    if key is None:
        yield _cut(f"{os.path.realpath(checkpoint)}   {_when_and_size(checkpoint)}", width)
        for name, value in items.items():
            yield _cut(f"  {_plain(name):<12}   {_text(value, set())}", width)
        return
    for name, value in items.items():
        if key == _plain(name):
            yield _printable(_text(value, set()))
            return
    why = f"no {_shown(key)} in {_where(checkpoint)}; copy it from the list (leave it out)"
    raise EnosKeyError(key, why)


def _list():
    """Give a line that says where ``current`` leads, and one for each environment, newest first."""
    if os.path.exists(SYMLINK_NAME):
        yield f"{SYMLINK_NAME} -> {os.path.realpath(SYMLINK_NAME)}"
    else:
        yield _why_absent(os.path.join(SYMLINK_NAME, ENV_FILENAME))
    for name in _environments(os.curdir):
        last = ""
        with contextlib.suppress(OSError, EnosFilePathError, IndexError):
            record = _read(os.path.join(name, "env.log"), io.BufferedReader.read) or b""
            last = record.decode("utf-8", "replace").splitlines()[-1]
        yield f"  {name}   {_when_and_size(os.path.join(name, ENV_FILENAME))}   {last}"


def _when_and_size(checkpoint):
    """Return when the file *checkpoint* was saved, and its size."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(os.path.getmtime(checkpoint)))
    return f"saved {when}   {os.path.getsize(checkpoint) / 1e3:,.1f} kB"


def _cut(text, width):
    """Return *text* as a line of that *width* at most."""
    line = _printable(text[: width + 1])
    if len(line) > width:
        return f"{line[: width - 3]}..."
    return line


def _printable(text):
    """Return *text* with escapes for control characters, and for what the output cannot encode."""
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    encoding = sys.stdout.encoding or "utf-8"
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def _inert_items(file, directory):
    """Return the items in *file*, a checkpoint in *directory*: plain data and stand-ins."""
    _seal(file)  # raises if it is damaged
    file.seek(0)
    env = _InertReader(file, None, {}).load()
    recipe = getattr(env, "_enostask", None)
    if recipe is None:
        raise _no_environment(env)
    state = recipe.state
    items = dict(state["data"])
    if "resultdir" in items:
        items["resultdir"] = _moved(items["resultdir"], state["env_name"], PurePath(directory))
    return items


class _InertReader(_LenientReader):
    """Reads without looking up names: all but plain data, dates and paths are stand-ins."""

    def find_class(self, module, name):
        """Return a stand-in for the class or function of that *module* and *name*."""
        import datetime

        if name == "_enostask_named":
            return self.find_class
        if module == "datetime" and name in ("date", "datetime", "time", "timedelta", "timezone"):
            return getattr(datetime, name)
        if module in ("pathlib", "pathlib._local"):
            return PurePath
        return _missing_class(module, name)


def _plain(name):
    """Return *name* as text, without quotes if it is a str."""
    return name if isinstance(name, str) else _text(name, set())


# How to show what holds other values.
_BRACKETS: dict = {list: "[]", tuple: "()", dict: "{}", set: "{}", frozenset: "{}"}


def _text(value, shown):
    """Return the text of *value*.

    *shown* are the ids of what is not shown once more: stand-ins, and what holds the value.
    """
    kind = type(value)
    if kind in (bytes, bytearray):
        return f"{len(value)} bytes"
    if isinstance(value, PurePath):
        return str(value)
    if id(value) in shown:
        return "..."
    if isinstance(value, _StandIn):
        shown.add(id(value))
        contents = ", ".join(_contents(value, shown))
        return f"{_full_name(_maker(value))}({contents})"
    if kind not in _BRACKETS or not value:
        return repr(value)
    shown.add(id(value))
    if kind is dict:
        texts = _pair_texts(value.items(), shown)
    else:
        texts = [_text(item, shown) for item in value]
    if kind in (set, frozenset):
        texts.sort()  # in an order that each process shows
    shown.discard(id(value))
    opening, closing = _BRACKETS[kind]
    return opening + ", ".join(texts) + closing


def _pair_texts(pairs, shown):
    """Return the texts of *pairs*, each a key and a value."""
    return [f"{_text(key, shown)}: {_text(value, shown)}" for key, value in pairs]


def _decoded(function, args):
    """Return *args*, with bytes as the number or moment that they are: results have many."""
    import struct

    name = _full_name(function)
    formats = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "u8": "Q", "u4": "I"}
    with contextlib.suppress(Exception):
        if name == "datetime.datetime":
            return [function(args[0]), *args[1:]]
        if name.endswith(".multiarray.scalar"):  # of NumPy
            dtype, content = args
            kind = dtype._enostask.args[0]
            byte_order = dtype._enostask.state[1]
            return struct.unpack(byte_order + formats[kind], content)
    return args


def _contents(stand_in, shown):
    """Return the texts of what the object is built of: arguments, items and state."""
    recipe = stand_in._enostask
    contents = [*_decoded(recipe.function, recipe.args), *recipe.items]
    if type(stand_in) is not _StandIn:
        del contents[0]  # its class
    texts = [_text(item, shown) for item in contents]
    if recipe.pairs:
        texts.append("{" + ", ".join(_pair_texts(recipe.pairs, shown)) + "}")
    if recipe.state is not None:
        texts.append(_text(recipe.state, shown))
    return texts


if __name__ == "__main__":
    raise SystemExit(main())
