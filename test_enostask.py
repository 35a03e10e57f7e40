# test_enostask 2.0.0, MIT-0: what enostask promises, told by state machines and then by examples.
# SPDX-FileCopyrightText: the enostask authors; SPDX-License-Identifier: MIT-0
"""Needs hypothesis; run by ``python -m unittest``.

With ``ENOSTASK_TESTS=deep`` in the environment it looks longer, and at random.
"""

import asyncio
import builtins
import contextlib
import copy
import datetime
import errno
import functools
import gc
import importlib.util
import io
import itertools
import logging
import operator
import os
import pickle
import pprint
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import types
import unittest
from collections import UserDict
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

import enostask as module
from enostask import (
    EnosError,
    EnosFilePathError,
    EnosKeyError,
    EnosMissingError,
    EnosSaveError,
    Environment,
    enostask,
    get_or_create_env,
)

MODULE = Path(module.__file__).resolve()
FRESH = {  # what a new environment holds, as `seen` shows it
    "resultdir": ".",
    "config_file": None,
    "config": {},
    "config_type": "yaml",
}
WHEN = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4}  "  # as each line of env.log begins
IMPORTS = """\
import errno, os, signal, sys, threading, time
from pathlib import Path
from enostask import *
"""  # what each script begins with; fcntl is not on Windows: import it where it is needed
os.umask(0o022)

settings.register_profile(
    "fixed",
    derandomize=True,
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    "deep", settings.get_profile("fixed"), derandomize=False, max_examples=2000
)
settings.load_profile("deep" if os.environ.get("ENOSTASK_TESTS") == "deep" else "fixed")
logging.getLogger("enostask").addHandler(logging.NullHandler())


# ---- What the tests share


def seen(env):
    """Return what *env* holds, with its resultdir as it is from its directory."""
    results = Path(env["resultdir"])
    inside = env.env_name in (results, *results.parents)
    return {**env, "resultdir": os.path.relpath(results, env.env_name) if inside else str(results)}


def read(directory, name="env"):
    """Return what the checkpoint in *directory* holds."""
    return seen(Environment.load_from_file(Path(directory, name)))


def own(items):
    """Return what a user has put into *items*."""
    return {key: value for key, value in items.items() if key not in FRESH}


def items(directory, name="env"):
    """Return what users have put into the checkpoint in *directory*."""
    return own(read(directory, name))


def load(name="xp"):
    """Return the environment in the directory *name*, loaded."""
    return get_or_create_env(False, name)


def backups(directory):
    """Return the names of the backups in *directory*, in the order of their numbers."""
    names = [name for name in os.listdir(directory) if name.startswith("env.bak")]
    return sorted(names, key=lambda name: (len(name), name))


def mode(*path):
    """Return the permissions of the file *path*, a number."""
    return stat.S_IMODE(os.stat(os.path.join(*path)).st_mode)


def alter(items, key, value):
    """Delete *key*, change its value in place, or set it."""
    if value == "deleted":
        items.pop(key, None)
    elif value == "more" and isinstance(items.get(key), list):
        items[key].append(len(items[key]))
    else:
        items[key] = copy.deepcopy(value)


def stop_with(error):
    """Raise *error*."""
    raise error


def leave_alone(env):
    """Do nothing to *env*."""


def spoil(env):
    """Set a key of *env* to what cannot be pickled."""
    env["bad"] = REFUSED


@enostask(new=True)
def begin(env, how=leave_alone, env_symlink=True):
    """Start an environment, and let *how* change it."""
    assert seen(env) == read(env.env_name) == FRESH
    assert not env_symlink or os.path.realpath("current") == str(env.env_name)
    how(env)


