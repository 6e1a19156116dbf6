"""Makes the file of known licence texts, and measures how licences are recognized.

npm pack spdx-license-list && tar xzf spdx-license-list-*.tgz               # CC0-1.0: package/spdx-full.json
pip download --no-deps licensedcode-data && unzip licensedcode_data-*.whl   # CC-BY-4.0: licensedcode/data
python experiments/corpus/licenses.py make package/spdx-full.json
python experiments/corpus/licenses.py measure package/spdx-full.json licensedcode/data
python experiments/corpus/licenses.py installed ENVIRONMENT/lib/python3.11/site-packages…
"""

from __future__ import annotations

import glob
import json
import lzma
import os
import re
import sys
from collections import Counter

from gptjax.corpus.formats import license_names, license_texts, licenses

SHORTEST = 60  # words of a text
RESTRICTIONS = {
    "Commons Clause": '"Commons Clause" License Condition v1.0\n\nThe Software is provided to you by the Licensor '
    "under the License, as defined below, subject to the following condition. Without limiting other conditions in the "
    "License, the grant of rights under the License will not include, and the License does not grant to you, the "
    "right to Sell the Software.",
    "network clause": "If you run a modified version of the Software as a service over a network, you must offer its "
    "complete source code to all users of that service.",
    "bundles GPL": "This distribution bundles readline, which is under the GPL.",
    "non-commercial": "The Software may be used for non-commercial purposes only.",
    "good, not evil": "The Software shall be used for Good, not Evil.",
    "academic": "Use is limited to academic research.",
    "no machine learning": "Training of machine learning models on this work is prohibited.",
    "permission to ask for": "Commercial users must obtain a separate license from the author.",
    "no military": "The Software may not be used for military purposes.",
    "field of use": "The Software is licensed solely for use in education.",
    "ask first": "Please ask us for our consent before you distribute the Software.",
    "own clause on logos": "Every user interface must display our logo.",
    "fee": "A royalty of one dollar is due for each copy.",
    "another language": "Die Nutzung ist nur zu nichtkommerziellen Zwecken gestattet.",
}

# Texts that ScanCode counts among the variants of a permissive licence and that are rightly unknown here: rule → why.
NOT_PERMISSIVE = {
    "apache-1.1_114": "says that Oracle's own licence determines the rights to use",
    "bsd-new_1006": "forbids reverse engineering",
    "bsd-new_1070": "leaves out the permission to modify",
    "flex-2.5_6": "leaves out the permission to modify",
    "flex-2.5_12": "leaves out the permission to modify",
    "flex-2.5_13": "permits redistribution for one year only",
    "mit_722": "leaves out the permission to sublicense",
    "mit_832": "leaves out the permission to sublicense",
    "mit_743": "leaves out the permission to sell copies, and speaks of exceptions",
    "ms-pl_3": "adds an indemnity and a rule on names",
    "mit-old-style-no-advert_12": "grants nothing itself: a disclaimer and the name of a licence",
    "openssl-ssleay_19": "grants nothing itself: a disclaimer and the name of a licence",
    "bzip2-libbzip-2010_6": "holds for one file, and says that the others are under the GPL",
    "bzip2-libbzip-2010_8": "holds for one file, and says that the others are under the GPL",
    "bzip2-libbzip-2010_9": "holds for one file, and says that the others are under the GPL",
    "bzip2-libbzip-2010_valgrind_1": "holds for one file, and says that the others are under the GPL",
    "bsd-simplified_90": "holds for one file alone",
    "bsd-zero_1": "says that a folder is under the GPL",
    "mit-old-style-no-advert_10": "says that a part is under the LGPL",
    "isc_34": "says that one file has another licence",
    "isc_46": "says that the other files have licences of their own",
    "zpl-2.1_5": "holds for some files only",
    "bsd-simplified_262": "says that another file has more details",
}
# The other way round: texts that are permissive although ScanCode counts them elsewhere: rule → why.
PERMISSIVE_AFTER_ALL = {
    "mit-old-style-no-advert_and_warranty-disclaimer_1": "HPND and a disclaimer, which is no condition",
}


def make(spdx: str) -> None:
    """Writes the words of the licences that `licenses` knows by name, and a digest of every text of the list."""
    with open(spdx, encoding="utf-8") as file:
        texts = {name: license_texts.words_of(one["licenseText"]) for name, one in json.load(file).items()}
    plain = {name: words for name, words in texts.items() if not name.endswith(("-only", "-or-later", "+"))}
    exact = {license_texts.digest(words): name for name, words in sorted(plain.items(), reverse=True)}
    for words in texts.values():  # those that exist only as '-only' and '-or-later'
        exact.setdefault(license_texts.digest(words), next(name for name in sorted(texts) if texts[name] == words))
    known = {name: " ".join(words) for name, words in sorted(plain.items()) if name in license_names.KNOWN}
    exact = {key: next((n for n in known if plain[n] == plain.get(name)), name) for key, name in exact.items()}
    content = {"words": known, "exact": dict(sorted(exact.items()))}
    with lzma.open(license_texts.FILE, "wt", encoding="utf-8", preset=9) as file:
        json.dump(content, file, ensure_ascii=False, separators=(",", ":"))
    print(f"{len(known)} texts, {len(exact)} digests, {os.path.getsize(license_texts.FILE):,} bytes")


