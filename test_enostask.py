# SPDX-License-Identifier: MIT-0
"""What enostask promises, as tests: two state machines, then properties, then one example for each promise.

Needs hypothesis; run by ``python -m unittest``.  ``ENOSTASK_TESTS=deep`` looks longer and at random.
"""
import ast
import asyncio
import builtins
import contextlib
import copy
import datetime
import errno
import functools
import gc
import importlib
import importlib.util
import inspect
import io
import logging
import os
import pickle
import random
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import types
import unittest
from pathlib import Path, PurePosixPath
from unittest import mock

try:
    import fcntl
except ImportError:
    fcntl = None

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import enostask as module
from enostask import (
    ENV_FILENAME,
    SYMLINK_NAME,
    EnosError,
    EnosFilePathError,
    EnosSaveError,
    Environment,
    enostask,
    get_or_create_env,
)

HERE = Path(__file__).resolve().parent
MODULE = Path(module.__file__).resolve()
POSIX = os.name == "posix"
FRESH = {"resultdir", "config_file", "config", "config_type"}

common = dict(deadline=None, database=None, suppress_health_check=list(HealthCheck))
settings.register_profile("fixed", derandomize=True, max_examples=40, stateful_step_count=30, **common)
settings.register_profile("deep", max_examples=2000, stateful_step_count=60, **common)
settings.load_profile("deep" if os.environ.get("ENOSTASK_TESTS") == "deep" else "fixed")
logging.getLogger("enostask").addHandler(logging.NullHandler())


@contextlib.contextmanager
def inside(directory):
    """Work in *directory*, a Path, for a while."""
    before = os.getcwd()
    os.chdir(directory)
    try:
        yield directory
    finally:
        os.chdir(before)


def own(env):
    """What a user has put into *env*."""
    return {key: value for key, value in env.items() if key not in FRESH}


def read(directory, name=ENV_FILENAME):
    return own(Environment.load_from_file(Path(directory, name)))


def backups(directory):
    names = [name for name in os.listdir(directory) if name.startswith("env.bak")]
    return sorted(names, key=lambda name: int(name[len("env.bak") :]))


# ---- The state machines

KEYS = st.sampled_from("xyz")
NAMES = st.sampled_from(["a", "b", "deep/er"])
VALUES = st.one_of(
    st.integers(0, 3),
    st.lists(st.integers(0, 3), max_size=2),
    st.sets(st.text("abc", max_size=2), max_size=3),
    st.dictionaries(st.text("abc", max_size=1), st.integers(0, 1), max_size=2),
)
SPELLINGS = st.sampled_from([str, Path, os.path.abspath, lambda name: os.path.join(".", name), lambda name: name + "/"])


@enostask()
def change(env, how, fail=False):
    how(env)
    if fail:
        raise KeyError("as planned")


class Experiments(RuleBasedStateMachine):
    """A working directory where steps run, fail, and things are moved about, against plain dicts."""

    def __init__(self):
        super().__init__()
        self.above = Path(os.path.realpath(tempfile.mkdtemp(prefix="enostask-")))
        self.root = self.above / "root0"
        self.root.mkdir()
        self.before = os.getcwd()
        os.chdir(self.root)
        self.held = {}  # name -> what it holds, None once its directory is gone
        self.aside = {}  # name -> what its backups hold
        self.current = None  # a name, or "file" or "directory" where something else is in the way

    def teardown(self):
        os.chdir(self.before)
        shutil.rmtree(self.above)

    def blocked(self):
        return self.current in ("file", "directory")

    def start(self, name, specifier, symlink):
        if symlink and self.blocked():
            try:
                get_or_create_env(True, specifier, symlink)
            except EnosFilePathError as error:
                assert "current" in str(error)
            else:
                raise AssertionError("a real file or directory was overlooked")
            return
        env = get_or_create_env(True, specifier, symlink)
        assert own(env) == {} and env.env_name == self.root / name and env["resultdir"] == env.env_name
        if self.held.get(name):
            self.aside.setdefault(name, []).append(self.held[name])
        self.held[name] = {}
        if symlink:
            self.current = name

    @rule(name=NAMES, spelling=SPELLINGS, symlink=st.booleans())
    def a_new_environment_is_fresh_and_keeps_the_old_checkpoint(self, name, spelling, symlink):
        self.start(name, spelling(name), symlink)

    @rule(symlink=st.booleans())
    def new_by_the_name_current_is_where_it_points(self, symlink):
        if self.held.get(self.current) is not None:
            self.start(self.current, SYMLINK_NAME, symlink)
        else:
            try:
                get_or_create_env(True, SYMLINK_NAME, symlink)
            except EnosFilePathError as error:
                assert str(error.filepath) == SYMLINK_NAME
            else:
                raise AssertionError("current led nowhere")

    def step(self, name, spelling, how, **options):
        """Run a task on *name*, or on `current` if it is None; return whether it could be loaded."""
        specifier = spelling(name or SYMLINK_NAME)
        name = name or self.current
        try:
            change(specifier, how, **options)
        except EnosFilePathError:
            assert self.held.get(name) is None or self.blocked() and name == self.current
            return None
        except (KeyError, EnosSaveError) as error:
            return name, error
        return name, None

    targets = st.one_of(st.none(), NAMES)

    @rule(name=targets, spelling=SPELLINGS, key=KEYS, value=VALUES, fail=st.booleans())
    def a_task_sets_a_key_and_may_fail(self, name, spelling, key, value, fail):
        done = self.step(name, spelling, lambda env: env.update({key: value}), fail=fail)
        if done:
            assert isinstance(done[1], KeyError) == fail
            self.held[done[0]][key] = copy.deepcopy(value)

    @rule(name=targets, spelling=SPELLINGS, key=KEYS)
    def a_task_deletes_a_key(self, name, spelling, key):
        done = self.step(name, spelling, lambda env: env.pop(key, None))
        if done:
            self.held[done[0]].pop(key, None)

    @rule(name=targets, spelling=SPELLINGS, key=KEYS)
    def a_task_changes_a_value_in_place(self, name, spelling, key):
        def how(env):
            if isinstance(env.get(key), list):
                env[key].append("more")

        done = self.step(name, spelling, how)
        if done and isinstance(self.held[done[0]].get(key), list):
            self.held[done[0]][key].append("more")

    @rule(name=targets, spelling=SPELLINGS, bad=KEYS, key=KEYS, value=VALUES, fail=st.booleans())
    def a_value_that_cannot_be_pickled_costs_only_itself(self, name, spelling, bad, key, value, fail):
        done = self.step(name, spelling, lambda env: env.update({key: value, bad: lambda: None}), fail=fail)
        if done:
            if fail:
                assert isinstance(done[1], KeyError)
            else:
                assert isinstance(done[1], EnosSaveError) and done[1].keys == [bad]
            if key != bad:
                self.held[done[0]][key] = copy.deepcopy(value)

    @rule(name=NAMES)
    def a_directory_is_deleted(self, name):
        if self.held.get(name) is not None:
            shutil.rmtree(name)
            self.held[name] = None
            self.aside.pop(name, None)

    @rule(name=NAMES)
    def a_task_tears_its_environment_down(self, name):
        if self.step(name, str, lambda env: shutil.rmtree(env.env_name)):
            self.held[name] = None
            self.aside.pop(name, None)

    @precondition(lambda self: not self.blocked())
    @rule(kind=st.sampled_from(["file", "directory"]))
    def something_else_is_put_at_current(self, kind):
        if os.path.lexists(SYMLINK_NAME):
            os.unlink(SYMLINK_NAME)
        os.mkdir(SYMLINK_NAME) if kind == "directory" else Path(SYMLINK_NAME).write_text("precious")
        self.current = kind

    @precondition(blocked)
    @rule()
    def it_is_taken_away_again(self):
        os.rmdir(SYMLINK_NAME) if self.current == "directory" else os.unlink(SYMLINK_NAME)
        self.current = None

    @rule()
    def the_whole_directory_is_moved(self):
        moved = self.above / f"root{int(self.root.name[4:]) + 1}"
        os.rename(self.root, moved)
        self.root = moved
        os.chdir(moved)

    @invariant()
    def every_environment_reads_back_equal(self):
        for name, held in self.held.items():
            if held is None:
                assert not os.path.lexists(name)
                continue
            env = Environment.load_from_file(Path(name, ENV_FILENAME))
            assert own(env) == held, (own(env), held)
            assert env.env_name == env["resultdir"] == self.root / name
            aside = self.aside.get(name, [])
            assert backups(name) == [f"env.bak{number + 1}" for number in range(len(aside))]
            assert [read(name, backup) for backup in backups(name)] == aside

    @invariant()
    def current_is_where_it_should_be(self):
        if self.blocked():
            assert not os.path.islink(SYMLINK_NAME)
            assert self.current == "directory" or Path(SYMLINK_NAME).read_text() == "precious"
        elif self.current:
            assert os.readlink(SYMLINK_NAME) == self.current

    @invariant()
    def nothing_else_is_on_disk(self):
        for directory, _, files in os.walk(self.root):
            for file in files:
                path = os.path.relpath(os.path.join(directory, file), self.root)
                assert re.fullmatch(r"(a|b|deep/er)/(env|\.env\.lock|env\.bak\d+)|current", path), path
        assert set(os.listdir(self.root)) <= {"a", "b", "deep", SYMLINK_NAME}


TestExperiments = Experiments.TestCase


class Interleavings(RuleBasedStateMachine):
    """Three environments loaded from one checkpoint save in any order, against what each key's last change was."""

    who = st.integers(0, 2)

    def __init__(self):
        super().__init__()
        self.root = tempfile.mkdtemp(prefix="enostask-")
        get_or_create_env(True, self.root, symlink=False)
        self.disk = {}
        self.envs, self.held, self.known = [None] * 3, [{}, {}, {}], [{}, {}, {}]
        for number in range(3):
            self.loads(number)

    def teardown(self):
        shutil.rmtree(self.root)

    @rule(who=who)
    def loads(self, who):
        self.envs[who] = get_or_create_env(False, self.root)
        self.held[who], self.known[who] = copy.deepcopy(self.disk), copy.deepcopy(self.disk)

    @rule(who=who)
    def sends_itself_elsewhere_and_forgets_what_it_knew(self, who):
        self.envs[who] = pickle.loads(pickle.dumps(self.envs[who]))
        self.known[who] = {}

    @rule(who=who, key=KEYS, value=VALUES)
    def sets(self, who, key, value):
        self.envs[who][key] = value
        self.held[who][key] = copy.deepcopy(value)

    @rule(who=who, key=KEYS)
    def deletes(self, who, key):
        self.envs[who].pop(key, None)
        self.held[who].pop(key, None)

    @rule(who=who, key=KEYS)
    def changes_in_place(self, who, key):
        for value in (self.envs[who].get(key), self.held[who].get(key)):
            if isinstance(value, list):
                value.append("more")

    @rule(who=who)
    def saves(self, who):
        self.envs[who].dump()
        held, known = self.held[who], self.known[who]
        for key in "xyz":
            if held.get(key) != known.get(key) or (key in held) != (key in known):
                if key in held:
                    self.disk[key] = copy.deepcopy(held[key])
                else:
                    self.disk.pop(key, None)
        self.known[who] = copy.deepcopy(held)

    @invariant()
    def the_last_change_of_each_key_is_on_disk(self):
        assert read(self.root) == self.disk
        assert set(os.listdir(self.root)) <= {ENV_FILENAME, ".env.lock"}

    @invariant()
    def a_save_alters_nothing_in_memory(self):
        assert [own(env) for env in self.envs] == self.held


TestInterleavings = Interleavings.TestCase


class Place(unittest.TestCase):
    """Each test has an empty working directory of its own."""

    def setUp(self):
        before = os.getcwd()
        self.root = Path(os.path.realpath(tempfile.mkdtemp(prefix="enostask-")))
        os.chdir(self.root)
        self.addCleanup(shutil.rmtree, self.root)
        self.addCleanup(os.chdir, before)

    def script(self, code, *arguments, name="script.py", python=sys.executable, status=0, **variables):
        """Run *code* as a process of its own; return what it printed."""
        if code is not None:
            Path(name).write_text(textwrap.dedent(code), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(MODULE.parent), "PYTHONDONTWRITEBYTECODE": "1", **variables}
        done = subprocess.run([python, name, *arguments], env=environment, stdout=-1, stderr=-1, text=True, timeout=100)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout + (done.stderr if status else "")

    def refused(self, kind, *patterns):
        """Expect *kind*, with a message on one line that has the *patterns*."""
        outer = self

        class Expected(contextlib.ContextDecorator):
            def __enter__(self):
                return self

            def __exit__(self, found, error, _):
                outer.assertIs(found, kind, error)
                outer.assertEqual(len(str(error).splitlines()), 1)
                for pattern in patterns:
                    outer.assertRegex(str(error), pattern)
                self.error = error
                return True

        return Expected()

    def logged(self, level=logging.WARNING):
        return self.assertLogs("enostask", level)

    def silent(self):
        """Expect no warning."""
        return mock.patch.object(logging.getLogger("enostask"), "warning", side_effect=AssertionError)


# ---- Properties

plain_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(), st.datetimes())
    | st.sampled_from([PurePosixPath("/a/b"), Path("c"), range(3), 2j]),
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner, inner), st.dictionaries(st.text(), inner), st.frozensets(st.integers())
    ),
    max_leaves=12,
)


def tangled(values, links):
    """Make lists of *values* in which *links*, pairs of indices, put one list into another, or itself."""
    knots = [[value] for value in values]
    for outer, inner in links:
        knots[outer % len(knots)].append(knots[inner % len(knots)])
    return knots


def shape(value, seen=None):
    """A description of *value* that tells which of its lists are one and the same."""
    seen = {} if seen is None else seen
    if not isinstance(value, list):
        return value
    if id(value) in seen:
        return seen[id(value)]
    seen[id(value)] = len(seen)
    return [shape(inner, seen) for inner in value]


class AnyValue(Place):
    links = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=6)

    @given(st.lists(plain_values, min_size=1, max_size=5), links)
    def test_identity_between_values_is_kept(self, values, links):
        knots = tangled(values, links)
        env = get_or_create_env(True, "xp", symlink=False)
        env.update(enumerate(knots))
        env.dump()
        loaded = get_or_create_env(False, "xp")
        self.assertEqual(shape([loaded[number] for number in range(len(knots))]), shape(knots))

    @given(st.lists(plain_values, min_size=1, max_size=5), links, st.integers(0, 9))
    def test_identity_is_kept_by_a_merge(self, values, links, theirs):
        knots = tangled(values, links)
        shutil.rmtree("xp", ignore_errors=True)
        env = get_or_create_env(True, "xp", symlink=False)
        env.update(enumerate(knots))
        env.dump()
        with self.silent():
            change("xp", lambda other: other.update(theirs=theirs))
            env["mine"] = 1
            env.dump()
        loaded = get_or_create_env(False, "xp")
        self.assertEqual((loaded["mine"], loaded["theirs"]), (1, theirs))
        self.assertEqual(shape([loaded[number] for number in range(len(knots))]), shape(knots))

    @given(st.data())
    def test_a_damaged_checkpoint_loads_or_gives_the_error_and_shows_or_gives_one(self, data):
        image = bytearray(damageable())
        for _ in range(data.draw(st.integers(1, 3))):
            image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.sampled_from(BYTES))
        Path("env").write_bytes(image)
        survives(self, "env")


class Machine:
    """A class of an experiment's own."""

    def __init__(self, name):
        self.name, self.tags = name, ["a"]

    def __eq__(self, other):
        return vars(self) == vars(other)


class Fleet(dict):
    pass


class Slotted:
    __slots__ = ("left", "right")


# For the opcode of a bytearray that is longer than memory CPython prints a SystemError, and one for a big memo
# index takes as much memory as it says.
BYTES = [byte for byte in range(256) if byte not in pickle.BYTEARRAY8 + pickle.LONG_BINPUT]


@functools.lru_cache(None)
def damageable():
    """A checkpoint to damage, the same in every run: what damage asks for may be much memory."""
    with tempfile.TemporaryDirectory() as directory:
        env = Environment(directory)
    machines = [Machine("m1"), Machine("m2")]
    env.env_name = env["resultdir"] = Path("/srv/xp")
    env.update(machines=machines, fleet=Fleet(a=machines), tags={"x"}, n=2**70, f=1.5, t=(1, None, b"xyz"))
    return env.dumps()


@contextlib.contextmanager
def little_memory():
    """Let nothing take more than 1 GB: a damaged pickle may ask for any amount."""
    try:
        import resource
    except ImportError:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**30, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def survives(case, path):
    """Load and show the checkpoint *path*: there is an answer, or the stated error, and the file stays."""
    before = Path(path).read_bytes()
    for look in (Environment.load_from_file, viewed):
        try:
            with little_memory():
                look(path)
        except EnosFilePathError as error:
            case.assertNotIn("\n", str(error))
    case.assertEqual(Path(path).read_bytes(), before)
    case.assertTrue(gc.isenabled())


def viewed(path):
    return list(module._show(str(path), False))


# ---- Tasks


