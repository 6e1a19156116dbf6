"""Documents are counted by their domains, and the largest tenth is listed."""

import csv
import json

from pipeline_running import config, prepare, text

from gptjax.corpus.config import source
from gptjax.corpus.report import public_summary
from gptjax.corpus.stages.domains import domain_of


def test_a_domain_is_the_host_of_an_address():
    assert domain_of("https://www.Example.org:80/a/b?c http/a.warc.gz:12") == "example.org"
    assert domain_of("http://user@news.example.co.uk./") == "news.example.co.uk"
    assert [domain_of(uri) for uri in ("a/b.txt:3", "s3://bucket/a", "http://[bad/", "ftp://a.org", "")] == [""] * 5


def test_the_largest_tenth_of_the_domains_is_listed_and_in_the_summary(tmp_path):
    (tmp_path / "a").mkdir()
    for part in range(2):
        rows = [
            {"text": text(100 * part + i, 40 + 10 * i), "url": f"https://www.site{i}.org/{part}"} for i in range(20)
        ]
        rows.append({"text": text(999 + part), "url": ""})
        (tmp_path / f"a/{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = config(tmp_path)
    made.sources = (source(name="a", kind="tables", path=f"{tmp_path}/a", uri="url"),)
    manifest = prepare(made, tmp_path / "data", shard_bytes=5000)
    found = manifest["domains"]
    with open(tmp_path / "data/domains.csv", newline="") as file:
        header, *listed = csv.reader(file)
    assert header == ["domain", "documents", "bytes"]
    assert [row[:2] for row in listed] == [["site19.org", "2"], ["site18.org", "2"]]
    assert {name: [str(n) for n in of] for name, of in found["largest"].items()} == {row[0]: row[1:] for row in listed}
    assert (found["domains"], found["documents"], found["listed"]) == (20, 40, 2)
    (of,) = manifest["sources"]
    left = sum(split["bytes"] for split in of["splits"].values())
    assert 0 < found["bytes"] < left
    summary = public_summary.page(manifest)
    assert "from 20 domains" in summary and "| site19.org | 2 |" in summary
    assert "domains" not in public_summary.page({**manifest, "domains": None})
