"""What is wrong with a document, beyond what a browser forgives in silence."""

from collections import Counter
from collections.abc import Iterator
from xml.etree.ElementTree import Element

import html5lib
from html5lib.constants import E

UNLABELLED = {"hidden", "submit", "button", "reset", "image"}


def faults(text: str) -> list[str]:
    """Errors of the HTML standard's parser, ids that are there twice, references to ids that are not, fields without a label."""
    parser = html5lib.HTMLParser(namespaceHTMLElements=False)
    tree: Element = parser.parse(text)
    found = [f"line {place[0]}: {E.get(code, code) % values}" for place, code, values in parser.errors]
    ids = Counter(each.get("id", "") for each in tree.iter() if each.get("id") is not None)
    found += [f"id “{name}” is there {n} times" for name, n in ids.items() if n > 1 or not name]
    for each in tree.iter():
        if each.tag == "dialog":
            continue  # what names it comes when it opens
        for attribute in ("for", "aria-labelledby", "aria-describedby", "aria-controls", "form", "list"):
            found += [f"{attribute}=“{name}” names nothing" for name in each.get(attribute, "").split() if name not in ids]
    labelled = {each.get("for") for each in tree.iter("label")}
    wrapped = {id(field) for label in tree.iter("label") for field in label.iter()}
    for field in fields(tree):
        has_name = field.get("aria-label") or field.get("aria-labelledby") or field.get("id") in labelled or id(field) in wrapped
        if not has_name:
            found.append(f"the field “{field.get('name')}” has no label")
    return found


def fields(tree: Element) -> Iterator[Element]:
    for each in tree.iter():
        if each.tag in {"select", "textarea"} or (each.tag == "input" and each.get("type", "text") not in UNLABELLED):
            yield each
