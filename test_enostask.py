# test_enostask 1.1.0, MIT-0: what enostask promises, told by state machines and then by one example for each promise.
# SPDX-FileCopyrightText: the enostask authors; SPDX-License-Identifier: MIT-0
"""Needs hypothesis; run by ``python -m unittest``.  With ``ENOSTASK_TESTS=deep`` it looks longer, and at random."""
import asyncio
import contextlib
import copy
import datetime
import errno
import functools
import gc
import importlib.util
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
from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import enostask as module
from enostask import EnosError, EnosFilePathError, EnosSaveError, Environment, enostask, get_or_create_env

MODULE = Path(module.__file__).resolve()
FRESH = {"resultdir": ".", "config_file": None, "config": {}, "config_type": "yaml"}  # as `seen` shows it
WHEN = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "  # as each line of env.log begins
IMPORTS = "import errno, fcntl, os, signal, sys, threading; from pathlib import Path; from enostask import *\n"
os.umask(0o022)

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


def items(directory, name="env"):
    return own(read(directory, name))


def load(name="xp"):
    return get_or_create_env(False, name)


def backups(directory):
    names = (name for name in os.listdir(directory) if name.startswith("env.bak"))
    return sorted(names, key=lambda name: (len(name), name))


def mode(*path):
    return stat.S_IMODE(os.stat(os.path.join(*path)).st_mode)


# ---- The state machines

KEYS = st.sampled_from("xyz")
VALUES = st.sampled_from([0, 1, [], [0], {"a", "b"}, {"a": [1]}, "deleted", "more"])
WHICH = st.integers(0, 2)
NAMES = st.sampled_from(["a", "b", "deep/er"])
SPELLINGS = st.sampled_from([str, Path, os.path.abspath, lambda name: os.path.join(".", name), lambda name: name + "/"])


def alter(items, key, value):
    """Delete *key*, change its value in place, or set it."""
    if value == "deleted":
        items.pop(key, None)
    elif value == "more" and isinstance(items.get(key), list):
        items[key].append(value)
    else:
        items[key] = copy.deepcopy(value)


@enostask(new=True)
def begin(env, how=lambda env: None, env_symlink=True):
    assert seen(env) == read(env.env_name) == FRESH
    assert not env_symlink or os.path.realpath("current") == str(env.env_name)
    how(env)


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
        self.starts("a", "a", {"x": [0]})
        self.starts("b", "b", {"y": 1}, symlink=False)

    def teardown(self):
        os.chdir(self.before)
        shutil.rmtree(self.above)

    def blocked(self):
        return self.current in ("file", "directory")

    def one(self, which):
        """Return the name of one of the environments that are there."""
        return sorted(self.held)[which % len(self.held)]

    def starts(self, name, specifier, items, symlink=True):
        try:
            begin(specifier, lambda env: env.update(items), env_symlink=symlink)
        except EnosFilePathError as error:
            assert symlink and self.blocked() and "current" in str(error)
            return
        assert not (symlink and self.blocked())
        if self.held.get(name, FRESH) != FRESH:
            self.aside[name].append((self.held[name], self.modes[name]))
        elif name not in self.held:
            self.modes[name], self.aside[name] = 0o644, []
        self.held[name] = {**FRESH, **copy.deepcopy(items)}
        self.current = name if symlink else self.current

    items = st.dictionaries(KEYS, VALUES, max_size=2)

    @rule(name=NAMES, spelling=SPELLINGS, items=items, symlink=st.booleans())
    def a_new_environment_is_fresh_and_keeps_the_old_checkpoint(self, name, spelling, items, symlink):
        self.starts(name, spelling(name), items, symlink)

    @precondition(lambda self: self.held)
    @rule(which=WHICH, items=items, by_current=st.booleans())
    def a_task_starts_over(self, which, items, by_current):
        by_current = by_current and self.current in self.held
        name = self.current if by_current else self.one(which)
        self.starts(name, "current" if by_current else name, items, symlink=not self.blocked())

    @rule(name=NAMES)
    def a_new_environment_that_cannot_be_saved_changes_nothing(self, name):
        target = name if name in self.held else "odd"
        in_the_way = Path(target, ".env.lock")
        with contextlib.suppress(FileNotFoundError):
            in_the_way.unlink()
        in_the_way.mkdir(parents=True)
        with contextlib.suppress(OSError, EnosFilePathError):
            get_or_create_env(True, target)
            raise AssertionError("it was saved, but where?")
        shutil.rmtree(in_the_way if target == name else target)

    def step(self, name, spelling, how, fail=False):
        """Run a task on *name*, or `current` for None; return the name, None if it was refused, and its error."""
        specifier, name, error = spelling(name or "current"), name or self.current, None
        try:
            change(specifier, how, KeyError("as planned") if fail else None)
        except EnosFilePathError:
            assert name not in self.held
            return None, None
        except (KeyError, EnosSaveError) as caught:
            error = caught
        assert name in self.held
        return name, error

    targets = st.sampled_from([None, "a", "a", "b", "deep/er"])

    @rule(name=targets, spelling=SPELLINGS, key=KEYS, value=VALUES, fail=st.booleans())
    def a_task_changes_a_key_and_may_fail(self, name, spelling, key, value, fail):
        name, error = self.step(name, spelling, lambda env: alter(env, key, value), fail=fail)
        if name:
            assert isinstance(error, KeyError) == fail
            alter(self.held[name], key, value)

    @rule(name=targets, kind=st.sampled_from([str, Path]), results=st.sampled_from([".", "out", "/elsewhere"]))
    def a_task_sets_resultdir(self, name, kind, results):
        name, _ = self.step(name, str, lambda env: env.update(resultdir=kind(env.env_name / results)))
        if name:
            self.held[name]["resultdir"] = results

    @rule(name=targets, bad=KEYS, key=KEYS, fail=st.booleans())
    def a_value_that_cannot_be_pickled_costs_only_itself(self, name, bad, key, fail):
        name, error = self.step(name, str, lambda env: env.update({key: 2, bad: lambda: None}), fail=fail)
        if name:
            assert isinstance(error, KeyError) if fail else error.keys == [bad]
            self.held[name].update({} if key == bad else {key: 2})

    @precondition(lambda self: self.held)
    @rule(which=WHICH, mode=st.sampled_from([0o600, 0o640, 0o666]))
    def the_user_sets_the_mode_of_a_checkpoint(self, which, mode):
        self.modes[self.one(which)] = mode
        os.chmod(Path(self.one(which), "env"), mode)

    @precondition(lambda self: len(self.held) > 1)
    @rule(which=WHICH)
    def a_directory_is_deleted(self, which):
        name = self.one(which)
        shutil.rmtree(name)
        del self.held[name]

    @precondition(lambda self: len(self.held) > 1)
    @rule(which=WHICH, items=items)
    def a_task_tears_its_environment_down_and_may_change_it(self, which, items):
        name, _ = self.step(self.one(which), str, lambda env: (shutil.rmtree(env.env_name), env.update(items)))
        if {**self.held[name], **items} == self.held[name]:
            del self.held[name]
        else:
            self.held[name].update(copy.deepcopy(items))
            self.modes[name], self.aside[name] = 0o644, []

    @rule()
    def the_working_directory_is_moved(self):
        self.root = self.above / f"root{int(self.root.name[4:]) + 1}"
        os.rename(os.getcwd(), self.root)
        os.chdir(self.root)

    @rule(kind=st.sampled_from(["file", "directory", None]))
    def the_user_puts_something_else_or_nothing_at_current(self, kind):
        with contextlib.suppress(FileNotFoundError):
            os.rmdir("current") if self.current == "directory" else os.unlink("current")
        if kind:
            os.mkdir("current") if kind == "directory" else Path("current").write_text("precious")
        self.current = kind

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
                name = os.path.relpath(directory, self.root)
                assert name in self.held or (name, file) == (".", "current"), (name, file)
                assert re.fullmatch(r"env|\.env\.lock|env\.log|env\.bak\d+|current", file), file
        assert set(os.listdir(self.root)) <= {"a", "b", "deep", "current"}


