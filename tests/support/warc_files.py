"""Makes web archives for tests; records are assembled byte by byte, so that they can also be invalid."""

import gzip

PARAGRAPH = (
    "The ferry leaves the island at seven in the morning and comes back when the tide allows it, seldom before noon. "
)
HTML = f"<html lang=en><head><title>Ferry</title></head><body><p>{PARAGRAPH * 2}</p></body></html>"


def record(kind, uri, block, content_type, length=None, **headers):
    lines = [
        "WARC/1.0",
        f"WARC-Type: {kind}",
        f"WARC-Target-URI: {uri}",
        "WARC-Date: 2021-05-03T10:00:00Z",
        "WARC-Record-ID: <urn:uuid:12345678-1234-1234-1234-123456789abc>",
        f"Content-Type: {content_type}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
        f"Content-Length: {len(block) if length is None else length}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + block + b"\r\n\r\n"


def response(uri, body=HTML, status="200 OK", content_type="text/html; charset=utf-8", length=None, **headers):
    """The response of a server. body: text, or bytes as they were sent."""
    body = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    block = "\r\n".join([*lines, "", ""]).encode() + body
    return record("response", uri, block, "application/http; msgtype=response", length)


def conversion(uri, text, languages="eng"):
    """A record of a WET file."""
    return record("conversion", uri, text.encode(), "text/plain", WARC_Identified_Content_Language=languages)


def page(word):
    """HTML whose main text holds `word` and is long enough to be found."""
    return HTML.replace("ferry", word)


def chunked(body, sizes=lambda size: size):
    """A body in HTTP chunks. sizes: the sizes that the chunks state."""
    body = body.encode()
    parts = [body[i : i + 100] for i in range(0, len(body), 100)]
    return b"".join(b"%x\r\n%s\r\n" % (sizes(len(part)), part) for part in parts) + b"0\r\n\r\n"


def write(path, records, compress=gzip.compress):
    """Writes one member per record, as archives do."""
    path.write_bytes(b"".join(compress(record) for record in records))
    return path
