# SPDX-FileCopyrightText: the enostask authors
# SPDX-License-Identifier: MIT-0
import os
from collections import UserDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, overload

from typing_extensions import ParamSpec, Self, TypeAlias

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
__version__: str

SYMLINK_NAME: Final = "current"
ENV_FILENAME: Final = "env"

_StrPath: TypeAlias = str | os.PathLike[str]
_Specifier: TypeAlias = _StrPath | Environment | None

# ---- Tasks: load, run, save

_P = ParamSpec("_P")
_R_co = TypeVar("_R_co", covariant=True)
_FunctionT = TypeVar("_FunctionT", bound=Callable[..., Any])

class _Body(Protocol[_P, _R_co]):
    def __call__(self, env: Environment, *args: _P.args, **kwargs: _P.kwargs) -> _R_co: ...

# What its callers see of it: they may leave env out, or name it by any specifier.
class _Task(Protocol[_P, _R_co]):
    def __call__(self, env: _Specifier = None, *args: _P.args, **kwargs: _P.kwargs) -> _R_co: ...
    @property
    def __name__(self) -> str: ...
    @property
    def __wrapped__(self) -> _Body[_P, _R_co]: ...

# Of any other signature a type cannot tell where env stands, so that one stays as it is.
class _Decorator(Protocol):
    @overload
    def __call__(self, function: _Body[_P, _R_co], /) -> _Task[_P, _R_co]: ...
    @overload
    def __call__(self, function: _FunctionT, /) -> _FunctionT: ...

@overload
def enostask(new: _Body[_P, _R_co]) -> _Task[_P, _R_co]: ...
@overload
def enostask(new: _FunctionT) -> _FunctionT: ...
@overload
def enostask(new: bool = False, symlink: bool | None = True) -> _Decorator: ...
def get_or_create_env(
    new: bool, env_name: _Specifier, symlink: bool | None = True
) -> Environment: ...

# ---- Environments

class Environment(UserDict[Any, Any]):
    env_name: Path
    def __init__(self, env_name: _StrPath) -> None: ...
    @classmethod
    def load_from_file(cls, env_file: _StrPath) -> Self: ...
    def __new__(cls, *args: Any, **kwargs: Any) -> Self: ...
    def __or__(self, _: object) -> Any: ...  # type: ignore[override, unused-ignore]
    def __ror__(self, _: object) -> Any: ...  # type: ignore[override, unused-ignore]
    def dump(self) -> None: ...
    def dumps(self) -> bytes: ...
    def reload_config(self) -> None: ...

# ---- Errors

class EnosError(Exception): ...

class EnosFilePathError(EnosError):
    filepath: Any  # as it was given, so perhaps no path at all
    def __init__(self, filepath: object, msg: str = "") -> None: ...

class EnosKeyError(EnosError, KeyError):
    msg: str
    def __init__(self, key: object, msg: str = "") -> None: ...

class EnosMissingError(EnosError, AttributeError, TypeError): ...

class EnosSaveError(EnosError):
    filepath: str
    keys: list[Any]
    def __init__(self, filepath: str, keys: list[Any], msg: str) -> None: ...

# ---- Looking into environments without running anything in them: python -m enostask

def main(arguments: Sequence[str] | None = None) -> int: ...