class Interleavings(RuleBasedStateMachine):
    """Three environments loaded from one checkpoint save in any order, against what each key's last change was."""

    who = WHICH
    values = st.sampled_from([0, 1, [], {"a"}, "more", "more", "deleted", "deleted"])

    def __init__(self):
        super().__init__()
        self.root = tempfile.mkdtemp(prefix="enostask-")
        env = get_or_create_env(True, self.root, symlink=False)
        self.disk = {"x": 0, "y": [0]}
        env.update(copy.deepcopy(self.disk))
        env.dump()
        self.envs, self.held, self.known = [None] * 3, [{}, {}, {}], [{}, {}, {}]
        for number in range(3):
            self.loads(number)

    def teardown(self):
        shutil.rmtree(self.root)

    @rule(who=who)
    def loads(self, who):
        self.envs[who] = load(self.root)
        self.held[who], self.known[who] = copy.deepcopy(self.disk), copy.deepcopy(self.disk)

    @rule(who=who)
    def loads_a_backup_and_knows_no_earlier_state(self, who):
        backup = shutil.copy(Path(self.root, "env"), Path(self.root, "env.bak1"))
        self.envs[who] = Environment.load_from_file(backup)
        self.held[who], self.known[who] = copy.deepcopy(self.disk), {}

    @rule(who=who, send=st.sampled_from([lambda env: pickle.loads(pickle.dumps(env)), copy.deepcopy]))
    def sends_itself_elsewhere_and_knows_no_earlier_state(self, who, send):
        self.envs[who] = send(self.envs[who])
        self.known[who] = {}

    @rule(who=who, key=KEYS, value=values, saves=st.booleans())
    def changes(self, who, key, value, saves=True):
        alter(self.envs[who], key, value)
        alter(self.held[who], key, value)
        if saves:
            self.saves(who)

    @rule(who=who, key=KEYS)
    def takes_a_change_back(self, who, key):
        if key in self.known[who]:
            self.changes(who, key, self.known[who][key])

    @rule(one=who, other=who, third=who, key=KEYS, value=values, later=values)
    def two_make_the_same_change_and_a_third_another(self, one, other, third, key, value, later):
        for who, change_to in [(one, value), (other, value), (third, later)]:
            self.changes(who, key, change_to)

    @rule(order=st.lists(who, min_size=1, max_size=4))
    def save_in_this_order(self, order):
        for who in order:
            self.saves(who)

    @rule(who=who, key=KEYS, value=values)
    def is_interrupted_right_after_the_rename(self, who, key, value):
        replace = os.replace
        with mock.patch.object(os, "replace", lambda *paths: stop_with(KeyboardInterrupt(replace(*paths)))):
            self.changes(who, key, value)

    def saves(self, who):
        with contextlib.suppress(KeyboardInterrupt):
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
        assert items(self.root) == self.disk, (read(self.root), self.disk)
        assert set(os.listdir(self.root)) <= {"env", ".env.lock", "env.bak1"}

    @invariant()
    def a_save_alters_nothing_in_memory(self):
        assert [own(env) for env in self.envs] == self.held


TestExperiments, TestInterleavings = Experiments.TestCase, Interleavings.TestCase


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
            Path("script.py").write_text(IMPORTS + textwrap.dedent(code), encoding="utf-8")
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
            yield caught
        self.assertIs(type(caught.exception), kind)
        self.assertEqual(len(str(caught.exception).splitlines()), 1)
        self.assertLess(len(str(caught.exception)), 700)
        for pattern in patterns:
            self.assertRegex(str(caught.exception), pattern)

    def logged(self, level=logging.WARNING):
        return self.assertLogs("enostask", level)


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
    env = load("work")
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
        held, link, aside = items("work"), os.path.relpath(os.path.realpath("current")), backups("work")
        self.assertIn(held, (old, new))
        self.assertIn(link, ("other", target))
        self.assertEqual((mode("work", "env"), mode("other", "env")), (0o640, 0o640))
        self.assertEqual([items("work", name) for name in aside], [old] * len(aside))
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
        self.assertEqual(items("work"), {**held, "next": 1})


# ---- One example for each promise


class Machine:
    """A value of a class that can be imported."""

    def __init__(self, name):
        self.name, self.tags = name, ["tag"]


