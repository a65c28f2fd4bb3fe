"""No text makes a regular expression think for long. What counts is the processor's time, so that a busy machine changes nothing."""

import ast
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LENGTH = 40_000  # characters: what needs steps by the square of it needs a billion of them
MOST = 0.5  # seconds of processor time for one text, of which the others need a hundredth
BUILT = {"identity/passwords.py": 2}  # patterns made of parts: words of the house, escaped, joined by "|"


class TooMany(Exception):
    """A pattern has taken more steps than it may."""


@contextmanager
def bounded() -> Iterator[None]:
    def stop(*args: object) -> None:
        raise TooMany

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def of_python() -> Iterator[tuple[str, str, str, int]]:
    """Every pattern of the program: where it stands, how it is used, what it is, its flags."""
    built: dict[str, int] = {}
    for package in ("portal", "identity", "tenants"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call) or not node.args:
                    continue
                call = ast.unparse(node.func)
                if call not in {f"re.{verb}" for verb in PATTERNED} | {"RegexValidator"}:
                    continue
                flags = 0
                for flag in re.findall(r"\bre\.([A-Z]+)\b", ast.unparse(node)):
                    flags |= getattr(re, flag)
                if isinstance(node.args[0], ast.Constant):
                    yield f"{name}:{node.lineno}", call.rpartition(".")[2], str(node.args[0].value), flags
                else:
                    built[name] = built.get(name, 0) + 1
    assert built == BUILT, "a pattern that is made of parts is to be looked at by somebody"


PATTERNED = ("compile", "match", "search", "fullmatch", "sub", "subn", "split", "findall", "finditer")


def of_nginx() -> Iterator[tuple[str, str, str, int]]:
    for path in sorted((ROOT / "deploy").glob("*nginx*.conf")):
        for line in path.read_text().splitlines():
            if found := re.match(r'\s*"~\*?(.+?)"\s+\S|\s*if \(\S+ !?~\*? "?(.+?)"?\) \{', line):
                yield f"{path.name}: {line.strip()}", "search", (found[1] or found[2]).replace("(?<", "(?P<"), 0


def evil(pattern: str) -> Iterator[str]:
    """Long texts of what the pattern itself speaks of, alone and in turns, with an end that fits nothing."""
    plain = re.sub(r"\\[\[\]().*+?{}|^$]", lambda found: found[0][1], pattern)
    letters = list(dict.fromkeys([*"a0A- .\t\n", *re.findall(r"[^\\\[\](){}|^$?*+\w]", plain), *re.findall(r"[\[\]().*+?@/]", pattern)]))
    for letter in letters:
        yield letter * LENGTH + "\x00"
        yield (letter + "a") * (LENGTH // 2) + "\x00"
        yield (letter + "\n") * (LENGTH // 2) + "\x00"
    if word := re.sub(r"\(\?[^)]*?[:>]|[\\\[\](){}|^$?*+]", "", pattern)[:40]:
        yield word * (LENGTH // len(word)) + "\x00"


def endless(pattern: str, flags: int = 0, verb: str = "compile") -> bool:
    made = re.compile(pattern, flags)
    try:
        for text in evil(pattern):
            with bounded():
                if verb in {"match", "fullmatch"}:  # at the beginning only
                    getattr(made, verb)(text)
                else:
                    made.sub("", text)
                    made.fullmatch(text)
    except TooMany:
        return True
    return False


def test_a_catastrophe_is_known_as_one() -> None:
    assert endless(r"(a+)+$", 0)
    assert endless(r"^(?:\w+\s?)+$", 0)
    assert endless(r"\s+$", 0), "the square of the length is too much, too"


@pytest.mark.asvs("1.3.12")
def test_no_text_keeps_a_pattern_busy() -> None:
    every = [*of_python(), *of_nginx()]
    assert len(every) > 55
    assert [place for place, verb, pattern, flags in every if endless(pattern, flags, verb)] == []
