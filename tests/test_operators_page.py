"""deploy/README.md: every command can be given, every option, path, unit, heading and file that it names is there."""

import contextlib
import io
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from django.core.management import CommandError, get_commands, load_command_class

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
PAGE = DEPLOY / "README.md"
ALERTS = DEPLOY / "alerts.yml"
SCRIPTS = {path.name for path in DEPLOY.glob("*.sh")}
UNITS = {path.name for path in DEPLOY.glob("gatehouse*.[st]*")}  # services and timers


def code(text: str) -> Iterator[str]:
    """The command lines of the blocks for a shell, a continued one in one piece, and what stands between backticks elsewhere."""
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        yield from (line.strip() for line in block.replace("\\\n", " ").splitlines() if line.strip())
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL))


def words(line: str) -> Iterator[list[str]]:
    """The simple commands of a line: what stands between pipes, semicolons and the like, without where their output goes."""
    reader = shlex.shlex(line, posix=True, punctuation_chars=";|&<>")
    reader.whitespace_split = True
    reader.commenters = "#"
    command: list[str] = []
    skip = False
    for word in reader:
        if set(word) <= set(";|&"):
            yield command
            command = []
        elif set(word) <= set("<>"):
            skip = True
        elif skip:
            skip = False
        else:
            command.append(word)
    yield command


def commands(path: Path) -> list[list[str]]:
    text = path.read_text()
    if path == ALERTS:
        text = "```sh\n" + "\n".join(re.findall(r'cure: "(.+)"', text)) + "\n```\n"
    found = []
    for line in code(text):
        with contextlib.suppress(ValueError):  # one apostrophe: no command
            found += [command for command in words(line) if command]
    return found


def ours(path: Path) -> list[list[str]]:
    return [command[1:] for command in commands(path) if command[0] == "gatehouse" and len(command) > 1]


def test_no_command_is_broken_over_two_lines() -> None:
    """The other tests would not see it."""
    text = re.sub(r"^ *```.*?^ *```", "", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert [line for line in text.splitlines() if line.count("`") % 2] == []


@pytest.mark.parametrize("path", [PAGE, ALERTS], ids=lambda path: path.name)
def test_every_gatehouse_command_is_taken_by_its_own_parser(path: Path) -> None:
    known = get_commands()
    given = ours(path)
    assert len(given) > (60 if path == PAGE else 5)
    for command, *arguments in given:
        assert command in known, f"gatehouse {command}"
        app = known[command]
        assert isinstance(app, str)
        parser = load_command_class(app, command).create_parser("gatehouse", command)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as wrong:
                parser.parse_args(arguments)
        except (CommandError, SystemExit) as error:
            pytest.fail(f"gatehouse {shlex.join([command, *arguments])}: {error} {wrong.getvalue()}")


def test_every_kind_of_event_that_is_asked_for_is_one_that_is_written() -> None:
    text = "".join(path.read_text() for path in (ROOT / "identity").rglob("*.py"))
    asked = {command[at + 1] for command in ours(PAGE) + ours(ALERTS) for at, word in enumerate(command) if word == "--kind"}
    assert len(asked) >= 4
    for kind in asked:
        assert f'"{kind}"' in text, kind


@cache
def options(script: str) -> set[str]:
    said = subprocess.run(["bash", DEPLOY / script, "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"--[a-z][a-z-]+", said))


def test_every_option_of_a_script_is_in_its_help() -> None:
    seen = set()
    for command in commands(PAGE):
        for at, word in enumerate(command):
            name = word.rpartition("/")[2]
            if name in SCRIPTS:
                given = {each.partition("=")[0] for each in command[at + 1 :] if each.startswith("--")}
                assert given - {"--help"} <= options(name), command
                seen.add(name)
                assert word in {name, f"deploy/{name}", f"/opt/gatehouse/current/deploy/{name}"}, word
    assert seen == SCRIPTS - {"lib.sh", "releases.sh", "database.sh"}
    elsewhere = [word for word in code(PAGE.read_text()) if re.fullmatch(r"--[a-z-]+", word)]
    assert {"--behind-proxy", "--dry-run"} <= set(elsewhere)
    known = set().union(*map(options, SCRIPTS - {"lib.sh", "releases.sh", "database.sh"}))
    of_commands = {"--help", "--json", "--undo", "--now", "--force"}
    assert set(elsewhere) <= known | of_commands


def test_every_path_is_one_that_scripts_and_units_know() -> None:
    others = "".join(path.read_text() for path in DEPLOY.iterdir() if path.suffix != ".md")
    others += (ROOT / "identity" / "management" / "doctor" / "keys.py").read_text() + (ROOT / "portal" / "metrics.py").read_text()
    places = r"/(?:opt|etc|var/lib|var/backups|run|usr/local/sbin)/gatehouse[a-z-]*(?:/[A-Za-z_.-]+)*"
    named = set(re.findall(places, PAGE.read_text()))
    assert len(named) > 15
    for path in sorted(named):
        parts = path.rstrip(".").split("/")
        folder, name = "/".join(parts[:-1]), parts[-1]
        if parts[1] == "run":
            assert re.sub("-(blue|green)", "-%i", path) in others, path
        elif folder.endswith("/deploy"):
            assert (DEPLOY / name).exists(), path
        else:
            assert name in others, path


def test_every_unit_is_there() -> None:
    named = set(re.findall(r"gatehouse(?:-[a-z-]+)?\.(?:service|timer)|gatehouse@\.service", PAGE.read_text()))
    assert named <= UNITS
    assert {unit for unit in UNITS if unit.endswith(".timer")} <= named
    for command in commands(PAGE) + commands(ALERTS):
        if command[0] in {"systemctl", "journalctl"}:
            for word in command[1:]:
                if word.startswith("gatehouse") and not set(word) & set("*@"):
                    assert f"{word.removesuffix('.service')}.service" in UNITS, command


def test_every_file_beside_the_page_is_in_it() -> None:
    text = PAGE.read_text()
    helpers = {"README.md", "lib.sh", "releases.sh", "database.sh"}
    for path in DEPLOY.iterdir():
        if path.name not in helpers and not path.name.startswith("gatehouse-"):
            assert f"`{path.name}`" in text, path.name


def slug(heading: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


def test_the_contents_list_names_every_part() -> None:
    text = re.sub(r"^ *```.*?^ *```", "", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    parts = {slug(heading) for heading in re.findall(r"^##+ (.+)$", text, re.MULTILINE)}
    contents = re.findall(r"\]\(#([a-z0-9-]+)\)", text.partition("\n## ")[0])
    assert set(contents) == parts
    assert len(contents) - 1 == len(parts)  # the first line leads to the playbooks, too
    assert set(re.findall(r"\]\(#([a-z0-9-]+)\)", text)) <= parts


def test_what_refers_to_a_part_of_the_page_finds_it() -> None:
    headings = set(re.findall(r"^##+ (.+)$", PAGE.read_text(), re.MULTILINE))
    told = 0
    for path in [*DEPLOY.iterdir(), *(ROOT / "identity").rglob("*.py"), *(ROOT / "portal").rglob("*.py"), ROOT / "README.md"]:
        for part in re.findall(r"README\.md, ([A-Z][A-Za-z' ]+)", path.read_text()):
            assert part.strip() in headings, f"{path.name}: {part}"
            told += 1
        for anchor in re.findall(r"deploy/README\.md#([a-z0-9-]+)", path.read_text()):
            assert anchor in {slug(heading) for heading in headings}, f"{path.name}: {anchor}"
            told += 1
    assert told >= 4
