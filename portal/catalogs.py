"""Translations: reads the .po files that people write and makes the .mo files that Python's gettext reads, without gettext's tools.

`python -m portal.catalogs` makes them all (`make run`, `make test` and an installation do so). It needs nothing but Python.
"""

import ast
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_LINE = re.compile(r'(?:(msgctxt|msgid|msgid_plural|msgstr(?:\[\d+\])?)\s+)?(".*")')


class Malformed(ValueError):
    """A line that is no part of a .po file; the text says which."""


@dataclass(slots=True)
class Entry:
    """One text and its translations: one, or a form for each number that the language tells apart."""

    msgid: str = ""
    plural: str = ""
    context: str = ""
    strings: list[str] = field(default_factory=list)
    fuzzy: bool = False
    line: int = 0

    @property
    def is_header(self) -> bool:
        return not self.msgid

    @property
    def key(self) -> str:
        whole = f"{self.msgid}\0{self.plural}" if self.plural else self.msgid
        return f"{self.context}\x04{whole}" if self.context else whole


def read(path: Path) -> list[Entry]:
    """The entries of a .po file, without what is obsolete."""
    return list(_entries(path))


def _entries(path: Path) -> Iterator[Entry]:
    entry, name = Entry(), ""
    for number, line in enumerate([*path.read_text(encoding="utf-8").splitlines(), ""], 1):
        text = line.strip()
        if text.startswith("#"):
            entry.fuzzy |= text.startswith("#,") and "fuzzy" in text
        elif not text:
            if entry.strings:
                yield entry
            entry, name = Entry(), ""
        else:
            fits = _LINE.fullmatch(text)
            if not fits:
                raise Malformed(f"{path}:{number} is no line of a .po file: {text}")
            name = fits[1] or name
            entry.line = entry.line or number
            _add(entry, name, ast.literal_eval(fits[2]), begins=bool(fits[1]))


def _add(entry: Entry, name: str, text: str, *, begins: bool) -> None:
    match name:
        case "msgid":
            entry.msgid += text
        case "msgid_plural":
            entry.plural += text
        case "msgctxt":
            entry.context += text
        case _:
            if begins:
                entry.strings.append("")
            entry.strings[-1] += text


def write(entries: Iterable[Entry], path: Path) -> None:
    """A .mo file (GNU gettext manual, “The Format of GNU MO Files”). What is fuzzy or not translated is left out, as msgfmt does."""
    kept = {
        each.key.encode(): "\0".join(each.strings).encode() for each in entries if each.is_header or (all(each.strings) and not each.fuzzy)
    }
    keys = sorted(kept)
    index, texts = [], b""
    start = 28 + 16 * len(keys)
    for group in (keys, [kept[key] for key in keys]):
        for text in group:
            index += [len(text), start + len(texts)]
            texts += text + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, len(keys), 28, 28 + 8 * len(keys), 0, start)
    path.write_bytes(head + struct.pack(f"<{len(index)}I", *index) + texts)


def sources() -> list[Path]:
    return sorted((Path(__file__).parent / "locale").glob("*/LC_MESSAGES/*.po"))


def main() -> None:
    for path in sources():
        try:
            write(read(path), path.with_suffix(".mo"))
        except Malformed as wrong:
            raise SystemExit(str(wrong)) from None


if __name__ == "__main__":
    main()
