"""100 billion tokens: Common Crawl, code, books, papers and Wikipedia, on a cluster.

  pip install -e '.[corpus,slurm]' s3fs          # or '.[corpus,ray]'
  recipe=configs/corpus/common_crawl_100b.py:RAW,CRAWL
  python -m gptjax.prepare --config=$recipe --output=OUT --sample=1000
  python -m gptjax.prepare --config=$recipe --output=OUT --executor=slurm --workers=512 \
      --submitit=slurm_partition=cpu,timeout_min=720,mem_gb=8
  RAY_ADDRESS=auto python -m gptjax.prepare --config=$recipe --output=OUT --executor=ray

RAW is a folder that all machines see, with code/, books/, papers/ and wikipedia/ in it. CRAWL is a crawl's name, such
as CC-MAIN-2024-51, which is read from s3://commoncrawl with any AWS account, or a folder or pattern of WARC files. Use
--sample first: it shows what the rules would drop. After a kill or preemption, give the same command again to continue.

The planned sizes, at about 4 bytes per token:

  source      to read                                     tokens   weight   share
  web         40,000 WARC files of about 1 GB each          70 B        1    70 %
  code        60 GB of permissively licensed files          15 B        1    15 %
  papers      24 GB of text from LaTeX and JATS              6 B        1     6 %
  books       10 GB, Project Gutenberg's in English        2.5 B        2     5 %
  wikipedia   one dump of the English pages                  4 B        1     4 %

Its cost, computed from rates measured on one core (experiments/corpus/README.md): extraction takes 28,300 core-hours at
2.0 MB of HTML per second, or 8,200 at 42 pages per second; cleaning 900, sketching 53, encoding 8. Documents need up
to 7.5 TB of disk, sketches 0.1 TB, tokens 0.4 TB; the 40 TB of archives are read and not kept. 8 GB per task are enough
except for the single task of `copies`, which may need 29 GB: stop there and continue with mem_gb=32.

The web's yield is FineWeb's: 15 T tokens of 96 crawls of 80 to 90 thousand files each, 1.8 M per file (Penedo et al.,
2024). Books have weight 2 because text that is read up to about four times is worth nearly as much as new text
(Muennighoff et al., "Scaling Data-Constrained Language Models", 2023). Copies are removed across all sources, and the
source that comes first below keeps its document: a book or article is kept, and a web page that repeats it is dropped.
"""

from gptjax.config import ConfigError
from gptjax.corpus.config import default, source

# A crawl has 100 segments of 800 to 900 files; 400 files of each are 40,000 files from all parts of the crawl.
CRAWL_FILES = "s3://commoncrawl/crawl-data/{}/segments/*/warc/*-00[0-3]??.warc.gz"


def get_config(arg="data/raw,CC-MAIN-2024-51"):
    raw, _, crawl = arg.partition(",")
    if not (raw and crawl):
        raise ConfigError(
            f"configs/corpus/common_crawl_100b.py:{arg}: expected RAW,CRAWL: a folder, and a crawl's name or files"
        )
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
