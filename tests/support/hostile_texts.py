"""Texts with characters that break tokenizers."""

import random

from gptjax.tokenizer import CONTROL_TOKENS

HOSTILE = [
    *("", " ", "  two ", "\n\n\n", "\t\tx", "a\r\nb\r", "\0", "a\0b", "▁", "a▁b ▁ ▁▁", " ▁", "▂▅⁇"),
    *("e\u0301", "\u0301", " \u0301\n\u0301", "😀👩‍👩‍👧‍👦🏳️‍🌈", "\ufeffx", "\u200b\u202e", "\uffff\U0010ffff"),
    *(*CONTROL_TOKENS, "<s>hi</s>", "<0x0A>", "<unk><pad>", " 3.14159  12345", "ﬁ ½ Å Å", "x" * 5000),
]


def hostile_corpus(seed):
    """2,000 texts with characters that break tokenizers, and long documents made of some of them."""
    draw = random.Random(seed)
    pieces = [
        *(
            "a",
            "b",
            "def",
            "return",
            "x y",
            " ",
            " ",
            "  ",
            "    ",
            "\n",
            "\n",
            "\n\n",
            "\n ",
            " \n",
            "\nx",
            "\t",
            "\r\n",
        ),
        *(
            "<x y>",
            "é",
            "日本",
            "😀",
            "\u0301",
            "ﬁ½",
            "\u3000",
            "\xa0",
            "\u200b",
            "\x85",
            "\u2028",
            "\0",
            "\ufeff",
            "<s>",
            "⁇",
        ),
    ]
    texts = [*HOSTILE, *("".join(draw.choices(pieces, k=draw.randrange(40))) for _ in range(1700))]
    texts += ["".join(draw.choices(["▁", "a", " ", "\n", "b▁"], k=draw.randrange(12))) for _ in range(300)]
    return texts + ["".join(draw.choices(texts, k=500)) for _ in range(6)]
