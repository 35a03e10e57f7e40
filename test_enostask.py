# test_enostask 1.1.0, MIT-0: what enostask promises, told by state machines and then by one example for each promise.
# SPDX-FileCopyrightText: the enostask authors; SPDX-License-Identifier: MIT-0
"""What enostask promises.  First two state machines, then crashes, then one example for each promise, in the order of its page.

Needs hypothesis; run by ``python -m unittest``.  ``ENOSTASK_TESTS=deep`` looks longer, and at random.  The tests use the
public names and what is on disk.
"""
import asyncio
import contextlib
import copy
import datetime
import errno
import functools
import io
import logging
import os
import pickle
import pprint
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import unittest
from collections import UserDict
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import enostask as module
from enostask import EnosError, EnosFilePathError, EnosSaveError, Environment, enostask, get_or_create_env

MODULE = Path(module.__file__).resolve()
FRESH = {"resultdir": ".", "config_file": None, "config": {}, "config_type": "yaml"}  # as `seen` shows it
UMASK = os.umask(0o022)
os.umask(UMASK)

common = dict(deadline=None, database=None, suppress_health_check=list(HealthCheck))
settings.register_profile("fixed", derandomize=True, max_examples=40, stateful_step_count=30, **common)
settings.register_profile("deep", max_examples=2000, stateful_step_count=60, **common)
settings.load_profile("deep" if os.environ.get("ENOSTASK_TESTS") == "deep" else "fixed")
logging.getLogger("enostask").addHandler(logging.NullHandler())


def seen(env):
    """Return what *env* holds, with its resultdir as it is from its directory."""
    results = Path(env["resultdir"])
    inside = env.env_name in (results, *results.parents)
    return {**env, "resultdir": os.path.relpath(results, env.env_name) if inside else str(results)}


def read(directory, name="env"):
    return seen(Environment.load_from_file(Path(directory, name)))


def own(items):
    """Return what a user has put into *items*."""
    return {key: value for key, value in items.items() if key not in FRESH}


def backups(directory):
    names = [name for name in os.listdir(directory) if name.startswith("env.bak")]
    return sorted(names, key=lambda name: int(name[len("env.bak") :]))


def mode(*path):
    return stat.S_IMODE(os.stat(os.path.join(*path)).st_mode)


# ---- The state machines

KEYS = st.sampled_from("xyz")
VALUES = st.sampled_from([0, 1, [], [0], {"a", "b"}, {"a": [1]}]).map(copy.deepcopy)
NAMES = st.sampled_from(["a", "b", "deep/er"])
SPELLINGS = st.sampled_from([str, Path, os.path.abspath, lambda name: os.path.join(".", name), lambda name: name + "/"])


def add_in_place(value):
    """Change *value*, if it can be changed in place."""
    if isinstance(value, list):
        value.append("more")
    elif isinstance(value, set):
        value.add("more")
    elif isinstance(value, dict):
        value.setdefault("a", []).append("more")


@enostask(new=True)
def begin_with(env, items, symlink, fail, env_symlink=None):
    assert seen(env) == read(env.env_name) == FRESH
    assert not symlink or os.path.realpath("current") == str(env.env_name)
    env.update(items)
    if fail:
        raise KeyError("as planned")


@enostask()
def change(env, how, error=None):
    """Let *how* change it, and fail by *error*."""
    how(env)
    if error is not None:
        raise error


class Experiments(RuleBasedStateMachine):
    """A working directory where tasks run and fail, and where things are moved about, against plain dicts."""

    def __init__(self):
        super().__init__()
        self.above = Path(os.path.realpath(tempfile.mkdtemp(prefix="enostask-")))
        self.root = self.above / "root0"
        self.root.mkdir()
        self.before = os.getcwd()
        os.chdir(self.root)
        self.held = {}  # name -> what it holds; not there once its directory is gone
        self.modes = {}  # name -> the mode of its checkpoint
        self.aside = {}  # name -> what its backups hold, and their modes
        self.current = None  # a name, or "file" or "directory" where something else is in the way

    def teardown(self):
        os.chdir(self.before)
        shutil.rmtree(self.above)

    def blocked(self):
        return self.current in ("file", "directory")

    def is_gone(self, name):
        self.held.pop(name)
        self.aside.pop(name)

    def starts(self, name, specifier, items, symlink=True, fail=False):
        options = {} if symlink else {"env_symlink": False}
        try:
            begin_with(specifier, items, symlink, fail, **options)
            assert not fail
        except EnosFilePathError as error:
            assert symlink and self.blocked() and "current" in str(error)
            return
        except KeyError:
            assert fail
        self.modes[name] = self.modes[name] if name in self.held else 0o666 & ~UMASK
        if self.held.get(name, FRESH) != FRESH:
            self.aside[name].append((self.held[name], self.modes[name]))
        self.held[name] = {**FRESH, **copy.deepcopy(items)}
        self.aside.setdefault(name, [])
        if symlink:
            assert not self.blocked()
            self.current = name

    items = st.dictionaries(KEYS, VALUES, max_size=2)

    @rule(name=NAMES, spelling=SPELLINGS, items=items, symlink=st.booleans(), fail=st.booleans())
    def a_new_environment_is_fresh_and_keeps_the_old_checkpoint(self, name, spelling, items, symlink, fail):
        self.starts(name, spelling(name), items, symlink, fail)

    @rule(items=items)
    def new_by_the_name_current_is_where_it_points(self, items):
        if self.current in self.held:
            self.starts(self.current, "current", items)
        else:
            try:
                get_or_create_env(True, "current")
            except EnosFilePathError as error:
                assert str(error.filepath) == "current"
            else:
                raise AssertionError("current led nowhere")

    @rule(name=NAMES, in_the_way=st.sampled_from(["lock", "link"]))
    def a_new_environment_that_cannot_be_saved_changes_nothing(self, name, in_the_way):
        lock, target = Path(name, ".env.lock"), name
        if in_the_way == "lock" and name in self.held:
            with contextlib.suppress(FileNotFoundError):
                lock.unlink()
            lock.mkdir()
        else:
            target = "odd"
            os.mkdir(target)
            os.symlink("absent/env", "odd/env")
        try:
            get_or_create_env(True, target)
        except (OSError, EnosFilePathError):
            pass
        else:
            raise AssertionError("it was saved, but where?")
        shutil.rmtree(lock if target == name else target)

    def step(self, name, spelling, how, fail=False):
        """Run a task on *name*, or on `current` if it is None; return the name and its error, or None if it was refused."""
        specifier = spelling(name or "current")
        name = name or self.current
        try:
            change(specifier, how, KeyError("as planned") if fail else None)
        except EnosFilePathError:
            assert name not in self.held
            return None, None
        except (KeyError, EnosSaveError) as error:
            assert name in self.held
            return name, error
        assert name in self.held
        return name, None

    targets = st.one_of(st.none(), NAMES)

    @rule(name=targets, spelling=SPELLINGS, key=KEYS, value=VALUES, fail=st.booleans())
    def a_task_sets_a_key_and_may_fail(self, name, spelling, key, value, fail):
        name, error = self.step(name, spelling, lambda env: env.update({key: value}), fail=fail)
        if name:
            assert isinstance(error, KeyError) == fail
            self.held[name][key] = copy.deepcopy(value)

    @rule(name=targets, key=KEYS)
    def a_task_deletes_a_key(self, name, key):
        name, _ = self.step(name, str, lambda env: env.pop(key, None))
        if name:
            self.held[name].pop(key, None)

    @rule(name=targets, key=KEYS)
    def a_task_changes_a_value_in_place(self, name, key):
        name, _ = self.step(name, str, lambda env: add_in_place(env.get(key)))
        if name:
            add_in_place(self.held[name].get(key))

    @rule(name=targets, kind=st.sampled_from([str, Path]), results=st.sampled_from([".", "out", "/elsewhere"]))
    def a_task_sets_resultdir(self, name, kind, results):
        name, _ = self.step(name, str, lambda env: env.update(resultdir=kind(env.env_name / results)))
        if name:
            self.held[name]["resultdir"] = results

    @rule(name=targets, bad=KEYS, key=KEYS, value=VALUES, fail=st.booleans())
    def a_value_that_cannot_be_pickled_costs_only_itself(self, name, bad, key, value, fail):
        name, error = self.step(name, str, lambda env: env.update({key: value, bad: lambda: None}), fail=fail)
        if name:
            assert isinstance(error, KeyError) if fail else error.keys == [bad]
            if key != bad:
                self.held[name][key] = copy.deepcopy(value)

    @rule(name=NAMES, mode=st.sampled_from([0o600, 0o640, 0o666]))
    def the_user_sets_the_mode_of_a_checkpoint(self, name, mode):
        if name in self.held:
            os.chmod(Path(name, "env"), mode)
            self.modes[name] = mode

    @rule(name=NAMES)
    def the_user_goes_back_to_the_last_backup(self, name):
        if self.aside.get(name):
            shutil.copyfile(Path(name, backups(name)[-1]), Path(name, "env"))
            self.held[name] = copy.deepcopy(self.aside[name][-1][0])

    @rule(name=NAMES)
    def a_directory_is_deleted(self, name):
        if name in self.held:
            shutil.rmtree(name)
            self.is_gone(name)

    @rule(name=NAMES, value=st.one_of(st.none(), VALUES))
    def a_task_tears_its_environment_down_and_may_change_it(self, name, value):
        def how(env):
            shutil.rmtree(env.env_name)
            env.update({} if value is None else {"x": value})

        name, _ = self.step(name, str, how)
        if name and (value is None or self.held[name].get("x") == value):
            self.is_gone(name)
        elif name:
            self.held[name]["x"] = copy.deepcopy(value)
            self.modes[name], self.aside[name] = 0o666 & ~UMASK, []

    @rule(name=NAMES, other=NAMES, carry=st.sampled_from([shutil.copytree, shutil.move]))
    def a_directory_is_copied_or_moved(self, name, other, carry):
        if name in self.held and other not in self.held:
            os.makedirs(os.path.dirname(os.path.abspath(other)), exist_ok=True)
            carry(name, other)
            self.modes[other] = self.modes[name]
            self.held[other], self.aside[other] = copy.deepcopy(self.held[name]), list(self.aside[name])
            if carry is shutil.move:
                self.is_gone(name)

    @rule()
    def the_working_directory_is_moved(self):
        moved = self.above / f"root{int(self.root.name[4:]) + 1}"
        os.rename(self.root, moved)
        self.root = moved
        os.chdir(moved)

    @precondition(lambda self: not self.blocked())
    @rule(kind=st.sampled_from(["file", "directory"]))
    def something_else_is_put_at_current(self, kind):
        with contextlib.suppress(FileNotFoundError):
            os.unlink("current")
        os.mkdir("current") if kind == "directory" else Path("current").write_text("precious")
        self.current = kind

    @precondition(blocked)
    @rule()
    def it_is_taken_away_again(self):
        os.rmdir("current") if self.current == "directory" else os.unlink("current")
        self.current = None

    @invariant()
    def every_environment_reads_back_equal(self):
        for name, held in self.held.items():
            env = Environment.load_from_file(Path(name, "env"))
            assert seen(env) == held and env.env_name == self.root / name, (seen(env), held)
            assert mode(name, "env") == self.modes[name], oct(mode(name, "env"))
            assert backups(name) == [f"env.bak{number + 1}" for number in range(len(self.aside[name]))]
            assert [(read(name, backup), mode(name, backup)) for backup in backups(name)] == self.aside[name]

    @invariant()
    def current_is_where_it_should_be(self):
        if self.blocked():
            assert not os.path.islink("current")
            assert self.current == "directory" or Path("current").read_text() == "precious"
        else:
            assert (os.readlink("current") if os.path.lexists("current") else None) == self.current

    @invariant()
    def nothing_else_is_on_disk(self):
        for directory, _, files in os.walk(self.root):
            for file in files:
                path = os.path.relpath(os.path.join(directory, file), self.root)
                name, file = os.path.split(path)
                assert path == "current" or name in self.held, path
                assert re.fullmatch(r"env|\.env\.lock|env\.log|env\.bak\d+|current", file), path
        assert set(os.listdir(self.root)) <= {"a", "b", "deep", "current"}


