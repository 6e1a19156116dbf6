"""Makes the file of known licence texts, and measures how licences are recognized.

npm pack spdx-license-list && tar xzf spdx-license-list-*.tgz               # CC0-1.0: package/spdx-full.json
pip download --no-deps licensedcode-data && unzip licensedcode_data-*.whl   # CC-BY-4.0: licensedcode/data
python experiments/corpus/licenses.py make package/spdx-full.json
python experiments/corpus/licenses.py measure package/spdx-full.json licensedcode/data
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
            for text in (
                (f"{texts[name]}\n\n{restriction}\n", f"{restriction}\n\n{texts[name]}") if name in texts else ()
            ):
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
    ours, others, wrong, left = Counter(), Counter(), [], []
    for path in sorted(glob.glob(f"{scancode}/rules/*.RULE")):
        _, head, text = open(path, encoding="utf-8").read().split("---\n", 2)
        if "is_license_text: yes" not in head or len(text.split()) < 60:
            continue
        expression = re.search(r"^license_expression: (.*)$", head, re.M)[1]
        keys = [
            one for one in re.findall(r"[\w.+-]+", expression) if one not in ("AND", "OR", "WITH", "and", "or", "with")
        ]
        if any(key not in categories for key in keys):
            continue
        got = license_names.is_allowed(licenses.of_text(text), license_names.PERMISSIVE)
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
    if "--show" in sys.argv:
        print("\n".join(["", "not permissive, passes:", *wrong, "", "permissive, does not pass:", *left]))


if __name__ == "__main__":
    {"make": make, "measure": measure}[sys.argv[1]](*[one for one in sys.argv[2:] if one != "--show"])