class TheWayOfATask(Place):
    def test_it_gets_its_environment_and_hands_on_what_it_returns(self):
        @enostask(new=True)
        def up(env, machines, *, load=1):
            env["machines"] = machines
            return env, load

        env, load = up(machines=3, load=2)
        self.assertEqual((type(env), load), (Environment, 2))
        self.assertEqual(read(SYMLINK_NAME), {"machines": 3})

    def test_it_is_decorated_bare_and_with_empty_parentheses(self):
        @enostask
        def bare(env):
            return env.env_name

        @enostask()
        def called(env):
            return env.env_name

        get_or_create_env(True, "xp")
        self.assertEqual(bare(), called())

    def test_the_environment_is_given_in_any_position_or_by_keyword(self):
        get_or_create_env(True, "xp", symlink=False)

        @enostask()
        def second(first, env=None, *rest, last=None):
            return first, env.env_name.name, rest, last

        @enostask()
        def only_keyword(first, *, env):
            return first, env.env_name.name, (), None

        named = second(first=1, env="xp"), second(env="xp", first=1), only_keyword(first=1, env="xp")
        for result in (second(1, "xp"), second(1, env="xp"), only_keyword(1, env=Path("xp")), *named):
            self.assertEqual(result, (1, "xp", (), None))
        self.assertEqual(second(1, "xp", 2, last=3), (1, "xp", (2,), 3))
        get_or_create_env(True, "other")
        self.assertEqual([second(first=1)[1], second(1)[1]], ["other"] * 2)

        @enostask()
        def first(env, number, *rest):
            return env.env_name.name, number, rest

        for result in (first("xp", 3, 4), first(3, 4, env="xp")):
            self.assertEqual(result, ("xp", 3, (4,)))
        self.assertEqual(first(number=3, env="xp"), ("xp", 3, ()))

    def test_the_environment_is_given_where_no_keyword_goes(self):
        get_or_create_env(True, "xp")

        @enostask()
        def first(env, /, n=1):
            return env.env_name.name, n

        self.assertEqual([first(), first("xp"), first("xp", 2), first(n=3)], [("xp", n) for n in (1, 1, 2, 3)])
        self.assertEqual(enostask()(lambda env, /, **options: options)(n=1), {"n": 1})

    def test_docopt_names_the_environment_by_its_option(self):
        get_or_create_env(True, "a", symlink=False)
        get_or_create_env(True, "b")

        @enostask()
        def task(env=None, **options):
            return env.env_name.name, options

        self.assertEqual(task(**{"--env": None, "--force": True}), ("b", {"--env": None, "--force": True}))
        self.assertEqual(task(**{"--env": "", "env": "a"}), ("a", {"--env": ""}))
        self.assertEqual(task(**{"--env": "a", "env": "b"}), ("a", {"--env": "a"}))
        self.assertEqual(task("b", **{"--env": "a"}), ("a", {"--env": "a"}))

    def test_where_it_can_be_handed_on_by_position_only_what_comes_before_must_be_given(self):
        def hidden(function):
            return functools.wraps(function)(lambda *args: function(*args))

        @enostask(new=True)
        @hidden
        def task(a=1, env=None):
            return a, env.env_name.name

        self.assertEqual([task(2, "xp"), task(2, env="xp")], [(2, "xp")] * 2)
        with self.assertRaisesRegex(TypeError, "arguments before env"):
            task()
        self.assertEqual(set(os.listdir()), {"xp", "current"})

    def test_only_keywords_are_enough(self):
        get_or_create_env(True, "xp")
        task = enostask()(lambda **options: sorted(options))
        self.assertEqual(task(n=1), ["env", "n"])

    def test_methods_callables_and_partials_are_tasks(self):
        get_or_create_env(True, "xp")

        class Experiment:
            @enostask()
            def method(self, env, n=1):
                return env.env_name.name, n

            def __call__(self, env, n=1):
                return env.env_name.name, n

        self.assertEqual(Experiment().method(n=2), ("xp", 2))
        self.assertEqual(Experiment().method("xp", 3), ("xp", 3))
        self.assertEqual(enostask(Experiment())(n=2), ("xp", 2))
        self.assertEqual(enostask()(Experiment().__call__)("xp", 2), ("xp", 2))
        self.assertEqual(enostask()(functools.partial(Experiment().__call__, n=4))(), ("xp", 4))
        self.assertEqual(enostask(Experiment()).__name__, "Experiment")

    def test_a_partial_may_hold_the_environment(self):
        get_or_create_env(True, "xp", symlink=False)
        name = enostask()(functools.partial(lambda env: env.env_name.name, env="xp"))
        self.assertEqual(name(), "xp")

    def test_an_inner_decorator_may_hide_the_parameters(self):
        get_or_create_env(True, "xp", symlink=False)

        def hiding(function):
            return lambda *args, **kwargs: function(*args, **kwargs)

        def wrapping(function):
            return functools.wraps(function)(lambda *args, **kwargs: function(*args, **kwargs))

        def body(first, env=None):
            return first, env.env_name.name

        self.assertEqual(enostask()(hiding(body))(1, env="xp"), (1, "xp"))
        self.assertEqual(enostask()(wrapping(body))(1, "xp"), (1, "xp"))

    def test_an_inner_decorator_with_positions_only_gets_it_there(self):
        get_or_create_env(True, "xp")

        def body(env):
            return env.env_name.name

        self.assertEqual(enostask()(functools.wraps(body)(lambda *args: body(*args)))(), "xp")

    def test_coroutines_are_saved_after_the_last_await(self):
        get_or_create_env(True, "xp")

        @enostask()
        async def measure(env, n):
            await asyncio.sleep(0)
            env["n"] = n
            return n

        self.assertTrue(inspect.iscoroutinefunction(measure))
        self.assertEqual(asyncio.run(measure(n=3)), 3)
        self.assertEqual(read("xp"), {"n": 3})

    def test_a_cancelled_coroutine_is_saved(self):
        get_or_create_env(True, "xp")

        @enostask()
        async def measure(env):
            env["begun"] = True
            await asyncio.sleep(60)

        async def cancel():
            await asyncio.wait_for(measure(), 0.01)

        with self.assertRaises(asyncio.TimeoutError):
            asyncio.run(cancel())
        self.assertEqual(read("xp"), {"begun": True})

    def test_a_callable_with_a_coroutine_inside_is_one(self):
        get_or_create_env(True, "xp")

        class Measure:
            async def __call__(self, env):
                await asyncio.sleep(0)
                env["n"] = 1

        asyncio.run(enostask()(Measure())())
        self.assertEqual(read("xp"), {"n": 1})

    def test_generators_are_saved_when_they_end_and_when_they_are_closed(self):
        get_or_create_env(True, "xp")

        @enostask()
        def steps(env, n):
            for number in range(n):
                env["at"] = number
                got = yield number
            env["got"] = got
            return "end"

        running = steps(n=2)
        self.assertEqual([next(running), next(running)], [0, 1])
        with self.assertRaises(StopIteration) as end:
            running.send("sent")
        self.assertEqual((end.exception.value, read("xp")), ("end", {"at": 1, "got": "sent"}))
        running = steps(n=9)
        next(running)
        with self.logged(logging.INFO) as log:
            running.close()
        self.assertEqual(read("xp"), {"at": 0, "got": "sent"})
        self.assertIn("finished", log.output[-1])

    def test_a_context_manager_may_be_a_task(self):
        get_or_create_env(True, "xp")

        @contextlib.contextmanager
        @enostask()
        def machines(env):
            env["up"] = True
            try:
                yield env
            finally:
                env["up"] = False

        with self.assertRaises(KeyError), machines() as env:
            env["n"] = 1
            raise KeyError
        self.assertEqual(read("xp"), {"up": False, "n": 1})

    def test_an_async_generator_is_refused_at_decoration(self):
        async def steps(env):
            yield

        with self.refused(TypeError, "steps", "async generator"):
            enostask(steps)

    def test_an_undeclared_coroutine_is_refused_and_closed(self):
        get_or_create_env(True, "xp")
        made = []

        async def measure(env):
            raise AssertionError

        def undeclared(*args, **kwargs):
            made.append(measure(*args, **kwargs))
            return made[0]

        with self.refused(TypeError, "undeclared", "coroutine", "async def"):
            enostask()(undeclared)()
        self.assertEqual(inspect.getcoroutinestate(made[0]), inspect.CORO_CLOSED)

    def test_what_can_take_no_environment_is_refused_at_decoration(self):
        class Bound:
            pass

        for function in (lambda: None, lambda n: None, lambda *args: None, lambda *env: None, Bound, print):
            name = getattr(function, "__name__", "")
            with self.subTest(name), self.refused(TypeError, re.escape(name), "env|parameters"):
                enostask()(function)

        def opaque(env):
            pass

        opaque.__signature__ = "unknown"
        with self.refused(TypeError, "opaque", "parameters are not known"):
            enostask(opaque)
        for wrapper in (staticmethod, classmethod):
            with self.refused(TypeError, wrapper.__name__, "above"):
                enostask(wrapper(lambda env: None))

    def test_it_looks_like_its_function_and_pickles_by_reference(self):
        def body(env):
            """What it does."""

        task = enostask()(body)
        self.assertEqual((task.__name__, task.__doc__, task.__wrapped__), ("body", "What it does.", body))
        self.assertEqual((task.__module__, task.__qualname__), (__name__, body.__qualname__))
        self.assertIs(pickle.loads(pickle.dumps(change)), change)

    def test_a_call_that_does_not_fit_is_a_plain_type_error(self):
        get_or_create_env(True, "xp")
        with self.assertRaises(TypeError):
            enostask()(lambda env: None)(None, 1, 2)

    def test_nested_tasks_share_what_is_handed_on_and_keep_what_is_not(self):
        @enostask()
        def inner(env, key):
            env[key] = 1
            return env

        @enostask()
        def outer(env):
            env["before"] = 1
            assert inner(env, "shared") is env
            inner(key="alone")
            env["after"] = 1

        get_or_create_env(True, "xp")
        with self.silent():
            outer()
        self.assertEqual(set(read("xp")), {"before", "shared", "alone", "after"})

    def test_changes_are_measured_against_what_was_last_saved(self):
        get_or_create_env(True, "xp")

        @enostask()
        def inner(env):
            env["machines"][0].tags.append("changed inside")
            env["set"].add("added inside")

        @enostask()
        def outer(env):
            env["machines"] = [Machine("m")]
            env["set"] = set(map(str, range(40)))
            env.dump()
            inner()
            env["other"] = 1

        with self.silent():
            outer()
        self.assertEqual(read("xp")["machines"][0].tags, ["a", "changed inside"])
        self.assertEqual(read("xp")["set"], {*map(str, range(40)), "added inside"})

    def test_the_log_tells_how_it_went(self):
        get_or_create_env(True, "xp")
        with self.logged(logging.INFO) as log:
            change(None, lambda env: None)
        self.assertRegex("\n".join(log.output), r"(?s)Task change started\n.*Task change finished in \d\.\d s")
        with self.assertRaises(KeyError), self.logged(logging.INFO) as log:
            change(None, lambda env: None, fail=True)
        self.assertRegex(log.output[-1], r"Task change failed after \d\.\d s")
        with self.assertRaises(EnosSaveError), self.logged(logging.INFO) as log:
            change(None, lambda env: env.update(bad=lambda: None))
        self.assertRegex(log.output[-1], "failed")
        self.assertEqual(log.records[-1].name, module.__name__)

    def test_a_nested_task_without_an_environment_loads_its_own(self):
        get_or_create_env(True, "xp")

        @enostask()
        def inner(env):
            env["inner"] = 1
            return env

        @enostask()
        def outer(env):
            env["outer"] = 1
            return own(inner()), own(env)

        self.assertEqual(outer(), ({"inner": 1}, {"outer": 1}))
        self.assertEqual(read("xp"), {"outer": 1, "inner": 1})

    def test_a_callable_with_a_generator_inside_is_one(self):
        get_or_create_env(True, "xp")

        class Steps:
            def __call__(self, env):
                yield 1
                env["n"] = 1

        class Later:
            async def __call__(self, env):
                yield

        self.assertEqual(list(enostask(Steps())()), [1])
        self.assertEqual(read("xp"), {"n": 1})
        with self.refused(TypeError, "Later", "async generator"):
            enostask(Later())

    def test_nothing_is_printed(self):
        code = """
            import logging
            from enostask import enostask
            logging.getLogger("enostask").addHandler(logging.NullHandler())
            @enostask(new=True)
            def up(env, n):
                env["n"] = n
            @enostask()
            def fails(env):
                env["bad"] = lambda: None
                raise KeyError
            for n in range(2):
                up("xp", n)
            try:
                fails()
            except KeyError:
                pass
        """
        Path("script.py").write_text(textwrap.dedent(code))
        run = [sys.executable, "script.py"]
        done = subprocess.run(run, env={**os.environ, "PYTHONPATH": str(MODULE.parent)}, stdout=-1, stderr=-1, text=True)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.assertEqual((read("xp"), read("xp", "env.bak1")), ({"n": 1}, {"n": 0}))


class HowATaskEnds(Place):
    def setUp(self):
        super().setUp()
        get_or_create_env(True, "xp")

    def ends(self, error, unsaved=False):
        @enostask()
        def task(env):
            env["n"] = env.get("n", 0) + 1
            if unsaved:
                env["bad"] = threading.Lock()
            raise error

        with self.assertRaises(BaseException) as raised:
            task()
        return raised.exception

    def test_it_is_saved_after_whatever_it_raises(self):
        for number, error in enumerate((KeyError(), SystemExit(3), KeyboardInterrupt(), SystemExit(0), StopIteration())):
            self.assertIs(self.ends(error), error)
            self.assertEqual(read("xp"), {"n": number + 1})

    def test_its_own_exception_is_what_the_caller_sees_when_the_save_fails_too(self):
        for error in (ValueError("mine"), SystemExit(1), SystemExit("why"), KeyboardInterrupt()):
            with self.logged(logging.ERROR) as log:
                self.assertIs(self.ends(error, unsaved=True), error)
            self.assertRegex(log.output[0], r"(?s)failed task task could not be saved.*Traceback.*'bad'")
            if sys.version_info >= (3, 11):
                self.assertRegex(error.__notes__[0], "not be saved.*'bad'")
        self.assertEqual(read("xp"), {"n": 4})

    def test_behind_a_successful_exit_a_failed_save_is_raised(self):
        for error in (SystemExit(), SystemExit(0), SystemExit(None)):
            failure = self.ends(error, unsaved=True)
            self.assertIsInstance(failure, EnosSaveError)

    def test_a_closed_generator_tells_of_a_failed_save(self):
        @enostask()
        def steps(env):
            env["bad"] = lambda: None
            yield

        running = steps()
        next(running)
        with self.refused(EnosSaveError, "bad"):
            running.close()

    def test_exits_count_as_success_in_the_log_when_they_mean_it(self):
        for error, word in ((SystemExit(0), "finished"), (SystemExit(), "finished"), (SystemExit(1), "failed")):
            with self.logged(logging.INFO) as log:
                self.ends(error)
            self.assertIn(word, log.output[-1])

    def test_it_may_delete_its_directory(self):
        with self.silent():
            change(None, lambda env: shutil.rmtree(env.env_name))
        self.assertFalse(os.path.exists("xp"))

    def test_it_may_delete_a_new_one(self):
        start = enostask(new=True)(lambda env: shutil.rmtree(env.env_name))
        made = Environment("made")
        made.dump()
        with self.silent():
            start("begun")
            change(made, lambda env: shutil.rmtree("made"))
        self.assertEqual(sorted(os.listdir()), ["current", "xp"])

    def test_it_may_delete_its_directory_where_its_pickle_never_comes_out_the_same(self):
        change(None, lambda env: env.update(members=set(map(str, range(100)))))
        code = """
            import shutil
            from enostask import enostask
            @enostask()
            def down(env):
                shutil.rmtree(env.env_name)
            down()
        """
        self.script(code, PYTHONHASHSEED="1")
        self.assertFalse(os.path.exists("xp"))

    def test_a_change_after_that_makes_it_again_with_a_warning(self):
        def down(env):
            shutil.rmtree(env.env_name)
            env["n"] = 1

        with self.logged() as log:
            change(None, down)
        self.assertIn("is gone", log.output[0])
        self.assertEqual(read("xp"), {"n": 1})

    def test_a_dump_after_that_makes_it_again_with_a_warning(self):
        env = get_or_create_env(False, None)
        os.unlink("xp/env")
        with self.logged() as log:
            env.dump()
        self.assertIn("is gone", log.output[0])
        self.assertEqual(read("xp"), {})
        twin = copy.copy(env)
        shutil.rmtree("xp")
        twin["n"] = 1
        with self.logged():
            twin.dump()
        del twin["n"]
        twin.dump()
        self.assertEqual(read("xp"), {})

    def test_sigterm_saves_if_the_handler_raises(self):
        if not POSIX:
            self.skipTest("no SIGTERM")
        code = """
            import os, signal, sys
            from enostask import enostask
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
            @enostask()
            def measure(env):
                env["n"] = 1
                os.kill(os.getpid(), signal.SIGTERM)
            measure()
        """
        self.script(code, status=143)
        self.assertEqual(read("xp"), {"n": 1})

    def test_a_task_that_ends_without_a_save_leaves_what_it_dumped(self):
        if not POSIX:
            self.skipTest("no exec")
        code = """
            import os, sys
            from enostask import enostask
            @enostask()
            def measure(env):
                env["n"] = 1
                env.dump()
                env["n"] = 2
                os.execvp(sys.executable, [sys.executable, "-c", "print('other')"])
            measure()
        """
        self.assertEqual(self.script(code), "other\n")
        self.assertEqual(read("xp"), {"n": 1})

    def test_it_may_delete_only_its_checkpoint(self):
        get_or_create_env(True, "xp")
        with self.silent():
            change("xp", lambda env: os.unlink("xp/env"))
        self.assertFalse(os.path.exists("xp/env"))

    def test_a_dump_makes_a_deleted_directory_again(self):
        env = get_or_create_env(True, "deep/xp")
        shutil.rmtree("deep")
        with self.logged() as log:
            env.dump()
        self.assertIn("is gone", log.output[0])
        self.assertEqual(read("deep/xp"), {})


# ---- Environments, specifiers, `current`


class AnEnvironment(Place):
    def test_a_new_one_holds_four_keys(self):
        env = Environment("made/with/parents")
        self.assertEqual(env.env_name, self.root / "made/with/parents")
        self.assertEqual(
            env.data, {"resultdir": env.env_name, "config_file": None, "config": {}, "config_type": "yaml"}
        )
        self.assertIsInstance(env["resultdir"], Path)
        self.assertEqual(os.listdir(env.env_name), [])

    def test_two_may_make_its_directory_at_once(self):
        Environment("a/b")
        asked, real = set(), Path.is_dir

        def is_dir(path):
            first = path not in asked
            asked.add(path)
            return real(path) and not first  # the other one comes in between

        with mock.patch.object(Path, "is_dir", is_dir):
            Environment("a/b")

    def test_it_is_a_mutable_mapping_over_its_data(self):
        env = Environment("xp")
        env["n"] = 1
        self.assertIs(env.data["n"], env["n"])
        self.assertEqual((len(env), "n" in env, env.pop("n"), env.get("n")), (5, True, 1, None))
        with self.assertRaises(KeyError):
            env["n"]

    def test_its_repr_shows_directory_and_data_even_of_itself(self):
        env = Environment("xp")
        env["self"] = env
        self.assertIn(str(env.env_name), repr(env))
        self.assertIn("'config_type': 'yaml'", repr(env))
        self.assertIn("...", repr(env))

    def test_its_path_is_resolved(self):
        os.mkdir("real")
        os.symlink("real", "link")
        self.assertEqual(Environment("link/../link/xp").env_name, self.root / "real/xp")

    def test_it_is_saved_by_a_task_that_only_looks_if_it_never_was(self):
        change(Environment("xp"), lambda env: None)
        self.assertEqual(read("xp"), {})

    def test_it_travels_by_pickle_and_copy_with_its_data_and_name(self):
        env = get_or_create_env(True, "xp")
        env["list"] = [1]
        for other in (pickle.loads(pickle.dumps(env)), copy.copy(env), copy.deepcopy(env), pickle.loads(env.dumps())):
            self.assertEqual((other, other.env_name, type(other)), (env, env.env_name, Environment))
        self.assertIs(copy.copy(env)["list"], env["list"])
        self.assertIsNot(copy.copy(env).data, env.data)

    def test_one_that_came_by_pickle_or_copy_deletes_nothing(self):
        env = get_or_create_env(True, "xp")
        env["here"] = 1
        env.dump()
        for number, travel in enumerate((copy.copy, copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env)))):
            other = travel(get_or_create_env(False, "xp"))
            change("xp", lambda env: env.update({f"since{number}": 1}))
            del other["here"]
            other[f"mine{number}"] = 1
            other.dump()
            self.assertEqual({"here", f"since{number}", f"mine{number}"} - set(read("xp")), set())

    def test_a_subclass_comes_back_as_one_with_its_attributes(self):
        env = Tagged("xp")
        env.tag, env["n"] = "t", 1
        env.dump()
        loaded = Tagged.load_from_file("xp/env")
        self.assertEqual((type(loaded), loaded.tag, own(loaded)), (Tagged, "t", {"n": 1}))
        loaded["n"] = 2
        change("xp", lambda env: env.update(other=1))
        loaded.dump()
        self.assertEqual(type(get_or_create_env(False, "xp")), Tagged)
        self.assertEqual(read("xp"), {"n": 2, "other": 1})

    def test_a_subclass_loads_what_the_class_saved_as_its_own(self):
        Environment("xp").dump()
        self.assertIs(type(Tagged.load_from_file("xp/env")), Tagged)