class Interleavings(RuleBasedStateMachine):
    """Three environments loaded from one checkpoint save in any order, against what each key's last change was."""

    who = st.integers(0, 2)
    values = st.sampled_from([0, 1, [], {"a"}]).map(copy.deepcopy)

    def __init__(self):
        super().__init__()
        self.root = tempfile.mkdtemp(prefix="enostask-")
        env = get_or_create_env(True, self.root, symlink=False)
        self.disk = {"x": 0, "y": [0]}
        env.update(copy.deepcopy(self.disk))
        env.dump()
        self.envs, self.held, self.known, self.copied = [None] * 3, [{}, {}, {}], [{}, {}, {}], None
        for number in range(3):
            self.loads(number)

    def teardown(self):
        shutil.rmtree(self.root)

    @rule(who=who)
    def loads(self, who):
        self.envs[who] = get_or_create_env(False, self.root)
        self.held[who], self.known[who] = copy.deepcopy(self.disk), copy.deepcopy(self.disk)

    @rule()
    def the_user_makes_a_backup(self):
        shutil.copy(Path(self.root, "env"), Path(self.root, "env.bak1"))
        self.copied = copy.deepcopy(self.disk)

    @precondition(lambda self: self.copied is not None)
    @rule(who=who)
    def loads_the_backup_and_knows_no_earlier_state(self, who):
        self.envs[who] = Environment.load_from_file(Path(self.root, "env.bak1"))
        self.held[who], self.known[who] = copy.deepcopy(self.copied), {}

    @rule(who=who, send=st.sampled_from([lambda env: pickle.loads(pickle.dumps(env)), copy.deepcopy]))
    def sends_itself_elsewhere_and_knows_no_earlier_state(self, who, send):
        self.envs[who] = send(self.envs[who])
        self.known[who] = {}

    @rule(who=who, key=KEYS, value=values, saves=st.booleans())
    def sets(self, who, key, value, saves):
        self.envs[who][key] = value
        self.held[who][key] = copy.deepcopy(value)
        if saves:
            self.saves(who)

    @rule(who=who, key=KEYS, saves=st.booleans())
    def deletes(self, who, key, saves):
        self.envs[who].pop(key, None)
        self.held[who].pop(key, None)
        if saves:
            self.saves(who)

    @rule(who=who, key=KEYS, saves=st.booleans())
    def changes_in_place(self, who, key, saves):
        add_in_place(self.envs[who].get(key))
        add_in_place(self.held[who].get(key))
        if saves:
            self.saves(who)

    @rule(who=who, key=KEYS)
    def takes_a_change_back(self, who, key):
        if key in self.known[who]:
            self.sets(who, key, copy.deepcopy(self.known[who][key]), True)

    @rule(one=who, other=who, third=who, key=KEYS, value=values, later=values)
    def two_make_the_same_change_and_a_third_another(self, one, other, third, key, value, later):
        self.sets(one, key, value, True)
        self.sets(other, key, copy.deepcopy(value), True)
        self.sets(third, key, later, True)

    @rule(order=st.lists(who, min_size=1, max_size=4))
    def save_in_this_order(self, order):
        for who in order:
            self.saves(who)

    def saves(self, who):
        self.envs[who].dump()
        held, known = self.held[who], self.known[who]
        for key in "xyz":
            if key in held and (key not in known or held[key] != known[key]):
                self.disk[key] = copy.deepcopy(held[key])
            elif key in known and key not in held:
                self.disk.pop(key, None)
        self.known[who] = copy.deepcopy(held)

    @invariant()
    def the_last_change_of_each_key_is_on_disk(self):
        assert own(read(self.root)) == self.disk, (read(self.root), self.disk)
        assert set(os.listdir(self.root)) <= {"env", ".env.lock", "env.bak1"}

    @invariant()
    def a_save_alters_nothing_in_memory(self):
        assert [own(env) for env in self.envs] == self.held


TestExperiments, TestInterleavings = Experiments.TestCase, Interleavings.TestCase


# ---- Helpers of the examples


class Place(unittest.TestCase):
    """Each test has an empty working directory of its own."""

    def setUp(self):
        before = os.getcwd()
        self.root = Path(os.path.realpath(tempfile.mkdtemp(prefix="enostask-")))
        os.chdir(self.root)
        self.addCleanup(shutil.rmtree, self.root)
        self.addCleanup(os.chdir, before)

    def start(self, code, *arguments, **variables):
        """Start *code*, or the script of before if it is None, as a process of its own."""
        if code is not None:
            Path("script.py").write_text(textwrap.dedent(code), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(MODULE.parent), "PYTHONDONTWRITEBYTECODE": "1", **variables}
        command = [sys.executable, "script.py", *arguments]
        process = subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True)
        self.addCleanup(process.communicate)
        return process

    def script(self, code, *arguments, status=0, merged=False, **variables):
        """Run it; return what it printed."""
        process = self.start(code, *arguments, **variables)
        out, err = process.communicate(timeout=100)
        self.assertEqual(process.returncode, status, err)
        return out + err if status or merged else out

    @contextlib.contextmanager
    def refused(self, kind, *patterns):
        """Expect *kind*, with a message on one short line that has the *patterns*."""
        with self.assertRaises(kind) as caught:
            caught.error = None
            try:
                yield caught
            except kind as error:
                caught.error = error
                raise
        self.assertIs(type(caught.exception), kind)
        self.assertEqual(len(str(caught.exception).splitlines()), 1)
        self.assertLess(len(str(caught.exception)), 700)
        for pattern in patterns:
            self.assertRegex(str(caught.exception), pattern)

    def logged(self, level=logging.WARNING):
        return self.assertLogs("enostask", level)


def load(name="xp"):
    return get_or_create_env(False, name)


def items(directory, name="env"):
    return own(read(directory, name))


@enostask(new=True)
def begin(env, how):
    how(env)


class Machine:
    """A value of a class that can be imported."""

    def __init__(self, name):
        self.name, self.tags = name, ["tag"]

    def __eq__(self, other):
        return vars(self) == vars(other)


