"""Raw text to prepared folders. Needs no JAX.

pipeline.py             the stages in order (start here); state.py: what is known of the corpus after each
config.py, settings.py  the fields of a corpus's config; plain.py: a config as JSON
sources/, formats/      where documents come from, and how each format becomes text
documents.py, forms.py  a document, and files of documents; running text, pairs, labelled texts, conversations
cleaning/, duplicates/, contamination/    what is repaired and dropped, and why
stages/, engine/        what is done to every shard; running it here, on Ray or on Slurm
tokens/, manifest.py    the token stream of the finished folder, and the file that says what it holds
report/, preview.py     what people are shown; what cleaning would do to a sample, before the long run
libraries.py            the versions of libraries on which results depend
"""