class Tagged(Environment):
    pass


class ASpecifier(Place):
    def test_an_environment_is_returned_as_it_is(self):
        env = Environment("xp")
        for new in (True, False):
            self.assertIs(get_or_create_env(new, env), env)
        self.assertEqual(os.listdir("."), ["xp"])

    def test_relative_paths_are_relative_to_the_working_directory_at_the_call(self):
        get_or_create_env(True, "xp")
        os.mkdir("below")
        with inside("below"):
            self.assertEqual(get_or_create_env(False, "../xp").env_name, self.root / "xp")
            self.assertEqual(get_or_create_env(True, "xp").env_name, self.root / "below/xp")

    def test_none_is_current_or_a_fresh_directory_with_a_date(self):
        env = get_or_create_env(True, None)
        self.assertRegex(env.env_name.name, r"^enos_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d$")
        self.assertEqual(get_or_create_env(False, None).env_name, env.env_name)

    def test_a_date_that_cannot_be_made_a_directory_is_the_stated_error(self):
        with mock.patch("os.mkdir", side_effect=PermissionError(errno.EACCES, "not here")):
            with self.refused(EnosFilePathError, "enos_.*not here", "another path"):
                get_or_create_env(True, None)

    def test_a_working_directory_that_is_gone(self):
        if not POSIX:
            self.skipTest("it cannot be deleted")
        os.mkdir("work")
        with inside("work"):
            os.rmdir(self.root / "work")
            for specifier in (None, "xp", "current"):
                for new in (True, False):
                    with self.refused(EnosFilePathError, specifier or "current|enos_"):
                        get_or_create_env(new, specifier)
            with self.logged():
                env = get_or_create_env(True, self.root / "xp")
            env["config_file"] = "gone.json"
            with self.logged():
                env.reload_config()
        self.assertEqual(read("xp"), {})

    def test_processes_never_share_a_fresh_directory(self):
        code = """
            from enostask import get_or_create_env
            for _ in range(5):
                print(get_or_create_env(True, None).env_name)
        """
        Path("script.py").write_text(textwrap.dedent(code))
        run = functools.partial(subprocess.Popen, [sys.executable, "script.py"], stdout=-1, text=True)
        running = [run(env={**os.environ, "PYTHONPATH": str(MODULE.parent)}) for _ in range(4)]
        names = [name for process in running for name in process.communicate()[0].split()]
        self.assertEqual((len(names), len(set(names))), (20, 20))
        self.assertTrue(os.path.exists("current/env"))

    def test_anything_else_is_refused_and_nothing_is_created(self):
        Path("file").write_text("x")

        class Bytes:
            def __fspath__(self):
                return b"xp"

        wrong = ["", 0, 3, 1.5, b"xp", ["xp"], {}, object(), Bytes(), "a\0b", "file", "file/xp", "file/xp/deeper", False]
        for specifier in wrong:
            for new in (True, False):
                with self.subTest(specifier=specifier, new=new), self.refused(EnosFilePathError) as expected:
                    get_or_create_env(new, specifier)
                if new:
                    self.assertEqual(expected.error.filepath, specifier)
        with self.refused(EnosFilePathError, "not a path"):
            Environment(None)
        with self.refused(EnosFilePathError, "not a path"):
            Environment.load_from_file(7)
        self.assertEqual(os.listdir("."), ["file"])

    def test_an_env_that_is_a_directory_is_refused(self):
        os.makedirs("xp/env/bin")
        for new in (True, False):
            with self.refused(EnosFilePathError, "xp.env", "directory"):
                get_or_create_env(new, "xp")
        self.assertEqual(os.listdir("."), ["xp"])

    def test_new_keeps_what_else_is_in_the_directory(self):
        os.mkdir("xp")
        Path("xp/results.csv").write_text("1,2")
        get_or_create_env(True, "xp")
        get_or_create_env(True, "xp")
        self.assertEqual(Path("xp/results.csv").read_text(), "1,2")
        self.assertEqual(set(os.listdir("xp")), {"env", ".env.lock", "results.csv"})

    def test_new_by_a_current_that_is_absent_dangling_or_real_is_refused(self):
        for specifier in ("current", "./current", Path("current"), self.root / "current", "current/sub"):
            for symlink in (True, False):
                with self.refused(EnosFilePathError, "current is absent"):
                    get_or_create_env(True, specifier, symlink)
        os.symlink("gone", "current")
        for specifier in ("current", "current/sub", "./current/sub"):
            with self.refused(EnosFilePathError, "current points to gone, which is gone"):
                get_or_create_env(True, specifier, symlink=False)
        os.unlink("current")
        os.mkdir("current")
        for symlink in (True, False):
            with self.refused(EnosFilePathError, "current is not a link"):
                get_or_create_env(True, "current/sub", symlink)
        self.assertEqual(os.listdir("current"), [])

    def test_any_os_pathlike_is_one(self):
        self.assertEqual(get_or_create_env(True, Named("xp")).env_name, self.root / "xp")
        (entry,) = [entry for entry in os.scandir() if entry.name == "xp"]
        for specifier in (Named("xp"), entry):
            self.assertEqual(get_or_create_env(False, specifier)["resultdir"], self.root / "xp")
            change(specifier, lambda env: None)
        enostask()(lambda env=Named("xp"): env.update(n=1))()
        self.assertEqual(read("xp"), {"n": 1})
        self.assertEqual(own(Environment.load_from_file(Named("xp/env"))), {"n": 1})

    def test_a_fresh_directory_is_named_after_now_and_a_taken_name_gives_the_next_free_one(self):
        names = [time.strftime("enos_%Y-%m-%d_%H-%M-%S", time.localtime(1.7e9 + second)) for second in range(4)]
        Path(names[1]).write_text("a user's")
        with mock.patch.object(module.time, "time", return_value=1.7e9):
            made = [get_or_create_env(True, None).env_name.name for _ in range(3)]
        self.assertEqual(made, [names[0], names[2], names[3]])


class Current(Place):
    def test_it_is_relative_below_the_working_directory_and_absolute_elsewhere(self):
        get_or_create_env(True, "deep/er")
        self.assertEqual(os.readlink("current"), os.path.join("deep", "er"))
        get_or_create_env(True, ".")
        self.assertEqual(os.readlink("current"), ".")
        os.unlink("current")
        os.mkdir("work")
        with inside("work"):
            get_or_create_env(True, "../elsewhere")
            self.assertEqual(os.readlink("current"), str(self.root / "elsewhere"))

    def test_it_is_made_before_the_task_runs_and_after_the_first_save(self):
        @enostask(new=True)
        def up(env):
            return read(SYMLINK_NAME), Environment.load_from_file("current/env").env_name == env.env_name

        self.assertEqual(up(), ({}, True))

    def test_it_is_left_alone_where_nobody_asked_for_it(self):
        get_or_create_env(True, "a", symlink=False)
        enostask(new=True, symlink=False)(lambda env: None)("b")
        enostask(new=True)(lambda env, env_symlink: None)("c", env_symlink=False)
        self.assertFalse(os.path.lexists("current"))
        get_or_create_env(True, "a")
        get_or_create_env(False, "b", symlink=True)
        change("b", lambda env: env.update(n=1))
        self.assertEqual(os.readlink("current"), "a")

    def test_a_dangling_one_is_replaced(self):
        os.symlink("gone", "current")
        get_or_create_env(True, "xp")
        self.assertEqual(os.readlink("current"), "xp")
        shutil.rmtree("xp")
        get_or_create_env(True, "xp")
        self.assertEqual(read("current"), {})

    def test_a_real_file_or_directory_is_never_touched(self):
        Path("current").write_text("precious")
        for specifier in (None, "xp", "current"):
            with self.refused(EnosFilePathError, "current is not a link", "move it away|name of its own"):
                get_or_create_env(True, specifier)
        self.assertEqual((os.listdir("."), Path("current").read_text()), (["current"], "precious"))
        get_or_create_env(True, "xp", symlink=False)

    def test_it_is_never_missing_while_it_flips(self):
        get_or_create_env(True, "a")
        get_or_create_env(True, "b")
        flips = 1000 if settings.default.max_examples > 100 else 200
        code = f"""
            from pathlib import Path
            import enostask
            for number in range({flips}):
                enostask._point_current_to(Path("ab"[number % 2]).resolve())
        """
        Path("script.py").write_text(textwrap.dedent(code))
        flipping = subprocess.Popen(
            [sys.executable, "script.py"], env={**os.environ, "PYTHONPATH": str(MODULE.parent)}
        )
        seen = set()
        while flipping.poll() is None:
            seen.add(os.readlink("current"))
            os.stat("current/env")
        self.assertEqual((flipping.returncode, seen), (0, {"a", "b"}))

    def test_where_links_cannot_be_made_there_is_a_warning_and_the_task_runs(self):
        with mock.patch("os.symlink", side_effect=OSError(errno.EPERM, "no links here")), self.logged() as log:
            enostask(new=True)(lambda env: env.update(n=1))("xp")
        self.assertRegex(log.output[0], "current.*xp.*no links here")
        self.assertEqual(read("xp"), {"n": 1})

    def test_what_a_killed_process_left_goes_and_what_is_not_a_link_stays(self):
        get_or_create_env(True, "a")
        os.symlink("gone", ".current.enostask")
        with self.silent():
            get_or_create_env(True, "b")
        self.assertEqual((os.readlink("current"), os.path.lexists(".current.enostask")), ("b", False))
        Path(".current.enostask").write_text("a user's")
        with self.logged():
            get_or_create_env(True, "a")
        self.assertEqual((os.readlink("current"), Path(".current.enostask").read_text()), ("b", "a user's"))

    def test_a_link_that_cannot_be_replaced_leaves_nothing_behind(self):
        get_or_create_env(True, "a")
        env = get_or_create_env(True, "b", symlink=False)
        with mock.patch("os.replace", side_effect=OSError(errno.EIO, "broken")), self.logged() as log:
            module._point_current_to(env.env_name)
        self.assertIn("broken", log.output[0])
        self.assertEqual((set(os.listdir(".")), os.readlink("current")), ({"a", "b", "current"}, "a"))

    def test_loading_by_it_says_what_is_wrong_with_it(self):
        with self.refused(EnosFilePathError, re.escape(f"{self.root}{os.sep}current is absent"), "new=True"):
            get_or_create_env(False, None)
        os.symlink("enos_gone", "current")
        with self.refused(EnosFilePathError, "current points to enos_gone, which is gone", "new=True"):
            get_or_create_env(False, None)

    def test_a_call_cannot_turn_the_link_on(self):
        enostask(new=True, symlink=False)(lambda env, **options: None)("xp", env_symlink=True)
        self.assertFalse(os.path.lexists("current"))

    def test_a_current_that_points_to_a_file_is_not_called_gone(self):
        Path("file").write_text("x")
        os.symlink("file", "current")
        with self.refused(EnosFilePathError, "current") as expected:
            get_or_create_env(True, "current")
        self.assertNotIn("gone", str(expected.error))


# ---- Loading


class Loading(Place):
    def fails(self, *patterns, path="xp/env"):
        try:
            before = Path(path).read_bytes()
        except OSError:
            before = None
        with self.refused(EnosFilePathError, *patterns) as expected:
            Environment.load_from_file(path)
        self.assertEqual(expected.error.filepath, path)
        if before is not None:
            self.assertEqual(Path(path).read_bytes(), before)
        return expected.error

    def holds(self, content):
        os.makedirs("xp", exist_ok=True)
        Path("xp/env").write_bytes(content)

    def test_a_missing_file_or_directory(self):
        self.assertIsInstance(self.fails("xp is absent", "new=True").__cause__, FileNotFoundError)
        os.mkdir("xp")
        self.assertIsInstance(self.fails("xp/env", "No such file").__cause__, FileNotFoundError)
        os.symlink("gone", "link")
        self.fails("link points to gone", path="link/env")
        self.fails("No such file", path="env")

    def test_a_directory_or_a_path_through_a_file(self):
        os.makedirs("xp/env")
        self.fails("Is a directory|Permission", "xp/env")
        Path("file").write_text("x")
        self.fails("file", path="file/env")

    def test_what_is_no_checkpoint(self):
        for content in (b"hello\n", b'{"a": 1}', b"\x80", b"\x80\x05.", b"\0" * 100, pickle.dumps(1)[:-1]):
            with self.subTest(content=content):
                self.holds(content)
                self.assertIsNotNone(self.fails("damaged or no checkpoint", "env.bakN").__cause__)
        self.holds(b"")
        self.fails("is empty", "env.bakN")

    def test_the_pickle_of_something_else(self):
        states = [{}, {"env_name": 3, "data": {}}, {"env_name": "xp", "data": []}]
        pretenders = [Pretender(Environment, state) for state in states]
        for value in (1, {}, {"env_name": "xp", "data": {}}, Machine("m"), None, Path("xp"), *pretenders):
            with self.subTest(value=value):
                self.holds(pickle.dumps(value))
                self.fails("something else")

    def test_a_checkpoint_cut_anywhere(self):
        image = damageable()
        for length in range(len(image)):
            self.holds(image[:length])
            survives(self, "xp/env")
            self.fails("damaged|empty")

    def test_a_checkpoint_damaged_at_random(self):
        chance, image = random.Random(1), damageable()
        for _ in range(1500):
            damaged = bytearray(image)
            for _ in range(chance.randint(1, 4)):
                where = chance.randrange(len(image))
                kind = chance.randrange(3)
                if kind == 0:
                    damaged[where : where + 1] = bytes([chance.choice(BYTES)])
                elif kind == 1:
                    del damaged[where : where + chance.randrange(20)]
                else:
                    damaged[where:where] = image[chance.randrange(len(image)) :][: chance.randrange(20)]
            self.holds(damaged)
            survives(self, "xp/env")

    def test_a_class_that_is_gone(self):
        with inside(self.root):
            sys.path.insert(0, str(self.root))
            self.addCleanup(sys.path.remove, str(self.root))
            Path("farm.py").write_text("class Pig:\n    pass\n")
            importlib.invalidate_caches()
            import farm

            change(get_or_create_env(True, "xp"), lambda env: env.update(pig=farm.Pig()))
            self.assertEqual(type(read("xp")["pig"]), farm.Pig)
            del farm.Pig
            error = self.fails(r"needs farm\.Pig", "install or restore", "xp/env")
            self.assertIsInstance(error.__cause__, AttributeError)
            os.unlink("farm.py")
            del sys.modules["farm"]
            importlib.invalidate_caches()
            self.assertIsInstance(self.fails(r"needs farm\.Pig").__cause__, ImportError)

    def test_a_class_of_the_script(self):
        code = """
            from enostask import *
            class Pig: pass
            env = get_or_create_env(True, "xp")
            env["pig"] = Pig()
            env.dump()
        """
        self.script(code)
        self.fails(r"needs __main__\.Pig", "of the script", "move it to a module")

    def test_a_class_that_refuses_to_be_unpickled_is_named(self):
        for bad in (Demanding(1), Unstable()):
            with self.subTest(bad=bad):
                env = get_or_create_env(True, "xp")
                env.update(first=Machine("m"), bad=bad, last=Machine("m"))
                env.dump()
                error = self.fails(rf"object of {__name__}\.{type(bad).__name__} .*cannot be unpickled", "mend")
                self.assertIsNotNone(error.__cause__)
        change(get_or_create_env(True, "xp"), lambda env: env.update(bad=Demanding(1)))
        image = Path("xp/env").read_bytes()
        Path("xp/env").write_bytes(image.replace(b"enostask\x94\x8c\x0bEnv", b"vendored\x94\x8c\x0bEnv"))
        self.fails(rf"object of {__name__}\.Demanding .*cannot be unpickled", "mend")  # in a file of another copy, too

    def test_a_module_that_fails_to_import_is_named(self):
        Path("farm.py").write_text("raise RuntimeError('closed')")
        self.holds(damageable().replace(__name__.encode(), b"farm".ljust(len(__name__), b"_")))
        os.rename("farm.py", "farm".ljust(len(__name__), "_") + ".py")
        sys.path.insert(0, str(self.root))
        self.addCleanup(sys.path.remove, str(self.root))
        importlib.invalidate_caches()
        self.assertIsInstance(self.fails("needs farm_*.Machine", "closed").__cause__, RuntimeError)

    def test_the_collector_runs_again_afterwards(self):
        get_or_create_env(True, "xp")
        for enabled in (True, False):
            (gc.enable if enabled else gc.disable)()
            try:
                get_or_create_env(False, "xp")
                self.assertEqual(gc.isenabled(), enabled)
            finally:
                gc.enable()

    def test_many_environments_need_no_files_held_open(self):
        get_or_create_env(True, "xp")
        before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
        kept = [get_or_create_env(False, "xp") for _ in range(1500)]
        after = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
        self.assertEqual((len(kept), after), (1500, before))

    def test_a_message_says_where_and_what_to_do(self):
        os.makedirs("folder/env")
        for name, content in dict(hollow=b"", cut=b"\x80", alien=pickle.dumps(1), classless=b"cnowhere\nPig\n.", scripted=b"c__main__\nPig\n.").items():
            os.mkdir(name)
            Path(name, "env").write_bytes(content)
        env = get_or_create_env(True, "unstable", symlink=False)
        env["bad"] = Unstable()
        env.dump()
        for name in ("absentee", "folder", "hollow", "cut", "alien", "classless", "scripted", "unstable"):
            with self.subTest(name), self.refused(EnosFilePathError, name, "; (run|restore)|: (move|install|mend)"):
                get_or_create_env(False, name)
        with self.refused(EnosFilePathError, "folder.env is a directory", "choose another path"):
            get_or_create_env(True, "folder")

    def test_the_error_has_the_path_as_given(self):
        with self.refused(EnosFilePathError) as expected:
            get_or_create_env(False, "gone")
        self.assertEqual(Path(expected.error.filepath), Path("gone/env"))
        for given in ("gone/../gone/env", Path("gone/env"), Named("gone/env")):
            with self.refused(EnosFilePathError) as expected:
                Environment.load_from_file(given)
            self.assertIs(expected.error.filepath, given)

    def test_mending_the_class_brings_the_value_back(self):
        env = get_or_create_env(True, "xp")
        env.update(bad=Unstable(), n=1)
        env.dump()
        for _ in range(2):
            with self.refused(EnosFilePathError, "Unstable"):
                change("xp", lambda env: None)
        with mock.patch.object(Unstable, "__setstate__", lambda self, state: vars(self).update(state)):
            self.assertEqual((read("xp")["bad"].a, backups("xp")), (1, []))


class Pretender:
    def __init__(self, cls, state):
        self.cls, self.state = cls, state

    def __reduce__(self):
        return copyreg_new, (self.cls,), self.state


def copyreg_new(cls):
    return cls.__new__(cls)


class Demanding(Exception):
    def __init__(self, one):
        super().__init__()


class Unstable:
    def __getstate__(self):
        return {"a": 1}

    def __setstate__(self, state):
        raise ValueError("not today")