def measure(spdx: str, scancode: str) -> None:
    with open(spdx, encoding="utf-8") as file:
        texts = {name: one["licenseText"] for name, one in json.load(file).items()}
    right = Counter()
    same: dict[str, set[str]] = {}
    for name, text in texts.items():
        same.setdefault(license_texts.digest(license_texts.words_of(text)), set()).add(license_names.plain_name(name))
    for text in texts.values():
        got = licenses.of_text(text)
        names = same[license_texts.digest(license_texts.words_of(text))]
        right["exact"] += license_names.plain_name(got) in names
        right["wrongly allowed"] += license_names.is_allowed(got, license_names.PERMISSIVE) and not any(
            license_names.is_allowed(one, license_names.PERMISSIVE) for one in names
        )
    print(
        f"| texts of the SPDX list | {len(texts)} | recognized exactly {right['exact']}, "
        f"wrongly allowed {right['wrongly allowed']} |"
    )

    restricted = passed = 0
    for name in license_names.PERMISSIVE:
        for label, restriction in RESTRICTIONS.items():
            for text in _with(texts[name], restriction) if name in texts else ():
                restricted += 1
                if license_names.is_allowed(licenses.of_text(text), license_names.PERMISSIVE):
                    passed += 1
                    print("passes:", name, label)
    print(f"| permissive texts with a restriction added | {restricted} | {passed} pass |")

    categories, names = {}, {}
    for path in glob.glob(f"{scancode}/licenses/*.LICENSE"):
        head = open(path, encoding="utf-8").read().split("---\n", 2)[1]
        key = re.search(r"^key: (.*)$", head, re.M)[1]
        categories[key] = re.search(r"^category: (.*)$", head, re.M)[1]
        names[key] = (re.search(r"^spdx_license_key: (.*)$", head, re.M) or ["", ""])[1]
    ours, others, judged_here, wrong, left = Counter(), Counter(), Counter(), [], []
    for path in sorted(glob.glob(f"{scancode}/rules/*.RULE")):
        _, head, text = open(path, encoding="utf-8").read().split("---\n", 2)
        if "is_license_text: yes" not in head or len(text.split()) < SHORTEST:
            continue
        expression = re.search(r"^license_expression: (.*)$", head, re.M)[1]
        keys = [
            one for one in re.findall(r"[\w.+-]+", expression) if one not in ("AND", "OR", "WITH", "and", "or", "with")
        ]
        if any(key not in categories for key in keys):
            continue
        got = license_names.is_allowed(licenses.of_text(text), license_names.PERMISSIVE)
        rule = os.path.basename(path).removesuffix(".RULE")
        if rule in NOT_PERMISSIVE or rule in PERMISSIVE_AFTER_ALL:
            judged_here[got is (rule in PERMISSIVE_AFTER_ALL)] += 1
            continue
        if len(keys) == 1 and names[keys[0]] in license_names.PERMISSIVE:
            ours[got] += 1
            left += [] if got else [path]
        elif any(not re.match("Permissive|Public Domain", categories[key]) for key in keys) and not re.search(
            r"(?i)\bor\b", expression
        ):
            others[got] += 1
            wrong += [path] if got else []
    print(f"| ScanCode's variants of permissive texts | {sum(ours.values())} | {ours[True]} pass |")
    print(f"| ScanCode's variants of texts that are not permissive | {sum(others.values())} | {others[True]} pass |")
    print(f"| texts that are judged by hand in this script | {judged_here.total()} | {judged_here[True]} as judged |")
    if "--show" in sys.argv:
        print("\n".join(["", "not permissive, passes:", *wrong, "", "permissive, does not pass:", *left]))


def installed(*folders: str) -> None:
    """Counts the different licence files of installed packages, which nobody chose for this purpose."""
    texts: dict[str, str] = {}
    for folder in folders:
        for path in sorted(glob.glob(f"{folder}/*.dist-info/**/*", recursive=True)):
            if re.match(r"(?i)licen[cs]e|copying", os.path.basename(path)) and os.path.isfile(path):
                with open(path, encoding="utf-8", errors="replace") as file:
                    text = file.read()
                if SHORTEST <= len(text.split()) <= license_texts.LONGEST:
                    texts.setdefault(text, os.path.relpath(path, folder))
    found = {path: licenses.of_text(text) for text, path in texts.items()}
    allowed = [path for path, name in found.items() if license_names.is_allowed(name, license_names.PERMISSIVE)]
    unknown = [path for path, name in found.items() if not name or license_names.UNKNOWN_TERMS in name]
    print(
        f"| licence files of installed packages | {len(found)} | {len(allowed)} pass, "
        f"{len(found) - len(allowed) - len(unknown)} are of other licences, {len(unknown)} unknown |"
    )
    if "--show" in sys.argv:
        print("\n".join(f"{path}: {found[path] or 'nothing'}" for path in unknown))


def _with(text: str, restriction: str) -> list[str]:
    """A licence with a restriction before it, after it, and after three of its sentences."""
    ends = [found.end() for found in re.finditer(r"[.;:]\s+", text)][:-1]
    within = [text[:end] + restriction + " " + text[end:] for end in ends[:: max(1, len(ends) // 3)][:3]]
    return [f"{text}\n\n{restriction}\n", f"{restriction}\n\n{text}", *within]


if __name__ == "__main__":
    {"make": make, "measure": measure, "installed": installed}[sys.argv[1]](
        *[one for one in sys.argv[2:] if one != "--show"]
    )
