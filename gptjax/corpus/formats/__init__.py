"""Formats: from the content of a file to its text, by pure functions, one module per format. Sources open the files.

encoding.py             bytes to text in any encoding; wrapping.py: broken lines to paragraphs
xml.py, hypertext.py    XML, safely; the text of a page of HTML
epub.py, gutenberg.py   books
wikitext.py             pages of wikis; wikitext_templates.py: their templates
scholarly.py            papers in XML and JSON; mathml.py: their formulas

latex.py                LaTeX (start here); latex_commands.py: what becomes of each command
latex_project.py        the files of a project as one, with macros expanded; latex_places.py: where its parts end
latex_numbers.py        numbers of sections, theorems …; latex_references.py, latex_citations.py: what refers to them
latex_signs.py          signs and accents; latex_units.py: numbers with units; latex_algorithm2e.py: algorithms
latex_passages.py       maths and code, which are kept as they are; latex_tidy.py: spaces and brackets at the end

languages.py            the language of source code; comments.py: its first comment; generated.py: written by no person
licenses.py             licences in texts and notices (start here); license_manifests.py: in package metadata
license_names.py        their names; license_texts.py: their texts; license_passages.py: what a text says beside them
"""