class Portable(Place):
    def test_a_moved_directory_loads_and_its_results_follow(self):
        env = get_or_create_env(True, "xp")
        env["resultdir"] = env.env_name / "results" / "run1"
        env.dump()
        os.mkdir("archive")
        os.rename("xp", "archive/xp2")
        loaded = get_or_create_env(False, "archive/xp2")
        self.assertEqual(loaded.env_name, self.root / "archive/xp2")
        self.assertEqual(loaded["resultdir"], self.root / "archive/xp2/results/run1")

    def test_a_copied_directory_is_another_environment(self):
        change(get_or_create_env(True, "xp"), lambda env: env.update(n=1))
        shutil.copytree("xp", "copied")
        change("copied", lambda env: env.update(n=2))
        self.assertEqual((read("xp"), read("copied")), ({"n": 1}, {"n": 2}))
        self.assertEqual(get_or_create_env(False, "copied")["resultdir"], self.root / "copied")

    def test_results_set_elsewhere_stay_there(self):
        env = get_or_create_env(True, "xp")
        for elsewhere in (Path("/srv/results"), "/srv/results", "relative", None, 3):
            env["resultdir"] = elsewhere
            env.dump()
            shutil.rmtree("moved", ignore_errors=True)
            shutil.copytree("xp", "moved")
            self.assertEqual(get_or_create_env(False, "moved")["resultdir"], elsewhere)
        env["resultdir"] = str(env.env_name / "out")
        env.dump()
        shutil.rmtree("moved")
        os.rename("xp", "moved")
        self.assertEqual(get_or_create_env(False, "moved")["resultdir"], str(self.root / "moved/out"))

    def test_any_copy_of_the_module_loads_what_another_saved(self):
        homes = ["art._vendor.enostask", "other.tasks", "third._enostask"]
        for home in homes:
            path = Path(*home.split(".")).with_suffix(".py")
            path.parent.mkdir(parents=True)
            shutil.copy(MODULE, path)
        code = """
            import importlib, sys
            from pathlib import Path
            copied = importlib.import_module(sys.argv[1])
            assert "enostask" not in sys.modules
            if sys.argv[2] == "save":
                @copied.enostask(new=True)
                def save(env):
                    env.update(path=Path("a"), error=copied.EnosFilePathError("p", "m"), inner=copied.Environment("in"))
                save("xp")
            @copied.enostask()
            def load(env):
                assert type(env) is type(env["inner"]) is copied.Environment
                assert (env["path"], type(env["error"])) == (Path("a"), copied.EnosFilePathError)
                env["by"] = sys.argv[1]
            load("xp")
        """
        for saver in homes:
            for loader in homes:
                self.script(code, saver, "save", PYTHONPATH=".")
                self.script(code, loader, "load", PYTHONPATH=".")

    def test_its_own_functions_and_errors_may_be_values(self):
        values = dict(task=enostask, load=get_or_create_env, cls=Environment, error=EnosSaveError)
        change(get_or_create_env(True, "xp"), lambda env: env.update(values))
        self.assertEqual(read("xp"), values)

    def test_a_class_called_environment_of_the_users_own_is_left_alone(self):
        change(get_or_create_env(True, "xp"), lambda env: env.update(other=Elsewhere.Environment()))
        self.assertIs(type(read("xp")["other"]), Elsewhere.Environment)
        for name in ("a_module", "z_module"):
            other = type("Environment", (), {"__module__": name})
            with mock.patch.dict(sys.modules, {name: types.SimpleNamespace(Environment=other)}):
                change("xp", lambda env: env.update(other=other()))
                self.assertIs(type(read("xp")["other"]), other)
            get_or_create_env(True, "xp")

    def test_what_enoslib_saved_loads(self):
        # The layout that its version 10 writes: protocol 4, a class enoslib.task.Environment, these attributes.
        state = {
            "env_name": Path("/home/me/enos_2026-01-01"),
            "data": {"resultdir": Path("/home/me/enos_2026-01-01"), "config_file": None, "config": {}, "n": 1},
        }
        legacy = types.ModuleType("enoslib.task")
        legacy.Environment = type("Environment", (dict,), {"__module__": "enoslib.task", "__qualname__": "Environment"})
        with mock.patch.dict(sys.modules, {"enoslib": types.ModuleType("enoslib"), "enoslib.task": legacy}):
            old = legacy.Environment.__new__(legacy.Environment)
            vars(old).update(state)
            os.mkdir("xp")
            Path("xp/env").write_bytes(pickle.dumps(old, 4))
        change("xp", lambda env: env.update(n=env["n"] + 1))
        env = get_or_create_env(False, "xp")
        self.assertEqual((type(env), env["n"], env["resultdir"]), (Environment, 2, self.root / "xp"))

    def test_paths_pickled_by_python_3_13_load(self):
        get_or_create_env(True, "xp")
        image = pickle.dumps({"p": Path("a")}, 0)
        newer = re.sub(rb"cpathlib(\._local)?\n", b"cpathlib._local\n", image)
        reader = module._Reader(io.BytesIO(newer))
        self.assertEqual(reader.load(), {"p": Path("a")})

    def test_every_python_loads_what_every_other_saved(self):
        names = [f"python3.{minor}" for minor in range(8, 15)] + ["pypy3"]
        found = {path for path in map(shutil.which, names) if path} | set(filter(None, OTHER_PYTHONS))
        pythons = [sys.executable]
        for python in sorted(found):
            check = "import sys; assert sys.version_info >= (3, 8)"
            if not subprocess.run([python, "-c", check], stdout=-3, stderr=-3).returncode:
                pythons.append(python)
        code = """
            import datetime, pathlib, sys
            from enostask import *
            def values():
                return dict(p=pathlib.Path("a/b"), q=pathlib.PurePosixPath("/c"), s={"x", "y"}, n=2**80, d=datetime.date(2026, 1, 1))
            @enostask(new=True)
            def save(env):
                env.update(values())
            @enostask()
            def load(env):
                assert {key: env[key] for key in values()} == values(), env
                assert env["resultdir"] == env.env_name
                env["seen"] = env.get("seen", 0) + 1
            save("xp") if sys.argv[1] == "save" else load("xp")
        """
        for saver in pythons:
            self.script(code, "save", python=saver)
            for loader in pythons:
                self.script(code, "load", python=loader)
            self.assertEqual(read("xp")["seen"], len(pythons))


OTHER_PYTHONS = os.environ.get("ENOSTASK_PYTHONS", "").split(os.pathsep)


class Named:
    """A path of a class of its own."""

    def __init__(self, name):
        self.name = name

    def __fspath__(self):
        return self.name


class Elsewhere:
    class Environment:
        pass


# ---- Nothing is lost


class Unwilling:
    def __reduce__(self):
        raise OSError(errno.EACCES, "not me")


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


