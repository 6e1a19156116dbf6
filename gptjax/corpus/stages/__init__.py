"""The stages of the pipeline, one per file: a function of a task, which writes files, and its declaration (base.py).

In the order of corpus/pipeline.py:

extract.py              sources to documents
clean.py                documents, repaired and masked, with figures for the rules; own.py: the user's own stage
score.py                the user's numbers for documents; select.py: the rules, applied
copies.py               duplicate documents; passages.py: repeated passages
contaminate.py          documents that contain evaluation text
verdicts.py             which documents are dropped so far, and why; columns.py: all of this as Parquet files
survey.py               what is left, by split; splits.py: the split of a document; domains.py: what domains gave
vocabulary.py           a sample of the text, and the tokenizer made from it
encode.py               documents to token ids

documents.py            the documents of a shard for a stage's function; histogram.py: counts by a key
"""
