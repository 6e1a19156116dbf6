"""A report on runs that can be sent to others: one HTML page, a PDF, and the model card of a repository.

facts.py                everything that a run's folder says about it, with parts that are missing left None (start here)
history.py              starts, changed settings, spikes and gaps of the metrics
effort.py               time, FLOPs, energy and cost: what was measured, what is an estimate and from what
corpus.py               the data card: from the manifests of the prepared folders
exports.py              how an exported model is loaded; kinds.py: what a model is for, in words

document.py             what a report is made of: sections of paragraphs, tables, figures and texts, all plain strings
sections.py             the facts of one run as a document; compare.py: of several runs
summary.py              its sections, in order: the summary at the top; training_section.py, evaluation_section.py,
                        cost_section.py, data_section.py, settings.py
samples.py              texts that the model wrote, chosen by a stated rule
curves.py, tables.py    plots as SVG; tables
privacy.py              takes the names of this machine (folders, hosts, users) out of every string of a document

page.py                 a document as one HTML page
pdf.py                  a document as a PDF
card.py                 the facts as the model card of the Hugging Face hub; markdown.py: a document as Markdown
"""