class Saving(Place):
    def setUp(self):
        super().setUp()
        self.env = get_or_create_env(True, "xp")

    def test_each_value_that_cannot_be_pickled_costs_only_itself(self):
        class Local:
            pass

        bad = {
            "lock": threading.Lock(),
            "lambda": lambda: None,
            "generator": (n for n in ()),
            "file": open(os.devnull),
            "local": Local(),
            "unwilling": Unwilling(),
            "deep": nested(100_000),
        }
        self.addCleanup(bad["file"].close)
        change("xp", lambda env: env.update(lock="before"))
        for fail in (False, True):
            try:
                change("xp", lambda env: env.update(bad, good=fail), fail=fail)
            except EnosSaveError as error:
                self.assertEqual((error.keys, str(error.filepath)), (list(bad), str(self.root / "xp/env")))
                for key in bad:
                    self.assertRegex(str(error), f"'{key}' .*:")
                self.assertNotIn("\n", str(error))
            except KeyError:
                self.assertTrue(fail)
            else:
                self.fail("nothing was said")
            self.assertEqual(read("xp"), {"lock": "before", "good": fail})
        self.assertEqual(set(os.listdir("xp")), {"env", ".env.lock"})

    def test_a_key_that_cannot_be_pickled_costs_only_itself(self):
        function = lambda: None  # noqa: E731
        self.env.update({function: 1, "n": 2})
        with self.refused(EnosSaveError, "lambda"):
            self.env.dump()
        self.assertEqual(read("xp"), {"n": 2})

    def test_a_value_that_becomes_picklable_again_is_saved(self):
        self.env["n"] = threading.Lock()
        with self.refused(EnosSaveError, "'n'"):
            self.env.dump()
        self.env["n"] = 1
        self.env.dump()
        self.assertEqual(read("xp"), {"n": 1})

    def test_what_was_saved_beside_a_refused_key_can_be_deleted(self):
        self.env.update(n=1, bad=threading.Lock())
        with self.refused(EnosSaveError, "'bad'"):
            self.env.dump()
        del self.env["n"], self.env["bad"]
        self.env.dump()
        self.assertEqual(read("xp"), {})

    def test_what_others_did_to_a_refused_key_stays(self):
        change("xp", lambda env: env.update(n=1))
        env = get_or_create_env(False, "xp")
        env["n"] = threading.Lock()
        change("xp", lambda other: other.update(n=2))
        with self.refused(EnosSaveError, "'n'"):
            env.dump()
        self.assertEqual(read("xp"), {"n": 2})

    def test_an_environment_that_cannot_be_pickled_at_all_raises_why(self):
        vars(self.env)["tool"] = threading.Lock()
        with self.assertRaises((TypeError, pickle.PicklingError)):
            self.env.dump()
        self.assertEqual(read("xp"), {})

    def test_the_checkpoint_is_one_pickle_by_protocol_5_and_dumps_gives_its_bytes(self):
        self.env["n"] = 1
        self.env.dump()
        self.assertEqual(Path("xp/env").read_bytes(), self.env.dumps())
        self.assertEqual(self.env.dumps()[:2], b"\x80\x05")

    def test_a_task_that_changes_nothing_writes_nothing(self):
        change("xp", lambda env: env.update(n=1, machines=[Machine("m")] * 2, path=Path("a"), config={"a": "yaml"}))
        change("xp", lambda env: None)
        before = os.stat("xp/env")
        os.unlink("xp/.env.lock")
        for _ in range(3):
            change("xp", lambda env: env["machines"][0].tags)
        get_or_create_env(False, "xp").dump()
        after = os.stat("xp/env")
        self.assertEqual((before.st_ino, before.st_mtime_ns), (after.st_ino, after.st_mtime_ns))
        self.assertEqual(os.listdir("xp"), ["env"])

    def test_a_big_value_that_stays_is_not_pickled_twice_on_the_way(self):
        self.env["big"] = Counted()
        self.env.dump()
        env = get_or_create_env(False, "xp")
        Counted.pickled = 0
        env["n"] = 1
        env.dump()
        self.assertEqual(Counted.pickled, 1)

    def test_big_checkpoints_compare_piece_by_piece(self):
        big = os.urandom(3 * 2**20)
        self.env["big"] = big
        self.env.dump()
        for number in range(3):
            change("xp", lambda env: env.update(n=number))
        self.assertEqual(read("xp"), {"big": big, "n": 2})
        longer = Path("xp/env").read_bytes() + b"more"
        self.assertEqual(module._unless_equal("xp/env", longer[:-4]), None)
        self.assertEqual(module._unless_equal("xp/env", longer), longer[:-4])
        self.assertEqual(module._unless_equal("xp/env", longer[:-5]), longer[:-4])
        Path("twice").write_bytes(big[: 2**17])  # a whole number of pieces
        self.assertEqual(module._unless_equal("twice", big[: 2**16]), big[: 2**17])

    def test_buffers_are_compared_and_written(self):
        self.env.update(first=1, buffer=Buffer(b"x" * 200_000), last=1)
        self.env.dump()
        env = get_or_create_env(False, "xp")
        env["last"] = 2
        env.dump()
        env["buffer"] = Buffer(b"y" * 200_000)
        env.dump()
        loaded = read("xp")
        self.assertEqual((loaded["last"], bytes(loaded["buffer"].content)), (2, b"y" * 200_000))
        for size in (3, 300):  # of two dimensions
            plane = memoryview(bytes(range(256)) * 360)[: size * size].cast("B", (size, size))
            env["buffer"] = Buffer(plane)
            env.dump()
            self.assertEqual(bytes(read("xp")["buffer"].content), plane.tobytes())

    def test_the_system_may_write_a_part_at_a_time(self):
        real = os.write
        with mock.patch("os.write", lambda file, chunk: real(file, memoryview(chunk).cast("B")[:50_000])):
            for value in ("x" * 40_000, "y" * 60_000, os.urandom(2**18)):
                self.env["value"] = value
                self.env.dump()
                self.assertEqual(read("xp"), {"value": value})

    def test_it_keeps_its_mode_and_a_new_one_follows_the_umask(self):
        if not POSIX:
            self.skipTest("no modes")
        os.chmod("xp/env", 0o640)
        change("xp", lambda env: env.update(n=1))
        self.assertEqual(stat.S_IMODE(os.stat("xp/env").st_mode), 0o640)
        get_or_create_env(True, "xp")
        self.assertEqual([stat.S_IMODE(os.stat(f"xp/{name}").st_mode) for name in ("env", "env.bak1")], [0o640] * 2)
        before = os.umask(0o027)
        self.addCleanup(os.umask, before)
        get_or_create_env(True, "other")
        self.assertEqual(stat.S_IMODE(os.stat("other/env").st_mode), 0o640)

    def test_a_secret_is_never_more_widely_readable(self):
        if not POSIX:
            self.skipTest("no modes")
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        for prefix, links in (("linked", True), ("copied", False)):
            env = get_or_create_env(True, prefix)
            os.chmod(f"{prefix}/env", 0o600)
            env["secret"] = 1
            modes = []
            real = os.open

            def watched(path, flags, mode=0o777, **options):
                descriptor = real(path, flags, mode, **options)
                if "lock" not in str(path):
                    modes.append((os.path.basename(path), stat.S_IMODE(os.fstat(descriptor).st_mode)))
                return descriptor

            with mock.patch("os.open", watched), contextlib.ExitStack() as without:
                if not links:
                    without.enter_context(mock.patch("os.link", side_effect=OSError(errno.EPERM, "no")))
                env.dump()
                get_or_create_env(True, prefix)
            written = [mode for name, mode in modes if name.endswith(".tmp")]
            self.assertEqual(written, [0o600] * (2 if links else 3))
            self.assertEqual(stat.S_IMODE(os.stat(f"{prefix}/env.bak1").st_mode), 0o600)

    def test_the_owner_is_kept_where_permitted(self):
        if not POSIX or os.geteuid():
            self.skipTest("only root can give files away")
        os.chown("xp/env", 1234, 1235)
        change("xp", lambda env: env.update(n=1))
        found = os.stat("xp/env")
        self.assertEqual((found.st_uid, found.st_gid), (1234, 1235))

    def test_where_the_group_cannot_be_kept_nobody_gains(self):
        if not POSIX:
            self.skipTest("no owners")
        cases = [(0o664, 0o644), (0o640, 0o600), (0o604, 0o600), (0o660, 0o600), (0o666, 0o666), (0o601, 0o600), (0o755, 0o755)]
        for mode, expected in cases:
            os.chmod("xp/env", mode)
            own_stat = os.stat("xp/env")
            model = os.stat_result([own_stat.st_mode, *own_stat[1:4], own_stat.st_uid + 1, own_stat.st_gid + 1, *own_stat[6:]])
            tried = []
            with open("copy", "wb") as file, mock.patch("os.fchown") as fchown:
                fchown.side_effect = lambda _, uid, gid: tried.append(uid) or exec("raise PermissionError(1, 'no')")
                module._dress(file.fileno(), "xp/env", model)
                self.assertEqual(stat.S_IMODE(os.fstat(file.fileno()).st_mode), expected)
            self.assertEqual(tried, [own_stat.st_uid + 1, -1])
            with open("copy", "wb") as file, mock.patch("os.fchown", side_effect=[PermissionError, None]):
                module._dress(file.fileno(), "xp/env", model)
                self.assertEqual(stat.S_IMODE(os.fstat(file.fileno()).st_mode), mode)

    def test_where_files_have_no_owners_they_are_private(self):
        with mock.patch("os.fchown", create=True), mock.patch("os.fchmod", create=True):
            del os.fchown, os.fchmod
            change("xp", lambda env: env.update(n=1))
        self.assertEqual(read("xp"), {"n": 1})
        if POSIX:
            self.assertEqual(stat.S_IMODE(os.stat("xp/env").st_mode), 0o600)

    def test_a_checkpoint_that_is_a_link_is_written_through(self):
        os.mkdir("store")
        os.rename("xp/env", "store/one")
        os.symlink("../store/one", "xp/env")
        change("xp", lambda env: env.update(n=1))
        self.assertEqual((os.readlink("xp/env"), read("store", "one")), ("../store/one", {"n": 1}))
        get_or_create_env(True, "xp")
        self.assertEqual((os.readlink("xp/env"), read("store", "one"), read("xp", "env.bak1")), ("../store/one", {}, {"n": 1}))
        change("xp", lambda env: env.update(n=2))
        with mock.patch("os.link", side_effect=OSError(errno.EXDEV, "elsewhere")):
            get_or_create_env(True, "xp")
        self.assertEqual(read("xp", "env.bak2"), {"n": 2})

    def test_in_a_directory_that_cannot_be_written(self):
        if not POSIX:
            self.skipTest("no modes")
        text = "".join(["a", "b"])
        change("xp", lambda env: env.update(n=1, one=text, two=text, tags=set(map(str, range(99)))))
        code = """
            import _blake2, fcntl, hashlib, inspect, logging, os
            from enostask import *
            if os.geteuid() == 0:  # whom no mode stops; after the imports, which another user may not read
                os.setgid(65534), os.setuid(65534)
            @enostask()
            def look(env):
                return env["n"]
            @enostask()
            def put(env):
                env["n"] = 2
            assert look("xp") == 1
            env = get_or_create_env(False, "xp")
            before = env.dumps()
            env["two"] = "".join(["a", "b"])  # the same, but no longer one object with the other
            assert env.dumps() != before
            env.dump()
            try:
                put("xp")
            except OSError as error:
                assert error.filename and "xp" in error.filename, error
                print("refused")
            try:
                get_or_create_env(True, "xp")
            except OSError:
                print("refused")
            try:
                get_or_create_env(True, "xp/sub", symlink=False)
            except EnosFilePathError as error:
                print(error)
        """
        os.unlink("xp/.env.lock")
        os.chmod(self.root, 0o755)
        os.chmod("xp", 0o555)
        self.addCleanup(os.chmod, "xp", 0o755)
        shutil.copy(MODULE, "enostask.py")
        printed = self.script(code, PYTHONHASHSEED="2", PYTHONPATH=str(self.root))
        self.assertRegex(printed, "refused\nrefused\ncannot make the directory 'xp/sub': PermissionError.*another path")
        self.assertEqual(read("xp")["n"], 1)

    def test_a_pickle_that_only_comes_out_differently_need_not_be_written(self):
        text = "".join(["a", "b"])
        change("xp", lambda env: env.update(one=text, two=text))
        env = get_or_create_env(False, "xp")
        env["two"] = "".join(["a", "b"])
        self.assertNotEqual(env.dumps(), Path("xp/env").read_bytes())
        for number in (errno.EACCES, errno.EPERM, errno.EROFS):
            with mock.patch.object(module._Draft, "open", side_effect=OSError(number, "read-only")):
                env.dump()
        for key, number in (("one", errno.EIO), ("changed", errno.EROFS)):
            env[key] = "ab"
            with mock.patch.object(module._Draft, "open", side_effect=OSError(number, "broken")):
                with self.assertRaises(OSError):
                    env.dump()
        os.unlink("xp/env")
        with mock.patch.object(module._Draft, "open", side_effect=OSError(errno.EROFS, "read-only")):
            with self.assertRaises(OSError):
                get_or_create_env(False, env).dump()

    def test_a_full_disk_changes_nothing(self):
        change("xp", lambda env: env.update(n=1))
        env = get_or_create_env(False, "xp")
        env["n"], env["big"] = 2, b"x" * 100_000
        real, room = os.write, [1000]

        def write(file, chunk):
            part = memoryview(chunk).cast("B")[: room[0]]  # as much as there is room for, as the system does
            if not part.nbytes:
                raise OSError(errno.ENOSPC, "No space left on device")
            room[0] -= part.nbytes
            return real(file, part)

        with mock.patch("os.write", write), self.assertRaises(OSError) as raised:
            env.dump()
        self.assertEqual(raised.exception.errno, errno.ENOSPC)
        self.assertIn(str(self.root / "xp/env"), str(raised.exception))
        self.assertEqual((read("xp"), set(os.listdir("xp"))), ({"n": 1}, {"env", ".env.lock"}))
        env["big"] = None
        env.dump()
        self.assertEqual(read("xp"), {"n": 2, "big": None})

    def test_a_small_file_system_that_fills_up(self):
        os.mkdir("small")
        mounted = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", "small"]
        if not shutil.which("mount") or subprocess.run(mounted, stderr=-3).returncode:
            self.skipTest("may not mount one")
        self.addCleanup(subprocess.run, ["umount", "small"], check=True)
        env = get_or_create_env(True, "small/xp")
        env["n"] = 1
        env.dump()
        env["n"], env["big"] = 2, b"x" * 2**17
        with self.assertRaises(OSError) as raised:
            env.dump()
        self.assertEqual(raised.exception.errno, errno.ENOSPC)
        self.assertEqual((read("small/xp"), set(os.listdir("small/xp"))), ({"n": 1}, {"env", ".env.lock"}))
        del env["big"]
        env.dump()
        self.assertEqual(read("small/xp"), {"n": 2})

    def test_a_save_that_cannot_be_read_back_is_a_save_all_the_same(self):
        env = get_or_create_env(False, "xp")
        env["n"] = 1
        env["big"] = os.urandom(2**17)
        with mock.patch.object(module._Draft, "written", side_effect=OSError(errno.EIO, "broken")):
            env.dump()
        change("xp", lambda other: other.update(theirs=1))
        del env["n"], env["big"]
        env.dump()
        self.assertEqual(read("xp"), {"theirs": 1})

    def test_what_a_killed_save_left_is_removed_by_the_next(self):
        Path("xp/.env.0123456789abcdef.tmp").write_text("half")
        for name in (".env.mine", ".env.production.tmp", ".env.0123456789abcdef.tmp2"):
            Path("xp", name).write_text("a user's")
        Path("xp/results.tmp").write_text("a user's")
        change("xp", lambda env: env.update(n=1))
        self.assertEqual(set(os.listdir("xp")), {"env", ".env.lock", ".env.mine", ".env.production.tmp", ".env.0123456789abcdef.tmp2", "results.tmp"})
        Path("xp/.env.0123456789abcdef.tmp").write_text("half")
        with mock.patch.object(module.os, "O_NOATIME", create=True):
            del module.os.O_NOATIME
            change("xp", lambda env: env.update(n=2))
        self.assertEqual(set(os.listdir("xp")), {"env", ".env.lock", ".env.mine", ".env.production.tmp", ".env.0123456789abcdef.tmp2", "results.tmp"})

    def test_without_locks_saves_go_on(self):
        refusals = [mock.patch.dict(sys.modules, fcntl=None)]
        if fcntl:
            for number in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                refusals.append(mock.patch.object(fcntl, "flock", side_effect=OSError(number, "no locks")))
        for count, refusal in enumerate(refusals):
            Path("xp/.env.0123456789abcdef.tmp").write_text("of somebody who is at work")
            with refusal, self.silent():
                change("xp", lambda env: env.update(n=count))
                get_or_create_env(True, f"other{count}")
                self.assertEqual(os.readlink("current"), f"other{count}")
            self.assertEqual(read("xp"), {"n": count})
            os.unlink("xp/.env.0123456789abcdef.tmp")

    def test_a_lock_that_fails_otherwise_is_an_error(self):
        if not fcntl:
            self.skipTest("no locks")
        def fail(*_):
            raise OSError(errno.EIO, "broken")

        with mock.patch.object(fcntl, "flock", fail):
            with self.assertRaises(OSError) as raised:
                change("xp", lambda env: env.update(n=1))
        self.assertIn("xp", raised.exception.filename)

    def test_another_users_lock_file_is_good_enough(self):
        if not fcntl:
            self.skipTest("no locks")
        change("xp", lambda env: env.update(n=1))
        real, modes = os.open, []

        def only_reading(path, flags, *mode, **options):
            if str(path).endswith(".lock"):
                modes.append(flags & os.O_RDWR)
                if flags & os.O_RDWR:
                    raise PermissionError(errno.EACCES, "theirs", path)
            return real(path, flags, *mode, **options)

        with mock.patch("os.open", only_reading):
            change("xp", lambda env: env.update(n=2))
        self.assertEqual((read("xp"), modes), ({"n": 2}, [os.O_RDWR, 0]))

    def test_a_forked_child_does_not_keep_the_lock(self):
        if not hasattr(os, "fork"):
            self.skipTest("no fork")
        code = """
            import os, sys, time
            import enostask
            with enostask._Lock("xp/.env.lock") as lock:
                lock.take()
                if not os.fork():
                    time.sleep(20)
                    os._exit(0)
            before = time.monotonic()
            with enostask._Lock("xp/.env.lock") as lock:
                print(lock.take(), time.monotonic() - before < 10)
            os.kill(0, 15)
        """
        Path("script.py").write_text(textwrap.dedent(code))
        environment = {**os.environ, "PYTHONPATH": str(MODULE.parent)}
        run = [sys.executable, "-u", "script.py"]
        done = subprocess.run(run, env=environment, stdout=-1, text=True, start_new_session=True, timeout=60)
        self.assertEqual(done.stdout, "True True\n")

    def test_directories_that_cannot_be_synced_are_tolerated_and_failures_are_not(self):
        real = os.fsync

        def fsync(number):
            def failing(descriptor):
                if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                    raise OSError(number, "no")
                real(descriptor)

            return mock.patch("os.fsync", failing)

        with fsync(errno.EINVAL):
            change("xp", lambda env: env.update(n=1))
        with fsync(errno.EIO), self.assertRaises(OSError):
            change("xp", lambda env: env.update(n=2))
        change("xp", lambda env: env.update(n=3))
        self.assertEqual(read("xp"), {"n": 3})
        real_open = os.open
        refuse = lambda path, *rest, **options: (  # noqa: E731
            exec("raise PermissionError(13, 'unreadable')") if os.path.isdir(path) else real_open(path, *rest, **options)
        )
        with mock.patch("os.open", refuse):
            change("xp", lambda env: env.update(n=4))
        self.assertEqual(read("xp"), {"n": 4})


    def test_a_value_that_no_longer_unpickles_does_not_cost_the_others(self):
        self.env["bad"] = Demanding(1)
        self.env.dump()
        del self.env["bad"]
        self.env.update(result="precious", lock=threading.Lock())
        with self.refused(EnosSaveError, "'lock'"), self.logged():
            self.env.dump()
        self.assertEqual(read("xp"), {"result": "precious"})
        self.assertEqual(backups("xp"), ["env.bak1"])

    def test_a_base_that_no_longer_unpickles_does_not_keep_others_from_merging(self):
        self.env["bad"] = Demanding(1)
        self.env.dump()
        Path("xp/env").write_bytes(get_or_create_env(True, "other").dumps())
        self.env["bad"] = 1
        self.env.dump()
        self.assertEqual(read("xp"), {"bad": 1})

    def test_a_value_whose_pickling_changes_the_environment_is_saved(self):
        self.env.update(a=1, late=Late(self.env), b=2)
        self.env.dump()
        held = read("xp")  # with what it added, or, on PyPy, without
        self.assertEqual((held["a"], held["b"]), (1, 2))

    def test_another_mapping_as_data_is_saved_as_a_dict_and_nothing_else_is(self):
        self.env.data = Fleet(n=1)
        self.env.dump()
        self.env.data = module.UserDict(n=2)
        self.env.dump()
        self.assertEqual(read("xp"), {"n": 2})
        self.env.data = None
        with self.assertRaises(TypeError):
            self.env.dump()
        self.assertEqual(read("xp"), {"n": 2})

    def test_a_save_in_the_middle_of_a_save_is_an_error_and_does_not_wait_for_ever(self):
        if not fcntl:
            self.skipTest("no locks")
        self.env.update(first="x" * 10**6, late=[Saver(), Saver()])
        with self.assertRaises(OSError) as raised:
            self.env.dump()
        self.assertEqual(raised.exception.errno, errno.EDEADLK)
        self.assertIn("save again", str(raised.exception))
        del self.env["late"]
        # As an interrupt at a bad moment may leave it:
        module._locked.add((os.getpid(), threading.get_ident(), str(self.root / "xp/.env.lock")))
        self.env.dump()
        self.assertEqual((set(read("xp")), module._locked), ({"first", "late"}, set()))

    def test_what_changes_are_measured_against_is_what_was_saved(self):
        env, big = self.env, os.urandom(2**18)
        for change_it in (
            lambda: env.update(first=1), lambda: env.update(first=2), lambda: env.update(big=big, last=1),
            lambda: env.update(last=2), lambda: env.update(last=os.urandom(2**17)), lambda: env.update(last=3),
            lambda: env.update(first=3), lambda: env.pop("big"), lambda: env.update(late=Resaver(env)),
            lambda: env.update(late=0, big=big, first=env.pop("first")), lambda: env.update(late=Resaver(env)),
            lambda: env.update(late=0), lambda: env.update(last=4, final=env.pop("late")),
            lambda: env.update(first=env.pop("first"), late=Resaver(env)),
        ):
            change_it()
            with contextlib.suppress(OSError):
                env.dump()
            self.assertEqual(env._base.getvalue(), Path("xp/env").read_bytes())
            self.assertEqual(read("xp")["first"], env["first"])  # what was saved on the way is not taken back

    def test_without_locks_too_even_if_a_value_saves_its_own_environment(self):
        with mock.patch.dict(sys.modules, fcntl=None):
            for size in (1, 2**18):
                self.env.update(first=1, big=os.urandom(size), late=Resaver(self.env))
                self.env.dump()
                self.assertEqual(self.env._base.getvalue(), Path("xp/env").read_bytes())

    def test_a_value_that_saves_its_own_environment_while_it_is_pickled(self):
        for size in (1, 10**6):
            env = get_or_create_env(False, self.env.env_name)
            env.update(first=1, before="x" * size, late=Resaver(env), after="y" * size)
            with contextlib.suppress(OSError):  # of a big one, of which a part is on its way already
                env.dump()
            del env["late"]
            env.dump()
            self.assertEqual(Path("xp/env").read_bytes(), env.dumps())
            change("xp", lambda other: other.update(theirs=1))
            del env["first"]
            env.dump()
            self.assertEqual(set(read("xp")), {"before", "after", "theirs"})

    def test_a_signal_handler_that_saves_while_the_lock_is_waited_for_is_an_error_too(self):
        if not fcntl:
            self.skipTest("no locks")
        real, failures = fcntl.flock, []

        def interrupted(lock, how):
            real(lock, how)
            if how == fcntl.LOCK_EX:  # as between the lock and the next line
                try:
                    change("xp", lambda env: env.update(inner=1))
                except OSError as error:
                    failures.append(error.errno)

        self.env["n"] = 1
        with mock.patch.object(fcntl, "flock", interrupted):
            self.env.dump()
        self.assertEqual((read("xp"), failures), ({"n": 1}, [errno.EDEADLK]))

    def test_what_a_handler_changes_during_a_merge_is_saved_by_the_next_save(self):
        env, real = get_or_create_env(False, "xp"), os.replace
        change("xp", lambda other: other.update(theirs=1))
        env["mine"] = 1
        with mock.patch("os.replace", lambda *names: env.update(late=1) or real(*names)):
            env.dump()
        env.dump()
        self.assertEqual(read("xp"), {"theirs": 1, "mine": 1, "late": 1})

    def test_a_save_that_fails_after_its_file_was_replaced_is_known(self):
        for failure in (OSError(errno.EIO, "broken"), KeyboardInterrupt()):
            for size in (1, 2**17):
                env = get_or_create_env(True, "xp")
                env.update(gone="x" * size, n=1)
                with mock.patch.object(module, "_sync_directory", side_effect=failure):
                    with contextlib.suppress(OSError, KeyboardInterrupt):
                        env.dump()
                del env["gone"]
                with self.silent():
                    env.dump()
                self.assertEqual(read("xp"), {"n": 1})
                change("xp", lambda other: other.update(theirs=1))
                env.update(gone="x" * size)
                real = os.replace
                with mock.patch("os.replace", lambda *names: [real(*names), exec("raise KeyboardInterrupt")]):
                    with contextlib.suppress(KeyboardInterrupt):
                        env.dump()  # merging
                del env["gone"]
                env.dump()
                self.assertEqual(read("xp"), {"n": 1, "theirs": 1})

    def test_a_handler_that_saves_beside_a_refused_key_is_not_reverted(self):
        self.env.update(first=1, bad=0, big="x" * 10)
        self.env.dump()
        self.env.update(first=2, late=Resaver(self.env), bad=threading.Lock())
        with self.refused(EnosSaveError, "'bad'"):
            self.env.dump()
        self.assertEqual(read("xp")["first"], self.env["first"])

    def test_a_file_that_fails_twice_is_removed(self):
        self.env["n"] = 1
        failing = mock.Mock(side_effect=OSError(errno.ENOSPC, "full"))
        with mock.patch("os.fsync", failing), mock.patch.object(module._Draft, "close", failing):
            with self.assertRaises(OSError) as raised:
                self.env.dump()
        self.assertEqual(raised.exception.filename, str(self.root / "xp/env"))
        self.assertEqual(set(os.listdir("xp")), {"env", ".env.lock"})

    def test_a_list_of_rights_that_cannot_be_read_is_not_dropped(self):
        if not hasattr(os, "listxattr"):
            self.skipTest("no lists")
        self.env["n"] = 1
        with mock.patch("os.listxattr", side_effect=OSError(errno.EIO, "broken")), self.assertRaises(OSError):
            self.env.dump()
        self.assertEqual(read("xp"), {})

    def test_a_failed_new_one_leaves_no_backup_and_a_repeated_one_no_second(self):
        change("xp", lambda env: env.update(n=1))
        with mock.patch("os.write", side_effect=OSError(errno.ENOSPC, "full")), self.assertRaises(OSError):
            get_or_create_env(True, "xp")
        self.assertEqual(backups("xp"), [])
        for _ in range(2):
            with mock.patch("os.replace", side_effect=OSError(errno.EIO, "broken")), self.assertRaises(OSError):
                get_or_create_env(True, "xp")
        self.assertEqual((backups("xp"), read("xp"), read("xp", "env.bak1")), (["env.bak1"], {"n": 1}, {"n": 1}))

    def test_a_forgotten_task_that_is_collected_does_not_save_in_the_middle_of_a_save(self):
        @enostask()
        def steps(env):
            env["forgotten"] = 1
            yield

        self.env["many"] = [{"n": number} for number in range(5000)]
        self.env.dump()
        env = get_or_create_env(False, "xp")
        change("xp", lambda other: other["many"].append(1))
        running = steps("xp")
        next(running)
        ring = [running]
        ring.append(ring)
        del running, ring
        env["n"] = 1
        env.dump()
        gc.collect()
        self.assertEqual((read("xp")["n"], read("xp")["forgotten"], len(read("xp")["many"])), (1, 1, 5001))

    def test_access_control_lists_are_kept(self):
        if not shutil.which("setfacl") or subprocess.run(["setfacl", "-m", "u:1234:r,g::-,m::r", "xp/env"], stderr=-3).returncode:
            self.skipTest("no lists")
        before = os.getxattr("xp/env", "system.posix_acl_access")
        change("xp", lambda env: env.update(n=1))
        self.assertEqual(os.getxattr("xp/env", "system.posix_acl_access"), before)

    def test_no_list_is_taken_from_the_directory(self):
        if not hasattr(os, "getxattr"):
            self.skipTest("no lists")
        name, calls = "system.posix_acl_access", []
        with mock.patch("os.listxattr", return_value=[name]), mock.patch("os.getxattr", return_value=b"rights"):
            with mock.patch("os.setxattr", side_effect=lambda file, *what: calls.append(what)):
                change("xp", lambda env: env.update(n=1))
        self.assertEqual(calls, [(name, b"rights")])
        listed = lambda file: [name] if isinstance(file, int) else []  # noqa: E731
        with mock.patch("os.listxattr", listed), mock.patch("os.removexattr") as removed:
            change("xp", lambda env: env.update(n=2))
        self.assertEqual([call[0][1] for call in removed.call_args_list], [name])
        with mock.patch("os.listxattr", side_effect=OSError(errno.EOPNOTSUPP, "none here")):
            change("xp", lambda env: env.update(n=3))
        with mock.patch("os.listxattr"):
            del os.listxattr
            change("xp", lambda env: env.update(n=4))
        self.assertEqual(read("xp"), {"n": 4})

    def test_a_save_error_says_where_and_what_to_do(self):
        env = get_or_create_env(True, "xp")
        env["bad"] = lambda: None
        with self.refused(EnosSaveError, re.escape(str(self.root / "xp" / "env")), "'bad'", "store something picklable"):
            env.dump()

    def test_each_save_has_a_temporary_file_of_its_own_beside_it(self):
        env, names, real = get_or_create_env(True, "xp"), [], os.replace
        with mock.patch("os.replace", lambda source, target: names.append(source) or real(source, target)):
            for env["n"] in range(3):
                env.dump()
        self.assertEqual((len(set(names)), {os.path.dirname(name) for name in names}), (3, {str(self.root / "xp")}))

    def test_a_fresh_environment_is_not_written_twice(self):
        @enostask(new=True)
        def up(env):
            return os.stat(env.env_name / "env").st_ino

        before = up("xp")
        self.assertEqual(os.stat("xp/env").st_ino, before)

    def test_a_killed_copy_of_a_backup_beside_a_link_is_removed_by_the_next_save(self):
        get_or_create_env(True, "xp")
        os.mkdir("store")
        os.rename("xp/env", "store/one")
        os.symlink("../store/one", "xp/env")
        change("xp", lambda env: env.update(n=1))
        child = os.fork()
        if not child:
            with mock.patch("os.link", side_effect=OSError(errno.EXDEV, "elsewhere")):
                with mock.patch("os.replace", side_effect=lambda *_: os._exit(7)):
                    get_or_create_env(True, "xp")
        os.waitpid(child, 0)
        change("xp", lambda env: env.update(n=2))
        get_or_create_env(True, "xp")
        self.assertEqual([name for name in os.listdir("xp") if name.endswith(".tmp")], [])