class Refusing(Exception):
    """Pickles, but does not unpickle."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


Tags, OwnDict, OwnList = type("Tags", (set,), {}), type("OwnDict", (dict,), {}), type("OwnList", (list,), {})
Settling = type("Settling", (int,), {"__reduce__": lambda self: (Settling, (min(self + 1, 3),))})  # as masked arrays
ATOMS = (st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(), st.dates())
VALUES_OF_ALL_KINDS = st.sets(st.text()) | st.recursive(
    st.one_of(*ATOMS),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


class Once:
    """Can be pickled, but what was unpickled cannot."""

    def __reduce__(self):
        if vars(self):
            raise ValueError("once is enough")
        return Once, (), {"again": True}


class OutOfMemory:
    """Is loaded, or pickled, where there is no memory left, as far as it is concerned."""

    armed = ""

    def __getstate__(self):
        return stop_with(MemoryError()) if self.armed == "pickled" else True

    def __setstate__(self, _):
        if self.armed == "loaded":
            raise MemoryError


class PlaceWithXp(Place):
    def setUp(self):
        super().setUp()
        self.env = get_or_create_env(True, "xp")


class Names(PlaceWithXp):
    def test_errors_show_one_line_and_survive_pickling_with_their_attributes(self):
        errors = (EnosFilePathError("a/b"), EnosSaveError("a/env", ["x"]), EnosFilePathError("a", "two\nlines"))
        for error, wanted in zip(errors, ("'a/b'", "a/env.*'x'", "two")):
            with self.subTest(error=error), self.refused(type(error), wanted):
                twin = pickle.loads(pickle.dumps(error))
                self.assertEqual((str(twin), vars(twin)), (str(error), vars(error)))
                self.assertIsInstance(twin, EnosError)
                raise twin
        self.assertEqual((str(EnosError("why")), str(EnosError())), ("why", ""))

    def test_a_key_that_is_not_there_is_a_key_error_that_names_key_and_directory(self):
        for how in (lambda: self.env["machines"], lambda: self.env.pop("machines")):
            with self.assertRaises(KeyError) as caught:
                how()
            self.assertRegex(str(caught.exception), f"'machines' in {re.escape(str(self.root))}/xp: run the task")
        self.assertEqual((self.env.get("machines", 1), "machines" in self.env), (1, False))

    def test_print_and_pprint_show_the_data_as_those_of_any_user_dict(self):
        env, self.env["x"] = self.env, list(range(40))
        same = UserDict(env.data)
        self.assertEqual((str(env), repr(env), pprint.pformat(env)), (str(same), repr(same), pprint.pformat(same)))


class ANewEnvironment(Place):
    def test_it_makes_the_directory_with_its_parents_and_holds_four_keys(self):
        env, where = Environment(Path("deep/er")), self.root / "deep/er"
        self.assertEqual(env.data, dict(resultdir=where, config_file=None, config={}, config_type="yaml"))
        self.assertEqual((env.env_name, os.listdir("deep/er")), (where, []))
        self.assertIs(get_or_create_env(True, env), env)

    def test_a_directory_named_after_the_time_is_never_shared(self):
        code = "print(get_or_create_env(True, None).env_name.name)"
        processes = [self.start(code), self.start(None), self.start(None)]
        names = [get_or_create_env(True, None).env_name.name for _ in range(5)]
        names += [process.communicate()[0].strip() for process in processes]
        self.assertEqual(len(set(names)), 8)
        for name in names:
            self.assertRegex(name, r"^enos_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d$")
        os.chdir("/dev/fd")  # where nothing can be made
        with self.refused(EnosFilePathError, "cannot make the directory"):
            get_or_create_env(True, None)

    def test_anything_else_is_the_stated_error_and_nothing_is_created(self):
        Path("file").write_text("precious")
        os.makedirs("taken/env")
        for name, make in (("fifo", os.mkfifo), ("device", functools.partial(os.symlink, os.devnull))):
            os.mkdir(name)
            make(f"{name}/env")
        get_or_create_env(True, "xp", symlink=False)
        before = sorted(os.walk("."))
        for specifier, advice in {
            20: "env is 20: give the directory.*later argument", (1,) * 100000: r"env is \(1, 1, 1.*give the directory",
            "": "env is ''", b"xp": "env is b'xp'", "a\0b": "cannot (make|read).* null", "x" * 5000: "xxx",
            "current": "current' is absent", "file": "/file'", "file/sub": "/file/sub'", "xp/env": "/xp/env'",
            **{name: f"{name}.* no regular file" for name in ("fifo", "taken", "device")},
        }.items():
            for new in (False, True):
                with self.subTest(given=str(specifier)[:20], new=new):
                    with self.refused(EnosFilePathError, advice) as refused:
                        get_or_create_env(new, specifier)
                    wanted = specifier if new or type(specifier) is not str or not specifier else Path(specifier, "env")
                    self.assertEqual(refused.exception.filepath, wanted)
                    self.assertEqual(sorted(os.walk(".")), before)

    def test_new_by_the_name_current_is_the_directory_it_points_to_with_what_is_in_it(self):
        for way in ("current", "./current/", self.root / "current"):
            begin("xp", lambda env: (env.update(n=1), (env["resultdir"] / "results.csv").write_text("1,2")))
            get_or_create_env(True, way)
            self.assertEqual((items("xp"), os.readlink("current"), os.path.islink("current")), ({}, "xp", True))
            self.assertEqual(Path("xp/results.csv").read_text(), "1,2")
        shutil.rmtree("xp")
        with self.refused(EnosFilePathError, "current' points to 'xp', which is gone.*new=True"):
            get_or_create_env(True, "current")
        self.assertFalse(os.path.exists("xp"))


class Current(Place):
    def test_it_is_relative_below_the_working_directory_and_absolute_otherwise(self):
        for name, target in (("a/b", "a/b"), (".", "."), ("../" + self.root.name + "/c", "c")):
            get_or_create_env(True, name)
            self.assertEqual(os.readlink("current"), target)
        with tempfile.TemporaryDirectory() as elsewhere:
            get_or_create_env(True, elsewhere)
            self.assertEqual(os.readlink("current"), os.path.realpath(elsewhere))

    def test_it_is_made_by_new_alone_and_not_without_symlink(self):
        get_or_create_env(True, "b")
        for new, symlink, leads in ((True, True, "b"), (True, None, "b"), (True, False, "a"), (False, True, "a")):
            task = enostask(new=new, symlink=symlink)(lambda env, env_symlink=None: os.readlink("current"))
            with self.subTest(new=new, symlink=symlink):
                get_or_create_env(True, "a")
                self.assertEqual((task("b", env_symlink=False), task("b")), ("a", leads))
                get_or_create_env(True, "a")
                get_or_create_env(new, "b", symlink)
                self.assertEqual(os.readlink("current"), leads)

    def test_a_real_file_or_directory_of_that_name_is_never_touched(self):
        os.mkdir("current")
        for name in ("xp", None, "current"):
            with self.refused(EnosFilePathError, "current' is no link.*symlink=False"):
                get_or_create_env(True, name)
        self.assertEqual(os.listdir(), ["current"])
        with self.refused(EnosFilePathError, "no env in"):
            get_or_create_env(True, "current", symlink=False)

    def test_another_process_never_finds_it_missing(self):
        get_or_create_env(True, "a")
        watcher = self.start("""
            print("ready", flush=True)
            while not os.path.exists("stop"):
                assert os.path.exists("current/env")
        """)
        watcher.stdout.readline()
        before = os.listdir("/dev/fd")
        for number in range(100):
            get_or_create_env(True, "ab"[number % 2])
        self.assertEqual(os.listdir("/dev/fd"), before)
        Path("stop").touch()
        self.assertEqual(watcher.wait(), 0)

    def test_where_it_cannot_be_made_the_task_runs_unless_one_leads_elsewhere(self):
        code = """
            def symlink(*_, **__):
                raise OSError(errno.EPERM, "Operation not permitted")
            if "no links" in sys.argv:  # as on a file system without them
                os.symlink = symlink
            enostask(new=True)(lambda env: print("ran"))(sys.argv[1])
        """
        self.assertEqual(self.script(code, "a", "no links", merged=True).count("cannot point"), 1)
        for arguments in ((), ("no links",)):
            self.assertEqual(self.script(None, "a", *arguments), "ran\n")
        said = self.script(None, "b", "no links", status=1)
        self.assertRegex(said, r"\A(?!ran)(?s:.*)EnosFilePathError: cannot point .*/current' to .*/b: .*permitted; re")


class Tasks(PlaceWithXp):
    def test_the_specifier_is_found_wherever_it_was_given(self):
        get_or_create_env(True, "other", symlink=False)
        plain = lambda env, n=0, **options: (env.env_name.name, n, sorted(options))
        first = enostask()(lambda env, n=0, **options: plain(env, n, **options))
        second = enostask()(lambda n, env=None: plain(env, n))
        rest = enostask()(lambda **options: plain(**options))
        wrapper = enostask()(functools.wraps(plain)(lambda *args, **kwargs: plain(*args, **kwargs)))
        unwrapping = enostask()(functools.wraps(lambda n: None)(lambda env, n: plain(env, n)))
        bound = enostask()(functools.partial(plain, env="other"))
        for found, wanted in (
            (first(), ("xp", 0, [])),
            (first(Path("other")), ("other", 0, [])),
            (first(load("other")), ("other", 0, [])),
            (first(None, 3), ("xp", 3, [])),
            (first("xp", **{"--env": "other"}), ("other", 0, ["--env"])),
            (first(**{"--env": None, "env": "other"}), ("other", 0, ["--env"])),
            (first(env_symlink=False), ("xp", 0, ["env_symlink"])),
            (second(3), ("xp", 3, [])),
            (rest(**{"--env": "other"}), ("other", 0, ["--env"])),
            (bound(n=3, env="xp"), ("xp", 3, [])),
        ):
            self.assertEqual(found, wanted)
        found = [task("other", 3) for task in (first, wrapper, unwrapping)] + [second(3, "other"), bound(n=3)]
        found += [task(env="other", n=3) for task in (first, rest, wrapper)]
        self.assertEqual(found, [("other", 3, [])] * len(found))
        with self.refused(EnosFilePathError, "env is 20: .*later argument"):
            first(20)
        with self.assertRaisesRegex(TypeError, "multiple values"):
            first(3, env="other")

    def test_a_new_task_that_cannot_be_called_so_is_a_type_error_before_anything_is_made(self):
        before = sorted(os.walk("."))
        for args, options in ((("a",), dict(hwo=3)), (("a", print, True, 4), {}), (("a", print), dict(env="b"))):
            with self.assertRaises(TypeError):
                begin(*args, **options)
        self.assertEqual((sorted(os.walk(".")), os.readlink("current")), (before, "xp"))

    def test_every_form_of_function_is_saved_when_it_ends(self):
        class Steps:
            def method(self, env, n):
                env["n"] = n
                return n

            __call__ = method

        class Later(Steps):
            async def __call__(self, env, n):
                await asyncio.sleep(0)
                return self.method(env, n)

        @enostask()
        async def coroutine(env, n):
            return await Later()(env, n)

        @enostask()
        def generator(env, n):
            env["n"] = -1
            try:
                yield n
            finally:
                env["n"] = n

        def managed(n):
            with contextlib.contextmanager(generator)(n=n) as got:
                self.assertEqual(items("xp").get("n"), n - 1)
                return got

        def closed(n):
            with contextlib.closing(generator(n=n)) as running:
                return next(running)

        Steps.task = enostask()(Steps.method)
        partial = enostask(functools.partial(Steps().method))
        later = enostask()(Later())
        forms = (Steps().task, enostask()(Steps()), partial, enostask()(Steps().method))
        forms += (lambda n: asyncio.run(coroutine(n=n)), lambda n: asyncio.run(later(n=n)))
        forms += (lambda n: list(generator(n=n))[0], managed, closed)
        for n, form in enumerate(forms):
            with self.subTest(form=form):
                self.assertEqual((form(n=n), items("xp")), (n, {"n": n}))
        self.assertEqual((partial.__name__, forms[1].__name__, Steps.task.__doc__), ("method", "Steps", None))

    def test_it_is_saved_however_it_ends_and_the_caller_sees_its_exception(self):
        for n, error in enumerate((ValueError(1), SystemExit(0), SystemExit(3), KeyboardInterrupt(), StopIteration(2))):
            with self.subTest(error=error), self.assertRaises(type(error)) as caught:
                change("xp", lambda env: env.update(n=n), error=error)
            self.assertEqual((caught.exception, items("xp")), (error, {"n": n}))

        @enostask()
        async def waiting(env):
            env["n"] = "cancelled"
            await asyncio.sleep(60)

        self.assertRaises(asyncio.TimeoutError, lambda: asyncio.run(asyncio.wait_for(waiting(), 0.01)))
        self.assertEqual(items("xp"), {"n": "cancelled"})

    def test_a_failed_save_behind_a_failed_task_is_logged_and_noted_and_raised_behind_success(self):
        how = lambda env: env.update(bad=lambda: None)
        with self.logged(logging.ERROR) as log, self.assertRaises(ValueError) as caught:
            change("xp", how, error=ValueError("mine"))
        self.assertRegex(log.output[0], "(?s)change.*Traceback.*EnosSaveError.*'bad'")
        if sys.version_info >= (3, 11):
            self.assertRegex(caught.exception.__notes__[0], "saved.*'bad'")
        for error in (None, SystemExit(), SystemExit(0)):
            with self.subTest(error=error), self.refused(EnosSaveError, "'bad'"):
                change("xp", how, error=error)
        with self.assertRaises(SystemExit), self.logged(logging.ERROR):
            change("xp", how, error=SystemExit(1))

    def test_what_can_be_no_task_is_refused_at_decoration(self):
        command = type("Command", (), {"__call__": lambda self, *args, **kwargs: None})()  # like one of click
        async def stream(env):
            yield 1

        functions = [lambda: None, lambda n: None, lambda *env: None, command, int, lambda env, /: None]
        functions += [property(lambda self: 1), staticmethod(lambda env: None), classmethod(lambda cls, env: None)]
        for name, function in ((getattr(function, "__name__", ""), function) for function in functions):
            for decorator in (enostask, enostask(), enostask(new=True)):
                with self.assertRaisesRegex(TypeError, f"^{name}.* takes no env by keyword: write @enostask"):
                    decorator(function)
        with self.assertRaisesRegex(TypeError, "stream cannot be a task: it is an async generator"):
            enostask()(stream)
        for arguments in (("xp1",), (None,), (1,), (True, "xp1"), (False, 0)):
            with self.assertRaisesRegex(TypeError, "True or False"):
                enostask(*arguments)

    def test_a_coroutine_that_was_not_declared_is_a_type_error(self):
        coroutine = asyncio.sleep(0)
        with self.assertRaisesRegex(TypeError, "returned a coroutine: declare"):
            enostask()(lambda env: coroutine)()
        self.assertIsNone(coroutine.cr_frame)

    def test_it_looks_like_the_function_and_pickles_by_reference(self):
        self.assertEqual((change.__name__, change.__doc__), ("change", change.__wrapped__.__doc__))
        self.assertIs(pickle.loads(pickle.dumps(change)), change)

    def test_nested_tasks_share_an_environment_that_is_handed_on_and_merge_otherwise(self):
        for n, hand_on in enumerate((True, False)):
            def outer(env):
                change(env if hand_on else None, lambda inner: inner.update(inner=n))
                env.update(outer=1, seen=env.get("inner"))

            change("xp", outer)
            self.assertEqual(items("xp"), {"inner": n, "outer": 1, "seen": 0})

    def test_it_is_logged_with_the_directory_and_nothing_is_printed(self):
        with self.logged(logging.INFO) as log, contextlib.redirect_stdout(io.StringIO()) as printed:
            change("xp", lambda env: None)
            with self.assertRaises(ValueError):
                change("xp", lambda env: None, error=ValueError())
        where = re.escape(str(self.root / "xp"))
        for line, wanted in zip(log.output, ("started", r"finished in 0\.\d s", "started", r"failed after 0\.\d s")):
            self.assertRegex(line, f"INFO:{module.__name__}:Task change {wanted} in {where}$")
        self.assertEqual((len(log.output), printed.getvalue()), (4, ""))


class Loading(Place):
    def test_what_cannot_be_loaded_is_the_stated_error_and_is_not_touched(self):
        refusing, whole = Environment("xp"), Environment("xp")
        refusing["x"], whole["x"] = Refusing(1, 2), Machine("m1")
        whole = whole.dumps()
        for content, wanted, cause in (
            (b"", "EOFError.*restore a backup", EOFError),
            (whole[:-9], "mend that, or restore a backup", Exception),
            (b"hello", "mend that", Exception),
            (pickle.dumps([1]), "it holds a list, not an Environment", pickle.UnpicklingError),
            (pickle.dumps(UserDict(env_name=1)), "it holds a UserDict", pickle.UnpicklingError),
            (refusing.dumps(), "TypeError: .*'two'", TypeError),
            (whole.replace(b"Machine", b"Gadgets"), r"needs \w+\.Gadgets, which .* found.*install", AttributeError),
            (whole.replace(b"test_enostask", b"no_such_thing"), r"no_such_thing\.Machine, w.*ModuleNot", ImportError),
        ):
            with self.subTest(content=content[:40], wanted=wanted):
                Path("xp/env").write_bytes(content)
                with self.refused(EnosFilePathError, "cannot load '.*/xp/env'", wanted) as refused:
                    load()
                self.assertIsInstance(refused.exception.__cause__, cause)
                self.assertEqual(Path("xp/env").read_bytes(), content)

    def test_a_missing_one_is_one_traceback_that_says_what_is_missing(self):
        os.mkdir("results")
        get_or_create_env(True, "xp")
        for specifier, wanted in (
            ("nix", "/nix' is absent: run a task with new=True"),
            ("results", "no env in '.*/results': name the directory of an environment, or restore"),
            ("xp/env", "/xp/env' is a file: name the directory"),
            (None, "current' points to 'xp', which is gone"),
            (None, "current' is absent: run a task with new=True first"),
        ):
            if specifier is None:
                shutil.rmtree("xp") if os.path.exists("xp") else os.unlink("current")
            with self.refused(EnosFilePathError, wanted) as refused:
                load(specifier)
            self.assertTrue(refused.exception.__suppress_context__)
        with self.refused(EnosFilePathError, "no env.bak7 in"):
            Environment.load_from_file("results/env.bak7")
        for odd in (None, 7, ""):
            with self.refused(EnosFilePathError, "give the directory"):
                Environment.load_from_file(odd)

    def test_a_class_of_the_script_says_how_to_get_the_data_back(self):
        code = "env = get_or_create_env(%s, 'xp')\n%s\nenv.dump()"
        self.script("class Host: pass\n" + code % (True, "env['host'] = Host()"))
        with self.refused(EnosFilePathError, r"needs __main__\.Host, a class of the script.*import it in this script"):
            load()
        Path("hosts.py").write_text("class Host: pass")
        self.script("from hosts import Host\n" + code % (False, "env['n'] = 1"))
        self.assertIn("<hosts.Host ", self.script(code % (False, "print(env['host'])")))

    def test_a_class_of_the_script_that_a_spawned_worker_saved_loads(self):
        self.assertEqual(self.script("""
            import multiprocessing
            class Host: pass
            @enostask()
            def work(env):
                env["host"] = Host()
            if __name__ == "__main__":
                get_or_create_env(True, "xp")
                process = multiprocessing.get_context("spawn").Process(target=work)
                process.start(); process.join(); assert process.exitcode == 0
                print(type(get_or_create_env(False, "xp")["host"]) is Host)
        """), "True\n")

    def test_what_one_copy_saved_any_other_loads_with_its_errors(self):
        os.makedirs("pkg/sub")
        for name in ("tasks_of_mine.py", "pkg/sub/vendored.py"):
            shutil.copy(MODULE, name)
        get_or_create_env(True, "xp")
        for name in ("tasks_of_mine", "pkg.sub.vendored", "enostask"):
            code = f"""if True:
                from {name} import *
                env = get_or_create_env(False, "xp")
                error = env.get("error", EnosFilePathError("a"))
                assert (type(env), type(error)) == (Environment, EnosFilePathError), (type(env), type(error))
                env["error"], env["by"] = error, {name!r}
                env.dump()
            """
            subprocess.check_call([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(MODULE.parent)})
            self.assertEqual(load()["by"], name)

    def test_it_travels_by_pickle_and_copy_with_its_data_and_name(self):
        env = Environment("xp")
        env["x"] = [1]
        for twin in (pickle.loads(env.dumps()), copy.copy(env), copy.deepcopy(env), env.copy()):
            self.assertEqual((type(twin), twin.data, twin.env_name), (Environment, env.data, env.env_name))

    @given(st.binary(max_size=30), st.integers(0, 10**6), st.booleans())
    def test_a_damaged_checkpoint_loads_or_is_the_stated_error(self, noise, where, insert):
        with tempfile.TemporaryDirectory() as directory:
            env, path = Environment(directory), Path(directory, "env")
            env["x"] = [Path("a"), {1.5: {"s"}}, datetime.datetime(2026, 11, 22), b"bytes", Machine("m")]
            content = bytearray(env.dumps())
            at = where % len(content)
            content[at : at if insert else at + len(noise)] = noise.replace(b"r", b"").replace(b"\x96", b"")
            path.write_bytes(content)
            with contextlib.suppress(EnosFilePathError):
                Environment.load_from_file(path)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                self.assertIn(module.main([directory]), (0, 1))


class NothingIsLost(PlaceWithXp):
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
            (gc.enable if value else gc.disable)()
            before, again = os.stat(Path(directory, "env")), load(directory)
            self.assertEqual((again.data, gc.isenabled()), (env.data, bool(value)))
            gc.enable()
            if not isinstance(value, set):
                again.dump()
                self.assertEqual(os.stat(Path(directory, "env")).st_ino, before.st_ino)

    def test_the_same_change_by_two_is_a_change_that_each_has_saved(self):
        first, second = self.dumped(x=0), load()
        for env in (first, second):
            env["x"] = 1
            env.dump()
        self.dumped(x=2, theirs=1)
        for n in range(2):
            second["y"] = n
            second.dump()
            self.assertEqual(items("xp"), {"x": 2, "y": n, "theirs": 1})

    def test_where_both_changed_a_key_the_later_save_wins_and_the_log_names_it(self):
        mine = load()
        self.dumped(x=1, same=1)
        mine.update(x=2, same=1, config={"only": "mine"})
        with self.logged() as log:
            mine.dump()
        self.assertEqual(items("xp"), {"x": 2, "same": 1})
        self.assertRegex("\n".join(log.output), r"\A.*Two tasks changed 'x' in .*/xp/env: the later save wins\Z")

    def test_only_the_layout_is_no_change(self):
        """Shared strings, the order of a set, a subclass of set: another's change of that key is taken over."""
        text, names = "".join(["shared", " text"]), ["a" * n for n in range(50)]
        for value, same in (
            ([text, text], [text, "".join(["shared", " text"])]),
            (set(names), set(reversed(names))),
            (Tags("abcdefghijk"), Tags("kjihgfedcba")),
            ([Path("a", "b")], [Path("a/b")]),
            (Settling(0), Settling(1)),
            ({1: frozenset({"x", ("y", Path("z"))})}, {1: frozenset({("y", Path("z")), "x"})}),
        ):
            with self.subTest(value=value):
                mine = self.dumped(x=value, n=0)
                mine["x"] = same
                self.dumped(x="theirs")
                mine["n"] = 1
                mine.dump()
                self.assertEqual(items("xp"), {"x": "theirs", "n": 1})

    def test_running_out_of_memory_in_a_merge_changes_nothing(self):
        mine = self.dumped(x=OutOfMemory(), y=1)
        self.dumped(y=2)
        mine.update(x=1, z=1, bad=lambda: None)
        before = Path("xp/env").read_bytes()
        for OutOfMemory.armed in ("pickled", "loaded"):
            for save in (mine.dump, lambda: get_or_create_env(OutOfMemory.armed == "loaded", "xp").dump()):
                with self.assertRaises(MemoryError):
                    save()
        self.assertEqual((Path("xp/env").read_bytes(), backups("xp")), (before, []))
        OutOfMemory.armed = ""
        self.assertRaises(EnosSaveError, mine.dump)
        self.assertEqual((items("xp")["y"], items("xp")["z"]), (2, 1))

    def test_a_value_that_cannot_be_compared_counts_as_changed(self):
        mine = self.dumped(x=Once(), n=1)
        self.env.update(x=1, n=2)
        self.env.dump()
        mine["x"] = 2
        with self.logged() as log:
            mine.dump()
        self.assertIn("'x'", log.output[0])
        self.assertEqual(items("xp"), {"x": 2, "n": 2})

    def test_a_value_that_cannot_be_pickled_costs_only_itself(self):
        self.dumped(kept=1, gone=1)
        env = load()
        del env["gone"]
        env.update(kept=lambda: None, fresh=threading.Lock(), good=1)
        for _ in range(2):
            with self.refused(EnosSaveError, "/xp/env is saved, but.*'kept' .*'fresh' .*pickle.*; ") as refused:
                env.dump()
            self.assertEqual(vars(refused.exception), dict(keys=["kept", "fresh"], filepath=str(self.root / "xp/env")))
            self.assertEqual(items("xp"), {"kept": 1, "good": 1})
            self.assertTrue(callable(env["kept"]))
        env.update(kept=2, fresh=3)
        env.dump()
        env.attribute = lambda: None
        self.assertRaisesRegex(Exception, "pickle.*lambda", env.dump)
        self.assertEqual(items("xp"), {"kept": 2, "good": 1, "fresh": 3})

    def test_what_was_saved_but_cannot_be_pickled_any_more_costs_only_itself_and_is_kept_aside(self):
        mine = load()
        self.dumped(n=1)
        mine["x"] = Once()
        mine.dump()
        again = load()
        again["m"] = 2
        with self.refused(EnosSaveError, "'x'"):
            again.dump()
        self.assertEqual((items("xp"), set(items("xp", "env.bak1"))), ({"n": 1, "m": 2}, {"n", "x"}))

    def test_what_cannot_be_loaded_here_is_kept_aside_by_new_and_by_a_save(self):
        env = load()
        for n, save in enumerate((lambda: get_or_create_env(True, "xp"), lambda: (env.update(n=1), env.dump()))):
            Path("xp/env").write_bytes(b"damaged")
            with self.logged() as log:
                save()
            self.assertRegex(log.output[0], f"Kept the checkpoint .*/xp/env as env.bak{n + 1}: ")
            self.assertEqual(Path(f"xp/env.bak{n + 1}").read_bytes(), b"damaged")
            self.assertEqual(items("xp"), {"n": 1} if n else {})
        env["x"] = Refusing(1, 2)
        env.dump()
        env.update(x=lambda: None, m=1)
        with self.assertRaises(EnosSaveError):
            env.dump()
        self.assertEqual((backups("xp")[2:], items("xp")), (["env.bak3"], {"n": 1, "m": 1}))

    def test_new_keeps_work_as_the_next_backup_which_is_one_more_than_the_highest(self):
        self.dumped(x=1)
        for name in ("env.bak9", "env.bakery", "env.bak"):
            Path("xp", name).touch()
        with self.logged() as log:
            get_or_create_env(True, "xp")
        self.assertIn("env.bak10", log.output[0])
        self.assertEqual((items("xp"), items("xp", "env.bak10")), ({}, {"x": 1}))

    def test_a_task_that_only_looks_writes_nothing_and_takes_no_lock(self):
        mine = self.dumped(x={"a": [1, "a"]})
        os.unlink("xp/.env.lock")
        before = os.stat("xp/env")
        change("xp", lambda env: env["x"])
        [env.dump() for env in (load(), self.env, mine)]
        after = os.stat("xp/env")
        self.assertEqual((after.st_ino, after.st_mtime_ns), (before.st_ino, before.st_mtime_ns))
        self.assertFalse(os.path.exists("xp/.env.lock"))

    def test_a_task_that_tore_its_environment_down_leaves_it_so_unless_it_changed_something(self):
        for name, tear_down in (("xp", shutil.rmtree), ("xp/env", os.unlink)):
            with self.subTest(name=name):
                get_or_create_env(True, "xp")
                change("xp", lambda env: tear_down(name))
                self.assertFalse(os.path.exists(name))
                get_or_create_env(True, "xp")
                with self.logged() as log:
                    change("xp", lambda env: (tear_down(name), env.update(x=1)))
                self.assertRegex(log.output[0], "/xp/env (is|was) gone: making it again")
                self.assertEqual(items("xp"), {"x": 1})
                with self.refused(EnosSaveError, "'x'"):
                    change("xp", lambda env: (tear_down(name), env.update(x=lambda: None)))
        env = load()
        shutil.rmtree("xp")
        with self.logged():
            env.dump()
        change(Environment("made"), lambda env: None)
        self.assertEqual((seen(env), items("made")), (read("xp"), {}))

    def test_the_mode_and_owner_are_kept_and_a_new_one_follows_the_umask(self):
        self.addCleanup(os.umask, os.umask(0o027))
        get_or_create_env(True, "masked")
        self.assertEqual(mode("masked/env"), 0o640)
        for number in (0o600, 0o664, 0o444):
            if os.geteuid() == 0:
                os.chown("xp/env", 1234, 4321)
            os.chmod("xp/env", number)
            before = os.stat("xp/env")
            self.dumped(n=number)
            after = os.stat("xp/env")
            self.assertNotEqual(after.st_ino, before.st_ino)
            self.assertEqual((mode("xp/env"), after.st_uid, after.st_gid), (number, before.st_uid, before.st_gid))

    @unittest.skipUnless(hasattr(os, "geteuid") and os.geteuid() == 0, "only root can give files away")
    def test_where_owner_or_group_cannot_be_kept_the_new_group_gets_nothing(self):
        for name in (".", "xp"):
            os.chmod(name, 0o777)
        for groups, wanted in (([4321], (1234, 4321, 0o664)), ([], (1234, 1234, 0o604))):
            os.chown("xp/env", 99, 4321)
            os.chmod("xp/.env.lock", 0o600)
            os.chmod("xp/env", 0o664)
            self.script(f"""
                env = get_or_create_env(False, "xp")
                os.setgroups({groups}); os.setgid(1234); os.setuid(1234)
                env["n"] = {groups}
                env.dump()
            """)
            found = os.stat("xp/env")
            self.assertEqual((found.st_uid, found.st_gid, mode("xp/env")), wanted)

    def test_a_mode_that_is_right_already_is_not_set_again(self):
        self.script("""
            def refuse(*_):
                raise PermissionError(1, "Operation not permitted")
            os.chmod("xp/env", int(sys.argv[1], 8))
            env = get_or_create_env(False, "xp")
            for call in sys.argv[2:]:
                setattr(os, call, refuse)  # as on a network share with fixed owners
            env["n"] = sys.argv[1]
            env.dump()
        """, "640", "fchown", "chown")
        self.assertEqual((items("xp"), mode("xp/env")), ({"n": "640"}, 0o640))
        self.script(None, "600", "fchown", "chown", "fchmod", "chmod")
        self.assertEqual((items("xp"), mode("xp/env")), ({"n": "600"}, 0o600))

    def test_a_checkpoint_that_is_a_link_is_written_through(self):
        os.mkdir("store")
        os.rename("xp/env", "store/real")
        os.symlink("../store/real", "xp/env")
        self.dumped(x=1)
        begin("xp", lambda env: env.update(y=1))
        self.assertTrue(os.path.islink("xp/env"))
        self.assertEqual((items("xp"), items("xp", "env.bak1")), ({"y": 1}, {"x": 1}))
        self.assertEqual(sorted(os.listdir("store")), [".env.lock", "real"])

    def test_identity_between_values_is_kept_also_by_a_merge(self):
        shared, other = [1], {}
        mine = self.dumped(a=shared, b=shared)
        self.dumped(c=other, d=other)
        mine["n"] = 1
        mine.dump()
        merged = load()
        self.assertIs(merged["a"], merged["b"])
        self.assertIs(merged["c"], merged["d"])

    def test_where_locks_do_not_work_the_save_goes_on(self):
        code = """
            def flock(*_):
                raise OSError(getattr(errno, sys.argv[1]), "no locks here")
            fcntl.flock = flock
            env = get_or_create_env(False, "xp")
            env["n"] = sys.argv[1]
            env.dump()
        """
        self.script(code, "ENOLCK")
        self.assertIn("no locks here", self.script(None, "EIO", status=1))
        self.assertEqual(items("xp"), {"n": "ENOLCK"})

    def test_several_processes_and_threads_lose_no_key_and_no_line(self):
        code = """
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
            self.assertRegex(line, WHEN + r"step      (started   host .*, pid \d+, Python 3\.\S+|finished  \d+\.\d s)$")

    @unittest.skipIf(sys.implementation.name == "pypy", "its pickle can hang in a signal handler")
    def test_a_signal_handler_that_saves_in_the_midst_of_a_save_gets_an_error_and_no_hang(self):
        self.script("""
            env, other = get_or_create_env(False, "xp"), get_or_create_env(False, "xp")
            refused, number = [], 0
            def handler(*_):
                other["n"] = other.get("n", 0) + 1
                try:
                    other.dump()
                except OSError as error:
                    refused.append(error.errno)
            signal.signal(signal.SIGALRM, handler)
            while number < 300 or not refused and number < 3000:
                env["x"] = number = number + 1
                signal.setitimer(signal.ITIMER_REAL, 0.0001 * (1 + number % 30))
                env.dump()
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert set(refused) == {errno.EDEADLK}, refused
        """)

    def test_what_a_killed_save_left_goes_and_nothing_else(self):
        kept = (".env.production.tmp", ".env.0123456789abcdef.tmp2", "results.tmp")
        for name in (".env.0123456789abcdef.tmp", *kept):
            Path("xp", name).write_text("half")
        self.dumped(x=1)
        self.assertEqual(set(os.listdir("xp")), {"env", ".env.lock", *kept})

    def test_the_file_is_synced_before_it_is_renamed_and_the_directory_after(self):
        said = self.script("""
            env, fail = get_or_create_env(False, "xp"), ["as planned"]
            def told(name, function):
                def call(*args, **kwargs):
                    found = function(*args, **kwargs)
                    path = os.readlink(f"/proc/self/fd/{args[0]}") if name == "fsync" else str(args[1])
                    print(name if os.path.getsize(path) else "empty", os.path.relpath(path), flush=True)
                    if fail and os.path.relpath(path) == "xp":
                        raise OSError(errno.EIO, fail.pop())
                    return found
                setattr(os, name, call)
            for name in ("fsync", "replace", "symlink"):
                told(name, getattr(os, name))
            env["x"] = 1
            try:
                env.dump()
            except OSError:
                env.dump()
            get_or_create_env(True, "deep/er")
            get_or_create_env(True, "xp", symlink=False)
        """)
        said = re.sub(r"\.(env|current)\.[0-9a-f]+\.tmp", "TMP", said).splitlines()
        self.assertEqual(said[:6], ["fsync xp/TMP", "replace xp/env", "fsync xp"] * 2)  # also after an error
        self.assertEqual(sorted(said[6:8]), ["fsync .", "fsync deep"])
        self.assertEqual(said[8:11], ["fsync deep/er/TMP", "replace deep/er/env", "fsync deep/er"])
        self.assertEqual(said[-6:], ["fsync xp/TMP", "replace xp/env.bak1", "fsync xp", *said[:3]])
        self.assertEqual(said[11:-7], ["symlink TMP", "replace current", "fsync ."])

    @unittest.skipUnless(os.geteuid() == 0 and sys.platform == "linux", "mounts need root")
    def test_a_full_or_read_only_disk_changes_nothing_and_lets_tasks_look(self):
        os.mkdir("disk")
        if subprocess.call(["mount", "-t", "tmpfs", "-o", "size=64k", "none", "disk"], stderr=subprocess.DEVNULL):
            self.skipTest("no tmpfs can be mounted here")
        self.addCleanup(subprocess.call, ["umount", "-l", str(self.root / "disk")])
        look = """print(enostask(lambda env: len(env["tags"]))("disk/xp"))"""
        begin("disk/xp", lambda env: env.update(tags={"a" * n for n in range(50)}, x=1))
        before = Path("disk/xp/env").read_bytes()
        with contextlib.suppress(OSError), open("disk/filler", "wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        for state in ("full", "read-only"):
            with self.subTest(state=state):
                for seed in "123":
                    self.assertEqual(self.script(look, PYTHONHASHSEED=seed), "50\n")
                env = load("disk/xp")
                env["x"] = "y" * 8192
                for save in (env.dump, lambda: get_or_create_env(True, "disk/xp", symlink=False)):
                    with self.assertRaises((OSError, EnosFilePathError)):
                        save()
                self.assertEqual(Path("disk/xp/env").read_bytes(), before)
                self.assertEqual([name for name in os.listdir("disk/xp") if name.endswith("tmp")], [])
            subprocess.check_call(["mount", "-o", "remount,ro", str(self.root / "disk")])
        with self.logged(logging.DEBUG) as log:
            change("disk/xp", lambda env: env["x"])
        self.assertEqual([sum(word in line for line in log.output) for word in ("cannot be written", "DEBUG")], [1, 1])


class ConfigFile(PlaceWithXp):
    def test_it_updates_config_from_json_by_suffix_or_by_config_type_also_before_each_task(self):
        self.env["config"] = {"kept": 1, "load": 0}
        for file, kind, load_ in (("c.json", "yaml", 1), (self.root / "c.conf", "json", 2), ("c.json", "x", 3)):
            Path(file).write_text('{"load": %d}' % load_)
            self.env.update(config_file=file, config_type=kind)
            self.env.reload_config()
            self.assertEqual(self.env["config"], {"kept": 1, "load": load_})
        self.env.dump()
        Path("c.json").write_text('{"load": 4}')
        self.assertEqual(enostask(lambda env: env["config"]["load"])("xp"), 4)

    def test_yaml_needs_pyyaml_and_an_empty_one_is_no_change(self):
        Path("c.yaml").touch()
        code = """
            if "absent" in sys.argv:
                sys.modules["yaml"] = None
            env = get_or_create_env(False, "xp")
            env["config_file"] = "c.yaml"
            for content in ("", "n: 1"):
                Path("c.yaml").write_text(content)
                env.reload_config()
                print(env["config"])
        """
        said = self.script(code, "absent", status=1)
        self.assertRegex(said.splitlines()[-1], "EnosFilePathError: .*c.yaml.*PyYAML")
        Path("yaml.py").write_text("def safe_load(content):\n    return {'n': 1} if content else None")
        self.assertEqual(self.script(None), "{}\n{'n': 1}\n")

    def test_a_missing_one_is_a_warning_and_the_stored_config_stays(self):
        self.env.update(config_file="nix.json", config={"n": 1})
        with self.logged() as log:
            self.env.reload_config()
        self.assertRegex(log.output[0], f"{self.root}/nix.json' is missing")
        self.assertEqual(self.env["config"], {"n": 1})

    def test_a_bad_one_is_the_stated_error_and_the_config_stays(self):
        os.mkdir("folder.json")
        for name, content, kind, wanted in (
            ("a.json", b"{", "", "JSONDecodeError"), ("b.json", b"[1]", "", "it holds a list, not a mapping"),
            ("c.json", b"\xff\xfe\xff", "", "Unicode|JSON"), ("folder.json", None, "", "IsADirectoryError: Is a dir"),
            ("d.toml", b"x = 1", "toml", r"env\['config_type'\] is 'toml', not 'json' or 'yaml'"),
            (3, None, "json", r"env\['config_file'\], 3: TypeError"),
        ):
            with self.subTest(name=name):
                if content is not None:
                    Path(name).write_bytes(content)
                self.env.update(config_file=name, config_type=kind, config={"n": 1})
                with self.refused(EnosFilePathError, str(name), "mend the file", wanted) as refused:
                    self.env.reload_config()
                self.assertEqual((refused.exception.filepath, self.env["config"]), (name, {"n": 1}))

    @unittest.skipUnless(importlib.util.find_spec("yaml"), "needs PyYAML")
    def test_bad_yaml_names_the_position_and_not_the_lines(self):
        Path("c.yaml").write_text("a: 1\nb: [2\nsecret: }\n")
        self.env["config_file"] = "c.yaml"
        with self.refused(EnosFilePathError, r"c.yaml'.* in line 3, column 7") as refused:
            self.env.reload_config()
        self.assertNotIn("secret", str(refused.exception))


class TheRecord(Place):
    def test_each_run_leaves_a_line_when_it_starts_and_one_when_it_ends_unless_it_is_killed(self):
        @enostask()
        async def coroutine(env):
            change(env, lambda env: None)

        @enostask()
        def generator(env):
            yield

        get_or_create_env(True, "xp")
        for error in (None, KeyError("secret"), KeyboardInterrupt("secret"), SystemExit(0), SystemExit("secret")):
            with contextlib.suppress(BaseException):
                change("xp", lambda env: None, error)
        asyncio.run(coroutine())
        list(generator())
        with self.assertRaises(EnosSaveError):
            change("xp", lambda env: env.update(secret=lambda: None))
        here = f"host {os.uname().nodename}, pid {os.getpid()}, Python {sys.version.split()[0]}"
        said = re.sub(rf"(?m){WHEN}| 0\.\d s", "", Path("xp/env.log").read_text())
        start, done, failed = "change    started   here", "change    finished ", "change    failed   , "
        wanted = [done, failed + "KeyError", failed + "KeyboardInterrupt", done, failed + "SystemExit"]
        wanted = [line for end in wanted for line in (start, end)]
        wanted += ["coroutine  started   here", start, done, "coroutine  finished ", "generator  started   here"]
        wanted += ["generator  finished ", start, failed + "EnosSaveError"]
        self.assertEqual(said.replace(here, "here").splitlines(), wanted)
        self.script("enostask(new=True)(lambda env: os._exit(9))('killed')", status=9)
        self.assertEqual(len(Path("killed/env.log").read_text().splitlines()), 1)

    def test_where_it_cannot_be_written_the_task_runs_all_the_same_with_one_debug_message(self):
        os.makedirs("xp/env.log")
        with self.logged(logging.DEBUG) as log:
            begin("xp", lambda env: env.update(x=1))
        self.assertEqual((sum("DEBUG" in line for line in log.output), items("xp")), (1, {"x": 1}))


class LookingIntoEnvironments(Place):
    def shown(self, *arguments, status=0, columns=999):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            os.environ["COLUMNS"] = str(columns)
            self.addCleanup(os.environ.pop, "COLUMNS", None)
            self.assertEqual(module.main([str(argument) for argument in arguments]), status)
        for line in (out.getvalue() + err.getvalue()).splitlines():
            self.assertTrue(line.isprintable(), line)
        return err.getvalue() if status else out.getvalue()

    def test_it_lists_the_environments_here_newest_first_and_says_where_current_leads(self):
        self.assertEqual(self.shown(), f"current -> {self.root}/current, which is not there\n")
        for n, name in enumerate("abc"):
            get_or_create_env(True, name)
            os.utime(f"{name}/env", (10**9 + 60 * n, 10**9 + 60 * n))
        wanted = r"/c\n  c   2001-09-\d\d \d\d:\d\d   0\.\d kB\n  b .*kB\n  a "
        self.assertRegex(self.shown(), f"^current -> {self.root}{wanted}")

    def test_it_shows_one_line_for_each_key_cut_to_the_width(self):
        day, loop = datetime.datetime(2026, 11, 22, tzinfo=datetime.timezone.utc), Machine("loop")
        loop.tags.append(loop)
        begin("xp", lambda env: env.update({
            "x": list(range(1000)), "b": bytes(10**6), "n": 10**5000, "long": "y" * 500, "c\x1b[31m": "\x07",
            "when": datetime.datetime(2026, 11, 22, 13, 55, 6), "zone": {day: {Machine}}, "p": Path("a/b"), "l": loop,
            5: {1: None}, "m": Machine("m1"), "nested": [[[[[[[Machine("x")]]]]]]], "own": OwnDict(a=OwnList([1])),
        }))
        self.assertLessEqual(max(map(len, self.shown("xp", columns=90).splitlines())), 90)
        said = self.shown("xp")
        for wanted in (
            r"/xp/env: saved 20\d\d-.* kB\n", r"\\x1b\[31m.*'\\x07'", r"5              dict   \{1: None\}",
            r"resultdir      pathlib\.\S+   " + re.escape(str(self.root / "xp")), r"p              \S+   a/b",
            r"x              list   \[0, 1, 2, 3, 4, 5, \.\.\.\]", r"b              bytes   1000000 bytes",
            r"when           datetime.datetime   datetime(\.datetime)?\(2026, 11, 22, 13, 55, 6\)",
            r"m              \w+\.Machine   Machine\(name='m1', tags=\['tag'\]\)",
            r"n              int   an int of 16610 bits", r"zone .*timezone\(",
            r"own            \w+\.OwnDict   OwnDict\(a=OwnList\(1\)\)",
        ):
            self.assertRegex(said, wanted)

    def test_a_name_that_is_not_there_and_a_directory_without_a_checkpoint_are_one_line(self):
        os.mkdir("folder")
        Path("file").write_text("text")
        for specifier, wanted in (
            ("nix", "no nix in .*name the directory of an environment"),
            ("..", "no env in .*: name the directory of an environment"),
            ("folder", "no env in '.*/folder': "),
            ("file", "'.*/file' is no whole checkpoint: "),
            ("file/sub", ".*is a file: name the directory"),
        ):
            self.assertRegex(self.shown(specifier, status=1), rf"^enostask: {wanted}.*\n\Z")

    def test_it_is_a_command_and_ends_quietly_behind_head(self):
        begin("xp", lambda env: env.update({f"key{n}": "x" * 60 for n in range(3000)}))
        for name, status, wanted in (("xp | head -n 1", 0, (1, 0)), ("| true", 0, (0, 0)), ("nix", 1, (0, 1))):
            command = f"PYTHONUNBUFFERED= '{sys.executable}' '{MODULE}' {name}"
            done = subprocess.run(command, shell=True, stdout=-1, stderr=-1, text=True)
            self.assertEqual((done.returncode, (done.stdout.count("\n"), done.stderr.count("\n"))), (status, wanted))

    def test_hostile_pickles_import_nothing_and_run_nothing(self):
        before = b"\x80\x04cenostask\nEnvironment\n)\x81}(X\x04\x00\x00\x00data}(X\x01\x00\x00\x00x"
        shout = b"X\x0e\x00\x00\x00echo ran > ran"
        os.mkdir("xp")
        for call in (
            b"cos\nsystem\n(" + shout + b"tR", b"csubprocess\nPopen\n(" + shout + b"t}\x92", b"X\x01\x00\x00\x00aQ",
            b"cbuiltins\neval\n(" + b"X\x10\x00\x00\x00open('ran', 'w')" + b"tR",
            b"c__builtin__\nexec\n" + b"X\x12\x00\x00\x00import antigravity" + b"\x85R",
            b"c__main__\nX\n)\x81}(X\x09\x00\x00\x00__class__cos\nsystem\nub",
            b"cbuiltins\nstr\n)\x81}(X\x08\x00\x00\x00__repr__cos\nsystem\nub",
            b"cantigravity\nlist\n)\x81", b"cantigravity\ndict\n)\x81(K\x01K\x02u",
            b"cantigravity\nOrdered\n)\x81(K\x01K\x02e", b"cposix\nsystem\n" + shout + b"\x85R" + shout + b"\x85R",
            b"cdatetime\ndatetime\n}(X\x03\x00\x00\x00nowcos\nsystem\nub",
        ):
            with self.subTest(call=call), contextlib.redirect_stdout(io.StringIO()):
                Path("xp/env").write_bytes(before + call + b"uub.")
                with contextlib.redirect_stderr(io.StringIO()) as err:
                    self.assertIn(module.main(["xp"]), (0, 1))
                self.assertLessEqual(err.getvalue().count("\n"), 1)
                self.assertFalse(os.path.exists("ran") or "antigravity" in sys.modules)