@enostask()
def change(env, how=leave_alone, error=None):
    """Let *how* change the environment, and fail by *error*."""
    how(env)
    if error is not None:
        raise error


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
        environment = {
            **os.environ,
            "PYTHONPATH": str(MODULE.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
            **variables,
        }
        process = subprocess.Popen(
            [sys.executable, "script.py", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.communicate)
        return process

    def script(self, code, *arguments, status=0, **variables):
        """Run *code* as a process of its own that ends with *status*; return what it printed."""
        process = self.start(code, *arguments, **variables)
        out, err = process.communicate(timeout=100)
        self.assertEqual(process.returncode, status, err)
        return out + err if status else out

    @contextlib.contextmanager
    def refused(self, kind, pattern):
        """Expect *kind*, with a message on one short line that has the *pattern*."""
        with self.assertRaises(kind) as caught:
            yield caught
        error = caught.exception
        message = str(error)
        self.assertIs(type(error), kind)
        self.assertTrue(error.__cause__ is error.__context__ or error.__suppress_context__)
        self.assertEqual(len(message.splitlines()), 1)
        self.assertLess(len(message), 700)
        self.assertRegex(message, pattern)

    def logged(self, level=logging.WARNING):
        """Catch what is logged, from *level* on."""
        return self.assertLogs("enostask", level)


# ---- The state machines


def can_link():
    """Tell whether symbolic links can be made where the tests work."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            os.symlink("anywhere", Path(directory, "link"))
        except (OSError, NotImplementedError):
            return False
        return True


def no_syncing():
    """Spare the disk: no test can tell whether it was reached."""
    return mock.patch.object(os, "fsync", leave_alone)


needs_links = unittest.skipUnless(can_link(), "symbolic links cannot be made here")

REFUSED = lambda: None  # can be copied, but not pickled

LIBRARY = '''
"""Classes of which each is pickled in another way."""

import collections
import copyreg
import dataclasses
import datetime
import enum
import functools


class Plain:  # a dict as state
    def __init__(self, item):
        self.item = item

    def show(self):
        return self.item

    @classmethod
    def create(cls, item):
        return cls(item)

    class Inner:  # a dotted name
        def __init__(self, item):
            self.item = item


class Slotted(Plain):  # a tuple as state
    __slots__ = ("slot", "empty")

    def __init__(self, item):
        self.item = self.slot = item


class Stateful(Plain):  # anything as state
    def __getstate__(self):
        return ["state", self.item]

    def __setstate__(self, state):
        self.item = state[1]


class Positional:  # arguments for __new__
    def __new__(cls, item):
        self = super().__new__(cls)
        self.new = item
        return self

    def __getnewargs__(self):
        return (self.new,)


class Keyword:  # keywords for __new__
    def __new__(cls, *, item):
        self = super().__new__(cls)
        self.new = item
        return self

    def __getnewargs_ex__(self):
        return (), {"item": self.new}


def keyword(item):
    return Keyword(item=item)


class Called(Plain):  # a call of the class
    def __reduce__(self):
        return Called, (self.item,)


class Made(Plain):  # a call of a function
    def __reduce__(self):
        return make, (self.item,)


def make(item):
    return Made(item)


class Created(Plain):  # a call of a method of the class
    def __reduce__(self):
        return Plain.create, (self.item,)


class Assigned(Plain):  # a function that sets the state
    def __reduce__(self):
        return copyreg.__newobj__, (Assigned,), [self.item], None, None, assign


def assign(assigned, state):
    assigned.item = state[0]


class Old(Plain):  # as the first protocols do it
    def __reduce_ex__(self, protocol):
        return super().__reduce_ex__(0)


class Filled(dict):  # a call, a state, and items of both kinds
    def __init__(self):
        self.list = []

    def append(self, item):
        self.list.append(item)

    def extend(self, items):
        self.list.extend(items)

    def __reduce__(self):
        return Filled, (), {"item": self.item}, iter(self.list), iter(self.items())


def fill(item):
    filled = Filled()
    filled.item = filled["item"] = item
    filled.append(item)
    return filled


class Bag(list):
    pass


class Table(dict):
    pass


class Group(set):
    pass


class Label(str):
    pass


class EnosError(Exception):  # not that of enostask
    pass


class BenchError(Exception):  # can be pickled, but not be rebuilt
    def __init__(self, host, code):
        super().__init__(f"{host}: {code}")


class Checked(Plain):  # uses its item when it is filled
    def __setstate__(self, state):
        self.item = state["item"]
        bool(self.item)


class Hashed(Plain):  # uses its item when it is hashed
    def __hash__(self):
        return bool(self.item)


class Zone(datetime.tzinfo):
    def utcoffset(self, moment):
        return datetime.timedelta(hours=1)


Colour = enum.Enum("Colour", "RED GREEN")
Rights = enum.Flag("Rights", "READ WRITE")
Point = collections.namedtuple("Point", "one other")


@dataclasses.dataclass(frozen=True)
class Record:
    item: object


class Single:  # a name
    def __reduce__(self):
        return "SINGLE"


SINGLE = Single()


def names(item):
    return [Plain, make, Plain.Inner, SINGLE, Plain.create, Plain(item).show]


def partial(item):
    return functools.partial(Plain.create, item, key=make)


def bag(item):
    bag = Bag([item])
    bag.append(bag)
    bag.note = item
    return bag


def table(item):
    table = Table(item=item)
    table["table"] = table.note = table
    return table


def group(item):
    group = Group([Record(1)])
    group.note = [item, group]
    return group


def ring(item):
    one, other = Plain(item), Plain(item)
    one.peers, other.peers = [other, one], {one}
    return [other, one, EnosError(other, item)]


def tuple_in_itself(*items):
    inside = []
    made = (*items, inside)
    inside.append(made)
    return made


def knot(item):
    one = Plain(item)
    return [tuple_in_itself(fill(item)), tuple_in_itself(one, EnosError(one, item))]


def hashed(item):
    one = Hashed(item)
    return [{(1, one): frozenset([one])}, {one: {one}}]


def point(item):
    return Point(item, Label("label"))


def colour(item):
    return Colour.RED, Rights.READ | Rights.WRITE, Colour


def moment(item):
    return datetime.datetime(2026, 11, 22, tzinfo=Zone())


OBJECTS = [Plain, Plain.Inner, Slotted, Stateful, Positional, keyword, Called, make, Assigned, Old]
OBJECTS += [fill, EnosError, Checked, hashed, Record, names, partial, bag, table, group, ring, knot]
OBJECTS += [point, colour, moment, Created]
KEYS = [Record, Label, point, colour, moment]
'''


def library(name):
    """Return a new library that can be imported by that *name*."""
    made = types.ModuleType(name)
    sys.modules[name] = made
    exec(LIBRARY, vars(made))
    return made


TESTBED = library("testbed")  # not on every machine
LAPTOP = library("laptop")  # on every machine


@contextlib.contextmanager
def testbed_is(there):
    """Let *there* be the library of the testbed: a module, or None where it is missing."""
    before = sys.modules["testbed"]
    sys.modules["testbed"] = there
    try:
        yield
    finally:
        sys.modules["testbed"] = before


def others(directory):
    """Return the names in *directory* that are no part of an environment."""
    known = r"env|\.env\.lock|env\.log|env\.bak\d+"
    return [name for name in os.listdir(directory) if not re.fullmatch(known, name)]


REPLACE = os.replace


def fails(*paths):
    """Fail as on a full disk, in place of os.replace."""
    raise OSError(errno.ENOSPC, "as planned")


def replaces_and_fails(*paths):
    """Replace the file, and fail all the same."""
    REPLACE(*paths)
    raise OSError(errno.EIO, "as planned")


def replaces_and_is_interrupted(*paths):
    """Replace the file, and find that somebody has pressed Ctrl-C."""
    REPLACE(*paths)
    raise KeyboardInterrupt("as planned")


class Machine(RuleBasedStateMachine):
    """Each run has a directory of its own."""

    def __init__(self):
        super().__init__()
        self.above = Path(os.path.realpath(tempfile.mkdtemp(prefix="enostask-")))
        self.leaving = contextlib.ExitStack()
        self.leaving.callback(shutil.rmtree, self.above)
        self.leaving.enter_context(no_syncing())

    def teardown(self):
        self.leaving.close()


KEYS = st.sampled_from("xyz")
WHICH = st.integers(0, 1)


def ends_badly(env):
    """Fail, as tasks do."""
    raise KeyError("as planned")


def is_terminated(env):
    """Wait for the end that the scheduler of jobs sends."""
    signal.raise_signal(signal.SIGTERM)
    time.sleep(9)


class Experiments(Machine):
    """A working directory where tasks run and fail and things are moved about, against dicts."""

    names = st.sampled_from(["a", "b", "deep/er"])
    targets = st.sampled_from([None, "a", "b", "deep/er"])  # None is `current`
    spellings = st.sampled_from([str, Path, os.path.abspath])
    plain = [0, 1, [], [0], {1, 2}, {"a": [1]}]
    values = st.sampled_from([*plain, "deleted", "more"])  # as `alter` takes them
    contents = st.dictionaries(KEYS, st.sampled_from(plain), max_size=2)
    results = st.sampled_from(["out", "/elsewhere"])  # as seen from the directory
    ends = [  # of a task, with what its caller sees and what the record says
        (leave_alone, "None", " s\n"),
        (ends_badly, "KeyError('as planned')", " s, KeyError\n"),
        (is_terminated, "SystemExit(143)", " s, SIGTERM\n"),
    ]

    def __init__(self):
        super().__init__()
        self.leaving.callback(os.chdir, os.getcwd())
        self.leaving.enter_context(testbed_is(TESTBED))
        self.root = self.above / "root0"
        self.root.mkdir()
        os.chdir(self.root)
        self.held = {}  # name -> what it holds; not there once its directory is gone
        self.modes = {}  # name -> the mode of its checkpoint
        self.aside = {}  # name -> what its backups hold, and their modes
        self.current = None  # a name, or "file" where a file of the user's is in the way
        self.starts("a", "a", {"x": [0]})
        self.starts("b", "b", {"y": 1, "resultdir": "/elsewhere"}, symlink=False)

    def starts(self, name, specifier, contents, symlink=True):
        """Start an environment, or be refused."""
        blocked = symlink and self.current == "file"
        try:
            begin(specifier, lambda env: env.update(contents), env_symlink=symlink)
        except EnosFilePathError as error:
            assert blocked and "current" in str(error)
            return
        assert not blocked
        if name not in self.held:
            self.is_made(name)
        elif self.held[name] != FRESH:
            self.aside[name].append((self.held[name], self.modes[name]))
        self.held[name] = {**FRESH, **copy.deepcopy(contents)}
        if symlink:
            self.current = name

    def is_made(self, name):
        """Note that its directory is a new one."""
        self.modes[name] = 0o644
        self.aside[name] = []

    def runs(self, name, how, spelling=str):
        """Run a task; return the name, None if there is no such environment, and its error."""
        raised = None
        try:
            change(spelling(name or "current"), how)
        except EnosFilePathError:
            assert (name or self.current) not in self.held
            return None, None
        except (KeyError, SystemExit, EnosError) as error:
            raised = error
        assert (name or self.current) in self.held
        return name or self.current, raised

    @rule(name=targets, spelling=spellings, contents=contents, symlink=st.booleans())
    def a_new_environment_is_fresh_and_keeps_the_old_checkpoint(
        self, name, spelling, contents, symlink
    ):
        if name or self.current in self.held:
            specifier = spelling(name or "current")
            self.starts(name or self.current, specifier, contents, symlink)

    @rule(name=names)
    def a_new_environment_that_cannot_be_saved_changes_nothing(self, name):
        with mock.patch.object(os, "replace", fails):
            try:
                get_or_create_env(True, name)
            except (OSError, EnosError):
                return
        raise AssertionError("it was saved, but where?")

    @rule(name=targets, spelling=spellings, key=KEYS, value=values, end=st.sampled_from(ends))
    def a_task_changes_a_key_and_ends(self, name, spelling, key, value, end):
        how, wanted, record = end

        def changes(env):
            alter(env, key, value)
            how(env)

        name, error = self.runs(name, changes, spelling)
        if name:
            assert repr(error) == wanted
            assert Path(name, "env.log").read_text().endswith(record)
            alter(self.held[name], key, value)

    @rule(name=targets, kind=st.sampled_from([str, Path]), results=results)
    def a_task_sets_resultdir(self, name, kind, results):
        name, _ = self.runs(name, lambda env: env.update(resultdir=kind(env.env_name / results)))
        if name:
            self.held[name]["resultdir"] = results

    @rule(name=targets, bad=KEYS, key=KEYS)
    def a_value_that_cannot_be_pickled_costs_only_itself(self, name, bad, key):
        name, error = self.runs(name, lambda env: env.update({key: 2, bad: REFUSED}))
        if name:
            assert type(error) is EnosSaveError and error.keys == [bad]
            if key != bad:
                self.held[name][key] = 2

    @precondition(lambda self: sys.modules["testbed"] is TESTBED)
    @rule(name=targets, key=KEYS, item=values)
    def a_task_stores_an_object_of_the_testbed(self, name, key, item):
        name, _ = self.runs(name, lambda env: alter(env, key, TESTBED.Record(item)))
        if name:
            alter(self.held[name], key, TESTBED.Record(item))

    @rule(there=st.sampled_from([TESTBED, None, types.ModuleType("testbed")]))
    def the_library_of_the_testbed_comes_or_goes_or_is_another(self, there):
        sys.modules["testbed"] = there

    @rule(name=names, permissions=st.sampled_from([0o600, 0o640, 0o666]))
    def the_user_sets_the_mode_of_a_checkpoint(self, name, permissions):
        if name in self.held:
            self.modes[name] = permissions
            os.chmod(Path(name, "env"), permissions)

    @rule(name=names)
    def a_directory_is_deleted(self, name):
        shutil.rmtree(name, ignore_errors=True)
        self.held.pop(name, None)

    @rule(name=names, key=KEYS, value=st.sampled_from(["deleted", 0]))
    def a_task_tears_its_environment_down_and_may_change_it(self, name, key, value):
        def tears_down(env):
            shutil.rmtree(env.env_name)
            alter(env, key, value)

        name, _ = self.runs(name, tears_down)
        if name:
            before = copy.deepcopy(self.held[name])
            alter(self.held[name], key, value)
            self.is_made(name)
            if self.held[name] == before:
                del self.held[name]

    @rule()
    def the_working_directory_is_moved(self):
        self.root = self.above / f"root{int(self.root.name[4:]) + 1}"
        os.rename(os.getcwd(), self.root)
        os.chdir(self.root)

    @rule(kind=st.sampled_from(["file", None]))
    def the_user_puts_a_file_or_nothing_at_current(self, kind):
        with contextlib.suppress(FileNotFoundError):
            os.unlink("current")
        if kind:
            Path("current").write_text("precious")
        self.current = kind

    @invariant()
    def every_environment_reads_back_equal_with_its_backups(self):
        with testbed_is(TESTBED):
            for name, held in self.held.items():
                env = load(name)
                assert seen(env) == held, (seen(env), held)
                assert env.env_name == self.root / name
                assert mode(name, "env") == self.modes[name], oct(mode(name, "env"))
                assert backups(name) == [f"env.bak{n + 1}" for n in range(len(self.aside[name]))]
                aside = [(read(name, backup), mode(name, backup)) for backup in backups(name)]
                assert aside == self.aside[name]

    @invariant()
    def without_the_testbed_only_its_objects_cannot_be_used(self):
        with testbed_is(None):
            for name, held in self.held.items():
                for key, value in seen(load(name)).items():
                    if type(held[key]) is TESTBED.Record:
                        assert not hasattr(value, "item")
                    else:
                        assert value == held[key]

    @invariant()
    def current_is_where_it_should_be(self):
        if self.current == "file":
            assert Path("current").read_text() == "precious"
        else:
            leads_to = os.readlink("current") if os.path.lexists("current") else None
            assert leads_to == self.current

    @invariant()
    def nothing_else_is_on_disk(self):
        for directory, _, files in os.walk(self.root):
            name = os.path.relpath(directory, self.root)
            if name in self.held:
                assert others(name) == []
            else:
                assert files in ([], ["current"])
        assert set(os.listdir(self.root)) <= {"a", "b", "deep", "current"}
        for name in ("a", "b", "deep/er"):
            assert os.path.exists(name) == (name in self.held)


class Varying:
    """Equal to any other, and never pickled the same way twice."""

    count = itertools.count()

    def __init__(self, number=0):
        self.number = number

    def __eq__(self, other):
        return type(other) is Varying

    def __reduce__(self):
        return Varying, (next(self.count),)


ABSENT = "deleted"  # in place of a value: there is none, as `alter` takes it
UNKNOWN = "unknown"  # in place of a value: it is unlike any other


class Held:
    """An environment, what it holds, and what its keys held before."""

    def __init__(self, env, items, first):
        self.env = env
        self.items = copy.deepcopy(items)
        self.loaded = copy.deepcopy(items)
        self.first = first  # what used keys held before their first use, or at the last save

    def uses(self, *keys):
        """Note what *keys* hold that are there, and were not used before."""
        for key in keys:
            if key in self.items:
                self.first.setdefault(key, copy.deepcopy(self.items[key]))

    def changed(self):
        """Return the used keys that hold something else than at first; in doubt, they do."""
        changed = set()
        for key, first in self.first.items():
            now = self.items.get(key, ABSENT)
            if now != first or isinstance(now, Varying):
                changed.add(key)
        return changed


def pickled(env):
    """Return *env* as it is after a journey to another process."""
    return pickle.loads(pickle.dumps(env))


def by_get(items, key):
    return [items.get(key)]


def by_values(items, key):
    return items.values()


def by_data(items, key):
    return getattr(items, "data", items).values()


def by_copy(items, key):
    return copy.copy(items).values()


def by_item(env, key, value):
    env[key] = value


def through_data(env, key, value):
    env.data[key] = value


def by_or(env, key, value):
    env |= {key: value}


class Interleavings(Machine):
    """Two environments loaded from one checkpoint save in any order, each on top of the other."""

    values = st.sampled_from([0, [], [0], {"a"}, Varying(), REFUSED])
    looks = st.sampled_from([by_get, by_values, by_data, by_copy])
    ways = [by_item, through_data]
    if hasattr(UserDict, "__or__"):  # from 3.9 on
        ways.append(by_or)
    replacing = [REPLACE, fails, replaces_and_fails, replaces_and_is_interrupted]

    def __init__(self):
        super().__init__()
        self.root = self.above / "root"
        self.disk = {"x": 0, "y": [0], "z": Varying()}
        env = get_or_create_env(True, self.root, symlink=False)
        env.update(copy.deepcopy(self.disk))
        env.dump()
        self.all = [None, None]
        for which in (0, 1):
            self.one_loads_or_loads_an_old_backup_and_knows_no_earlier_state(which, "env")

    @rule(which=WHICH, name=st.sampled_from(["env", "env.bak1"]))
    def one_loads_or_loads_an_old_backup_and_knows_no_earlier_state(self, which, name):
        env = Environment.load_from_file(self.root / name)
        if name == "env":
            self.all[which] = Held(env, self.disk, {})
            self.aside = copy.deepcopy(self.disk)
            shutil.copy(self.root / "env", self.root / "env.bak1")
        else:
            first = dict.fromkeys([*FRESH, *self.aside], UNKNOWN)
            self.all[which] = Held(env, self.aside, first)

    @rule(which=WHICH, travel=st.sampled_from([pickled, copy.copy, copy.deepcopy]))
    def one_travels_and_knows_no_earlier_state(self, which, travel):
        held = self.all[which]
        if travel is not pickled or REFUSED not in held.items.values():
            env = travel(held.env)
            self.all[which] = Held(env, held.items, dict.fromkeys([*FRESH, *held.items], UNKNOWN))

    @rule(which=WHICH, key=KEYS, look=looks, grow=st.booleans(), save=st.booleans())
    def one_looks_at_values_and_may_change_the_lists_among_them(self, which, key, look, grow, save):
        held = self.all[which]
        held.uses(*(key if look is by_get else held.items))
        for value in [*look(held.env, key), *look(held.items, key)]:
            if grow and isinstance(value, list):
                value.append(len(value))
        if save:
            self.saves(held, REPLACE)

    @rule(which=WHICH, key=KEYS, value=values, how=st.sampled_from(ways))
    def one_sets_a_key(self, which, key, value, how):
        held = self.all[which]
        held.uses(*(key if how is by_item else held.items))
        held.first.setdefault(key, ABSENT)
        how(held.env, key, copy.deepcopy(value))
        held.items[key] = copy.deepcopy(value)

    @rule(which=WHICH, key=KEYS)
    def one_deletes_a_key(self, which, key):
        held = self.all[which]
        held.uses(key)
        if key in held.items:
            del held.env[key]
            del held.items[key]

    @rule(which=WHICH, replace=st.sampled_from(replacing))
    def one_saves_or_fails_to_and_takes_its_changes_back(self, which, replace):
        held = self.all[which]
        self.saves(held, replace)
        for key, value in held.loaded.items():
            if key in held.first:
                self.one_sets_a_key(which, key, value, by_item)
        self.saves(held, REPLACE)

    @rule(order=st.lists(WHICH, min_size=1, max_size=4), replace=st.sampled_from(replacing))
    def some_save_or_fail_to_and_try_again_some_time(self, order, replace):
        for which in order:
            self.saves(self.all[which], replace)

    def saves(self, held, replace):
        """Save what is *held*, with *replace* in place of os.replace."""
        changed = held.changed()
        refused = {key for key in changed if held.items.get(key) is REFUSED}
        before = os.stat(self.root / "env")
        failed = False
        try:
            with mock.patch.object(os, "replace", replace):
                held.env.dump()
            assert not refused
        except EnosSaveError as error:
            assert set(error.keys) == refused
        except (OSError, KeyboardInterrupt):
            failed = True
        assert failed == (bool(changed - refused) and replace is not REPLACE)
        assert gc.isenabled()
        if not changed:
            after = os.stat(self.root / "env")
            assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        for key in changed - refused:
            now = copy.deepcopy(held.items.get(key, ABSENT))
            held.first[key] = UNKNOWN if failed else now
            if not failed or replace is not fails:
                alter(self.disk, key, now)

    @invariant()
    def on_disk_is_what_each_has_changed_on_top_of_what_the_others_have(self):
        assert items(self.root) == self.disk, (items(self.root), self.disk)
        assert others(self.root) == []

    @invariant()
    def a_save_alters_nothing_in_memory_which_can_be_seen_without_use(self):
        for held in self.all:
            assert set(held.env) == {*FRESH, *held.items}
            assert own(copy.deepcopy(held.env)) == held.items


# ---- Any object, where its class is missing


def built(kind, item):
    """Return an object of the *kind*, built of *item*."""
    return kind(item)


def nested(inner):
    """Return the strategy of values that have *inner* ones in them."""
    objects = st.builds(built, st.sampled_from(TESTBED.OBJECTS + LAPTOP.OBJECTS), inner)
    keys = st.builds(built, st.sampled_from(TESTBED.KEYS + LAPTOP.KEYS), st.integers(0, 3))
    return objects | st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)


def image(value):
    """Return what *value* is built of, types and identities and all, as pickle sees it."""
    return pickle.dumps(pickle.loads(pickle.dumps(value, 5)), 5)


class StandIns(Place):
    """An environment goes to a machine without the testbed's library, and comes back."""

    values = st.recursive(st.none() | st.integers() | st.text(), nested, max_leaves=6)
    everything = [make(0) for make in TESTBED.OBJECTS]
    everything.append([make(TESTBED.Plain(0)) for make in LAPTOP.OBJECTS])
    everything.append([{make(0): [make(1)]} for make in TESTBED.KEYS])

    @given(values, st.sampled_from([None, types.ModuleType("testbed")]))
    @example(everything, None)
    def test_whatever_can_be_pickled_survives_where_its_class_is_missing(self, value, library):
        with tempfile.TemporaryDirectory() as directory, no_syncing():
            env = get_or_create_env(True, directory, symlink=False)
            env.update(x=value, again=[value, value])
            env.dump()
            with testbed_is(library):
                self.go_on_without(directory)
            env = load(directory)
        wanted = image({"x": value, "again": [value, value]})
        self.assertEqual(env["kept"].pop("number"), env["number"])
        self.assertEqual(image({"x": env["x"], "again": env["again"]}), wanted)
        self.assertEqual(image(env["kept"]), wanted)

    def go_on_without(self, directory):
        """Look, save from memory, and save on top of what another has saved, a few times."""
        checkpoint = Path(directory, "env")
        before = checkpoint.read_bytes()
        load(directory).dump()
        self.assertEqual(checkpoint.read_bytes(), before)
        sizes = set()
        for number in range(3):
            one, other = load(directory), load(directory)
            one["number"] = number
            one.dump()
            other["kept"] = {"x": other["x"], "again": other["again"], "number": number}
            other.dump()
            sizes.add(os.path.getsize(checkpoint))
        self.assertEqual(len(sizes), 1)


# ---- Crashes

CHANGING = "open mkdir rmdir symlink link fchmod fchown fsync replace rename unlink".split()


def stop_at(number, stop):
    """Call *stop* before the call of that *number* that may change the disk; return the count."""
    count = []

    def counting(call):
        def counted(*args, **kwargs):
            count.append(call)
            if len(count) == number:
                stop()
            return call(*args, **kwargs)

        return counted

    for name in CHANGING:
        setattr(os, name, counting(getattr(os, name)))
    return count


def is_killed():
    os._exit(9)


def is_interrupted():
    raise KeyboardInterrupt


def meets_a_bad_disk():
    raise OSError(errno.EIO, "as planned")


def save():
    env = load("work")
    env["x"] = 1
    return env.dump


def save_all_but_one_value():
    env = load("work")
    env.update(x=REFUSED, y=1)
    return env.dump


def save_on_top_of_another():
    dump = save()
    change("work", lambda env: env.update(z=3))
    return dump


def start_over():
    return functools.partial(get_or_create_env, True, "work")


def start_below():
    return functools.partial(get_or_create_env, True, "fresh/deep")


@needs_links
@unittest.skipUnless(hasattr(os, "fork"), "needs fork")
class Crashes(Place):
    """A process is killed, or its calls fail, at the first, second ... that changes the disk."""

    stops = [is_killed, is_interrupted, meets_a_bad_disk, fails]
    operations = [  # each with what `work` holds before and after, and where `current` leads then
        (save, {"x": 0}, {"x": 1}, "other"),
        (save_all_but_one_value, {"x": 0}, {"x": 0, "y": 1}, "other"),
        (save_on_top_of_another, {"x": 0, "z": 3}, {"x": 1, "z": 3}, "other"),
        (start_over, {"x": 0}, {}, "work"),
        (start_below, {"x": 0}, {"x": 0}, "fresh/deep"),
    ]

    def test_the_state_is_old_or_new_whole_wherever_a_process_stops(self):
        for prepare, *wanted in self.operations:
            for stop in self.stops:
                for number in itertools.count(1):
                    case = f"{prepare.__name__} {stop.__name__} {number}"
                    with self.subTest(case), no_syncing():
                        self.begin_in(self.root / case / "here")
                        outcome = self.outcome(prepare(), number, stop)
                        self.check(outcome, *wanted)
                    if outcome == "went through":
                        break
                self.assertGreater(number, 5)  # it was reached

    def begin_in(self, directory):
        """Start two environments in the working directory *directory*."""
        directory.mkdir(parents=True)
        os.chdir(directory)
        for name in ("work", "other"):
            begin(name, lambda env: env.update(x=0))
            os.chmod(f"{name}/env", 0o640)

    def outcome(self, action, number, stop):
        """Do *action* in a child that stops at the call of that *number*; return how it ended."""
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
        outcomes = {0: "went through", 1: "returned", 2: "raised", 9: "killed"}
        return outcomes[os.waitpid(child, 0)[1] >> 8]

    def check(self, outcome, old, new, target):
        """Expect the *old* state or the *new* one, and that the next tasks go on from there."""
        held = items("work")
        leads_to = os.path.relpath(os.path.realpath("current"))
        aside = [items("work", name) for name in backups("work")]
        left = [path for path in Path("..").rglob(".*") if path.name != ".env.lock"]
        self.assertIn(held, (old, new))
        self.assertIn(leads_to, ("other", target))
        self.assertEqual(items(leads_to), {"x": 0} if leads_to == "other" else {})
        self.assertIn(aside, ([], [old]))
        self.assertEqual([mode("work/env"), mode("other/env")], [0o640, 0o640])
        if target == "work" and held == new:
            self.assertEqual(aside, [old])
        if outcome in ("went through", "returned"):
            self.assertEqual((held, leads_to), (new, target))
        if outcome != "killed":
            self.assertEqual(left, [])
        for path in left:
            os.utime(path, (0, 0), follow_symlinks=False)  # long ago
        for name in ("work", "current"):
            change(name, lambda env: env.update(next=1))
            self.assertEqual(others(name), [])
        self.assertEqual(items("work"), {**held, "next": 1})


TestExperiments = needs_links(Experiments.TestCase)
TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=4 * settings().max_examples)  # short, and cheap


# ---- One example for each promise

needs_posix = unittest.skipUnless(os.name == "posix", "needs a POSIX system")
needs_root = unittest.skipUnless(os.name == "posix" and os.geteuid() == 0, "needs root")
ENOTSUPP = 524  # what some network file systems answer; Python has no name for it


class Unsteady:
    """Cannot be pickled the nth time, as if another thread put something in."""

    def __init__(self, number):
        self.left = number

    def __reduce__(self):
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("dictionary changed size during iteration")
        return dict, ()


class Fussy:
    """Raises what it is told to when it is pickled or loaded."""

    pickled = loaded = None

    def __getstate__(self):
        if self.pickled:
            raise self.pickled
        return True

    def __setstate__(self, state):
        if self.loaded:
            raise self.loaded


@contextlib.contextmanager
def time_by_sleeping():
    """Let time pass by sleeping alone; give the list of how long each sleep was."""
    slept = []
    with mock.patch.multiple(time, sleep=slept.append, monotonic=lambda: sum(slept)):
        yield slept


@contextlib.contextmanager
def broken(owner, name, error, times=999):
    """Let the function *name* of the module *owner* fail by *error* so many *times*."""
    call = getattr(owner, name)
    calls = itertools.count()

    def fail(*args, **kwargs):
        if next(calls) < times:
            raise type(error)(*error.args)
        return call(*args, **kwargs)

    with mock.patch.object(owner, name, fail):
        yield


def told(env, n=0, **options):
    """Say which environment a task got, and what else."""
    return f"{env.env_name.name} {n} {options}"


class PlaceWithXp(Place):
    """There is an environment in the directory xp, and `current` leads to it."""

    def setUp(self):
        super().setUp()
        self.env = get_or_create_env(True, "xp")

    def saved(self, **values):
        """Save *values* in xp as another task would; return its environment."""
        env = load()
        env.update(values)
        env.dump()
        return env

    def holds(self, **values):
        """Expect that *values* are saved in xp, and no others."""
        self.assertEqual(items("xp"), values)

    @contextlib.contextmanager
    def warned(self, pattern):
        """Expect a warning that has the *pattern*."""
        with self.logged() as log:
            yield
        self.assertRegex("\n".join(log.output), pattern)

    @contextlib.contextmanager
    def silent(self):
        """Expect no warning."""
        with self.assertRaisesRegex(AssertionError, "no logs"), self.logged():
            yield


class Names(PlaceWithXp):
    def test_errors_show_one_line_and_survive_pickling_with_their_attributes(self):
        for error in (
            EnosFilePathError("a/b", "two\nlines"),
            EnosFilePathError("a/b"),
            EnosKeyError("x" * 999),
            EnosMissingError("testbed.Plain"),
            EnosSaveError("a/env", ["x"], "message"),
        ):
            with self.refused(type(error), "."):
                twin = pickle.loads(pickle.dumps(error))
                self.assertEqual((str(twin), vars(twin)), (str(error), vars(error)))
                raise twin

    def test_a_key_that_is_not_there_is_an_error_that_names_key_and_directory(self):
        self.assertEqual(EnosKeyError.__bases__, (EnosError, KeyError))
        for use in (self.env.__getitem__, self.env.__delitem__, self.env.pop):
            with self.refused(EnosKeyError, "'machines'.*xp") as refused:
                use("machines")
            self.assertEqual(refused.exception.args, ("machines",))

    def test_print_and_pprint_show_the_data_as_those_of_any_user_dict(self):
        for show in (str, pprint.pformat, len):
            self.assertEqual(show(self.env), show(self.env.data))

    def test_no_message_shows_a_stored_value(self):
        self.env["token"] = "s3cret"
        for action in (enostask, functools.partial(operator.or_, {}), Environment):
            with self.assertRaisesRegex((TypeError, EnosFilePathError), r"\A(?!.*s3cret)"):
                action(self.env)


class ANewEnvironment(Place):
    def test_it_makes_the_directory_with_its_parents_and_holds_four_keys(self):
        env = Environment(Path("deep/er"))
        self.assertEqual((env.env_name, seen(env)), (self.root / "deep" / "er", FRESH))
        self.assertEqual(os.listdir("deep/er"), [])
        self.assertIs(get_or_create_env(True, env), env)

    def test_a_directory_named_after_the_time_is_never_shared(self):
        code = "for _ in range(5): print(get_or_create_env(True, None).env_name.name)"
        processes = [self.start(code), self.start(None)]
        names = [name for process in processes for name in process.communicate()[0].split()]
        self.assertEqual(len(set(names)), 10)
        self.assertRegex(" ".join(names), r"\A( ?enos_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d){10}\Z")
        with broken(os, "mkdir", OSError(errno.EROFS, "Read-only file system")):
            with self.refused(EnosFilePathError, "enos_.*Read-only file system"):
                get_or_create_env(True, None)

    def test_what_is_no_specifier_is_the_stated_error_and_nothing_is_created(self):
        Path("file").write_text("precious")
        get_or_create_env(True, "xp", symlink=False)
        before = sorted(os.walk("."))
        for specifier, wanted in (
            (20, "type int: give the directory.*later argument"),
            ((1,) * 100000, "type tuple"),
            ("", "give the directory"),
            ("a\0b", "a.*b"),
            ("current", "current"),
            ("file/sub", "file"),
        ):
            for new in (False, True):
                with self.refused(EnosFilePathError, wanted) as refused:
                    get_or_create_env(new, specifier)
                given = specifier, Path(str(specifier), "env")
                self.assertIn(refused.exception.filepath, given)
                self.assertEqual(sorted(os.walk(".")), before)

    @needs_posix
    def test_a_checkpoint_that_is_no_regular_file_is_refused_and_never_opened_or_replaced(self):
        os.makedirs("directory/env")
        os.mkdir("fifo")
        os.mkfifo("fifo/env")  # opening it would hang
        for name in ("directory", "fifo"):
            for new in (False, True):
                with self.refused(EnosFilePathError, f"{name}.*regular file"):
                    get_or_create_env(new, name)
        self.assertTrue(stat.S_ISFIFO(os.stat("fifo/env").st_mode))

    @needs_links
    def test_new_keeps_what_else_is_in_the_directory_and_refuses_a_dangling_current(self):
        get_or_create_env(True, "xp")
        Path("xp/results.csv").write_text("1,2")
        get_or_create_env(True, "./current/")
        self.assertEqual(Path("xp/results.csv").read_text(), "1,2")
        shutil.rmtree("xp")
        with self.refused(EnosFilePathError, "current.*xp"):
            get_or_create_env(True, "current")
        self.assertFalse(os.path.exists("xp"))


@needs_links
class Current(PlaceWithXp):
    def test_it_is_relative_below_the_working_directory_and_absolute_otherwise(self):
        os.mkdir("here")
        os.chdir("here")
        above = str(self.root / "other")
        for name, target in (("a/b", "a/b"), (".", "."), ("../here/c", "c"), (above, above)):
            get_or_create_env(True, name)
            self.assertEqual(os.readlink("current"), target)

    def test_it_is_made_by_new_alone_and_not_without_symlink(self):
        for new, symlink, target in (
            (False, True, "xp"),
            (True, False, "xp"),
            (True, None, "other"),
        ):
            enostask(new, symlink)(told)("other" if new else "xp")
            self.assertEqual(os.readlink("current"), target)

    def test_a_real_file_or_directory_of_that_name_is_never_touched(self):
        os.unlink("current")
        os.mkdir("current")
        for name in ("other", None):
            with self.refused(EnosFilePathError, "current.*symlink=False"):
                get_or_create_env(True, name)
        self.assertEqual(sorted(os.listdir()), ["current", "xp"])

    def test_where_it_cannot_be_made_the_task_runs_unless_one_leads_elsewhere(self):
        start = enostask(new=True)(told)
        with broken(os, "symlink", OSError(errno.EPERM, "Operation not permitted")):
            self.assertEqual(start("xp"), "xp 0 {}")
            with self.refused(EnosFilePathError, "current.*not permitted"):
                start("other")
            os.unlink("current")
            with self.warned("current.*not permitted"):
                self.assertEqual(start("other"), "other 0 {}")


class Tasks(PlaceWithXp):
    @needs_links
    def test_the_environment_is_named_by_position_by_keyword_or_by_the_option(self):
        get_or_create_env(True, "other", symlink=False)
        task = enostask()(told)
        for args, options, wanted in (
            ((), {}, "xp 0 {}"),
            ((None, 3), {}, "xp 3 {}"),
            ((Path("other"),), {"n": 3}, "other 3 {}"),
            ((), {"env": "other", "--env": None}, "other 0 {'--env': None}"),
            (("xp",), {"--env": "other"}, "other 0 {'--env': 'other'}"),
            ((), {"env_symlink": False}, "xp 0 {'env_symlink': False}"),
        ):
            self.assertEqual(task(*args, **options), wanted)
        with self.assertRaisesRegex(TypeError, "multiple values"):
            task(3, env="other")

    @needs_links
    def test_the_environment_is_found_in_its_own_position_or_handed_on_by_keyword(self):
        get_or_create_env(True, "other", symlink=False)

        @enostask()
        def last(n, env=None):
            return told(env, n)

        @enostask()
        @functools.wraps(told)
        def wrapper(*args, **options):
            return told(*args, **options)

        partial = enostask()(functools.partial(told, env="other"))
        self.assertEqual((last(3), last(3, "other")), ("xp 3 {}", "other 3 {}"))
        self.assertEqual((wrapper(n=3), wrapper("other", 3)), ("xp 3 {}", "other 3 {}"))
        self.assertEqual((partial(env="xp"), partial()), ("xp 0 {}", "other 0 {}"))

    @needs_links
    def test_a_new_task_that_cannot_be_called_so_names_the_function_before_anything_is_made(self):
        before = sorted(os.walk("."))
        with self.assertRaisesRegex(TypeError, "begin.*hwo"):
            begin("a", hwo=3)
        self.assertEqual((sorted(os.walk(".")), items("current")), (before, {}))

    def test_methods_callables_and_partials_are_saved_when_they_return(self):
        class Step:
            def __call__(self, env, n):
                env["n"] = n
                return n

            method = enostask()(__call__)

        step = Step()
        tasks = [step.method, enostask()(step), enostask(functools.partial(step))]
        for number, task in enumerate(tasks):
            self.assertEqual(task("xp", n=number), number)
            self.holds(n=number)

    def test_a_coroutine_is_saved_after_its_last_await_or_when_it_is_cancelled(self):
        class Later:
            async def __call__(self, env, seconds):
                env["n"] = "began"
                await asyncio.sleep(seconds)
                env["n"] = "ended"

        for function in (Later(), Later().__call__):
            task = enostask()(function)
            asyncio.run(task("xp", seconds=0))
            self.holds(n="ended")
            with self.assertRaises(asyncio.TimeoutError):
                asyncio.run(asyncio.wait_for(task("xp", 60), 0.01))
            self.holds(n="began")

    def test_a_generator_is_saved_when_it_ends_or_is_closed(self):
        @enostask()
        def task(env, n):
            try:
                yield n
            finally:
                env["n"] = n

        self.assertEqual(list(task("xp", 1)), [1])
        self.holds(n=1)
        with contextlib.closing(task("xp", 2)) as running:
            next(running)
        self.holds(n=2)
        with contextlib.contextmanager(task)("xp", 3):
            self.holds(n=2)
        self.holds(n=3)

    def test_it_is_saved_however_it_ends_and_the_caller_sees_its_exception(self):
        for number, error in enumerate((ValueError(1), SystemExit(3), KeyboardInterrupt())):
            with self.assertRaises(type(error)) as caught:
                change("xp", lambda env: env.update(n=number), error)
            self.assertIs(caught.exception, error)
            self.holds(n=number)

    def test_a_failed_save_behind_a_failed_task_is_one_line_in_the_log_and_noted(self):
        for error in (ValueError("mine"), SystemExit(1)):
            with self.warned(r"\A.*change.*'bad'.*\Z"), self.assertRaises(type(error)) as caught:
                change("xp", spoil, error)
            if sys.version_info >= (3, 11):
                self.assertRegex(caught.exception.__notes__[0], "'bad'")

    def test_a_failed_save_behind_success_is_raised(self):
        for error in (None, SystemExit(), SystemExit(0)):
            with self.refused(EnosSaveError, "'bad'"):
                change("xp", spoil, error)

    def test_what_can_be_no_task_is_refused_at_decoration_by_its_name(self):
        def positional(env, /):
            """Take no env by keyword."""

        async def stream(env):
            yield env

        for function, name in (
            (load, "load"),
            (positional, "positional"),
            (int, "int"),
            (property(told), "property|told"),
            (staticmethod(told), "told|staticmethod"),
            (stream, "stream.*async generator"),
        ):
            with self.assertRaisesRegex(TypeError, name):
                enostask()(function)
        for arguments in (("xp1",), (None,), (True, "xp1")):
            with self.assertRaisesRegex(TypeError, "True or False"):
                enostask(*arguments)

    def test_above_a_command_of_click_it_says_which_goes_above(self):
        class Command:
            """As click makes of a function."""

            callback = told

            def __call__(self, *args, **kwargs):
                """Parse the command line."""

        with self.assertRaisesRegex(TypeError, "@enostask below @click.command"):
            enostask()(Command())

    def test_a_coroutine_that_was_not_declared_is_a_type_error_and_is_closed(self):
        coroutine = asyncio.sleep(0)
        with self.assertRaisesRegex(TypeError, "coroutine"):
            enostask(lambda env: coroutine)("xp")
        self.assertIsNone(coroutine.cr_frame)

    def test_it_looks_like_the_function_and_pickles_by_reference(self):
        self.assertEqual(change.__name__, "change")
        self.assertEqual(change.__doc__, change.__wrapped__.__doc__)
        self.assertIs(pickle.loads(pickle.dumps(change)), change)

    def test_a_nested_task_shares_the_environment_that_it_is_given_or_else_loads_its_own(self):
        @enostask()
        def outer(env, specifier):
            change(specifier or env, lambda inner: inner.update(inner=1))
            env.update(outer=1, seen="inner" in env)

        outer("xp", "xp")
        self.holds(inner=1, outer=1, seen=False)
        outer("xp", None)
        self.holds(inner=1, outer=1, seen=True)

    def test_it_is_logged_with_the_directory_and_nothing_is_printed(self):
        with self.logged(logging.INFO) as log, contextlib.redirect_stdout(io.StringIO()) as printed:
            change("xp")
            with self.assertRaises(ValueError):
                change("xp", leave_alone, ValueError())
        self.assertRegex(
            "\n".join(log.output).replace(str(self.root / "xp"), "XP"),
            r"\A(INFO:enostask:Task change )started in XP\n\1finished in 0\.\d s in XP\n"
            r"\1started in XP\n\1failed after 0\.\d s in XP\Z",
        )
        self.assertEqual(printed.getvalue(), "")


@needs_posix
class Signals(PlaceWithXp):
    def ended(self, code, name="SIGTERM", *arguments):
        """Expect that *code* ends by the signal *name* as by Ctrl-C, with xp saved."""
        self.script(code, name, *arguments, status=128 + getattr(signal, name))
        self.holds(n=1)
        self.assertRegex(Path("xp/env.log").read_text(), rf" failed .*, {name}\n\Z")

    def test_sigterm_and_sighup_end_a_task_as_ctrl_c_does(self):
        code = """
            @enostask(new=True)
            def task(env):
                env["n"] = 1
                os.kill(os.getpid(), getattr(signal, sys.argv[1]))
                time.sleep(60)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
            task("xp")
        """
        for name in ("SIGTERM", "SIGHUP"):
            self.ended(code, name)

    def test_they_end_a_coroutine(self):
        self.ended("""
            import asyncio
            @enostask()
            async def task(env):
                env["n"] = 1
                asyncio.get_running_loop().call_later(0.01, os.kill, os.getpid(), signal.SIGTERM)
                await asyncio.sleep(60)
            asyncio.run(task("xp"))
        """)

    def test_they_end_a_generator_also_while_it_is_suspended(self):
        code = """
            import contextlib
            @enostask()
            def task(env):
                env["n"] = 1
                if "at work" in sys.argv:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield
            with contextlib.closing(task("xp")) as running:
                next(running)
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
        """
        for when in ("at work", "suspended"):
            self.ended(code, "SIGTERM", when)

    def test_they_end_a_nested_task_and_the_outer_one(self):
        self.ended("""
            @enostask()
            def inner(env):
                env["n"] = 1
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
            @enostask(new=True)
            def outer(env):
                env["n"] = 2
                inner("xp")
            outer("outer")
        """)
        self.assertEqual(items("outer"), {"n": 2})
        self.assertRegex(Path("outer/env.log").read_text(), r" failed .*, SIGTERM\n\Z")

    def test_one_that_comes_while_the_process_forks_is_not_lost(self):
        self.ended("""
            os.register_at_fork(before=lambda: os.kill(os.getpid(), signal.SIGTERM))
            @enostask()
            def task(env):
                env["n"] = 1
                if not os.fork():
                    os._exit(0)
                time.sleep(60)
            task("xp")
        """)

    def test_a_pool_at_work_neither_hangs_nor_saves(self):
        self.ended("""
            import multiprocessing
            @enostask()
            def task(env):
                with multiprocessing.get_context("fork").Pool(2) as pool:
                    env["n"] = pool.map(abs, [-1])[0]
                    pool.map_async(time.sleep, [60, 60])
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(60)
            task("xp")
        """)
        self.assertEqual(Path("xp/env.log").read_text().count("\n"), 2)

    def test_a_forked_child_that_runs_no_task_dies_by_them_as_it_would_without(self):
        get_or_create_env(True, "other")
        self.script("""
            @enostask()
            def task(env):
                env["n"] = 1
                child = os.fork()
                if not child:
                    enostask(lambda env: None)("other")
                    Path("ready").touch()
                    time.sleep(9)
                    os._exit(9)
                while not os.path.exists("ready"):
                    time.sleep(0.01)
                os.kill(child, signal.SIGTERM)
                assert os.waitpid(child, 0)[1] == signal.SIGTERM
            task("xp")
        """)
        self.holds(n=1)

    def test_a_handler_of_the_users_and_nohup_are_left_alone(self):
        self.script("""
            came = []
            def mine(number, frame):
                came.append(number)
            @enostask()
            def task(env, later=None):
                if later:
                    signal.signal(signal.SIGTERM, later)
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGHUP)
                env["n"] = len(came)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, mine)
            task("xp")
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            task("xp", mine)
            assert signal.getsignal(signal.SIGTERM) is mine
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        """)
        self.holds(n=2)

    def test_where_no_task_runs_in_the_main_thread_they_do_what_they_do_by_default(self):
        code = """
            @enostask()
            def task(env, ends=True):
                print("ready", flush=True)
                if not ends:
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(60)
            if sys.argv[1] == "thread":
                thread = threading.Thread(target=task, args=("xp", False))
                thread.start()
                thread.join()
            task("xp")
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        """
        for where in ("thread", "main thread"):
            self.assertIn("ready", self.script(code, where, status=-signal.SIGTERM))

    def test_one_or_two_that_arrive_during_a_save_do_not_stop_it(self):
        code = """
            class Value:
                left = 1 if sys.argv[2] == "return" else 2
                def __reduce__(self):
                    for _ in range(Value.left):
                        os.kill(os.getpid(), signal.SIGTERM)
                    Value.left = 0
                    return int, (1,)
            @enostask()
            def task(env):
                env["n"] = Value()
                if sys.argv[2] == "dump":
                    env.dump()
                    env["n"] = "the task went on"
                elif sys.argv[2] == "signal":
                    os.kill(os.getpid(), signal.SIGTERM)
            task("xp")
        """
        for when in ("return", "dump", "signal"):
            get_or_create_env(True, "xp")
            self.ended(code, "SIGTERM", when)


class Loading(PlaceWithXp):
    def test_what_cannot_be_loaded_is_the_stated_error_and_is_not_touched(self):
        whole = Path("xp/env").read_bytes()
        other = pickle.dumps(UserDict(env_name=1))
        self.env[()] = 1
        list_as_key = pickle.dumps(self.env).replace(b")K\x01", b"]K\x01")
        for content in (b"", whole[:-50], b"hello", pickle.dumps([1]), other, list_as_key):
            Path("xp/env").write_bytes(content)
            with self.refused(EnosFilePathError, "cannot load .*xp(?!.*(backup|bak))"):
                load()
            self.assertEqual(Path("xp/env").read_bytes(), content)
        Path("xp/env.bak1").write_bytes(whole)
        with self.refused(EnosFilePathError, "env.bak"):
            load()

    def test_a_missing_one_is_one_traceback_without_advice_that_does_not_apply(self):
        os.mkdir("results")
        for specifier, wanted in (
            ("nix", "nix' is absent; name another"),
            ("results", "no env in .*results"),
            (".", "no env in .*such as xp"),
            ("xp/env", "xp/env' is a file"),
        ):
            with self.refused(EnosFilePathError, rf"\A(?!.*bak).*{wanted}") as refused:
                load(specifier)
            self.assertIsNone(refused.exception.__context__)

    @needs_links
    def test_for_current_it_says_whether_it_is_absent_or_dangling_and_how_to_set_it(self):
        os.unlink("current")
        with self.refused(EnosFilePathError, "current.*absent.*ln -sfn xp current"):
            load(None)
        Path("current").touch()
        with self.refused(EnosFilePathError, "current.*a file.*ln -sfn xp current"):
            load(None)
        os.unlink("current")
        os.rename("xp", "a b")
        os.symlink("xp", "current")
        with self.refused(EnosFilePathError, "current.*xp.*gone.*ln -sfn 'a b' current"):
            load(None)
        shutil.rmtree("a b")
        with self.refused(EnosFilePathError, r"\A(?!.*ln -sfn).*current.*new=True"):
            load(None)

    def test_where_classes_are_missing_or_replaced_all_else_loads_and_they_come_back(self):
        self.saved(x=[TESTBED.Plain(1), TESTBED.Called(2), TESTBED.Slotted(3), TESTBED.Slotted])
        replaced = types.ModuleType("testbed")
        replaced.Plain = replaced.Called = stop_with
        replaced.Slotted = None
        for library in (None, replaced):
            with testbed_is(library), self.warned(r"testbed\.Called.*install"):
                self.saved(n=2)
        found = pickle.loads(Path("xp/env").read_bytes())["x"]
        self.assertEqual(
            [type(item) for item in found], [TESTBED.Plain, TESTBED.Called, TESTBED.Slotted, type]
        )

    def test_a_stand_in_can_be_shown_copied_and_moved_but_not_used(self):
        self.saved(host=TESTBED.Old("m1"))
        with testbed_is(None):
            host = load()["host"]
        for use in (
            operator.methodcaller("__call__"),
            operator.attrgetter("item"),
            iter,
            len,
            bool,
            operator.neg,
            "{:.2f}".format,
        ):
            with self.refused(EnosMissingError, r"testbed\.Old") as refused:
                use(host)
            self.assertIsInstance(refused.exception, AttributeError)
        self.assertNotEqual(host, copy.copy(host))
        shown = pprint.pformat({host: 1, copy.deepcopy(host): f"{host}"})
        self.assertRegex(shown, "(?s)(Old.*'m1'.*){3}")

    def test_where_a_module_cannot_be_imported_its_objects_are_stand_ins_time_and_again(self):
        self.script("""
            Path("hosts.py").write_text("class Host: pass")
            from hosts import Host
            class Own(Environment):
                pass
            env = Own("own")
            env["host"] = Host()
            env.dump()
        """)
        again = """
            class Own(Environment):
                pass
            env = get_or_create_env(False, "own")
            print(env["host"])
            env["n"] = [env["host"]]
            env.dump()
        """
        for broken_module in ("class Host(:", "raise SystemExit('not today')", "1 / 0"):
            Path("hosts.py").write_text(broken_module)
            self.assertEqual(self.script(again), "hosts.Host()\n")
        self.assertIn("hosts.Host", str(load("own")["n"]))

    def test_an_object_that_cannot_be_filled_or_hashed_costs_none_of_its_class(self):
        for kind in (LAPTOP.Checked, LAPTOP.Hashed):
            self.saved(x=[{kind(item): kind(2)} for item in (TESTBED.Plain(1), 2)])
            with testbed_is(None), self.warned("laptop.*EnosMissingError"):
                one, other = load()["x"]
            found = [type(item) is kind for item in itertools.chain(*one.items(), *other.items())]
            self.assertEqual(found, [False, True, True, True])

    def test_one_value_that_cannot_be_rebuilt_costs_only_itself(self):
        self.saved(error=TESTBED.BenchError("m1", 3))
        with self.warned("BenchError.*TypeError"):
            error = self.saved(n=2)["error"]
        self.assertEqual((load()["n"], backups("xp")), (2, []))
        self.assertIn("m1: 3", str(error))
        with self.refused(EnosMissingError, "BenchError"):
            error.args

    def test_a_class_of_the_script_says_how_to_get_the_data_back(self):
        code = "env = get_or_create_env(False, 'xp')\n"
        self.script(f"class Host: pass\n{code}env['host'] = Host()\nenv.dump()")
        with self.warned(r"__main__\.Host.*move that to a module"):
            load()
        Path("hosts.py").write_text("class Host: pass")
        said = self.script(f"from hosts import Host\n{code}print(type(env['host']) is Host)")
        self.assertEqual(said, "True\n")

    def test_a_class_of_the_script_that_a_spawned_worker_saved_loads(self):
        self.script("""
            import multiprocessing
            class Host: pass
            @enostask()
            def work(env):
                env["host"] = Host()
            if __name__ == "__main__":
                process = multiprocessing.get_context("spawn").Process(target=work, args=("xp",))
                process.start()
                process.join()
        """)
        code = "class Host: pass\nprint(type(get_or_create_env(False, 'xp')['host']) is Host)"
        self.assertEqual(self.script(code), "True\n")

    def test_what_one_copy_saved_any_other_loads_with_its_errors(self):
        os.makedirs("pkg/sub")
        for name in ("tasks_of_mine.py", "pkg/sub/vendored.py"):
            shutil.copy(MODULE, name)
        code = """
            import importlib
            copy = importlib.import_module(sys.argv[1])
            env = copy.get_or_create_env(False, "xp")
            error = env.setdefault("error", copy.EnosFilePathError("a"))
            assert type(env) is copy.Environment and type(error) is copy.EnosFilePathError
            env["by"] = sys.argv[1]
            env.dump()
        """
        for name in ("tasks_of_mine", "pkg.sub.vendored", "enostask"):
            self.script(code, name)
            self.assertEqual(load()["by"], name)

    def test_one_of_enoslib_and_of_another_system_in_a_directory_that_was_moved_loads(self):
        self.env["x"] = self.env["y"] = [1]
        Path("xp/env").write_bytes(pickle.dumps(self.env, 0).replace(b"PosixPath", b"WindowsPath"))
        os.rename("xp", "moved")
        with self.silent():
            env = load("moved")
        self.assertEqual({env["resultdir"], env.env_name}, {self.root / "moved"})
        self.assertIs(env["x"], env["y"])

    def test_a_flipped_bit_is_an_error_and_never_another_value(self):
        self.saved(x=[1.5, "text", {"a": b"bytes"}])
        held = items("xp")
        whole = Path("xp/env").read_bytes()
        for number in range(len(whole)):
            damaged = bytearray(whole)
            damaged[number] ^= 1 << number % 8
            Path("xp/env").write_bytes(damaged)
            with contextlib.suppress(EnosFilePathError):
                self.holds(**held)

    @given(st.binary(max_size=30), st.integers(0, 300))
    def test_damage_without_a_checksum_is_the_stated_error_at_worst(self, noise, where):
        env = Environment("noise")
        env["x"] = [Path("a"), {1.5: {"s"}}, b"bytes", TESTBED.Plain("m1")]
        content = bytearray(pickle.dumps(env))
        content[where : where + len(noise) // 2] = noise
        # Not the codes that ask for much memory.
        content = content.replace(b"r", b"").replace(b"\x8b", b"").replace(b"\x96", b"")
        Path("noise/env").write_bytes(content)
        with contextlib.suppress(EnosFilePathError):
            load("noise")


class NothingIsLost(PlaceWithXp):
    def test_a_task_that_only_looks_writes_nothing_and_pickles_only_what_it_used(self):
        self.saved(x={"a": [1, "a"]}, tensor=Varying())
        os.unlink("xp/.env.lock")
        before = os.stat("xp/env").st_ino
        count = next(Varying.count)
        change("xp", lambda env: env["x"])
        self.assertEqual(next(Varying.count), count + 1)
        self.assertEqual(os.stat("xp/env").st_ino, before)
        self.assertFalse(os.path.exists("xp/.env.lock"))

    def test_objects_that_know_each_other_in_sets_revert_nothing_where_they_were_looked_at(self):
        hosts = [TESTBED.Plain(set()) for _ in range(9)]
        for host in hosts:
            host.item.update(hosts)
        self.saved(hosts=hosts)
        mine = load()
        self.assertEqual(len(mine["hosts"]), 9)
        self.saved(hosts="theirs")
        mine["n"] = 1
        with self.silent():
            mine.dump()
        self.holds(hosts="theirs", n=1)

    def test_a_key_that_equals_no_other_is_found_again_on_top_of_another_save(self):
        for there in (TESTBED, None):
            self.env[TESTBED.Plain("m1")] = 1
            self.env.dump()
            with testbed_is(there):
                mine = load()
                self.saved(n=1)
                for key in own(mine):
                    mine[key] = 2
                mine.dump()
                self.assertEqual(list(items("xp").values()), [2, 1])
                for key in own(mine):
                    del mine[key]
                mine.dump()
            self.holds(n=1)
            self.env = get_or_create_env(True, "xp")

    def test_a_value_that_another_thread_changes_during_the_save_costs_only_itself(self):
        for number in (1, 2, 3):
            self.env.update(monitor=Unsteady(number), n=number)
            with contextlib.suppress(EnosSaveError):
                self.env.dump()
            self.assertEqual(load()["n"], number)

    @needs_posix
    def test_a_mistake_in_the_module_is_not_taken_for_a_system_without_locks(self):
        with broken(fcntl, "flock", NameError("flok")):
            self.assertRaises(NameError, self.saved, n=1)

    def test_where_both_changed_a_key_the_later_save_wins_and_the_log_says_what_to_do(self):
        mine = load()
        self.saved(x=1, same=1, late=1)
        mine.update(x=2, same=1)
        with self.warned(r"\A(?!.*same).*'x'.*xp.*key of its own.*\Z"):
            mine.dump()
        mine["late"] = 2
        with self.warned("'late'"):
            mine.dump()
        self.holds(x=2, same=1, late=2)

    def test_a_value_or_key_that_cannot_be_pickled_costs_only_itself(self):
        env = self.saved(kept=1, gone=1)
        del env["gone"]
        env.update({"kept": REFUSED, "fresh": threading.Lock(), REFUSED: 1, "good": 1})
        with self.refused(EnosSaveError, "xp.*'kept'.*'fresh'.*lambda") as refused:
            env.dump()
        self.assertEqual(refused.exception.keys, ["kept", "fresh", REFUSED])
        self.assertEqual(refused.exception.filepath, str(self.root / "xp" / "env"))
        self.holds(kept=1, good=1)
        del env["kept"], env["fresh"], env[REFUSED]
        env.dump()
        self.holds(good=1)

    def test_a_first_save_leaves_out_what_cannot_be_pickled_and_keeps_nothing_aside(self):
        env = Environment("made")
        env["n"] = 1
        spoil(env)
        with self.refused(EnosSaveError, "'bad'"):
            env.dump()
        self.assertEqual((items("made"), backups("made")), ({"n": 1}, []))

    def test_beside_a_refused_value_what_was_changed_through_another_key_is_saved(self):
        hosts = ["m1"]
        self.saved(hosts=hosts, roles={"server": hosts})
        env = load()
        spoil(env)
        for host in ("m2", "m3"):
            env["roles"]["server"].append(host)
            with self.refused(EnosSaveError, "'bad'"):
                env.dump()
            self.assertEqual(load()["hosts"][-1], host)
        again = load()
        self.assertIs(again["hosts"], again["roles"]["server"])

    def test_a_refused_value_keeps_none_from_the_file_that_shares_an_object_with_it(self):
        shared = []
        self.saved(mine=shared, theirs=shared)
        env = load()
        env["mine"].append(REFUSED)
        env["good"] = 1
        with self.refused(EnosSaveError, "'mine'"):
            env.dump()
        self.holds(mine=[], theirs=[], good=1)

    def test_a_class_defined_again_as_by_a_notebook_cell_says_to_load_again(self):
        self.env["host"] = TESTBED.Plain("m1")
        with testbed_is(LAPTOP), self.refused(EnosSaveError, r"testbed\.Plain.*load.* again"):
            self.env.dump()

    def test_what_cannot_be_pickled_any_more_costs_only_itself_and_is_kept_aside(self):
        self.saved(x=Fussy(), n=1)
        again = load()
        again.data["m"] = 2
        with mock.patch.object(Fussy, "pickled", ValueError()):
            with self.refused(EnosSaveError, "'x'"):
                again.dump()
        self.holds(n=1, m=2)
        self.assertEqual(set(items("xp", "env.bak1")), {"n", "x"})

    def test_a_damaged_checkpoint_is_kept_aside_by_new_and_by_a_save(self):
        self.env["n"] = 1
        Path("xp/env").write_bytes(b"first")
        with self.warned("env.bak1"):
            get_or_create_env(True, "xp")
        Path("xp/env").write_bytes(b"second")
        with self.warned("env.bak2"):
            self.env.dump()
        self.holds(n=1)
        kept = [Path("xp", name).read_bytes() for name in backups("xp")]
        self.assertEqual(kept, [b"first", b"second"])

    def test_new_keeps_work_as_the_next_backup_which_is_one_more_than_the_highest(self):
        self.saved(x=1)
        Path("xp/env.bak9").touch()
        with self.warned("env.bak10"):
            get_or_create_env(True, "xp")
        self.assertEqual((items("xp"), items("xp", "env.bak10")), ({}, {"x": 1}))

    def test_running_out_of_memory_changes_nothing_and_is_not_taken_for_damage(self):
        mine = self.saved(x=Fussy())
        self.saved(n=2)
        before = Path("xp/env").read_bytes()
        mine["m"] = 1
        for when in ("pickled", "loaded"):
            with mock.patch.object(Fussy, when, MemoryError()):
                self.assertRaises(MemoryError, mine.dump)
        with mock.patch.object(Fussy, "loaded", MemoryError()):
            with self.refused(EnosFilePathError, "disk, memory"):
                load()
        self.assertEqual((Path("xp/env").read_bytes(), backups("xp")), (before, []))

    def test_one_that_is_gone_is_made_again_by_a_dump_with_a_warning(self):
        shutil.rmtree("xp")
        with self.warned("xp.*gone"):
            self.env.dump()
        self.holds()

    @needs_root
    def test_owner_and_group_are_kept_and_where_they_cannot_be_the_new_group_gets_nothing(self):
        for name in (".", "xp"):
            os.chmod(name, 0o777)
        for user, groups, wanted in (
            (0, [], (99, 4321, 0o664)),
            (1234, [4321], (1234, 4321, 0o664)),
            (1234, [], (1234, 1234, 0o604)),
        ):
            os.chown("xp/env", 99, 4321)
            os.chmod("xp/env", 0o664)
            os.chmod("xp/.env.lock", 0o666)
            self.script(f"""
                env = get_or_create_env(False, "xp")
                os.setgroups({groups})
                os.setgid({user})
                os.setuid({user})
                env["n"] = {user, groups}
                env.dump()
            """)
            found = os.stat("xp/env")
            self.assertEqual((found.st_uid, found.st_gid, mode("xp/env")), wanted)

    @needs_posix
    def test_a_mode_that_is_right_already_is_not_set_again(self):
        os.chmod("xp/env", 0o600)
        refuse = mock.Mock(side_effect=AssertionError)
        with mock.patch.multiple(os, fchmod=refuse, fchown=refuse):
            self.saved(n=1)
        self.assertEqual(mode("xp/env"), 0o600)

    @needs_links
    def test_a_checkpoint_that_is_a_link_is_written_through(self):
        os.mkdir("store")
        os.rename("xp/env", "store/real")
        os.symlink("../store/real", "xp/env")
        self.saved(x=1)
        get_or_create_env(True, "xp")
        self.assertTrue(os.path.islink("xp/env"))
        self.assertEqual((items("xp"), items("xp", "env.bak1")), ({}, {"x": 1}))

    def test_identity_between_values_is_kept_also_on_top_of_what_others_saved(self):
        mine = load()
        value = [1]
        self.saved(a=value, b=value)
        mine.update(c=value, d=value)
        mine.dump()
        env = load()
        self.assertIs(env["a"], env["b"])
        self.assertIs(env["c"], env["d"])

    def test_several_processes_and_threads_lose_no_key_and_no_line(self):
        code = """
            @enostask()
            def step(env, key):
                env[key] = key
            def steps(number):
                for other in range(15):
                    step("xp", f"{sys.argv[1]} {number} {other}")
            threads = [threading.Thread(target=steps, args=(number,)) for number in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        """
        processes = [self.start(code, "a"), self.start(None, "b"), self.start(None, "c")]
        self.assertEqual([process.wait() for process in processes], [0, 0, 0])
        self.assertEqual(len(items("xp")), 90)
        line = WHEN + r"step      (started |finished)  pid \d+, .*\n"
        self.assertRegex(Path("xp/env.log").read_text(), rf"(?m)\A({line}){{180}}\Z")

    def test_a_save_in_the_midst_of_a_save_gets_an_error_and_does_not_hang(self):
        other = load()
        other["x"] = 1
        replace = os.replace

        def save_as_well(*paths):
            with self.assertRaises(OSError) as caught:
                other.dump()
            self.assertEqual(caught.exception.errno, errno.EDEADLK)
            replace(*paths)

        with mock.patch.object(os, "replace", save_as_well):
            self.saved(n=1)
        self.holds(n=1)

    def test_what_a_killed_save_left_goes_once_nobody_has_written_to_it_for_an_hour(self):
        Path("xp/.env.production.tmp").touch()
        before = set(os.listdir("xp"))
        code = """
            env = get_or_create_env(False, "xp")
            os.replace = lambda *_: os._exit(9)
            env["n"] = 1
            env.dump()
        """
        self.script(code, status=9)
        left = set(os.listdir("xp")) - before
        for age, wanted in ((3500, before | left), (3700, before)):
            os.utime(Path("xp", *left), (time.time() - age,) * 2)
            self.saved(n=age)
            self.assertEqual(set(os.listdir("xp")), wanted)

    @needs_posix
    def test_a_file_is_on_disk_before_it_gets_its_name_and_the_name_when_the_save_returns(self):
        synced = set()
        replace = os.replace

        def sync(file):
            synced.add(os.fstat(file).st_ino)

        def replace_synced(source, target):
            self.assertIn(os.stat(source).st_ino, synced)
            synced.discard(os.stat(os.path.dirname(target)).st_ino)
            replace(source, target)

        with mock.patch.multiple(os, fsync=sync, replace=replace_synced):
            get_or_create_env(True, "deep/er", symlink=False)
            for name in (".", "deep", "deep/er"):
                self.assertIn(os.stat(name).st_ino, synced, name)
            self.saved(n=1)
            self.assertIn(os.stat("xp").st_ino, synced)


class NetworkHomes(PlaceWithXp):
    def test_a_replacement_that_is_refused_for_a_while_is_tried_again(self):
        with time_by_sleeping(), broken(os, "replace", PermissionError(13, "in use"), 5):
            self.saved(n=1)
        self.holds(n=1)

    def test_where_the_old_checkpoint_is_lost_the_new_file_stays_and_is_named(self):
        before = set(os.listdir("xp"))

        def remove_and_refuse(source, target):
            Path(target).unlink(missing_ok=True)
            raise PermissionError(13, "in use")

        with time_by_sleeping(), mock.patch.object(os, "replace", remove_and_refuse):
            with self.assertRaises(OSError) as caught:
                self.saved(n=1)
        (left,) = set(os.listdir("xp")) - before
        self.assertIn(left, str(caught.exception))
        self.assertEqual(items("xp", left), {"n": 1})

    def test_a_checkpoint_that_is_absent_or_stale_for_a_moment_is_looked_for_again(self):
        for error, wanted in (
            (FileNotFoundError(2, "gone"), "no env in"),
            (OSError(errno.ESTALE, "stale"), "stale; check disk, memory and access"),
        ):
            env = load()
            self.saved(theirs=1)
            with time_by_sleeping() as slept, broken(builtins, "open", error, 3):
                self.assertEqual(load()["theirs"], 1)
            self.assertEqual(slept, [0.02] * 3)
            env["n"] = 1
            with broken(builtins, "open", error, 2):
                env.dump()
            self.holds(n=1, theirs=1)
            with broken(builtins, "open", error), self.refused(EnosFilePathError, wanted):
                load()

    @needs_posix
    def test_whatever_a_system_says_that_cannot_lock_or_sync_the_save_goes_on(self):
        for owner, name, numbers in (
            (fcntl, "flock", (errno.ENOLCK, ENOTSUPP, errno.EIO, errno.ESTALE)),
            (os, "fsync", (errno.EINVAL, ENOTSUPP)),
        ):
            for number in numbers:
                with time_by_sleeping() as slept, broken(owner, name, OSError(number, "no")):
                    self.saved(n=number)
                self.assertEqual(slept, [])
                self.holds(n=number)

    @needs_posix
    def test_where_locks_do_not_exclude_no_save_removes_what_another_is_writing(self):
        replace = os.replace

        def save_as_well(*paths):
            self.script("""
                import fcntl
                fcntl.flock = lambda *_: None
                env = get_or_create_env(False, "xp")
                env["theirs"] = 1
                env.dump()
            """)
            replace(*paths)

        with mock.patch.object(os, "replace", save_as_well):
            self.saved(n=1)
        self.assertEqual(items("xp")["n"], 1)

    @needs_posix
    def test_a_lock_that_nobody_lets_go_of_is_waited_for_a_minute_and_no_longer(self):
        with open("xp/.env.lock", "wb") as file, time_by_sleeping() as slept:
            fcntl.flock(file, fcntl.LOCK_EX)
            with self.warned("lock.*xp|xp.*lock"):
                self.saved(n=1)
        self.assertAlmostEqual(sum(slept), 60, delta=5)
        self.holds(n=1)

    @needs_posix
    def test_on_macos_the_disk_itself_is_told_to_write(self):
        control = mock.Mock()
        with mock.patch.multiple(fcntl, create=True, F_FULLFSYNC=51, fcntl=control):
            self.saved(n=1)
        self.assertIn(51, control.call_args[0])

    def test_a_failed_save_says_which_environment_was_not_saved_and_why(self):
        with broken(os, "fsync", OSError(errno.ENOSPC, "No space left on device")):
            with self.assertRaisesRegex(OSError, "No space left on device.*save again.*xp"):
                self.saved(n=1)

    @needs_posix
    def test_a_host_name_that_is_no_text_keeps_no_task_from_running(self):
        self.script("""
            os.uname = lambda: os.uname_result(("Linux", "caf\\udce9", "6.1", "1", "x86_64"))
            enostask(lambda env: env.update(n=1))("xp")
        """)
        self.holds(n=1)


class ConfigFile(PlaceWithXp):
    def test_it_updates_config_from_json_by_suffix_or_by_config_type(self):
        for name, kind in (("c.json", "yaml"), (self.root / "c.conf", "json")):
            Path(name).write_text('{"n": 1}')
            self.env.update(config_file=name, config_type=kind, config={"kept": 1})
            self.env.reload_config()
            self.assertEqual(self.env["config"], {"kept": 1, "n": 1})

    def test_it_is_read_before_each_task_and_is_no_change_if_it_says_nothing_new(self):
        self.saved(config_file="c.json")
        for number in (1, 2, 2.0, 2.0):
            Path("c.json").write_text(f'{{"n": {number}}}')
            before = os.stat("xp/env").st_ino
            change("xp")
            self.assertEqual(str(load()["config"]), f"{{'n': {number}}}")
        self.assertEqual(os.stat("xp/env").st_ino, before)

    def test_yaml_needs_pyyaml_and_an_empty_one_is_no_change(self):
        self.env.update(config_file="c.yaml", config={"n": 1})
        Path("c.yaml").touch()
        with mock.patch.dict(sys.modules, yaml=None):
            with self.refused(EnosFilePathError, "c.yaml.*PyYAML"):
                self.env.reload_config()
        with mock.patch.dict(sys.modules, yaml=mock.Mock(safe_load=leave_alone)):
            self.env.reload_config()
        self.assertEqual(self.env["config"], {"n": 1})

    def test_a_missing_one_is_a_warning_and_the_stored_config_stays(self):
        self.env.update(config_file="nix.json", config={"n": 1})
        with self.warned("nix.json.* is missing"):
            self.env.reload_config()
        self.assertEqual(self.env["config"], {"n": 1})

    def test_a_bad_one_is_the_stated_error_and_the_config_stays(self):
        Path("a.json").write_text("{")
        Path("b.json").write_text("[1]")
        Path("c.json").write_bytes(b"\xff\xfe\xff")
        Path("d.toml").touch()
        for name, wanted in (
            ("a.json", "JSONDecodeError"),
            ("b.json", "a list, not a mapping"),
            ("c.json", "Unicode|JSON"),
            ("d.toml", "neither 'json' nor 'yaml'"),
            (3, "type int"),
        ):
            self.env.update(config_file=name, config_type="toml", config={"n": 1})
            with self.refused(EnosFilePathError, wanted) as refused:
                self.env.reload_config()
            self.assertEqual(refused.exception.filepath, name)
            self.assertEqual(self.env["config"], {"n": 1})

    @unittest.skipUnless(importlib.util.find_spec("yaml"), "needs PyYAML")
    def test_bad_yaml_names_the_position_and_not_the_lines(self):
        self.env["config_file"] = "c.yaml"
        for content in ("a: 1\nb: [2\nsecret: }\n", "a: 1\nb: 2\nc: 3*4\nd:\n  - !secret"):
            Path("c.yaml").write_text(content)
            with self.refused(
                EnosFilePathError, r"\A(?!.*secret).*c.yaml.* line (3, column 7|5, column 5)"
            ):
                self.env.reload_config()


class TheRecord(PlaceWithXp):
    def test_each_run_leaves_a_line_when_it_starts_and_one_when_it_ends(self):
        for how, error, wanted in (
            (leave_alone, None, r"finished  pid \d+, \d\.\d s"),
            (leave_alone, SystemExit(0), r"finished  pid \d+, \d\.\d s"),
            (leave_alone, KeyError("secret"), r"failed    pid \d+, \d\.\d s, KeyError"),
            (spoil, None, r"failed    pid \d+, \d\.\d s, EnosSaveError"),
        ):
            with contextlib.suppress(BaseException):
                change("xp", how, error)
            start, end = Path("xp/env.log").read_text().splitlines()[-2:]
            self.assertRegex(start, WHEN + r"change    started   pid \d+, host \S+, Python 3\.\S+$")
            self.assertRegex(end, WHEN + f"change    {wanted}$")

    def test_it_names_the_function_that_the_user_wrote_also_where_a_decorator_hides_it(self):
        def timed(function):
            def wrapper(*args, **kwargs):
                function(*args, **kwargs)

            return wrapper

        enostask(timed(leave_alone))(env="xp")
        self.assertIn("  leave_alone  started ", Path("xp/env.log").read_text())

    def test_a_start_without_its_end_is_a_task_that_was_killed(self):
        self.script("enostask(lambda env: os._exit(9))('xp')", status=9)
        self.assertRegex(Path("xp/env.log").read_text(), WHEN + r"<lambda>  started   .*\n\Z")

    def test_where_it_cannot_be_written_the_task_runs_all_the_same(self):
        os.mkdir("xp/env.log")
        with self.logged(logging.DEBUG) as log:
            change("xp", lambda env: env.update(n=1))
        self.assertEqual("".join(log.output).count("DEBUG"), 1)
        self.holds(n=1)


class Looking(PlaceWithXp):
    def shown(self, *arguments, statuses=(0,)):
        """Return what the viewer prints with these *arguments*."""
        with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
            self.assertIn(module.main(list(arguments)), statuses)
        self.assertTrue(said.getvalue().replace("\n", "").isprintable())
        return said.getvalue()

    @needs_links
    def test_it_lists_the_environments_here_newest_first_with_the_last_line_of_their_record(self):
        begin("other")
        self.assertRaises(ValueError, change, "xp", leave_alone, ValueError())
        os.utime("other/env", (10**9, 10**9))
        heading, newest, oldest = self.shown().splitlines()
        self.assertRegex(heading, "^current -> .*other$")
        self.assertRegex(newest, "xp .*change .*failed .*ValueError")
        self.assertRegex(oldest, "other .*begin .*finished")

    def test_it_shows_a_line_for_each_key_in_the_order_of_the_environment(self):
        day = datetime.datetime(2026, 11, 22, 13, 55, tzinfo=TESTBED.Zone())
        loop = [TESTBED.Created("m1")]
        loop.append(loop)
        self.env.update(
            {
                "params": {"p2": 1, "p10": 2, "p1": 3},
                "loop": loop,
                "bytes": bytes(1234),
                "when": {day: {TESTBED.Plain}},
                "letters": set("edcba"),
                "odd\x1b[31m": "\x07",
                5: {1: None},
            }
        )
        self.env.dump()
        os.rename("xp", "moved")
        said = self.shown("moved")
        for wanted in (
            r"(?s)\n +resultdir +\S+moved\S*\n.*\n +params.*\n +loop.*\n +when.*\n +5 ",
            r"\{'p2': 1, 'p10': 2, 'p1': 3\}",
            r"testbed\.Plain\(.*'m1'",
            "1,?234 bytes",
            r"2026, 11, 22, 13, 55\)",
            r"\{'a', 'b', 'c', 'd', 'e'\}",
            r"\\x1b\[31m.*\\x07",
        ):
            self.assertRegex(said, wanted)
        self.assertEqual(self.shown("moved", "5"), "{1: None}\n")

    def test_lines_are_cut_and_a_value_that_is_named_is_shown_whole(self):
        self.saved(x=list(range(9999)))
        with mock.patch.dict(os.environ, COLUMNS="90"):
            on_a_terminal = self.shown("xp")
        self.assertEqual(max(map(len, on_a_terminal.splitlines())), 90)
        self.assertLess(max(map(len, self.shown("xp").splitlines())), 999)
        self.assertIn("9997, 9998]", self.shown("xp", "x"))
        self.assertRegex(self.shown("xp", "nix", statuses=(1,)), r"\A.*no 'nix' in.*\n\Z")

    def test_what_is_not_there_is_one_line_without_advice_that_does_not_apply(self):
        os.mkdir("folder")
        Path("file").write_bytes(pickle.dumps({}))
        shutil.rmtree("xp")
        for specifier in ("nix", "folder", "file", "current"):
            line = rf"\A(?!.*ba(ckup|k))enostask: .*{specifier}.*(absent|gone|of an env|dict).*\n\Z"
            self.assertRegex(self.shown(specifier, statuses=(1,)), line)

    @needs_posix
    def test_it_is_a_command_and_ends_quietly_behind_head(self):
        self.saved(**{f"key{number}": "x" * 60 for number in range(3000)})
        for arguments, lines in (("xp | head -n 1", 1), ("| true", 0)):
            command = f"PYTHONUNBUFFERED= '{sys.executable}' '{MODULE}' {arguments}"
            done = subprocess.run(command, shell=True, stdout=-1, stderr=-1, text=True)
            self.assertEqual((done.stdout.count("\n"), done.stderr), (lines, ""))

    def test_it_prints_in_any_encoding(self):
        self.saved(name="caf\xe9 \u2192")
        code = "import enostask as module\nraise SystemExit(module.main(['xp', 'name']))"
        self.assertIn("caf", self.script(code, PYTHONIOENCODING="ascii", PYTHONUTF8="0"))

    def test_a_number_of_numpy_is_shown_as_a_number(self):
        start = b"\x80\x04cenostask\nEnvironment\n)\x81}(X\x04\x00\x00\x00data}(X\x01\x00\x00\x00x"
        dtype = b"cnumpy\ndtype\nX\x02\x00\x00\x00f8\x85R(K\x03X\x01\x00\x00\x00<tb"
        number = b"C\x08\x00\x00\x00\x00\x00\x00\x0a\x40"
        value = b"cnumpy._core.multiarray\nscalar\n" + dtype + number + b"\x86R"
        Path("xp/env").write_bytes(start + value + b"uub.")
        self.assertIn("scalar(3.25)", self.shown("xp", "x"))

    def test_hostile_pickles_import_nothing_and_run_nothing(self):
        start = b"\x80\x04cenostask\nEnvironment\n)\x81}(X\x04\x00\x00\x00data}(X\x01\x00\x00\x00x"
        shout = b"X\x0e\x00\x00\x00echo ran > ran"
        for call in (
            b"cos\nsystem\n(" + shout + b"tR",
            b"csubprocess\nPopen\n(" + shout + b"t}\x92",
            b"X\x01\x00\x00\x00aQ",
            b"cbuiltins\neval\n(X\x10\x00\x00\x00open('ran', 'w')tR",
            b"c__builtin__\nexec\nX\x12\x00\x00\x00import antigravity\x85R",
            b"c__main__\nX\n)\x81}(X\x09\x00\x00\x00__class__cos\nsystem\nub",
            b"cbuiltins\nstr\n)\x81}(X\x08\x00\x00\x00__repr__cos\nsystem\nub",
            b"cantigravity\nOrdered\n)\x81(K\x01K\x02e",
            b"cposix\nsystem\n" + shout + b"\x85R" + shout + b"\x85R",
            b"cdatetime\ndatetime\n}(X\x03\x00\x00\x00nowcos\nsystem\nub",
            b"cantigravity.multiarray\nscalar\n" + shout + b"\x85R",
        ):
            Path("xp/env").write_bytes(start + call + b"uub.")
            self.shown("xp", statuses=(0, 1))
            self.assertFalse(os.path.exists("ran") or "antigravity" in sys.modules)


TYPED_EXAMPLE = """
from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from enostask import (
    EnosError,
    EnosFilePathError,
    EnosKeyError,
    EnosMissingError,
    EnosSaveError,
    Environment,
    enostask,
    get_or_create_env,
)
from typing_extensions import assert_type


@enostask
def bare(env: Environment, load: int, *, label: str = "") -> str:
    return f"{env.env_name}{load}{label}"


@enostask(new=True, symlink=None)
def fresh(env: Environment, load: int = 1) -> float:
    return 1.5 * load


@enostask()
async def waits(env: Environment, load: int) -> bytes:
    return bytes(load)


@enostask
def yields(env: Environment, load: int) -> Generator[int, str, bool]:
    return (yield load) == "done"


@contextmanager
@enostask(new=True)
def held(env: Environment, load: int) -> Generator[Environment, None, None]:
    yield env


class Step:
    def __call__(self, env: Environment, load: int) -> int:
        return load

    @enostask
    def method(self, env: Environment, load: int) -> int:
        return load


step = enostask()(Step())


# Where env is not the first parameter, the signature stays as it is.
@enostask
def last(load: int, env: Environment | None = None) -> str:
    return f"{env}{load}"


@enostask(new=True)
def keywords(**options: Any) -> int:
    return len(options)


def right(env: Environment, path: Path) -> None:
    assert_type(bare(env, 1), str)
    assert_type(bare("xp1", 1, label="a"), str)
    assert_type(bare(path, load=1), str)
    assert_type(bare(None, 1), str)
    assert_type(bare(load=1), str)
    assert_type(bare(load=1, env="xp1"), str)
    assert_type(bare.__name__, str)
    assert_type(bare.__wrapped__(env, 1), str)
    assert_type(fresh(), float)
    assert_type(asyncio.run(waits(load=1)), bytes)
    assert_type(yields(load=1), Generator[int, str, bool])
    with held("xp1", 1) as environment:
        assert_type(environment, Environment)
    assert_type(step(load=1), int)
    assert_type(Step().method(env, 1), int)
    assert_type(last(1, env), str)
    assert_type(keywords(env="xp1"), int)


# Each line marked `type: ignore` is a wrong call, and must be an error.
def wrong(env: Environment) -> None:
    bare("xp1")  # type: ignore[call-arg]
    bare("xp1", "1")  # type: ignore[arg-type]
    bare(1, 1)  # type: ignore[arg-type]
    bare(load=1, other=1)  # type: ignore[call-arg]
    bare.__wrapped__("xp1", 1)  # type: ignore[arg-type]
    fresh(["xp1"])  # type: ignore[arg-type]
    text: str = fresh()  # type: ignore[assignment]
    awaited: bytes = waits(load=1)  # type: ignore[assignment]
    yields(load=1).send(1)  # type: ignore[arg-type]
    step(load="1")  # type: ignore[arg-type]
    last(1, "xp1")  # type: ignore[arg-type]
    Step().method("xp1", 1)  # type: ignore[arg-type]
    enostask(new="xp1")  # type: ignore[call-overload]
    enostask(None)  # type: ignore[call-overload]
    get_or_create_env("xp1", True)  # type: ignore[arg-type]
    Environment(None)  # type: ignore[arg-type]
    env.dump("xp1")  # type: ignore[call-arg]
    EnosFilePathError()  # type: ignore[call-arg]


def environments(path: Path) -> None:
    env = get_or_create_env(False, path)
    assert_type(env, Environment)
    assert_type(Environment("xp1").env_name, Path)
    assert_type(Environment.load_from_file(path / "env"), Environment)
    assert_type(env.dumps(), bytes)
    assert_type(env.copy(), Environment)
    env.setdefault("config", {}).update(load=env["load"])
    try:
        env.dump()
    except EnosSaveError as error:
        assert_type(error.filepath, str)
        assert_type(error.keys, "list[Any]")
    try:
        env["machines"][0].start()
    except (KeyError, AttributeError, EnosError) as error:
        caught: KeyError | AttributeError | EnosError = error
    absent: type[KeyError] = EnosKeyError
    missing: type[AttributeError] = EnosMissingError
    both: list[type[EnosError]] = [EnosKeyError, EnosMissingError]
"""


@unittest.skipUnless(importlib.util.find_spec("mypy"), "needs mypy")
class Types(Place):
    def test_a_type_checker_knows_what_tasks_and_environments_take_and_give(self):
        Path("typed_example.py").write_text(TYPED_EXAMPLE)
        environment = {**os.environ}
        if MODULE.with_suffix(".pyi").exists():
            environment["MYPYPATH"] = str(MODULE.parent)
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", "typed_example.py"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stdout)