class Late:
    def __init__(self, env):
        self.env = env

    def __reduce__(self):
        self.env["cache"] = 1
        return int, ()


class Saver:
    """Saves another key while it is pickled, the first time."""

    done = False

    def __reduce__(self):
        for _ in range(0 if self.done else 2):
            self.done = True
            try:
                change("xp", lambda env: env.update(late=1))
            except OSError as error:
                last = error
        if "last" in locals():
            raise last
        return int, ()


class Resaver:
    """Saves the environment that it is in while it is pickled, the first time."""

    def __init__(self, env):
        self.env = env

    def __reduce__(self):
        env, self.env = self.env, None
        if env is not None:
            env.update(late=0, first=env["first"] + 1)
            env.dump()
            env["late"] = self
        return int, ()


class Counted:
    pickled = 0

    def __getstate__(self):
        Counted.pickled += 1
        return {"a": 1}


class Buffer:
    """What NumPy's arrays do: hand their memory to the pickle without a copy."""

    def __init__(self, content):
        self.content = content

    def __reduce_ex__(self, protocol):
        return Buffer, (pickle.PickleBuffer(self.content),)


class SeveralAtOnce(Place):
    def setUp(self):
        super().setUp()
        get_or_create_env(True, "xp")

    def processes(self, code, count):
        Path("script.py").write_text(textwrap.dedent(code))
        environment = {**os.environ, "PYTHONPATH": str(MODULE.parent)}
        run = functools.partial(subprocess.Popen, env=environment, stdout=-1, stderr=-1, text=True)
        return [run([sys.executable, "-u", "script.py", str(number)]) for number in range(count)]

    def test_processes_that_each_set_keys_lose_none_and_a_reader_never_fails(self):
        code = """
            import sys
            from enostask import enostask
            @enostask()
            def put(env, key):
                env[key] = sys.argv[1]
            for number in range(100):
                put("xp", f"{sys.argv[1]}-{number}")
        """
        running = self.processes(code, 4)
        while any(process.poll() is None for process in running):
            change("xp", lambda env: len(env))
        self.assertEqual([process.communicate()[1] for process in running], [""] * 4)
        self.assertEqual(len(read("xp")), 400)
        self.assertEqual(set(os.listdir("xp")), {"env", ".env.lock"})

    def test_threads_that_each_set_keys_lose_none(self):
        def work(name):
            for number in range(10):
                change(self.root / "xp", lambda env: env.update({f"{name}-{number}": 1}))

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(read("xp")), 80)
        self.assertTrue(gc.isenabled())

    def test_deletions_merge(self):
        change("xp", lambda env: env.update(a=1, b=1, c=1))
        env = get_or_create_env(False, "xp")
        change("xp", lambda other: other.pop("a"))
        del env["b"]
        env.dump()
        self.assertEqual(read("xp"), {"c": 1})
        self.assertEqual(own(env), {"a": 1, "c": 1})
        env.dump()
        self.assertEqual(read("xp"), {"c": 1})

    def test_changes_are_measured_against_what_a_merge_saved(self):
        env = get_or_create_env(False, "xp")
        change("xp", lambda other: other.update(theirs=1))
        env["mine"] = 1
        env.dump()
        change("xp", lambda other: other.update(mine=2))
        env["third"] = 3
        with self.silent():
            env.dump()
        self.assertEqual(read("xp"), {"theirs": 1, "mine": 2, "third": 3})

    def test_the_later_save_wins_and_the_log_names_the_key(self):
        change("xp", lambda env: env.update(a=1, b=1, c=1, d=1))
        env = get_or_create_env(False, "xp")
        change("xp", lambda other: other.update(a=2, b=2, c=2) or other.pop("d"))
        env.update(a=3, b=2, d=2)
        with self.logged() as log:
            env.dump()
        self.assertEqual([re.search(r"'(\w)'", line).group(1) for line in log.output], ["a", "d"])
        self.assertIn("later save wins", log.output[0])
        self.assertEqual(read("xp"), {"a": 3, "b": 2, "c": 2, "d": 2})

    def test_an_unchanged_value_takes_over_whatever_its_layout(self):
        def values():
            sparse = set(range(3000))
            sparse -= set(range(3000)) - {5, 8}  # comes back in another order
            shared = Machine("shared")
            ring = [sparse]
            ring.append(ring)
            return dict(
                ring=ring,
                tags=set(map(str, range(40))),
                sparse=sparse,
                frozen=[frozenset(sparse)],
                nested={"deep": [{("a", frozenset("abc"))}]},
                one=shared,
                two=[shared],
                named=Machine("name"),  # comes back as another string than the attribute's name
                path=Path("a") / "b",
                text="yaml" * 2,
            )

        change("xp", lambda env: env.update(values()))
        for how in ("loaded", "made here"):
            env = get_or_create_env(False, "xp")
            if how == "made here":
                env.update(values())
                env.dump()
                kept = {key: pickle.dumps(value, 5) for key, value in env.items()}
                again = {key: pickle.dumps(value, 5) for key, value in get_or_create_env(False, "xp").items()}
                if sys.implementation.name == "cpython":
                    self.assertNotEqual((kept["sparse"], kept["named"]), (again["sparse"], again["named"]))
                    self.assertNotEqual(kept["named"], again["named"])
            replaced = {key: how for key in values()}
            change("xp", lambda other: other.update(replaced))
            with self.silent():
                env["n"] = how
                env.dump()
            self.assertEqual(read("xp"), {**replaced, "n": how})
            change("xp", lambda env: env.update(values()))

    def test_another_process_sets_a_third_key_and_values_survive_unharmed(self):
        shared = Machine("shared")
        change("xp", lambda env: env.update(tags=set(map(str, range(40))), one=shared, two=[shared]))
        env = get_or_create_env(False, "xp")
        code = """
            import sys
            from enostask import enostask
            sys.path.insert(0, sys.argv[1])
            @enostask()
            def put(env):
                env["third"] = 1
            put("xp")
        """
        self.script(code, str(HERE), PYTHONHASHSEED="3")
        with self.silent():
            env["mine"] = 1
            env.dump()
        loaded = read("xp")
        self.assertIs(loaded["two"][0], loaded["one"])
        self.assertEqual((len(loaded["tags"]), loaded["third"], loaded["mine"]), (40, 1, 1))

    def test_changes_deep_inside_and_in_place_are_changes(self):
        change("xp", lambda env: env.update(a=[Machine("m")], b={"x": {1}}, c=[0], d=1))
        env = get_or_create_env(False, "xp")
        env["a"][0].tags.append("mine")
        env["b"]["x"].add(2)
        env["d"] = True
        change("xp", lambda other: other.update(a=0, b=0, c=0, d=0))
        with self.logged() as log:
            env.dump()
        self.assertEqual(len(log.output), 3)
        self.assertEqual((read("xp")["b"], read("xp")["c"], read("xp")["d"]), ({"x": {1, 2}}, 0, True))

    def test_values_that_contain_themselves_or_one_thing_very_often_merge(self):
        def knots():
            loop, twice = ["loop"], []
            loop.append(loop)
            ring = {1}
            for _ in range(100):
                twice = [twice, twice]
            return dict(loop=loop, twice=twice, ring=[ring, ring] * 1000)

        change("xp", lambda env: env.update(knots()))
        env = get_or_create_env(False, "xp")
        env.dump()
        change("xp", lambda other: other.update(loop=1, twice=1, ring=1))
        with self.silent():
            env["n"] = 1
            env.dump()
        self.assertEqual(read("xp"), {"loop": 1, "twice": 1, "ring": 1, "n": 1})

    def test_in_doubt_a_value_counts_as_changed(self):
        change("xp", lambda env: env.update(doubt=Doubtful(), n=1))
        env = get_or_create_env(False, "xp")
        change("xp", lambda other: other.update(doubt=0, n=2))
        with self.logged() as log:
            env["mine"] = 1
            env.dump()
        self.assertIn("'doubt'", log.output[0])
        self.assertEqual((type(read("xp")["doubt"]), read("xp")["n"]), (Doubtful, 2))
        self.assertFalse(module._same({"a": Unwilling()}, {"a": Unwilling()}, "a"))
        often = frozenset()
        for number in range(100):
            often = frozenset([often, (often, number)])  # which takes for ever if each of them is looked into
        self.assertFalse(module._same({"a": [often, 1]}, {"a": [often, 2]}, "a"))

    def test_changes_are_measured_against_what_it_held_when_made(self):
        change("xp", lambda env: env.update(n=1, config={"a": 1}))
        env = Environment("xp")
        env["mine"] = 1
        env.dump()
        self.assertEqual(read("xp"), {"n": 1, "mine": 1})
        self.assertEqual(get_or_create_env(False, "xp")["config"], {"a": 1})

    def test_nothing_is_waited_for_while_a_task_runs(self):
        code = """
            import sys
            from enostask import enostask
            @enostask()
            def long(env):
                env["long"] = 1
                print("running", flush=True)
                sys.stdin.read()
            long("xp")
        """
        Path("script.py").write_text(textwrap.dedent(code))
        environment = {**os.environ, "PYTHONPATH": str(MODULE.parent)}
        process = subprocess.Popen([sys.executable, "script.py"], env=environment, stdin=-1, stdout=-1, text=True)
        self.assertEqual(process.stdout.readline(), "running\n")
        change("xp", lambda env: env.update(short=1))
        process.communicate("")
        self.assertEqual(read("xp"), {"short": 1, "long": 1})

    def test_a_process_killed_at_any_moment_leaves_what_it_reported(self):
        if not POSIX:
            self.skipTest("no kill")
        code = """
            from enostask import get_or_create_env
            env = get_or_create_env(False, "xp")
            n = env.get("n", 0)
            while True:
                n += 1
                env.update(n=n, payload=str(n) * 5000)
                env.dump()
                print(n, flush=True)
        """
        chance, reported = random.Random(5), 0
        for _ in range(6):
            (process,) = self.processes(code, 1)
            process.stdout.readline()
            time.sleep(chance.random() / 10)
            process.kill()
            rest = process.communicate()[0].split()
            loaded = read("xp")
            reported = int(rest[-1]) if rest else reported
            self.assertIn(loaded["n"] - reported, (0, 1) if rest else range(100))
            self.assertEqual(loaded["payload"], str(loaded["n"]) * 5000)
            reported = loaded["n"]
        change("xp", lambda env: env.update(done=1))
        self.assertEqual(set(os.listdir("xp")), {"env", ".env.lock"})

    def test_identity_is_kept_among_what_the_others_changed(self):
        get_or_create_env(True, "xp")
        env = get_or_create_env(False, "xp")
        shared = ["theirs"]
        change("xp", lambda other: other.update(one=shared, two=[shared], three={"x": shared}))
        mine = ["mine"]
        env.update(mine=mine, mine_too=[mine])
        env.dump()
        loaded = read("xp")
        self.assertTrue(loaded["one"] is loaded["two"][0] is loaded["three"]["x"])
        self.assertIs(loaded["mine"], loaded["mine_too"][0])


class Doubtful:
    """Contains itself, and pickles differently each time."""

    def __init__(self):
        self.self = self

    def __getstate__(self):
        Doubtful.count = getattr(Doubtful, "count", 0) + 1
        return {**vars(self), "count": Doubtful.count}


class Backups(Place):
    def test_new_over_work_keeps_each_old_checkpoint(self):
        for number in range(5):
            with self.logged() if number else self.silent() as log:
                change(get_or_create_env(True, "xp"), lambda env: env.update(n=number))
            if number:
                self.assertRegex(log.output[0], rf"xp.env as env\.bak{number}")
        self.assertEqual([read("xp", name)["n"] for name in backups("xp")], [0, 1, 2, 3])
        self.assertEqual(read("xp"), {"n": 4})
        shutil.copy("xp/env.bak2", "xp/env")
        self.assertEqual(read("xp"), {"n": 1})

    def test_a_fresh_one_replaced_by_a_fresh_one_leaves_none(self):
        with self.silent():
            for _ in range(3):
                get_or_create_env(True, "xp")
            os.rename("xp", "moved")
            get_or_create_env(True, "moved")
        self.assertEqual(backups("moved"), [])

    def test_a_changed_config_is_work(self):
        change(get_or_create_env(True, "xp"), lambda env: env.update(config={"a": 1}))
        get_or_create_env(True, "xp")
        self.assertEqual(backups("xp"), ["env.bak1"])

    def test_numbers_go_on_from_the_highest(self):
        env = get_or_create_env(True, "xp")
        for name in ("env.bak7", "env.bak3", "env.bak", "env.bakx", "env.bak-9", "env.bak12.old"):
            Path("xp", name).write_text("a user's")
        change(env, lambda env: env.update(n=1))
        get_or_create_env(True, "xp")
        self.assertEqual(read("xp", "env.bak8"), {"n": 1})

    def test_what_cannot_be_loaded_is_kept_aside_by_new_and_by_a_save(self):
        env = get_or_create_env(True, "xp")
        Path("xp/env").write_text("damaged")
        with self.logged() as log:
            env["n"] = 1
            env.dump()
        self.assertRegex(log.output[0], r"env\.bak1.*damaged")
        self.assertEqual((read("xp"), Path("xp/env.bak1").read_text()), ({"n": 1}, "damaged"))
        Path("xp/env").write_text("")
        get_or_create_env(True, "xp")
        self.assertEqual(Path("xp/env.bak2").read_text(), "")
        env["n"] = 2
        env.dump()
        self.assertEqual(read("xp"), {"n": 2})

    def test_where_hard_links_are_refused_it_is_copied(self):
        change(get_or_create_env(True, "xp"), lambda env: env.update(n=1))
        with mock.patch("os.link", side_effect=OSError(errno.EPERM, "no")), self.logged():
            get_or_create_env(True, "xp")
        self.assertEqual((read("xp"), read("xp", "env.bak1")), ({}, {"n": 1}))
        self.assertEqual(set(os.listdir("xp")), {"env", "env.bak1", ".env.lock"})

    def test_a_backup_is_never_replaced(self):
        change(get_or_create_env(True, "xp"), lambda env: env.update(n=1))
        Path("xp/env.bak1").write_text("made meanwhile, where locks do not work")
        with mock.patch("os.listdir", return_value=[]), self.assertRaises(FileExistsError):
            get_or_create_env(True, "xp")
        self.assertEqual((read("xp"), Path("xp/env.bak1").read_text()[:4]), ({"n": 1}, "made"))


class Durability(Place):
    """What a power cut must not take back has been synced, in this order."""

    def steps(self, act):
        """What *act* does to the disk, in order, each name without the directory that the test is in."""
        done, patches = [], contextlib.ExitStack()

        def noted(name, real):
            def call(*args, **options):
                where = args[-1] if name != "mkdir" else args[0]
                if name in ("fsync", "close"):
                    where = os.readlink(f"/proc/self/fd/{where}")
                where = re.sub(r"[0-9a-f]{16}", "N", os.path.relpath(where, self.root))
                if name != "close" or where.endswith(".tmp"):
                    done.append(f"{name} {where}")
                return real(*args, **options)

            return call

        with patches:
            for name in ("fsync", "close", "mkdir", "link", "replace"):
                patches.enter_context(mock.patch.object(os, name, noted(name, getattr(os, name))))
            act()
        return done

    def setUp(self):
        super().setUp()
        if not os.path.exists("/proc/self/fd"):
            self.skipTest("needs /proc")

    saved = ["fsync xp/.env.N.tmp", "close xp/.env.N.tmp", "replace xp/env", "fsync xp"]

    def test_a_save_syncs_the_file_renames_it_and_syncs_the_directory(self):
        env = get_or_create_env(True, "xp")
        env["n"] = 1
        self.assertEqual(self.steps(env.dump), self.saved)

    def test_a_new_environment_syncs_every_directory_that_names_a_new_one(self):
        steps = self.steps(lambda: Environment("a/b"))
        expected = ["mkdir a", "fsync .", "mkdir a/b", "fsync a", "fsync a"]
        if sys.version_info < (3, 11):  # where Path.mkdir does not ask os for it
            expected = [step for step in expected if "fsync" in step]
        self.assertEqual(steps, expected)
        self.assertEqual(self.steps(lambda: Environment("a/b")), ["fsync a"])

    def test_current_is_synced(self):
        os.mkdir("xp")
        steps = self.steps(lambda: get_or_create_env(True, "xp"))
        self.assertEqual(steps, ["fsync .", *self.saved, "replace current", "fsync ."])

    def test_a_backup_is_synced_before_the_checkpoint_is_replaced(self):
        change(get_or_create_env(True, "xp"), lambda env: env.update(n=1))
        steps = self.steps(lambda: get_or_create_env(True, "xp", symlink=False))
        self.assertEqual(steps, ["fsync .", "link xp/env.bak1", "fsync xp", *self.saved])
        change("xp", lambda env: env.update(n=2))
        with mock.patch("os.link", side_effect=OSError(errno.EPERM, "no")):
            steps = self.steps(lambda: get_or_create_env(True, "xp", symlink=False))
        copied = ["fsync xp/.env.N.tmp", "close xp/.env.N.tmp", "replace xp/env.bak2", "fsync xp"]
        self.assertEqual([step for step in steps if "link" not in step], ["fsync .", *copied, *self.saved])

    def test_a_directory_that_a_dump_makes_again_is_synced(self):
        env = get_or_create_env(True, "deep/xp", symlink=False)
        shutil.rmtree("deep")
        steps = [step for step in self.steps(env.dump) if not step.startswith("mkdir")]
        self.assertEqual(steps, ["fsync .", "fsync deep", *[step.replace(" xp", " deep/xp") for step in self.saved]])

    def test_a_dated_directory_is_synced(self):
        steps = self.steps(lambda: get_or_create_env(True, None, symlink=False))
        self.assertRegex(steps[0], "mkdir enos_")
        self.assertEqual(steps[1], "fsync .")