class Refusing(Exception):
    """Pickles, but does not unpickle."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


class OutOfMemory:
    """Loads where there is no memory left, as far as it is concerned."""

    armed = False

    def __init__(self):
        self.size = "huge"

    def __setstate__(self, state):
        if OutOfMemory.armed:
            raise MemoryError
        vars(self).update(state)


# ---- Crashes


def stop_at(number, stop):
    """Call *stop* in place of the call of that *number*, counted from here, that changes the disk; return the count."""
    count = []

    def counting(call, opens):
        def counted(*args, **kwargs):
            if not opens or args[1] & (os.O_WRONLY | os.O_RDWR):
                count.append(call)
                if len(count) == number:
                    stop()
            return call(*args, **kwargs)

        return counted

    for name in ("open", "mkdir", "symlink", "link", "fchmod", "fchown", "fsync", "replace", "rename", "unlink"):
        setattr(os, name, counting(getattr(os, name), name == "open"))
    return count


def stop_with(error):
    raise error


def saves(**items):
    env = get_or_create_env(False, "work")
    env.update(items)
    return env.dump


def merges():
    dump = saves(x=1)
    saves(z=3)()
    return dump


@unittest.skipUnless(hasattr(os, "fork"), "needs fork")
class Crashes(Place):
    """A process is killed, or its calls fail, at the first, second, ... call that changes the disk."""

    # What is prepared; then what `work` holds, before and afterwards; then where `current` leads.
    operations = {
        "save": (lambda: saves(x=1), {"x": 0}, {"x": 1}, "other"),
        "save but one value": (lambda: saves(x=iter, y=1, z=lambda: None), {"x": 0}, {"x": iter, "y": 1}, "other"),
        "merge": (merges, {"x": 0, "z": 3}, {"x": 1, "z": 3}, "other"),
        "new over work": (lambda: lambda: get_or_create_env(True, "work"), {"x": 0}, {}, "work"),
        "new": (lambda: lambda: get_or_create_env(True, "fresh/deep"), {"x": 0}, {"x": 0}, "fresh/deep"),
        "new elsewhere": (lambda: lambda: get_or_create_env(True, "../away"), {"x": 0}, {"x": 0}, "../away"),
    }
    stops = {
        "killed": lambda: os._exit(9),
        "EIO": lambda: stop_with(OSError(errno.EIO, "as planned")),
        "ENOSPC": lambda: stop_with(OSError(errno.ENOSPC, "as planned")),
        "interrupted": lambda: stop_with(KeyboardInterrupt()),
    }

    def test_the_state_is_old_or_new_whole_wherever_a_process_stops(self):
        for operation, (prepare, old, new, target) in self.operations.items():
            for kind, stop in self.stops.items():
                number, outcome = 0, "none yet"
                while outcome != "went through":
                    number += 1
                    with self.subTest(operation=operation, kind=kind, number=number):
                        here, outcome = self.root / operation / f"{kind}{number}" / "here", "went through"
                        here.mkdir(parents=True)
                        os.chdir(here)
                        for name in ("work", "other"):
                            begin(name, lambda env: env.update(x=0))
                            os.chmod(f"{name}/env", 0o640)
                        outcome = self.outcome(prepare(), number, stop)
                        self.check(outcome, old, new, target)
                self.assertGreater(number, 5)  # it was reached

    def outcome(self, action, number, stop):
        """Do *action* in a child that stops at the call of that *number*; return how that ended."""
        child = os.fork()
        if not child:
            status = 4
            try:
                count = stop_at(number, stop)
                with contextlib.suppress(EnosSaveError):
                    action()
                status = 0 if len(count) < number else 1
            except (OSError, EnosError, KeyboardInterrupt):
                status = 2
            finally:
                os._exit(status)
        return {0: "went through", 1: "returned", 2: "raised", 9: "killed"}[os.waitpid(child, 0)[1] >> 8]

    def check(self, outcome, old, new, target):
        held, link, aside = own(read("work")), os.path.relpath(os.path.realpath("current")), backups("work")
        self.assertIn(held, (old, new))
        self.assertIn(link, ("other", target))
        self.assertEqual((mode("work", "env"), mode("other", "env")), (0o640, 0o640))
        self.assertEqual([own(read("work", name)) for name in aside], [old] * len(aside))
        self.assertIn(len(aside), (target == "work", held != old and target == "work"))
        if link != "other":
            self.assertEqual(read(link), FRESH)
        if outcome in ("went through", "returned"):
            self.assertEqual((held, link), (new, target))
        if outcome != "killed":
            self.assertEqual([*Path("..").rglob(".*.tmp")], [])
        for name in ("work", "current"):
            change(name, lambda env: env.update(next=1))
            self.assertEqual([*Path(name).glob(".env.*.tmp")], [])
        self.assertEqual(own(read("work")), {**held, "next": 1})


# ---- Names


class Names(Place):
    def test_errors_show_one_line_and_survive_pickling_with_their_attributes(self):
        for error in (EnosFilePathError("a/b"), EnosSaveError("a/env", ["x"]), EnosFilePathError("a", "two\nlines")):
            with self.subTest(error=error):
                twin = pickle.loads(pickle.dumps(error))
                self.assertIsInstance(twin, EnosError)
                self.assertEqual((str(twin), vars(twin)), (str(error), vars(error)))
                self.assertEqual(len(str(error).splitlines()), 1)
        self.assertIn("'a/b'", str(EnosFilePathError("a/b")))
        self.assertIn("'x'", str(EnosSaveError("a/env", ["x"])))
        self.assertEqual((str(EnosError("why")), str(EnosError())), ("why", ""))

    def test_a_key_that_is_not_there_is_a_key_error_that_names_key_and_directory(self):
        env = get_or_create_env(True, "xp")
        for how in (lambda: env["machines"], lambda: env.pop("machines")):
            with self.assertRaises(KeyError) as caught:
                how()
            self.assertRegex(str(caught.exception), f"'machines' in {re.escape(str(self.root))}/xp: run the task")
        self.assertEqual((env.get("machines", 1), env.pop("machines", 2), "machines" in env), (1, 2, False))

    def test_print_and_pprint_show_the_data_as_those_of_any_user_dict(self):
        env = get_or_create_env(True, "xp")
        env["x"] = list(range(40))
        same = UserDict(env.data)
        self.assertEqual((str(env), repr(env), pprint.pformat(env)), (str(same), repr(same), pprint.pformat(same)))


# ---- A new environment


class ANewEnvironment(Place):
    def test_it_makes_the_directory_with_its_parents_and_holds_four_keys(self):
        env = Environment(Path("deep/er"))
        where = self.root / "deep/er"
        self.assertEqual(env.data, dict(resultdir=where, config_file=None, config={}, config_type="yaml"))
        self.assertEqual((env.env_name, os.listdir("deep/er")), (where, []))
        env.dump()
        self.assertEqual(load("deep/er").data, env.data)

    def test_a_directory_named_after_the_time_is_never_shared(self):
        here = [get_or_create_env(True, None).env_name for _ in range(5)]
        code = "from enostask import *\nprint(get_or_create_env(True, None).env_name)"
        here += [Path(process.communicate()[0].strip()) for process in [self.start(code), self.start(None), self.start(None)]]
        self.assertEqual(len(set(here)), 8)
        for path in here:
            self.assertRegex(path.name, r"^enos_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d$")

    def test_an_environment_is_returned_as_it_is_whatever_new_says(self):
        env = Environment("xp")
        self.assertIs(get_or_create_env(True, env), env)
        self.assertIs(get_or_create_env(False, env), env)
        self.assertEqual(os.listdir("xp"), [])

    def test_anything_else_is_the_stated_error_and_nothing_is_created(self):
        Path("file").write_text("precious")
        for name in ("fifo", "taken", "device"):
            os.mkdir(name)
        os.mkfifo("fifo/env")
        os.mkdir("taken/env")
        os.symlink(os.devnull, "device/env")
        get_or_create_env(True, "xp", symlink=False)
        before = sorted(os.walk("."))
        for given, advice in {
            20: "env is 20: give the directory.*later argument",
            "": "env is ''",
            b"xp": "env is b'xp'",
            (1,) * 100000: r"env is \(1, 1, 1.*give the directory",
            "file": "/file'",
            "file/sub": "/file/sub'",
            "xp/env": "/xp/env'",
            "a\0b": "null",
            "x" * 5000: "xxx",
            "fifo": "fifo.* no regular file",
            "taken": "taken.* no regular file",
            "device": "device.* no regular file",
            "current": "current' is absent",
        }.items():
            for new in (False, True):
                with self.subTest(given=str(given)[:20], new=new):
                    with self.refused(EnosFilePathError, advice) as refused:
                        get_or_create_env(new, given)
                    wanted = given if new or not isinstance(given, str) or not given else Path(given, "env")
                    self.assertEqual(refused.error.filepath, wanted)
                    self.assertEqual(sorted(os.walk(".")), before)

    def test_new_over_a_directory_keeps_what_is_in_it(self):
        begin("xp", lambda env: (env["resultdir"] / "results.csv").write_text("1,2"))
        get_or_create_env(True, "xp")
        self.assertEqual(Path("xp/results.csv").read_text(), "1,2")

    def test_new_by_the_name_current_is_the_directory_it_points_to(self):
        for way in ("current", "./current/", self.root / "current"):
            begin("xp", lambda env: env.update(n=1))
            get_or_create_env(True, way)
            self.assertEqual((items("xp"), os.readlink("current"), os.path.islink("current")), ({}, "xp", True))
        shutil.rmtree("xp")
        with self.refused(EnosFilePathError, "current' points to 'xp', which is gone.*new=True"):
            get_or_create_env(True, "current")
        self.assertFalse(os.path.exists("xp"))


# ---- current


class Current(Place):
    def test_it_is_relative_below_the_working_directory_and_absolute_otherwise(self):
        for name, target in (("a/b", "a/b"), (".", "."), ("../" + self.root.name + "/c", "c")):
            get_or_create_env(True, name)
            self.assertEqual(os.readlink("current"), target)
        with tempfile.TemporaryDirectory() as elsewhere:
            get_or_create_env(True, elsewhere)
            self.assertEqual(os.readlink("current"), os.path.realpath(elsewhere))

    def test_it_is_made_by_new_alone_and_not_without_symlink(self):
        for new, name, options, moved in (
            (True, "a", {}, True),
            (True, "b", dict(symlink=False), False),
            (False, "b", {}, False),
            (True, "c", dict(symlink=None), True),
        ):
            with self.subTest(name=name, options=options):
                before = os.readlink("current") if os.path.lexists("current") else None
                get_or_create_env(new, name, **options)
                self.assertEqual(os.readlink("current"), name if moved else before)

                @enostask(new=new, **options)
                def task(env=None, env_symlink=None):
                    return os.path.lexists("current") and os.readlink("current")

                self.assertEqual(task(env=f"{name}2" if new else name), f"{name}2" if moved else os.readlink("current"))
                before = os.readlink("current")
                self.assertEqual(task(env=f"{name}3" if new else name, env_symlink=False), before)

    def test_a_real_file_or_directory_of_that_name_is_never_touched(self):
        for make in (lambda: Path("current").write_text("precious"), lambda: (os.unlink("current"), os.mkdir("current"))):
            make()
            for name in ("xp", None, "current"):
                with self.refused(EnosFilePathError, "current' is no link.*symlink=False"):
                    get_or_create_env(True, name)
            self.assertEqual(os.listdir(), ["current"])
        with self.refused(EnosFilePathError, "no env in"):
            get_or_create_env(True, "current", symlink=False)
        get_or_create_env(True, "xp", symlink=False)

    def test_another_process_never_finds_it_missing(self):
        get_or_create_env(True, "a")
        watcher = self.start("""
            import os, sys
            print("ready", flush=True)
            while not os.path.exists("stop"):
                assert os.path.exists("current/env")
        """)
        watcher.stdout.readline()
        for number in range(100):
            get_or_create_env(True, "ab"[number % 2])
        Path("stop").touch()
        self.assertEqual(watcher.wait(), 0)

    def test_where_it_cannot_be_made_the_task_runs_unless_one_leads_elsewhere(self):
        code = """
            import errno, os, sys
            from enostask import enostask
            if "no links" in sys.argv:  # as on a file system without them
                def symlink(*_, **__):
                    raise OSError(errno.EPERM, "Operation not permitted")
                os.symlink = symlink
            @enostask(new=True)
            def up(env):
                print("ran")
            up(sys.argv[1])
        """
        self.assertEqual(self.script(code, "a", "no links", merged=True).count("cannot point"), 1)
        self.assertEqual(self.script(None, "a"), "ran\n")
        self.assertIn("ran", self.script(None, "a", "no links"))
        said = self.script(None, "b", "no links", status=1)
        self.assertRegex(said, "EnosFilePathError: cannot point .*/current' to .*/b: .*permitted; remove it")
        self.assertNotIn("ran", said)


# ---- Tasks


class Tasks(Place):
    def setUp(self):
        super().setUp()
        get_or_create_env(True, "xp")
        get_or_create_env(True, "other", symlink=False)

    def test_the_specifier_is_found_wherever_it_was_given(self):
        @enostask()
        def first(env, n=0, **options):
            return env.env_name.name, n, sorted(options)

        @enostask()
        def second(n, env=None):
            return env.env_name.name, n, []

        @enostask()
        def rest(**options):
            return options.pop("env").env_name.name, options.get("n", 0), sorted(set(options) - {"n"})

        def wrapped(env, n):
            return env.env_name.name, n, []

        @enostask()
        @functools.wraps(wrapped)
        def wrapper(*args, **kwargs):
            return wrapped(*args, **kwargs)

        @enostask()
        @functools.wraps(lambda n: None)
        def unwrapping(env, n):
            return wrapped(env, n)

        bound = enostask()(functools.partial(wrapped, env="other"))
        for found, wanted in (
            (first(), ("xp", 0, [])),
            (first("other", 3), ("other", 3, [])),
            (first(env="other", n=3), ("other", 3, [])),
            (first(Path("other")), ("other", 0, [])),
            (first(load("other")), ("other", 0, [])),
            (first(None, 3), ("xp", 3, [])),
            (first("xp", **{"--env": "other"}), ("other", 0, ["--env"])),
            (first(**{"--env": None, "env": "other"}), ("other", 0, ["--env"])),
            (first(env_symlink=False), ("xp", 0, ["env_symlink"])),
            (second(3), ("xp", 3, [])),
            (second(3, "other"), ("other", 3, [])),
            (rest(env="other", n=3), ("other", 3, [])),
            (rest(**{"--env": "other"}), ("other", 0, ["--env"])),
            (wrapper("other", 3), ("other", 3, [])),
            (wrapper(env="other", n=3), ("other", 3, [])),
            (unwrapping("other", 3), ("other", 3, [])),
            (bound(n=3), ("other", 3, [])),
            (bound(n=3, env="xp"), ("xp", 3, [])),
        ):
            self.assertEqual(found, wanted)
        with self.refused(EnosFilePathError, "env is 20: .*later argument"):
            first(20)
        with self.assertRaisesRegex(TypeError, "multiple values"):
            first(3, env="other")

    def test_a_new_task_that_cannot_be_called_so_is_a_type_error_before_anything_is_made(self):
        @enostask(new=True)
        def up(env, count=2):
            env["count"] = count

        before = sorted(os.walk("."))
        for args, options in (((), dict(cuont=3)), (("a", 3, 4), {}), (("a",), dict(env="b"))):
            with self.assertRaises(TypeError):
                up(*args, **options)
        self.assertEqual((sorted(os.walk(".")), os.readlink("current")), (before, "xp"))
        up(env="a", count=3)
        self.assertEqual(items("a"), {"count": 3})

    def test_every_form_of_function_is_saved_when_it_ends(self):
        class Steps:
            def method(self, env, n):
                env["n"] = n
                return n

            __call__ = method

        @enostask()
        async def coroutine(env, n):
            await asyncio.sleep(0)
            env["n"] = n
            return n

        @enostask()
        def generator(env, n):
            env["n"] = -1
            try:
                yield n
            finally:
                env["n"] = n
            return n

        def looped(n):
            (got,) = generator(n=n)
            return got

        def managed(n):
            with contextlib.contextmanager(generator)(n=n) as got:
                self.assertEqual(items("xp").get("n"), n - 1)
                return got

        def closed(n):
            running = generator(n=n)
            got = next(running)
            running.close()
            return got

        Steps.task = enostask()(Steps.method)
        forms = (Steps().task, enostask()(Steps()), enostask(functools.partial(Steps().method)))
        forms += (enostask()(Steps().method), lambda n: asyncio.run(coroutine(n=n)), looped, managed, closed)
        for n, form in enumerate(forms):
            with self.subTest(form=form):
                self.assertEqual((form(n=n), items("xp")), (n, {"n": n}))
        self.assertEqual((forms[2].__name__, Steps.task.__doc__), ("method", Steps.method.__doc__))

    def test_it_is_saved_however_it_ends_and_the_caller_sees_its_exception(self):
        for n, error in enumerate((ValueError(1), SystemExit(0), SystemExit(3), KeyboardInterrupt(), StopIteration(2))):
            with self.subTest(error=error), self.assertRaises(type(error)) as caught:
                change("xp", lambda env: env.update(n=n), error=error)
            self.assertIs(caught.exception, error)
            self.assertEqual(items("xp"), {"n": n})

        @enostask()
        async def waiting(env):
            env["n"] = "cancelled"
            await asyncio.sleep(60)

        async def cancel():
            running = asyncio.ensure_future(waiting())
            await asyncio.sleep(0.01)
            running.cancel()
            await running

        with self.assertRaises(asyncio.CancelledError):
            asyncio.run(cancel())
        self.assertEqual(items("xp"), {"n": "cancelled"})

    def test_a_failed_save_behind_a_failed_task_is_logged_and_noted_and_raised_behind_success(self):
        def how(env):
            env["bad"] = lambda: None

        with self.logged(logging.ERROR) as log, self.assertRaises(ValueError) as caught:
            change("xp", how, error=ValueError("mine"))
        self.assertRegex(log.output[0], "(?s)change.*Traceback.*EnosSaveError.*'bad'")
        if sys.version_info >= (3, 11):
            self.assertRegex(caught.exception.__notes__[0], "saved.*'bad'")
        for error in (None, SystemExit(), SystemExit(0), SystemExit(None)):
            with self.subTest(error=error), self.refused(EnosSaveError, "'bad'"):
                change("xp", how, error=error)
        with self.assertRaises(SystemExit), self.logged(logging.ERROR):
            change("xp", how, error=SystemExit(1))

    def test_what_can_be_no_task_is_refused_at_decoration(self):
        class Command:
            def __call__(self, *args, **kwargs):
                """Like a command of click."""

        async def stream(env):
            yield 1

        for function in (
            lambda: None,
            lambda n: None,
            lambda *env: None,
            property(lambda self: 1),
            staticmethod(lambda env: None),
            classmethod(lambda cls, env: None),
            Command(),
            int,
        ):
            for decorator in (enostask, enostask(), enostask(new=True)):
                with self.assertRaisesRegex(TypeError, "takes no env by keyword: write @enostask right above def"):
                    decorator(function)
        with self.assertRaisesRegex(TypeError, "stream cannot be a task: it is an async generator"):
            enostask()(stream)
        exec("def only(env, /): pass\n", globals())
        with self.assertRaisesRegex(TypeError, "only takes no env by keyword"):
            enostask()(globals().pop("only"))
        for arguments in (("xp1",), (None,), (1,), (True, "xp1"), (False, 0)):
            with self.assertRaisesRegex(TypeError, "True or False"):
                enostask(*arguments)

    def test_a_coroutine_that_was_not_declared_is_a_type_error(self):
        async def body(env):
            env["n"] = 1

        with self.assertRaisesRegex(TypeError, "returned a coroutine: declare"):
            enostask()(functools.wraps(body)(lambda env: body(env)))()

    def test_it_looks_like_the_function_and_pickles_by_reference(self):
        self.assertEqual((change.__name__, change.__doc__), ("change", change.__wrapped__.__doc__))
        self.assertIs(pickle.loads(pickle.dumps(change)), change)

    def test_nested_tasks_share_an_environment_that_is_handed_on_and_merge_otherwise(self):
        @enostask()
        def inner(env, n):
            env["inner"] = n

        @enostask()
        def outer(env, hand_on):
            inner(env=env, n=1) if hand_on else inner(n=2)
            env["outer"] = 1
            return env.get("inner")

        self.assertEqual((outer(hand_on=True), items("xp")), (1, {"inner": 1, "outer": 1}))
        self.assertEqual((outer(hand_on=False), items("xp")), (1, {"inner": 2, "outer": 1}))

    def test_it_is_logged_with_the_directory_and_nothing_is_printed(self):
        with self.logged(logging.INFO) as log, contextlib.redirect_stdout(io.StringIO()) as printed:
            change("xp", lambda env: None)
            with self.assertRaises(ValueError):
                change("xp", lambda env: None, error=ValueError())
        where = re.escape(str(self.root / "xp"))
        for line, wanted in zip(log.output, ("started", r"finished in 0\.\d s", "started", r"failed after 0\.\d s")):
            self.assertRegex(line, f"INFO:{module.__name__}:Task change {wanted} in {where}$")
        self.assertEqual((len(log.output), printed.getvalue()), (4, ""))

    def test_the_config_file_is_read_again_before_the_task_runs(self):
        Path("c.json").write_text('{"load": 1}')
        change("xp", lambda env: env.update(config_file="c.json"))
        Path("c.json").write_text('{"load": 2}')
        change("xp", lambda env: env.update(seen=env["config"]["load"]))
        self.assertEqual(items("xp")["seen"], 2)


# ---- Loading


class Loading(Place):
    def test_what_cannot_be_loaded_is_the_stated_error_and_is_not_touched(self):
        begin("xp", lambda env: env.update(x=Refusing(1, 2)))
        refusing = Path("xp/env").read_bytes()
        begin("xp", lambda env: env.update(x=Machine("m1")))
        whole = Path("xp/env").read_bytes()
        for content, wanted, cause in (
            (b"", "EOFError.*restore a backup", EOFError),
            (whole[:-9], "mend that, or restore a backup", Exception),
            (b"hello", "mend that", Exception),
            (pickle.dumps([1]), "it holds a list, not an Environment", pickle.UnpicklingError),
            (pickle.dumps(UserDict(env_name=1)), "it holds a UserDict", pickle.UnpicklingError),
            (refusing, "TypeError: .*'two'", TypeError),
            (whole.replace(b"Machine", b"Gadgets"), r"needs \w+\.Gadgets, which cannot be found.*install", AttributeError),
            (whole.replace(b"test_enostask", b"no_such_thing"), r"no_such_thing\.Machine, which.*ModuleNot", ImportError),
        ):
            with self.subTest(content=content[:40], wanted=wanted):
                Path("xp/env").write_bytes(content)
                with self.refused(EnosFilePathError, "cannot load '.*/xp/env'", wanted) as refused:
                    load()
                self.assertIsInstance(refused.error.__cause__, cause)
                self.assertEqual(Path("xp/env").read_bytes(), content)

    def test_a_missing_one_is_one_traceback_that_says_what_is_missing(self):
        os.mkdir("results")
        get_or_create_env(True, "xp")
        for given, wanted in (
            ("nix", "/nix' is absent: run a task with new=True"),
            ("results", "no env in '.*/results': name the directory of an environment, or restore"),
            ("xp/env", "/xp/env' is a file: name the directory"),
        ):
            with self.refused(EnosFilePathError, wanted) as refused:
                load(given)
            self.assertTrue(refused.error.__suppress_context__)
        with self.refused(EnosFilePathError, "no env.bak7 in"):
            Environment.load_from_file("xp/env.bak7")
        shutil.rmtree("xp")
        with self.refused(EnosFilePathError, "current' points to 'xp', which is gone"):
            get_or_create_env(False, None)
        os.unlink("current")
        with self.refused(EnosFilePathError, "current' is absent: run a task with new=True first"):
            get_or_create_env(False, None)

    def test_a_class_of_the_script_says_how_to_get_the_data_back(self):
        self.script("""
            from enostask import enostask
            class Host: pass
            @enostask(new=True)
            def up(env):
                env["host"] = Host()
            up("xp")
        """)
        with self.refused(EnosFilePathError, r"needs __main__\.Host, a class of the script.*import it in this script"):
            load()
        Path("hosts.py").write_text("class Host: pass")
        code = "from enostask import *\nfrom hosts import Host\nenv = get_or_create_env(False, 'xp')\nenv.dump()\n"
        self.script(code + "env['n'] = 1\nenv.dump()")
        sys.path.insert(0, str(self.root))
        self.addCleanup(sys.path.remove, str(self.root))
        self.assertEqual(type(load()["host"]).__module__, "hosts")

    def test_a_class_of_the_script_that_a_spawned_worker_saved_loads(self):
        code = """
            import multiprocessing, sys
            from enostask import enostask
            class Host: pass
            @enostask()
            def work(env):
                env["host"] = Host()
            @enostask(new=True)
            def up(env): pass
            @enostask()
            def look(env):
                print(type(env["host"]) is Host)
            if __name__ == "__main__":
                up("xp")
                process = multiprocessing.get_context("spawn").Process(target=work)
                process.start(); process.join(); assert process.exitcode == 0
                look()
        """
        self.assertEqual(self.script(code), "True\n")

    def test_a_directory_that_was_moved_loads_and_resultdir_follows_unless_set_elsewhere(self):
        for results, wanted in (
            (None, "moved/xp"),
            ("xp/sub", "moved/xp/sub"),
            (str(self.root / "xp"), str(self.root / "moved/xp")),
            ("/elsewhere", Path("/elsewhere")),
            (7, 7),
        ):
            with self.subTest(results=results):
                env = get_or_create_env(True, "xp")
                if results:
                    env["resultdir"] = results if results in (7, str(self.root / "xp")) else self.root / results
                    env.dump()
                os.makedirs("moved", exist_ok=True)
                os.rename("xp", "moved/xp")
                env = load("moved/xp")
                self.assertEqual(env.env_name, self.root / "moved/xp")
                wanted = self.root / wanted if isinstance(results, (str, type(None))) and type(wanted) is not str else wanted
                self.assertEqual(env["resultdir"], self.root / "moved/xp" if results is None else wanted
                                 if results != "xp/sub" else self.root / "moved/xp/sub")
                shutil.rmtree("moved")

    def test_what_one_copy_saved_any_other_loads_with_its_errors(self):
        os.makedirs("pkg/sub")
        for name in ("tasks_of_mine.py", "pkg/sub/vendored.py"):
            shutil.copy(MODULE, name)
        for name in ("pkg/__init__.py", "pkg/sub/__init__.py"):
            Path(name).touch()
        get_or_create_env(True, "xp")
        for copy_name in ("tasks_of_mine", "pkg.sub.vendored", "enostask"):
            code = f"""
                from {copy_name} import *
                env = get_or_create_env(False, "xp")
                assert type(env) is Environment, type(env)
                error = env.get("error", EnosFilePathError("a"))
                assert type(error) is EnosFilePathError, type(error)
                env["error"], env["by"] = error, {copy_name!r}
                env.dump()
            """
            self.script(code)
            self.assertEqual(load()["by"], copy_name)

    def test_it_travels_by_pickle_and_copy_with_its_data_and_name(self):
        env = get_or_create_env(True, "xp")
        env["x"] = [1]
        for twin in (pickle.loads(pickle.dumps(env)), pickle.loads(env.dumps()), copy.copy(env), copy.deepcopy(env), env.copy()):
            self.assertEqual((type(twin), twin.data, twin.env_name), (Environment, env.data, env.env_name))

    @given(st.binary(max_size=30), st.integers(0, 10**6), st.booleans())
    def test_a_damaged_checkpoint_loads_or_is_the_stated_error(self, noise, where, insert):
        with tempfile.TemporaryDirectory() as directory:
            env = Environment(directory)
            env["x"] = [Path("a"), {1.5: {"s"}}, datetime.datetime(2026, 11, 22), b"bytes", Machine("m")]
            content = bytearray(env.dumps())
            at = where % len(content)
            content[at : at if insert else at + len(noise)] = noise.replace(b"r", b"").replace(b"\x96", b"")
            Path(directory, "env").write_bytes(content)
            with contextlib.suppress(EnosFilePathError):
                Environment.load_from_file(Path(directory, "env"))
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                self.assertIn(module.main([directory]), (0, 1))


VALUES_OF_ALL_KINDS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(), st.dates()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner), st.tuples(inner, inner)),
    max_leaves=8,
) | st.sets(st.text())


# ---- Nothing is lost


class NothingIsLost(Place):
    def setUp(self):
        super().setUp()
        self.env = get_or_create_env(True, "xp")

    def dumped(self, **items):
        env = load()
        env.update(items)
        env.dump()
        return env

    @given(VALUES_OF_ALL_KINDS)
    def test_every_value_reads_back_and_looking_at_it_writes_nothing(self, value):
        with tempfile.TemporaryDirectory() as directory:
            env = get_or_create_env(True, directory, symlink=False)
            env["x"] = value
            env.dump()
            before = os.stat(Path(directory, "env"))
            again = load(directory)
            self.assertEqual(again.data, env.data)
            if not isinstance(value, set):
                again.dump()
                self.assertEqual(os.stat(Path(directory, "env")).st_ino, before.st_ino)

    def test_a_save_that_merged_keeps_what_others_added_when_it_saves_again(self):
        mine, theirs = load(), load()
        theirs["theirs"] = 1
        theirs.dump()
        for n in range(3):
            mine["mine"] = n
            mine.dump()
            self.assertEqual(items("xp"), {"theirs": 1, "mine": n})
            self.assertNotIn("theirs", mine)

    def test_the_same_change_by_two_is_a_change_that_each_has_saved(self):
        self.dumped(x=0)
        first, second = load(), load()
        for env in (first, second):
            env["x"] = 1
            env.dump()
        self.dumped(x=2)
        second["y"] = 1
        second.dump()
        self.assertEqual(items("xp"), {"x": 2, "y": 1})
        first["x"] = 0
        with self.logged():
            first.dump()
        self.assertEqual(items("xp"), {"x": 0, "y": 1})
        second["x"] = 0
        second.dump()
        second["x"] = 1
        second.dump()
        self.assertEqual(items("xp"), {"x": 1, "y": 1})

    def test_where_both_changed_a_key_the_later_save_wins_and_the_log_names_it(self):
        mine = load()
        self.dumped(x=1, same=1)
        mine.update(x=2, same=1)
        with self.logged() as log:
            mine.dump()
        self.assertEqual(items("xp"), {"x": 2, "same": 1})
        self.assertRegex("".join(log.output), "Two tasks changed 'x' in .*/xp/env: the later save wins$")

    def test_deletions_merge(self):
        self.dumped(a=1, b=1, c=1)
        mine = load()
        theirs = load()
        del theirs["a"]
        theirs.dump()
        del mine["b"]
        mine.dump()
        self.assertEqual(items("xp"), {"c": 1})

    def test_only_the_layout_is_no_change(self):
        """Shared strings, the order of a set, a subclass of set: another's change of that key is taken over."""
        text = "".join(["shared", " text"])

        class_of_sets = Tags
        for value, same in (
            ([text, text], [text, "".join(["shared", " text"])]),
            ({"a" * n for n in range(50)}, set(sorted({"a" * n for n in range(50)}, reverse=True))),
            (class_of_sets("abcdefghijk"), class_of_sets("kjihgfedcba")),
            ({1: frozenset({"x", ("y", Path("z"))})}, {1: frozenset({("y", Path("z")), "x"})}),
        ):
            with self.subTest(value=value):
                self.dumped(x=value, n=0)
                mine = load()
                mine["x"] = same
                self.dumped(x="theirs")
                mine["n"] = 1
                mine.dump()
                self.assertEqual((load()["x"], load()["n"]), ("theirs", 1))

    def test_a_change_deep_inside_is_one(self):
        self.dumped(x={"a": [{"b": {1}}]})
        mine = load()
        self.dumped(n=1)
        mine["x"]["a"][0]["b"].add(2)
        mine.dump()
        self.assertEqual(items("xp"), {"x": {"a": [{"b": {1, 2}}]}, "n": 1})

    def test_one_that_knows_no_earlier_state_adds_and_deletes_nothing(self):
        self.dumped(old=1)
        shutil.copy("xp/env", "xp/env.bak9")
        for source in (
            lambda: pickle.loads(pickle.dumps(load())),
            lambda: copy.deepcopy(load()),
            lambda: Environment.load_from_file("xp/env.bak9"),
        ):
            env = source()
            self.dumped(since=1)
            del env["old"]
            env["mine"] = 1
            env.dump()
            self.assertEqual(items("xp"), {"old": 1, "since": 1, "mine": 1})
            for key in ("since", "mine"):
                env = load()
                del env[key]
                env.dump()

    def test_running_out_of_memory_in_a_merge_changes_nothing(self):
        self.dumped(x=OutOfMemory(), y=1)
        mine = load()
        self.dumped(y=2)
        mine["z"] = 1
        before = Path("xp/env").read_bytes()
        OutOfMemory.armed = True
        self.addCleanup(setattr, OutOfMemory, "armed", False)
        with self.assertRaises(MemoryError):
            mine.dump()
        with self.assertRaises(MemoryError):
            get_or_create_env(True, "xp")
        self.assertEqual((Path("xp/env").read_bytes(), backups("xp")), (before, []))
        OutOfMemory.armed = False
        mine.dump()
        self.assertEqual((items("xp")["y"], items("xp")["z"]), (2, 1))

    def test_a_value_that_cannot_be_compared_counts_as_changed(self):
        self.dumped(x=Once(), n=1)
        mine = load()
        self.env["x"], self.env["n"] = 1, 2
        self.env.dump()
        mine["x"] = 2
        with self.logged() as log:
            mine.dump()
        self.assertIn("'x'", log.output[0])
        self.assertEqual(items("xp"), {"x": 2, "n": 2})

    def test_a_value_that_cannot_be_pickled_costs_only_itself(self):
        self.dumped(kept=1)
        env = load()
        env.update(kept=lambda: None, fresh=threading.Lock(), good=1)
        for _ in range(2):
            with self.refused(EnosSaveError, "/xp/env is saved, but.*'kept' .*'fresh' .*pickle.*; store something") as refused:
                env.dump()
            self.assertEqual((refused.error.keys, refused.error.filepath), (["kept", "fresh"], str(self.root / "xp/env")))
            self.assertEqual(items("xp"), {"kept": 1, "good": 1})
            self.assertTrue(callable(env["kept"]))
        env.update(kept=2, fresh=3)
        env.dump()
        self.assertEqual(items("xp"), {"kept": 2, "good": 1, "fresh": 3})

    def test_what_cannot_be_loaded_here_is_kept_aside_by_new_and_by_a_save(self):
        env = load()
        for n, how in enumerate((lambda: get_or_create_env(True, "xp"), lambda: (env.update(n=len(os.listdir("xp"))), env.dump()))):
            Path("xp/env").write_bytes(b"damaged")
            with self.logged() as log:
                how()
            self.assertRegex(log.output[0], f"Kept the checkpoint .*/xp/env as env.bak{n + 1}: ")
            self.assertEqual(Path(f"xp/env.bak{n + 1}").read_bytes(), b"damaged")
        self.assertIn("n", items("xp"))
        env["x"] = Refusing(1, 2)
        env.dump()
        env.update(x=lambda: None, m=1)
        with self.assertRaises(EnosSaveError):
            env.dump()
        self.assertEqual(backups("xp"), ["env.bak1", "env.bak2", "env.bak3"])
        self.assertEqual((items("xp")["m"], "x" in items("xp")), (1, False))

    def test_new_keeps_work_as_the_next_backup_but_no_fresh_checkpoint(self):
        get_or_create_env(True, "xp")
        self.assertEqual(backups("xp"), [])
        self.dumped(x=1)
        os.chmod("xp/env", 0o640)
        for name in ("env.bak9", "env.bakery", "env.bak"):
            Path("xp", name).touch()
        with self.logged():
            get_or_create_env(True, "xp")
        self.assertEqual((items("xp"), items("xp", "env.bak10")), ({}, {"x": 1}))
        self.assertEqual({stat.S_IMODE(os.stat(f"xp/{name}").st_mode) for name in ("env", "env.bak10")}, {0o640})
        shutil.copy("xp/env.bak10", "xp/env")
        self.assertEqual(items("xp"), {"x": 1})

    def test_a_task_that_only_looks_writes_nothing_and_takes_no_lock(self):
        self.dumped(x={"a": [1, "a"]})
        os.unlink("xp/.env.lock")
        before = os.stat("xp/env")
        change("xp", lambda env: env["x"])
        load().dump()
        after = os.stat("xp/env")
        self.assertEqual((after.st_ino, after.st_mtime_ns), (before.st_ino, before.st_mtime_ns))
        self.assertFalse(os.path.exists("xp/.env.lock"))

    def test_a_task_that_tore_its_environment_down_leaves_it_so_unless_it_changed_something(self):
        for name in ("xp", "xp/env"):
            with self.subTest(name=name):
                get_or_create_env(True, "xp")
                change("xp", lambda env: shutil.rmtree("xp") if name == "xp" else os.unlink(name))
                self.assertFalse(os.path.exists(name))
                get_or_create_env(True, "xp")
                with self.logged() as log:
                    change("xp", lambda env: (shutil.rmtree("xp"), env.update(x=1)))
                self.assertRegex(log.output[0], "/xp/env is gone: making it again")
                self.assertEqual(items("xp"), {"x": 1})
                with self.refused(EnosSaveError, "'x'"):
                    change("xp", lambda env: (shutil.rmtree("xp"), env.update(x=lambda: None)))
        env = load()
        shutil.rmtree("xp")
        with self.logged():
            env.dump()
        self.assertEqual(items("xp"), {"x": 1})
        env = Environment("made")
        change(env, lambda env: None)
        self.assertEqual(items("made"), {})

    def test_the_mode_and_owner_are_kept_and_a_new_one_follows_the_umask(self):
        before = os.umask(0o027)
        self.addCleanup(os.umask, before)
        get_or_create_env(True, "masked")
        self.assertEqual(stat.S_IMODE(os.stat("masked/env").st_mode), 0o640)
        for mode in (0o600, 0o664, 0o444):
            os.chmod("xp/env", mode)
            if os.geteuid() == 0:
                os.chown("xp/env", 1234, 4321)
                os.chmod("xp/env", mode)
            self.dumped(mode=mode)
            found = os.stat("xp/env")
            self.assertEqual((items("xp")["mode"], stat.S_IMODE(found.st_mode)), (mode, mode))
            if os.geteuid() == 0:
                self.assertEqual((found.st_uid, found.st_gid), (1234, 4321))

    @unittest.skipUnless(hasattr(os, "geteuid") and os.geteuid() == 0, "only root can give files away")
    def test_where_owner_or_group_cannot_be_kept_the_new_group_gets_nothing(self):
        os.chmod(self.root, 0o777)
        os.chmod("xp", 0o777)
        for groups, wanted in (([4321], (1234, 4321, 0o664)), ([], (1234, 1234, 0o604))):
            os.chown("xp/env", 99, 4321)
            os.chmod("xp/env", 0o664)
            for name in ("xp/.env.lock", "xp/env.log"):
                if os.path.exists(name):
                    os.chmod(name, 0o644)
            self.script(f"""
                import logging, os
                from enostask import *
                env = get_or_create_env(False, "xp")
                os.setgroups({groups}); os.setgid(1234); os.setuid(1234)
                env["n"] = {groups}
                env.dump()
            """)
            found = os.stat("xp/env")
            self.assertEqual((found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)), wanted)

    def test_a_mode_that_is_right_already_is_not_set_again(self):
        code = """
            import os
            from enostask import *
            def refuse(*_):
                raise PermissionError(1, "Operation not permitted")
            os.chmod("xp/env", 0o600)
            env = get_or_create_env(False, "xp")
            os.fchmod = os.fchown = os.chmod = os.chown = refuse  # as on a network share with fixed owners
            env["n"] = 1
            env.dump()
        """
        self.script(code)
        self.assertEqual(items("xp"), {"n": 1})

    def test_a_checkpoint_that_is_a_link_is_written_through(self):
        os.makedirs("store")
        os.rename("xp/env", "store/real")
        os.symlink("../store/real", "xp/env")
        self.dumped(x=1)
        get_or_create_env(True, "xp")
        self.dumped(y=1)
        self.assertTrue(os.path.islink("xp/env"))
        self.assertEqual((items("xp"), items("xp", "env.bak1")), ({"y": 1}, {"x": 1}))
        self.assertEqual(sorted(os.listdir("store")), [".env.lock", "real"])

    def test_identity_between_values_is_kept_also_by_a_merge(self):
        shared = [1]
        self.dumped(a=shared, b=shared)
        mine = load()
        theirs = load()
        theirs["c"] = theirs["d"] = {}
        theirs.dump()
        mine["n"] = 1
        mine.dump()
        merged = load()
        self.assertIs(merged["a"], merged["b"])
        self.assertIs(merged["c"], merged["d"])

    def test_where_locks_do_not_work_the_save_goes_on(self):
        code = """
            import errno, fcntl
            from enostask import *
            def flock(*_):
                raise OSError(errno.{}, "no locks here")
            fcntl.flock = flock
            env = get_or_create_env(False, "xp")
            env["n"] = 1
            {}
        """
        self.script(code.format("ENOLCK", "env.dump()"))
        self.assertEqual(items("xp"), {"n": 1})
        self.assertIn("no locks here", self.script(code.format("EIO", "env['n'] = 2; env.dump()"), status=1))
        self.assertEqual(items("xp"), {"n": 1})

    def test_several_processes_and_threads_lose_no_key(self):
        code = """
            import sys, threading
            from enostask import enostask
            @enostask()
            def step(env, key):
                env[key] = key
            def steps(who):
                for number in range(15):
                    step("xp", f"{who} {number}")
            threads = [threading.Thread(target=steps, args=(f"{sys.argv[1]} {n}",)) for n in range(2)]
            [thread.start() for thread in threads]; [thread.join() for thread in threads]
        """
        processes = [self.start(code, "a"), self.start(None, "b"), self.start(None, "c")]
        self.assertEqual([process.wait() for process in processes], [0, 0, 0])
        self.assertEqual(set(items("xp")), {f"{w} {t} {n}" for w in "abc" for t in (0, 1) for n in range(15)})
        lines = Path("xp/env.log").read_text().splitlines()
        self.assertEqual(len(lines), 2 * 90)
        for line in lines:
            self.assertRegex(line, r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  step      (started   host .*, pid \d+, Python 3\.\S+|finished  \d+\.\d s)$")

    def test_a_signal_handler_that_saves_in_the_midst_of_a_save_gets_an_error_and_no_hang(self):
        self.script("""
            import errno, signal
            from enostask import *
            env, other = get_or_create_env(False, "xp"), get_or_create_env(False, "xp")
            refused = []
            def handler(*_):
                other["n"] = other.get("n", 0) + 1
                try:
                    other.dump()
                except OSError as error:
                    assert error.errno == errno.EDEADLK, error
                    refused.append(1)
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0007)
            number = 0
            while number < 300 or not refused and number < 3000:
                number += 1
                env["x"] = number
                env.dump()
            signal.setitimer(signal.ITIMER_REAL, 0)
            env["x"] = -1
            env.dump()
            other.dump()
            assert refused
        """)
        self.assertEqual(items("xp")["x"], -1)

    def test_what_a_killed_save_left_goes_and_nothing_else(self):
        kept = (".env.production.tmp", ".env.0123456789abcdef.tmp2", "results.tmp")
        for name in (".env.0123456789abcdef.tmp", *kept):
            Path("xp", name).write_text("half")
        self.dumped(x=1)
        self.assertEqual(set(os.listdir("xp")), {"env", ".env.lock", *kept})

    def test_the_file_is_synced_before_it_is_renamed_and_the_directory_after(self):
        said = self.script("""
            import os, stat
            from enostask import *
            env = get_or_create_env(False, "xp")
            def told(name, function):
                def call(*args, **kwargs):
                    found = function(*args, **kwargs)
                    path = os.readlink(f"/proc/self/fd/{args[0]}") if name == "fsync" else str(args[1])
                    print(name, os.path.relpath(path), flush=True)
                    return found
                setattr(os, name, call)
            for name in ("fsync", "replace", "symlink"):
                told(name, getattr(os, name))
            env["x"] = 1
            env.dump()
            print("--")
            get_or_create_env(True, "deep/er")
        """)
        said = re.sub(r"\\.env\\.[0-9a-f]+\\.tmp", "TMP", said)
        saved, made = said.split("--\n")
        self.assertEqual(re.sub(r"\.env\.[0-9a-f]+\.tmp", "TMP", saved), "fsync xp/TMP\nreplace xp/env\nfsync xp\n")
        made = re.sub(r"\.(env|current)\.[0-9a-f]+\.tmp", "TMP", made).split("\n")
        wanted = ["fsync deep/er/TMP", "replace deep/er/env", "fsync deep/er", "symlink TMP", "replace current", "fsync ."]
        self.assertEqual(sorted(made[:2]), ["fsync .", "fsync deep"])
        self.assertEqual(made[2:-1], wanted)

    @unittest.skipUnless(os.geteuid() == 0 and sys.platform == "linux", "mounts need root")
    def test_a_full_or_read_only_disk_changes_nothing_and_lets_tasks_look(self):
        os.mkdir("disk")
        if subprocess.call(["mount", "-t", "tmpfs", "-o", "size=64k", "none", "disk"], stderr=subprocess.DEVNULL):
            self.skipTest("no tmpfs can be mounted here")
        self.addCleanup(subprocess.call, ["umount", "-l", str(self.root / "disk")])
        look = """
            from enostask import *
            @enostask()
            def look(env):
                return len(env["tags"])
            print(look("disk/xp"))
        """
        begin("disk/xp", lambda env: env.update(tags={"a" * n for n in range(50)}, x=1))
        before = Path("disk/xp/env").read_bytes()
        Path("disk/filler").touch()
        with contextlib.suppress(OSError), open("disk/filler", "wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        for state in ("full", "read-only"):
            with self.subTest(state=state):
                for seed in "123":
                    self.assertEqual(self.script(look, PYTHONHASHSEED=seed), "50\n")
                env = load("disk/xp")
                env["x"] = "y" * 8192
                with self.assertRaises(OSError):
                    env.dump()
                with self.assertRaises((OSError, EnosFilePathError)):
                    get_or_create_env(True, "disk/xp", symlink=False)
                self.assertEqual(Path("disk/xp/env").read_bytes(), before)
                self.assertEqual([name for name in os.listdir("disk/xp") if name.endswith("tmp")], [])
            subprocess.check_call(["mount", "-o", "remount,ro", str(self.root / "disk")])
        with self.logged(logging.DEBUG) as log:
            change("disk/xp", lambda env: env["x"])
        self.assertEqual(sum("cannot be written" in line for line in log.output), 1)
        self.assertEqual(sum("DEBUG" in line for line in log.output), 1)


class Tags(set):
    """A set of one's own."""


class Once:
    """Can be pickled, but what was unpickled cannot."""

    def __reduce__(self):
        if vars(self):
            raise ValueError("once is enough")
        return Once.loaded, ()

    @classmethod
    def loaded(cls):
        found = cls()
        found.again = True
        return found


# ---- Config file


class Config(Place):
    def setUp(self):
        super().setUp()
        self.env = get_or_create_env(True, "xp")

    def test_it_updates_config_from_json_by_suffix_or_by_config_type(self):
        self.env["config"] = {"kept": 1, "load": 0}
        Path("c.json").write_text('{"load": 1}')
        Path("c.conf").write_text('{"load": 2}')
        for config_file, config_type, load_ in (("c.json", "yaml", 1), (self.root / "c.conf", "json", 2), ("c.json", "x", 1)):
            self.env.update(config_file=config_file, config_type=config_type)
            self.env.reload_config()
            self.assertEqual(self.env["config"], {"kept": 1, "load": load_})

    def test_yaml_needs_pyyaml_and_an_empty_one_is_no_change(self):
        Path("yaml.py").write_text("def safe_load(content):\n    return {'n': 1} if content else None")
        sys.path.insert(0, str(self.root))
        self.addCleanup(sys.path.remove, str(self.root))
        before = sys.modules.pop("yaml", None)
        self.addCleanup(lambda: sys.modules.update(yaml=before) if before else sys.modules.pop("yaml", None))
        for content in ("", "n: 1"):
            Path("c.yaml").write_text(content)
            self.env["config_file"] = "c.yaml"
            self.env.reload_config()
            self.assertEqual(self.env["config"], {"n": 1} if content else {})
        self.script("""
            import sys
            sys.modules["yaml"] = None  # as where it is not installed
            from enostask import *
            env = get_or_create_env(False, "xp")
            env["config_file"] = "c.yaml"
            try:
                env.reload_config()
            except EnosFilePathError as error:
                assert "PyYAML" in str(error) and "c.yaml" in str(error), error
            else:
                raise AssertionError
        """)

    def test_a_missing_one_is_a_warning_and_the_stored_config_stays(self):
        self.env.update(config_file="nix.json", config={"n": 1})
        with self.logged() as log:
            self.env.reload_config()
        self.assertRegex(log.output[0], f"{self.root}/nix.json' is missing")
        self.assertEqual(self.env["config"], {"n": 1})

    def test_a_bad_one_is_the_stated_error_and_the_config_stays(self):
        os.mkdir("folder.json")
        for name, content, kind, wanted in (
            ("a.json", "{", "yaml", "JSONDecodeError"),
            ("b.json", "[1]", "yaml", "it holds a list, not a mapping"),
            ("n.json", "null", "yaml", "it holds a NoneType"),
            ("c.json", b"\xff\xfe\xff", "yaml", "Unicode|JSON"),
            ("folder.json", None, "yaml", "IsADirectoryError: Is a directory"),
            ("d.toml", "x = 1", "toml", r"env\['config_type'\] is 'toml', not 'json' or 'yaml'"),
            (3, None, "json", r"env\['config_file'\], 3: TypeError"),
        ):
            with self.subTest(name=name):
                if content is not None:
                    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
                self.env.update(config_file=name, config_type=kind, config={"n": 1})
                with self.refused(EnosFilePathError, str(name), "mend the file", wanted) as refused:
                    self.env.reload_config()
                self.assertEqual((refused.error.filepath, self.env["config"]), (name, {"n": 1}))

    def test_bad_yaml_names_the_position_and_not_the_lines(self):
        try:
            import yaml  # noqa: F401
        except ImportError:
            self.skipTest("needs PyYAML")
        Path("c.yaml").write_text("a: 1\nb: [2\nsecret: }\n")
        self.env["config_file"] = "c.yaml"
        with self.refused(EnosFilePathError, r"c.yaml'.* in line \d, column \d") as refused:
            self.env.reload_config()
        self.assertNotIn("secret", str(refused.error))


# ---- The record


class TheRecord(Place):
    WHEN = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "

    def lines(self, name="xp"):
        return Path(name, "env.log").read_text().splitlines()

    def test_each_run_leaves_a_line_when_it_starts_and_one_when_it_ends(self):
        get_or_create_env(True, "xp")

        @enostask()
        def up(env, error=None):
            """A task."""
            if error:
                raise error

        @enostask()
        async def coroutine(env):
            up(env=env)

        @enostask()
        def generator(env):
            yield

        for error in (None, KeyError("secret"), KeyboardInterrupt("secret"), SystemExit(0), SystemExit("secret")):
            with contextlib.suppress(BaseException):
                up("xp", error)
        asyncio.run(coroutine())
        list(generator())
        with self.assertRaises(EnosSaveError):
            change("xp", lambda env: env.update(secret=lambda: None))
        ends = ["finished  0.0 s", "failed    0.0 s, KeyError", "failed    0.0 s, KeyboardInterrupt", "finished  0.0 s"]
        ends = [("up", end) for end in [*ends, "failed    0.0 s, SystemExit"]]
        ends += [("up", "finished  0.0 s"), ("coroutine", "finished  0.0 s"), ("generator", "finished  0.0 s")]
        ends += [("change", "failed    0.0 s, EnosSaveError")]
        lines = self.lines()
        started = [line for line in lines if "started" in line]
        self.assertEqual(len(started), len(ends))
        for line in started:
            version = ".".join(map(str, sys.version_info[:3]))
            self.assertRegex(line, self.WHEN + rf"\w+ +started   host {re.escape(os.uname().nodename)}, pid {os.getpid()}, Python {version}")
        for line, (name, end) in zip([line for line in lines if "started" not in line], ends):
            self.assertRegex(line.replace("0.1 s", "0.0 s"), self.WHEN + re.escape(f"{name:<8}  {end}") + "$")
        self.assertNotIn("secret", "".join(lines))

    def test_a_task_that_was_killed_leaves_the_first_alone(self):
        code = """
            import os
            from enostask import enostask
            @enostask(new=True)
            def up(env):
                os._exit(9)
            up("xp")
        """
        self.script(code, status=9)
        self.assertEqual(len(self.lines()), 1)

    def test_where_it_cannot_be_written_the_task_runs_all_the_same_with_one_debug_message(self):
        get_or_create_env(True, "xp")
        os.mkdir("xp/env.log")
        with self.logged(logging.DEBUG) as log:
            change("xp", lambda env: env.update(x=1))
        self.assertEqual(sum("DEBUG" in line for line in log.output), 1)
        self.assertEqual(items("xp"), {"x": 1})
        os.rmdir("xp/env.log")
        change("xp", lambda env: shutil.rmtree("xp"))
        self.assertFalse(os.path.exists("xp"))


# ---- Looking into environments


class Looking(Place):
    def shown(self, *arguments, status=0, columns=100):
        out, err = io.StringIO(), io.StringIO()
        before = os.environ.get("COLUMNS")
        os.environ["COLUMNS"] = str(columns)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                self.assertEqual(module.main([str(argument) for argument in arguments]), status)
        finally:
            os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
        for line in (out.getvalue() + err.getvalue()).splitlines():
            self.assertTrue(line.isprintable(), line)
        return err.getvalue() if status else out.getvalue()

    def test_it_lists_the_environments_here_newest_first_and_says_where_current_leads(self):
        self.assertEqual(self.shown(columns=999), f"current -> {self.root}/current, which is not there\n")
        for n, name in enumerate(("a", "b", "c")):
            get_or_create_env(True, name)
            if name == "b":
                Path("b/env").write_bytes(b"damaged")
            os.utime(f"{name}/env", (10**9 + 60 * n, 10**9 + 60 * n))
        first, *lines = self.shown(columns=999).splitlines()
        self.assertEqual(first, f"current -> {self.root}/c")
        self.assertRegex("\n".join(lines), r"^  c   2001-09-\d\d \d\d:\d\d   0\.\d kB   4 keys\n  b .*no whole checkpoint.*\n  a ")

    def test_it_shows_one_line_for_each_key_cut_to_the_width(self):
        env = get_or_create_env(True, "xp")
        env.update({"x": list(range(1000)), "b": bytes(10**6), "when": datetime.datetime(2026, 11, 22, 13, 55)})
        env.update({"m": Machine("m1"), "p": Path("a/b"), "n": 10**5000, "long": "y" * 500, "c\x1b[31m": "\x07", 5: {1: None}})
        env["zone"] = {datetime.datetime(2026, 11, 22, tzinfo=datetime.timezone.utc): {Machine}}
        env["nested"] = [[[[[[[[Machine("deep")]]]]]]]]
        env["tags"] = Tags("a")
        env["own"] = OwnDict(a=OwnList([1]))
        env.dump()
        said = self.shown("xp", columns=90)
        for line in said.splitlines():
            self.assertLessEqual(len(line), 90)
        said = self.shown("xp", columns=999)
        for wanted in (
            r"/xp/env: saved 20\d\d-.* kB\n",
            r"resultdir      pathlib\.\S+   " + re.escape(str(self.root / "xp")),
            r"config_type    str   'yaml'",
            r"x              list   \[0, 1, 2, 3, 4, 5, \.\.\.\]",
            r"b              bytes   1000000 bytes",
            r"when           datetime.datetime   datetime(\.datetime)?\(2026, 11, 22, 13, 55\)",
            r"m              \w+\.Machine   Machine\(name='m1', tags=\['tag'\]\)",
            r"p              \S+   a/b",
            r"n              int   an int of 16610 bits",
            r"\\x1b\[31m.*'\\x07'",
            r"5              dict   \{1: None\}",
            r"zone .*timezone\(",
            r"own            \w+\.OwnDict   OwnDict\(a=OwnList\(1\)\)",
        ):
            self.assertRegex(said, wanted)

    def test_a_name_that_is_not_there_and_a_directory_without_a_checkpoint_are_one_line(self):
        os.mkdir("folder")
        Path("file").write_text("text")
        for given, wanted in (
            ("nix", "^enostask: no nix in .*name the directory of an environment"),
            ("..", "^enostask: no env in .*: name the directory of an environment"),
            ("folder", "^enostask: no env in '.*/folder': "),
            ("file", "^enostask: '.*/file' is no whole checkpoint: "),
            ("file/sub", "is a file: name the directory"),
        ):
            said = self.shown(given, status=1)
            self.assertRegex(said, wanted)
            self.assertEqual(said.count("\n"), 1)
        with self.assertRaises(SystemExit) as caught, contextlib.redirect_stderr(io.StringIO()):
            module.main(["a", "b"])
        self.assertEqual(caught.exception.code, 2)

    def test_it_is_a_command_and_ends_quietly_behind_head(self):
        env = get_or_create_env(True, "xp")
        env.update({f"key{n}": "x" * 60 for n in range(3000)})
        env.dump()
        command = f"'{sys.executable}' '{MODULE}' xp | head -n 1"
        done = subprocess.run(command, shell=True, stdout=-1, stderr=-1, text=True)
        self.assertEqual((done.stdout.count("\n"), done.stderr), (1, ""))
        done = subprocess.run([sys.executable, str(MODULE), "nix"], stdout=-1, stderr=-1, text=True)
        self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (1, "", 1))

    def test_hostile_pickles_import_nothing_and_run_nothing(self):
        def hostile(call):
            return b"\x80\x04cenostask\nEnvironment\n)\x81}(X\x04\x00\x00\x00data}(X\x01\x00\x00\x00x" + call + b"uub."

        def pickled(*arguments):
            return b"".join(pickle.dumps(argument, 2)[2:-1] for argument in arguments)

        shout = pickled("echo ran > ran")
        os.mkdir("xp")
        for call in (
            b"cos\nsystem\n(" + shout + b"tR",
            b"cbuiltins\neval\n(" + pickled("open('ran', 'w')") + b"tR",
            b"c__builtin__\nexec\n" + pickled("import antigravity") + b"\x85R",
            b"csubprocess\nPopen\n(" + shout + b"t}\x92",
            b"c__main__\nX\n)\x81}(X\x09\x00\x00\x00__class__cos\nsystem\nub",
            b"cantigravity\nlist\n)\x81",
            b"cbuiltins\nstr\n)\x81}(X\x08\x00\x00\x00__repr__cos\nsystem\nub",
            b"cantigravity\ndict\n)\x81(K\x01K\x02u",
            b"cantigravity\nOrdered\n)\x81(K\x01K\x02e",
            b"cdatetime\ndatetime\n}(X\x03\x00\x00\x00nowcos\nsystem\nub",
            b"cposix\nsystem\n" + shout + b"\x85R" + shout + b"\x85R",
            b"X\x01\x00\x00\x00aQ",
        ):
            with self.subTest(call=call):
                Path("xp/env").write_bytes(hostile(call))
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
                    self.assertIn(module.main(["xp"]), (0, 1))
                self.assertLessEqual(err.getvalue().count("\n"), 1)
                self.assertFalse(os.path.exists("ran"))
                self.assertNotIn("antigravity", sys.modules)


class OwnDict(dict):
    """A mapping of one's own."""


class OwnList(list):
    """A list of one's own."""


if __name__ == "__main__":
    unittest.main()
