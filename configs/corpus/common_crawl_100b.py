"""100 billion tokens: Common Crawl, code, books, papers and Wikipedia, on a cluster.

  pip install 'gptjax[corpus,slurm]' s3fs          # or gptjax[corpus,ray]
  recipe=configs/corpus/common_crawl_100b.py:RAW,CRAWL
  python -m gptjax.prepare --config=$recipe --output=OUT --sample=1000
  python -m gptjax.prepare --config=$recipe --output=OUT --executor=slurm --workers=512 \
      --submitit=slurm_partition=cpu,timeout_min=720,mem_gb=8
  RAY_ADDRESS=auto python -m gptjax.prepare --config=$recipe --output=OUT --executor=ray

RAW is a folder that all machines see, with code/, books/, papers/ and wikipedia/ in it; CRAWL a crawl's name, such as
CC-MAIN-2024-51, read from s3://commoncrawl (any AWS account may), or a folder or pattern of WARC files. --sample comes
first: it shows what the rules would drop. Killed or preempted, the same command goes on.

What is planned for, at about 4 bytes per token:

  source      to read                                     tokens   weight   share
  web         40,000 WARC files of about 1 GB each          70 B        1    70 %
  code        60 GB of permissively licensed files          15 B        1    15 %
  papers      24 GB of text from LaTeX and JATS              6 B        1     6 %
  books       10 GB, Project Gutenberg's in English        2.5 B        2     5 %
  wikipedia   one dump of the English pages                  4 B        1     4 %

What it takes, computed from rates measured on one core (experiments/corpus/README.md): to extract, 28,300 core-hours by
2.0 MB of HTML a second, or 8,200 by 42 pages a second; 900 to clean, 53 to sketch, 26 to encode. On disk up to 7.5 TB
of documents, 0.1 of sketches, 0.4 of tokens; the archives' 40 TB are read and not kept. 8 GB a task are enough but for
the single one of `copies`, which may want 29: stop there and go on with mem_gb=32.

Of the web: FineWeb kept 15 T tokens of 96 crawls of 80 to 90 thousand files each, 1.8 M a file (Penedo et al., 2024).
Of the weight of books: text that is read up to about four times is worth nearly as much as new text (Muennighoff et
al., "Scaling Data-Constrained Language Models", 2023). Copies are left out across all sources:
what a book or an article has stays there, not where a page repeats it, since of the sources below the first wins.
"""

from gptjax.config import ConfigError
from gptjax.corpus.config import default, source

# A crawl has 100 segments of 800 to 900 files; 400 of each make 40,000, from all over the crawl.
CRAWL_FILES = "s3://commoncrawl/crawl-data/{}/segments/*/warc/*-00[0-3]??.warc.gz"


def get_config(arg="data/raw,CC-MAIN-2024-51"):
    raw, _, crawl = arg.partition(",")
    if not (raw and crawl):
        raise ConfigError(f"common_crawl_100b:{arg}: expected RAW,CRAWL: a folder, and a crawl's name or files")
    config = default()
    config.sources = (
        source(name="books", kind="books", path=f"{raw}/books", weight=2.0, unwrap=True),
        source(name="papers", kind="papers", path=f"{raw}/papers"),
        source(name="wikipedia", kind="wikipedia", path=f"{raw}/wikipedia"),
        source(name="code", kind="code", path=f"{raw}/code"),
        source(
            name="web",
            kind="web",
            path=CRAWL_FILES.format(crawl) if crawl.startswith("CC-MAIN-") else crawl,
            favor="precision",
        ),
    )
    config.shard_megabytes = 256
    config.max_failure_share = 0.1
    config.cleaning.languages = ("en",)
    config.cleaning.personal = ("email", "ip", "secret")
    config.duplicates.memory_megabytes = 4096
    config.tokenizer.vocab_size = 64_000
    config.tokenizer.sample_megabytes = 2000.0
    config.split.validation_fraction = 0.0005
    return config
