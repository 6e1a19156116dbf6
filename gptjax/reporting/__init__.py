"""A report on runs that can be sent to others: one HTML page, a PDF, and the model card of a repository.

facts.py       everything that a run's folder says about it, with parts that are missing left None
  effort.py    time, FLOPs, energy and cost: what was measured, what is an estimate and from what
  corpus.py    the data card: from the manifests of the prepared folders
  history.py   starts, changed settings, spikes and gaps of the metrics
  samples.py   texts that the model wrote, chosen by a stated rule
document.py    what a report is made of: sections of paragraphs, tables, figures and texts, all plain strings
privacy.py     takes the names of this machine (folders, hosts, users) out of every string of a document
sections.py    the facts of one run as a document; compare.py: of several runs
curves.py      plots as SVG
page.py        a document as one HTML page
pdf.py         a document as a PDF
card.py        the facts as the model card of the Hugging Face hub
"""