class Crashes(Place):
    """Every call that reaches the disk, one after the other: the process dies there, or the call fails."""

    CALLS = ["fsync", "link", "listdir", "mkdir", "open", "replace", "symlink", "unlink", "fchmod", "close", "stat", "write"]

    def save(self):
        env = get_or_create_env(False, "xp")
        env["n"] = 2
        return env.dump

    def new(self):
        return lambda: get_or_create_env(True, "xp")

    def point(self):
        return lambda: module._point_current_to(self.root / "here/other")

    def unpicklable(self):
        env = get_or_create_env(False, "xp")
        env.update(n=2, bad=lambda: None)
        return env.dump

    def merge(self):
        env = get_or_create_env(False, "xp")
        change("xp", lambda other: other.update(theirs=1))
        env["n"] = 2
        return env.dump

    def begin(self):
        if not os.path.exists("begin"):
            os.mkdir("begin")
            with inside("begin"):
                get_or_create_env(True, "other")
                change(get_or_create_env(True, "xp"), lambda env: env.update(n=1, bad=0))
        os.chdir(self.root)
        shutil.rmtree("here", ignore_errors=True)
        shutil.copytree("begin", "here", symlinks=True)
        os.chdir("here")

    @contextlib.contextmanager
    def at_call(self, number, what):
        """Count the calls, and at the *number*-th do *what*."""
        self.calls = 0

        def counted(real):
            def call(*args, **options):
                self.calls += 1
                if self.calls == number:
                    what()
                return real(*args, **options)

            return call

        with contextlib.ExitStack() as patches:
            for name in self.CALLS:
                patches.enter_context(mock.patch.object(os, name, counted(getattr(os, name))))

            patches.enter_context(mock.patch.object(module, "open", counted(builtins.open), create=True))
            yield

    def check(self, operation, done):
        """The state is the old or the new one, whole; the new one if *done*."""
        self.assertIn(os.readlink("current"), ("xp", "other"))
        self.assertTrue(os.path.exists("current/env"))
        held = read("xp")
        new = {"save": {"n": 2, "bad": 0}, "new": {}, "unpicklable": {"n": 2, "bad": 0}, "point": {"n": 1, "bad": 0}}
        new["merge"] = {**new["save"], "theirs": 1}
        old = {"n": 1, "bad": 0, **({"theirs": 1} if operation == "merge" else {})}
        self.assertIn(held, [new[operation]] + [old] * (not done))
        if operation == "new":
            self.assertIn(old, [held, *(read("xp", name) for name in backups("xp"))])
        if operation == "point" and done:
            self.assertEqual(os.readlink("current"), "other")

    def test_killed_at_every_call(self):
        if not hasattr(os, "fork"):
            self.skipTest("no fork")
        for operation in ("save", "new", "point", "unpicklable", "merge"):
            for number in range(1, 200):
                self.begin()
                child = os.fork()
                if not child:
                    try:
                        act = getattr(self, operation)()
                        with self.at_call(number, lambda: os._exit(7)):
                            with contextlib.suppress(EnosSaveError):
                                act()
                        os._exit(0)
                    except BaseException:
                        os._exit(1)
                status = os.waitpid(child, 0)[1]
                self.assertIn(status, (0, 7 << 8))
                with self.subTest(operation=operation, killed_at=number):
                    self.check(operation, done=status == 0)
                if status == 0:
                    break
                change("xp", lambda env: env.update(after=1))
                get_or_create_env(True, "third")
                self.assertEqual(set(os.listdir()), {"xp", "other", "third", "current"})
                self.assertEqual(set(os.listdir("xp")) - set(backups("xp")), {"env", ".env.lock"})
            self.assertGreater(number, 8 if operation == "point" else 15)

    def test_failed_at_every_call(self):
        for number_of_error in (errno.EIO, errno.ENOSPC, None):

            def fail():
                raise OSError(number_of_error, "failed") if number_of_error else KeyboardInterrupt

            for operation in ("save", "new", "point", "unpicklable", "merge"):
                for number in range(1, 200):
                    self.begin()
                    act, error = getattr(self, operation)(), None
                    with self.at_call(number, fail):
                        try:
                            with mock.patch.object(logging.getLogger("enostask"), "warning") as warned:
                                act()
                        except EnosSaveError:
                            pass
                        except (OSError, EnosError, KeyboardInterrupt) as failure:
                            error = failure
                    with self.subTest(operation=operation, failed_at=number, error=number_of_error):
                        told = operation == "point" and any("Cannot" in str(call) for call in warned.mock_calls)
                        self.check(operation, done=not error and not told)
                        left = [name for _, _, names in os.walk(".") for name in names if name.endswith(".tmp")]
                        left += [name for name in os.listdir() if name.startswith(".current")]
                        self.assertEqual(left, [])
                        with mock.patch.object(logging.getLogger("enostask"), "warning"):
                            act() if operation == "save" else None
                        if operation == "save":
                            self.assertEqual(read("xp"), {"n": 2, "bad": 0})
                    if self.calls < number:
                        break
                self.assertGreater(number, 8 if operation == "point" else 15)


# ---- The config file


class Config(Place):
    def setUp(self):
        super().setUp()
        self.env = get_or_create_env(True, "xp")

    def reload(self, name, content, kind=None, **before):
        if content is not None:
            Path(name).write_bytes(content)
        self.env.update(config_file=name, config=before, **({"config_type": kind} if kind else {}))
        self.env.reload_config()
        return self.env["config"]

    def test_json_by_its_suffix_and_by_type_updates_what_is_there(self):
        self.assertEqual(self.reload("c.json", b'{"a": 1}', b=2), {"a": 1, "b": 2})
        self.assertEqual(self.reload("c.json", b'{"a": 1}', kind="nonsense", a=2), {"a": 1})
        self.assertEqual(self.reload("c.conf", b'{"a": 1}', kind="json"), {"a": 1})
        self.assertEqual(self.reload(Path("c.json"), None), {"a": 1})

    def test_it_is_read_again_before_every_task(self):
        self.reload("c.json", b'{"a": 1}')
        self.env.dump()
        Path("c.json").write_text('{"a": 2}')
        seen = []
        change(None, lambda env: seen.append(env["config"]))
        self.assertEqual((seen, get_or_create_env(False, None)["config"]), ([{"a": 2}], {"a": 2}))

    def test_it_is_relative_to_the_working_directory(self):
        self.reload("c.json", b'{"a": 1}')
        os.mkdir("below")
        Path("below/c.json").write_text('{"a": 3}')
        with inside("below"):
            self.env.reload_config()
        self.assertEqual(self.env["config"], {"a": 3})

    def test_a_missing_one_is_a_warning_and_the_stored_config_stays(self):
        with self.logged() as log:
            self.assertEqual(self.reload("gone.yaml", None, a=1), {"a": 1})
        self.assertIn(str(self.root / "gone.yaml"), log.output[0])

    def test_none_set_is_no_matter(self):
        with self.silent():
            self.env.reload_config()
            self.env["config_file"] = ""
            self.env.reload_config()
            del self.env["config_file"]
            self.env.reload_config()
        self.env["config"] = None
        self.assertEqual(self.reload("c.json", b'{"a": 1}'), {"a": 1})

    def test_bad_ones_are_errors_and_the_config_stays(self):
        os.mkdir("directory.json")
        cases = [
            ("empty.json", b""),
            ("broken.json", b"{"),
            ("list.json", b"[1]"),
            ("null.json", b"null"),
            ("undecodable.json", b'{"a": "\xff"}'),
            ("directory.json", None),
            ("deep.json", b"[" * 100_000),
            ("other.toml", b"a = 1"),
            ("other.zaml", b"a: 1"),
        ]
        for name, content in cases:
            kind = name[-4:] if name.startswith("other") else None
            patterns = [re.escape(str(self.root / name)), "mend", *(["'json' or 'yaml'"] if kind else [])]
            with self.subTest(name), self.refused(EnosFilePathError, *patterns) as expected:
                self.reload(name, content, kind=kind, kept=1)
            self.assertEqual((self.env["config"], expected.error.filepath), ({"kept": 1}, name))
            self.assertIsNotNone(expected.error.__cause__)
        for name in (3, ["c.json"]):
            with self.refused(EnosFilePathError, "not a path"):
                self.reload(name, None)

    def test_yaml_without_pyyaml_is_named(self):
        with mock.patch.dict(sys.modules, {"yaml": None}):
            with self.refused(EnosFilePathError, "PyYAML", "c.yaml", "pip install"):
                self.reload("c.yaml", b"a: 1")

    def test_yaml_is_read_by_pyyaml(self):
        stand_in = types.ModuleType("yaml")  # so that this runs without it; the next test wants the real one
        stand_in.safe_load = lambda content: {b"a: 1": {"a": 1}, b"": None, b"- 1": [1]}[content]
        with mock.patch.dict(sys.modules, {"yaml": stand_in}):
            self.yaml_is_read()

    def test_yaml_is_read_by_the_real_pyyaml(self):
        if not importlib.util.find_spec("yaml"):
            self.skipTest("no PyYAML")
        self.yaml_is_read()
        for content in (b"a: [", b"\xff\xfe\x00", b"!!python/object:os.system {}", b"a: 1\n---\nb: 2"):
            with self.refused(EnosFilePathError, "c.yaml"):
                self.reload("c.yaml", content, kept=1)
            self.assertEqual(self.env["config"], {"kept": 1})

    def yaml_is_read(self):
        self.assertEqual(self.reload("c.yaml", b"a: 1", b=2), {"a": 1, "b": 2})
        self.assertEqual(self.reload("c.yaml", b"", b=2), {"b": 2})
        with self.refused(EnosFilePathError, "list, not a mapping"):
            self.reload("c.yaml", b"- 1")

    def test_it_is_read_again_for_an_environment_that_is_handed_on(self):
        env = get_or_create_env(True, "xp")
        env["config_file"] = "c.json"
        Path("c.json").write_text('{"a": 2}')
        seen = []
        change(env, lambda env: seen.append(env["config"]))
        self.assertEqual(seen, [{"a": 2}])

    def test_an_unreadable_one_is_an_error(self):
        env = get_or_create_env(True, "xp")
        Path("c.json").write_text("{}")
        env["config_file"] = "c.json"
        for failure in (PermissionError(errno.EACCES, "not yours"), OSError(errno.EIO, "broken")):
            with mock.patch.object(module, "open", side_effect=failure, create=True):
                with self.refused(EnosFilePathError, "c.json", failure.strerror, "mend"):
                    env.reload_config()
            self.assertEqual(env["config"], {})


class Errors(unittest.TestCase):
    def test_they_share_a_base_and_survive_pickling(self):
        for error in (EnosFilePathError("p", "m"), EnosFilePathError(Path("p")), EnosSaveError("p", ["a", 1], "m")):
            again = pickle.loads(pickle.dumps(error))
            self.assertIsInstance(again, EnosError)
            self.assertEqual((type(again), str(again), vars(again)), (type(error), str(error), vars(error)))

    def test_a_message_is_one_line_and_there_is_always_one(self):
        self.assertEqual(str(EnosFilePathError("p", "first\nsecond")), "first second")
        self.assertIn("'p'", str(EnosFilePathError("p")))
        self.assertRegex(str(EnosSaveError("p", ["a"])), "p.*'a'")

    def test_the_public_names_are_these(self):
        names = "ENV_FILENAME SYMLINK_NAME EnosError EnosFilePathError EnosSaveError Environment enostask get_or_create_env"
        self.assertEqual(module.__all__, names.split())
        self.assertEqual((SYMLINK_NAME, ENV_FILENAME), ("current", "env"))
        self.assertRegex(module.__version__, r"^\d+\.\d+\.\d+$")
        self.assertEqual(str(inspect.signature(enostask)), "(new=False, symlink=True)")
        self.assertEqual(str(inspect.signature(get_or_create_env)), "(new, env_name, symlink=True)")

    def test_the_signatures_are_these(self):
        calls = [(Environment, "(env_name)"), (Environment.load_from_file, "(env_file)"), (EnosFilePathError, "(filepath, msg='')")]
        for call, signature in calls:
            self.assertEqual(str(inspect.signature(call)), signature)


# ---- Looking into a checkpoint


class Looking(Place):
    def shown(self, *arguments, status=0, width=None):
        """What the command prints; as to a terminal of *width*, if given."""
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
        out.isatty = lambda: width is not None
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            with mock.patch.dict(os.environ, COLUMNS=str(width or 80)):
                try:
                    found = module.main(list(arguments))
                except SystemExit as end:
                    found = end.code
        out.flush()
        self.assertEqual(found, status, err.getvalue())
        return (err.getvalue() if status else out.buffer.getvalue().decode()).splitlines()

    def test_the_list_has_the_newest_first_and_marks_the_one_in_use(self):
        for number, name in enumerate(("old", "middle", "a-much-longer-name")):
            env = get_or_create_env(True, name)
            os.utime(env.env_name / "env", (1e9 + number * 1e6,) * 2)
        change("middle", lambda env: env.update(big="x" * 12_345))
        os.utime("middle/env", (1e9 + 1e6,) * 2)
        get_or_create_env(True, "old")
        os.utime("old/env", (1e9,) * 2)
        os.mkdir("no-environment")
        Path("broken").mkdir()
        Path("broken/env").write_text("x")
        os.utime("broken/env", (1e8,) * 2)
        lines = self.shown()
        when = [time.strftime("%Y-%m-%d %H:%M", time.localtime(1e9 + number * 1e6)) for number in range(3)]
        size = f"{os.path.getsize('old/env') / 1000:.1f} kB"
        self.assertRegex(lines[0], rf"^  a-much-longer-name   {when[2]}   +\d\.\d kB   4 keys$")
        self.assertRegex(lines[1], rf"^  middle               {when[1]}    12\.\d kB   5 keys$")
        self.assertEqual(lines[2], f"  old                  {when[0]}   {size:>8}   4 keys   <- current")
        self.assertRegex(lines[3], "^  broken .* damaged or no checkpoint")
        self.assertEqual(len(lines), 4)

    def test_a_current_that_points_elsewhere_or_dangles_is_shown(self):
        self.assertEqual(self.shown(), [f"no environments in {self.root}"])
        os.symlink("gone", "current")
        self.assertEqual(self.shown(), ["  current -> gone, which is gone"])
        os.mkdir("work")
        with inside("work"):
            get_or_create_env(True, "../elsewhere")
            self.assertEqual(self.shown(), [f"  current -> {self.root / 'elsewhere'}"])
        shutil.rmtree("work")
        os.unlink("current")
        os.rename("elsewhere", "current")
        self.assertRegex(self.shown()[0], "^  current   .* 4 keys$")

    def test_one_line_for_each_key(self):
        env = get_or_create_env(True, "xp")
        machine = Machine("m")
        loop = []
        loop.append(loop)
        env.update(
            machine=machine, fleet=Fleet(a=[machine]), text="two\nlines\x1b[2J", number=10**5000, loop=loop, one=(1,),
            two=(1, "x"), tags={"x"}, none=frozenset(), cls=Machine, error=ValueError("no"), nothing=None, slots=Slotted(),
            many=[1, 2.5, b"b", True], pile=Stack([2]), when=datetime_value(), queue=collections_value(), stack=Stack([1]),
            counted=Counter(), big=10**6,
        )
        env["slots"].left, env["slots"].right = 1, 2
        env["stack"].height, env["counted"].count = 2, 3
        env[("k", 1)] = "key"
        env.dump()
        lines = self.shown("xp")
        self.assertRegex(lines[0], r"^xp: saved \d{4}-\d\d-\d\d \d\d:\d\d, \d\.\d kB$")
        rows = dict(re.split(r"\s{3,}", line.strip(), maxsplit=1) for line in lines[1:])
        m = "Machine(name='m', tags=['a'])"
        expected = {
            "resultdir": f"Path   {self.root / 'xp'}",
            "config_file": "NoneType   None",
            "config_type": "str   yaml",
            "machine": f"{__name__}.Machine   {m}",
            "fleet": f"{__name__}.Fleet   {{'a': [{m}]}}",
            "text": "str   two\\nlines\\x1b[2J",
"number": "int   <a very long int>",
            "loop": "list   [...]",
            "one": "tuple   (1,)",
            "two": "tuple   (1, 'x')",
            "tags": "set   {'x'}",
            "none": "frozenset   frozenset()",
            "cls": f"type   {__name__}.Machine",
            "error": "ValueError   ValueError('no')",
            "nothing": "NoneType   None",
            "slots": f"{__name__}.Slotted   Slotted(left=1, right=2)",
            "many": "list   [1, 2.5, b'b', True]",
            "queue": "collections.deque   [1, {'a': 2}]",
            "stack": f"{__name__}.Stack   Stack(height=2, [1])",
            "counted": f"{__name__}.Counter   Counter(3)",
            "big": "int   1000000",
            "pile": f"{__name__}.Stack   [2]",
            "('k', 1)": "str   key",
        }
        for key, row in expected.items():
            self.assertEqual(rows[key], row)
        self.assertRegex(rows["when"], r"^datetime.datetime   (datetime\.)?datetime\(2026, 1, 2, 3, 4\)$")

    def test_a_value_that_cannot_be_shown_costs_only_itself(self):
        env = get_or_create_env(True, "xp")
        env.update(broken=Partless(), whole=1)
        env.dump()
        lines = self.shown("xp")[-2:]
        self.assertRegex(lines[0], "^  broken        Path   <TypeError: .*>$")
        self.assertEqual(lines[1], "  whole         int   1")

    def test_lines_fit_a_terminal_and_are_whole_elsewhere(self):
        env = get_or_create_env(True, "xp")
        env.update(long="x" * 500, many=[Machine("m")] * 100)
        env.dump()
        for line in self.shown("xp", width=50):
            self.assertLessEqual(len(line), 50)
        self.assertEqual(self.shown("xp", width=50)[-2], "  long" + " " * 10 + "str   " + "x" * 25 + "...")
        whole = self.shown("xp")
        self.assertEqual((whole[-2].count("x"), whole[-1].count("Machine(")), (500, 100))

    def test_a_backup_a_file_and_current_are_specifiers_too(self):
        change(get_or_create_env(True, "xp"), lambda env: env.update(n=1))
        get_or_create_env(True, "xp")
        self.assertEqual(self.shown("current"), self.shown("xp/env"))
        lines = self.shown("current/env.bak1")
        self.assertRegex(lines[0], "^xp/env.bak1: saved ")
        self.assertEqual(lines[-1].split(), ["n", "int", "1"])

    def test_errors_are_one_line_and_usage_is_another_matter(self):
        Path("text").write_text("x")
        Path("other").write_bytes(pickle.dumps([1]))
        os.mkdir("empty")
        cases = {"gone": "absent.*No such file", "empty": "No such file", "text": "damaged", "other": "no checkpoint", "a\0b": ""}
        for name, pattern in cases.items():
            (line,) = self.shown(name, status=1)
            self.assertRegex(line, f"^enostask: .*{pattern}")
        self.assertIn("usage", self.shown("a", "b", status=2)[0])
        self.assertIn("usage", self.shown("--colour", status=2)[0])
        self.assertIn("Nothing in it is run", " ".join(self.shown("--help")))

    def test_it_is_a_command_for_installed_and_copied_files_and_ends_quietly_behind_head(self):
        env = get_or_create_env(True, "xp")
        env.update({f"key{number}": "x" * 100 for number in range(5000)})
        env.dump()
        environment = {**os.environ, "PYTHONPATH": str(MODULE.parent)}
        for command in ([sys.executable, "-m", "enostask"], [sys.executable, str(MODULE)]):
            process = subprocess.Popen([*command, "xp"], env=environment, stdout=-1, stderr=-1)
            self.assertIn(b"xp: saved", process.stdout.readline())
            process.stdout.close()
            self.assertEqual((process.stderr.read(), process.wait()), (b"", 0))
            process.stderr.close()

    def test_its_output_may_go_anywhere(self):
        get_or_create_env(True, "xp")
        with contextlib.redirect_stdout(io.StringIO()) as out:
            self.assertEqual(module.main(["xp"]), 0)
        self.assertIn("xp: saved", out.getvalue())
        change("xp", lambda env: env.update(name="\u00e9"))
        code = "import enostask; enostask.main(['xp'])"
        self.assertIn(r"\xe9", self.script(code, PYTHONIOENCODING="ascii"))

    def test_it_shows_what_cannot_be_loaded_here(self):
        change(get_or_create_env(True, "xp"), lambda env: env.update(machine=Machine("m")))
        image = Path("xp/env").read_bytes()
        Path("xp/env").write_bytes(image.replace(__name__.encode(), b"x" * len(__name__)))
        with self.refused(EnosFilePathError, "needs x+.Machine"):
            get_or_create_env(False, "xp")
        self.assertRegex(self.shown("xp")[-1], r"machine +x+\.Machine   Machine\(name='m', tags=\['a'\]\)")

    def test_what_is_shared_without_end_has_an_end(self):
        env = get_or_create_env(True, "xp")
        laugh = ["ha"]
        for _ in range(25):
            laugh = [laugh] * 10
        env["laugh"], env["deep"] = laugh, nested(10_000)
        with contextlib.suppress(EnosSaveError):
            env.dump()
        self.assertLess(sum(map(len, self.shown("xp"))), 5 * 10**6)

    def test_the_zone_of_a_datetime_is_shown(self):
        zone = datetime.timezone(datetime.timedelta(hours=1))
        change(get_or_create_env(True, "xp"), lambda env: env.update({"when": [datetime.datetime(2026, 1, 2, tzinfo=zone)]}))
        change("xp", lambda env: env.update({datetime.datetime(2026, 1, 3, tzinfo=zone): 1}))
        lines = self.shown("xp")
        self.assertRegex(lines[-2], r"^  when  .*2026, 1, 2, 0, 0, tzinfo=timezone\(.*3600.*\)\]$")
        self.assertRegex(lines[-1], r"2026, 1, 3, 0, 0, tzinfo=timezone\(.* int   1$")

    def test_a_class_called_as_a_plain_one_is_not_taken_for_it(self):
        other = type("date", (), {"__module__": "z_module"})
        with mock.patch.dict(sys.modules, z_module=types.SimpleNamespace(date=other)):
            change(get_or_create_env(True, "xp"), lambda env: env.update(day=other()))
        self.assertRegex(self.shown("xp")[-1], r"^  day           z_module.date   date\(\)$")

    def test_hostile_pickles_import_nothing_and_run_nothing(self):
        Path("script.py").write_text(HOSTILE)
        environment = {**os.environ, "PYTHONPATH": str(MODULE.parent), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([sys.executable, "script.py"], env=environment, stdout=-1, stderr=-1, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"^\d{3,} shown, \d{3,} refused\n$")
        self.assertFalse(os.path.exists("executed"))


def datetime_value():
    return datetime.datetime(2026, 1, 2, 3, 4)


def collections_value():
    import collections

    return collections.deque([1, collections.OrderedDict(a=2)])


class Partless:
    """Pickles as a path whose parts a damage has changed."""

    def __reduce__(self):
        return PurePosixPath, (), (None, {"_parts": 3, "_raw_paths": 3})


class Stack(list):
    pass


class Counter:
    def __getstate__(self):
        return self.count

    def __setstate__(self, count):
        self.count = count


HOSTILE = r'''
import copyreg, functools, io, operator, os, pickle, random, shutil, sys, datetime, argparse
import enostask
from enostask import EnosFilePathError, Environment


class Call:
    def __init__(self, function, *arguments, state=None, items=None, pairs=None):
        self.parts = function, arguments, state, items, pairs

    def __reduce__(self):
        return self.parts


class State:
    def __setstate__(self, state):
        open("executed", "w")


class Slots:
    __slots__ = ("a", "b")


class New:
    def __getnewargs_ex__(self):
        return (1,), {"b": 2}


class Persistent(pickle.Pickler):
    def persistent_id(self, value):
        return "me" if isinstance(value, Slots) else None


touch = "open('executed', 'w')"
chain = functools.reduce(lambda inner, _: Call(operator.attrgetter("a"), inner), range(50), Call(eval, touch))
loop = []
loop.append(loop)
values = [
    Call(os.system, "touch executed"), Call(eval, touch), Call(exec, touch), Call(open, "executed", "w"), chain,
    Call(__import__, "antigravity"), Call(getattr, os, "system"), Call(functools.partial, os.system, "touch executed"),
    Call(operator.methodcaller("system", "touch executed"), os.fspath), Call(copyreg.__newobj__, State),
    Call(dict, items=iter([1, 2])), Call(dict, pairs=iter([(1, 2)])), Call(list, items=iter([1])), Call(list, pairs=iter([(1, 2)])),
    Call(State, state={"a": 1}), Call(State, state=(None, {"a": 1})), Call(State, state=3), Call(Slots, state=(None, {"a": 1})),
    Call(Call, State, state={"__class__": 1, "args": 2}), State(), Slots(), New(), State, os.system, Environment, loop,
    Call(enostask.Environment, "made"), Call(set, [Call(State)]), Call(frozenset, [1]), Call(set, 3), Call(datetime.datetime, b"x"),
    Call(range, 10**12), Call(bytearray, 10**12), Call(list, Call(range, 10**12)), Call(set, Call(range, 10**12)),
    {Call(State): 1}, Call(shutil.rmtree, "."), Call(pickle.loads, b"cos\nsystem\n(S'touch executed'\ntR."), Call(type, "A", (), {}),
]


def environment(value, protocol, pickler=pickle.Pickler):
    out = io.BytesIO()
    env = Environment.__new__(Environment)
    vars(env).update(env_name="xp", data={"value": value, "last": 1})
    pickler(out, protocol).dump(env)
    return out.getvalue()


def text(value):
    return b"X" + len(value).to_bytes(4, "little") + value


head = b"\x80\x04cenostask\nEnvironment\n)\x81}(" + text(b"env_name") + text(b"x") + text(b"data") + b"}(" + text(b"v")
tail = text(b"w") + b"K\x01uub."
raw = [
    b"cos\nsystem\n(S'touch executed'\ntR", b"(cos\nsystem\nS'touch executed'\no", b"(S'touch executed'\nios\nsystem\n",
    b"cpathlib\nPosixPath\n}" + text(b"__new__") + b"K\x01sb", b"cpathlib\nPosixPath\n(N}" + text(b"__str__") + b"K\x01stb",
    b"cbuiltins\nset\n(N}" + text(b"add") + b"K\x01stb", b"cos\nsystem\n}b", b"cos\nsystem\n(dS'x'\nS'y'\nstR", b"\x82\x01",
    b"Pme\n", b"I1\nQ", b"cos\nsystem\n)\x81cos\nsystem\n)\x81}R", b"cos\nsystem\n)\x81)R", b"cos\nsystem\n)R}" + text(b"a") + b"K\x01sb",
    b"c__builtin__\neval\n(V" + touch.encode() + b"\ntR", b"csubprocess\nPopen\n(lS'touch'\naS'executed'\natR",
    b"\x8c\x02os\x8c\x06system\x93\x8c\x08executed\x85R", b"\x8c\x02os\x8c\x0bpath.exists\x93", b"cos\nsystem\n)R]K\x01a",
    b"cos\nsystem\n)R(K\x01K\x02e", b"cos\nsystem\n)RK\x01K\x02s", b"cos\nsystem\n)R(K\x01\x90", b"cos\nsystem\n)}\x92",
    b"cos\nsystem\n)R(]K\x02u", b"cos\nsystem\nK\x01K\x02s", b"cx\x01y\nz\n", b"c\n\n", b"cos\n\xff\n", b"\x8c\x01a\x8c\x02b\x00\x93",
]
images = [head + content + tail for content in raw]
for value in values:
    for protocol in range(6):
        try:
            images.append(environment(value, protocol))
        except (TypeError, AttributeError, RecursionError, ValueError, pickle.PicklingError):
            pass  # what this protocol cannot do
images += [environment([Slots(), 1], protocol, Persistent) for protocol in range(6)]
whole = environment([New(), {1: (2, {3})}], 5)
images += [whole[:length] for length in range(len(whole))]
chance = random.Random(7)
allowed = [byte for byte in range(256) if byte not in pickle.BYTEARRAY8 + pickle.LONG_BINPUT]  # as above
for _ in range(2000):
    damaged = bytearray(images[chance.randrange(len(images))] or whole)
    for _ in range(chance.randint(1, 3)):
        damaged[chance.randrange(len(damaged))] = chance.choice(allowed)
    images.append(bytes(damaged))

watching, seen = False, []


def hook(event, arguments):
    """Note what the interpreter does beside reading the checkpoint and asking for names."""
    if watching and event not in ("pickle.find_class", "object.__getattr__", "builtins.id"):
        if event != "open" or arguments[0] != "checkpoint":
            seen.append((event, arguments))


if hasattr(sys, "addaudithook"):
    sys.addaudithook(hook)
with open("checkpoint", "wb") as file:
    file.write(environment({datetime.date(2026, 1, 1)}, 5))
list(enostask._show("checkpoint", False))  # what it needs itself is imported now
import encodings.ascii, encodings.latin_1, encodings.raw_unicode_escape  # and what PyPy's unpickler needs
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))  # a damaged pickle may ask for any amount
except ImportError:
    pass
modules, shown, refused = set(sys.modules), 0, 0
for image in images:
    with open("checkpoint", "wb") as file:
        file.write(image)
    watching = True
    try:
        lines = list(enostask._show("checkpoint", False))
        shown += 1
    except EnosFilePathError as error:
        refused += 1
        lines = [str(error)]
    watching = False
    assert all("\n" not in line for line in lines), lines
assert not seen, seen[:5]
assert set(sys.modules) == modules, set(sys.modules) - modules
assert sorted(os.listdir()) == ["checkpoint", "script.py"], os.listdir()
print(shown, "shown,", refused, "refused")
'''


# ---- Types, checked by `mypy --strict`: each wrong line must be an error

TYPED_EXAMPLE = r'''
"""What a type checker knows of tasks.  Lines marked `type: ignore` are wrong calls, and must be errors."""
from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import enostask as module
from enostask import (
    ENV_FILENAME,
    SYMLINK_NAME,
    EnosError,
    EnosFilePathError,
    EnosSaveError,
    Environment,
    enostask,
    get_or_create_env,
)

if TYPE_CHECKING:
    from typing_extensions import assert_type


# Tasks: the first parameter is `env: Environment`.


@enostask
def bare(env: Environment, load: int, *, label: str = "") -> str:
    return f"{env.env_name}{load}{label}"


@enostask()
def called(env: Environment, load: int = 1) -> float:
    return 1.5 * load


@enostask(new=True, symlink=False)
def fresh(env: Environment) -> None:
    env["machines"] = ["m1", "m2"]


@enostask()
async def waits(env: Environment, load: int) -> bytes:
    await asyncio.sleep(0)
    return bytes(load)


@enostask
def yields(env: Environment, load: int) -> Generator[int, str, bool]:
    return (yield load) == "done"


@contextmanager
@enostask(new=True)
def held(env: Environment, load: int) -> Generator[Environment, None, None]:
    yield env


@enostask
def docopt(env: Environment, **options: Any) -> int:
    return len(options)


class Step:
    def __call__(self, env: Environment, load: int) -> int:
        return load


step = enostask()(Step())


def timed(function: Callable[[Environment], int]) -> Callable[[Environment, str], float]:
    @functools.wraps(function)
    def timed_function(env: Environment, unit: str) -> float:
        return function(env) / len(unit)

    return timed_function


# Any other signature stays as it is.


@enostask
def last(load: int, env: Environment | None = None) -> str:
    return f"{env}{load}"


@enostask(new=True)
def keywords(**options: Any) -> int:
    return len(options)


@enostask()
def keyword_only(*, env: Environment | None = None) -> int:
    return len(env or {})


class Experiment:
    @enostask
    def bare(self, env: Environment, load: int) -> int:
        return load

    @enostask(new=True)
    def called(self, load: int, env: Environment | None = None) -> int:
        return load


def right(env: Environment, path: Path, options: dict[str, Any]) -> None:
    assert_type(bare(env, 1), str)
    assert_type(bare("xp1", 1, label="a"), str)
    assert_type(bare(path, load=1), str)
    assert_type(bare(None, 1), str)
    assert_type(bare(load=1), str)
    assert_type(bare(load=1, env="xp1"), str)
    assert_type(bare(load=1, env=path), str)
    assert_type(bare.__name__, str)
    assert_type(bare.__wrapped__(env, 1), str)
    assert_type(called(), float)
    assert_type(called("xp1", 2), float)
    fresh()
    fresh(env)
    fresh(env=None)
    assert_type(asyncio.run(waits(load=1)), bytes)
    assert_type(yields(load=1), Generator[int, str, bool])
    with held(load=1) as environment:
        assert_type(environment, Environment)
    with held("xp1", 1) as environment:
        assert_type(environment, Environment)
    assert_type(docopt(**options), int)
    assert_type(step(load=1), int)
    assert_type(step("xp1", 1), int)

    assert_type(last(1), str)
    assert_type(last(1, env), str)
    assert_type(keywords(env="xp1"), int)
    assert_type(keyword_only(env=env), int)
    assert_type(Experiment().bare(env, 1), int)
    assert_type(Experiment().called(1), int)
    later: Callable[[int], Coroutine[Any, Any, bytes]] = lambda load: waits(path, load)
    asyncio.run(later(1))


async def right_later(env: Environment) -> None:
    assert_type(await waits(env, 1), bytes)


# The code of an error is left out where it is not the same in every mypy.


def wrong(env: Environment) -> None:
    bare()  # type: ignore[call-arg]
    bare("xp1")  # type: ignore[call-arg]
    bare("xp1", "1")  # type: ignore[arg-type]
    bare(1, 1)  # type: ignore[arg-type]
    bare(env=b"xp1", load=1)  # type: ignore[arg-type]
    bare(env, 1, "a")  # type: ignore
    bare(load=1, label=1)  # type: ignore[arg-type]
    bare(load=1, other=1)  # type: ignore[call-arg]
    bare.__wrapped__("xp1", 1)  # type: ignore[arg-type]
    called(["xp1"])  # type: ignore[arg-type]
    called(load="1")  # type: ignore[arg-type]
    text: str = called()  # type: ignore[assignment]
    fresh(load=1)  # type: ignore[call-arg]
    fresh(env, 1)  # type: ignore[call-arg]
    print(waits())  # type: ignore[call-arg]
    print(waits(load="1"))  # type: ignore[arg-type]
    awaited: bytes = waits(load=1)  # type: ignore[assignment]
    yields(3, 1)  # type: ignore[arg-type]
    yields(load=1).send(1)  # type: ignore[arg-type]
    with held("xp1"):  # type: ignore[call-arg]
        pass
    step(load="1")  # type: ignore[arg-type]

    last("xp1")  # type: ignore[arg-type]
    last(1, "xp1")  # type: ignore[arg-type]
    keyword_only(env)  # type: ignore
    Experiment().bare(load=1)  # type: ignore[call-arg]
    Experiment().bare("xp1", 1)  # type: ignore[arg-type]
    Experiment().called("xp1")  # type: ignore[arg-type]
    print(text, awaited)


def wrong_decorators() -> None:
    enostask(new="xp1")  # type: ignore[call-overload]
    enostask(name="xp1")  # type: ignore[call-overload]
    enostask()(1)  # type: ignore[call-overload]
    enostask(None)  # type: ignore[call-overload]


def environments(path: Path) -> None:
    env = get_or_create_env(True, None)
    assert_type(env, Environment)
    assert_type(get_or_create_env(False, path), Environment)
    assert_type(get_or_create_env(new=True, env_name=env, symlink=False), Environment)
    assert_type(Environment("xp1").env_name, Path)
    assert_type(Environment.load_from_file(path / ENV_FILENAME), Environment)
    assert_type(env.dump(), None)
    assert_type(env.dumps(), bytes)
    assert_type(env.reload_config(), None)
    assert_type(env.copy(), Environment)
    assert_type(env.data, "dict[Any, Any]")
    env["machines"] = ["m1"]
    env.setdefault("config", {}).update(load=1)
    print(env["machines"][0], *env, SYMLINK_NAME)
    try:
        env.dump()
    except EnosSaveError as error:
        assert_type(error.filepath, str)
        assert_type(error.keys, "list[Any]")
    except EnosFilePathError as error:
        print(error.filepath)
    except EnosError as error:
        print(error)
    assert_type(module.__version__, str)
    assert_type(module.main(["xp1"]), int)


def wrong_environments(env: Environment) -> None:
    get_or_create_env(True)  # type: ignore[call-arg]
    get_or_create_env("xp1", True)  # type: ignore[arg-type]
    Environment()  # type: ignore[call-arg]
    Environment(None)  # type: ignore[arg-type]
    Environment.load_from_file()  # type: ignore[call-arg]
    env.dump("xp1")  # type: ignore[call-arg]
    env.env_name = "xp1"  # type: ignore[assignment]
    env.load()  # type: ignore[attr-defined]
    EnosFilePathError()  # type: ignore[call-arg]
    EnosSaveError("xp1/env")  # type: ignore[call-arg]
'''


# ---- The documentation


@unittest.skipUnless((HERE / "README.md").exists(), "only the module is here")
class Readme(Place):
    def setUp(self):
        super().setUp()
        text = (HERE / "README.md").read_text(encoding="utf-8")
        self.blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        shutil.copy(MODULE, "enostask.py")
        shutil.copy(HERE / "enostask.pyi", "enostask.pyi")

    def test_every_block_runs_as_written(self):
        if not shutil.which("bash"):
            self.skipTest("no bash")
        os.mkdir("bin")
        os.symlink(sys.executable, "bin/python3")
        environment = {**os.environ, "PATH": f"{self.root}/bin{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(self.root)}
        ran, shown = 0, ""
        for kind, block in self.blocks:
            missing = [name for name in ("click", "dask") if name in block and not importlib.util.find_spec(name)]
            if kind == "text" or "unittest" in block or missing:
                continue
            with self.subTest(block=block):
                Path("block").write_text(block)
                run = [sys.executable, "block"] if kind == "python" else ["bash", "-e", "block"]
                done = subprocess.run(run, env=environment, stdout=-1, stderr=-2, text=True, timeout=120)
                self.assertEqual(done.returncode, 0, done.stdout)
                shown, ran = done.stdout if "-m enostask" in block else shown, ran + 1
                time.sleep(0.01)  # so that the list has its order
        self.assertGreater(ran, 7)
        (example,) = [block for kind, block in self.blocks if kind == "text" and "xp1: saved" in block]
        if all(map(importlib.util.find_spec, ("click",))):
            self.assertEqual(self.masked(example), self.masked(shown))

    def masked(self, text):
        """*text* without what differs from run to run."""
        text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "WHEN", text)
        return re.sub(r"\d+\.\d kB", "SIZE", re.sub(r"/\S*/xp1", "/xp1", text))

    def test_the_example_in_the_docstring_runs(self):
        code = re.search(r"(    # experiment.py\n.*?)\n\n\S", module.__doc__, re.DOTALL).group(1)
        self.script(code, "up")
        self.script(None, "measure")
        self.assertEqual(read("current")["latency"], {"m1": 15.0, "m2": 15.0})


@unittest.skipUnless((HERE / "enostask.pyi").exists(), "only the module is here")
class Stub(unittest.TestCase):
    def test_the_typed_example_runs(self):
        exec(compile(TYPED_EXAMPLE, "typed_example.py", "exec"), {"__name__": "typed_example"})

    def test_it_names_what_the_module_names_in_the_same_order(self):
        def names(path):
            tree = ast.parse(Path(path).read_text(encoding="utf-8"))
            defined = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
            return list(dict.fromkeys(name for name in defined if not name.startswith("_")))

        self.assertEqual(names(HERE / "enostask.pyi"), names(MODULE))
