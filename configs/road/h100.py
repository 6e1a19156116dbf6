"""A chat model of about GPT-2's size, planned to take less than four hours on one H100, on your text and conversations.

  python -m gptjax.road --config=configs/road/h100.py --hardware=H100 --price='2.50 USD'       what training takes
  python -m gptjax.road --config=configs/road/h100.py --workdir=runs/h100 --text=FOLDER --chats=FOLDER

Text: 15 GB or more of clean English as .parquet or .jsonl with a column "text". Seven of the fourteen files of
FineWeb-Edu's sample-10BT (HuggingFaceFW/fineweb-edu on the Hugging Face hub, ODC-By) are enough; configs/corpus/
common_crawl_100b.py makes such text from Common Crawl. Conversations: rows with a column "messages", as those of
SmolTalk (HuggingFaceTB/smoltalk on the hub, Apache-2.0). By default they are looked for in data/fineweb_edu and
data/smoltalk. Tokens are made on the CPU before the GPU is needed: --until=corpus.

The first command plans, by formula where the compiler for GPUs is not installed:

  stage     time                         price in USD
  base      2:43:26 (2:14:50 to 3:15:03) 6.81 (5.62 to 8.13)
  chat      7:49 (6:27 to 9:21)          0.33 (0.27 to 0.39)
  training  2:51:15 (2:21:17 to 3:24:24) 7.14 (5.89 to 8.52)

Evaluation, export and the starts of commands are not planned. No such run has been made yet.
"""

from gptjax.roads import Road, Stage

TEXT, CHATS = "data/fineweb_edu", "data/smoltalk"
BASE = "configs/road/h100_base.py"
CHAT_TOKENS = "--config.training.duration=150M tokens"
# 64 rows at once, as many as the base model's micro-batches have.
CHAT_FLAGS = (CHAT_TOKENS, "--config.training.batch_size=64", "--config.training.loss_chunk=8192")


def get_road(*, workdir: str, text: str, chats: str) -> Road:
    text, chats = text or TEXT, chats or CHATS
    corpus, base = f"{workdir}/corpus", f"{workdir}/base"
    conversations, chat, exported = f"{workdir}/conversations", f"{workdir}/chat", f"{workdir}/export"
    stages = (
        Stage(
            "corpus",
            "text to tokens, with a tokenizer learned from it",
            ("prepare", f"--input={text}", f"--output={corpus}", "--vocab_size=32768", "--validation_fraction=0.001"),
            makes=corpus,
            reads=tuple(text.split(",")),
        ),
        Stage(
            "base",
            "a model that continues text",
            ("train", f"--config={BASE}", f"--config.data.path={corpus}", f"--workdir={base}"),
            makes=base,
            reads=(corpus,),
            plan=(f"--config={BASE}",),
        ),
        Stage(
            "evaluation",
            "perplexity of held-out text",
            ("evaluate", f"--workdir={base}", f"--text={corpus}"),
            reads=(base, corpus),
        ),
        Stage(
            "conversations",
            "instructions to tokens, with the base model's tokenizer",
            ("prepare", f"--conversations={chats}", f"--tokenizer={base}", f"--output={conversations}"),
            makes=conversations,
            reads=(base, *chats.split(",")),
        ),
        Stage(
            "chat",
            "the base model learns to answer",
            (
                "train",
                f"--config=configs/instructions.py:{base}",
                f"--config.data.path={conversations}",
                f"--workdir={chat}",
                *CHAT_FLAGS,
                "--config.evaluation.every=10%",
                "--config.checkpoint.every=10%",
            ),
            makes=chat,
            reads=(base, conversations),
            # The base is not there yet: the same shape, tokens and optimizer on text take as long.
            plan=(
                f"--config={BASE}",
                *CHAT_FLAGS,
                "--config.training.gradient_accumulation_steps=1",
                "--config.optimizer.name=adamw",
            ),
        ),
        Stage(
            "talk",
            "a first conversation",
            ("chat", f"--workdir={chat}", "--temperature=0", "--max_new_tokens=120"),
            reads=(chat,),
            lines=("Hello! Who are you?", "/clear", "Why is the sky blue?", "/clear", "Write a haiku about the sea."),
        ),
        Stage(
            "export",
            "weights, tokenizer and chat template for transformers, vLLM, MLX and llama.cpp's converter",
            ("export", f"--workdir={chat}", f"--output={exported}", "--dtype=bfloat16"),
            makes=exported,
            reads=(chat,),
        ),
        Stage(
            "report",
            "a page about the run, to keep or to share",
            (
                "report",
                f"--workdir={chat}",
                f"--output={workdir}/report.html",
                "--samples=4",
                f"--export={exported}",
            ),
            makes=f"{workdir}/report.html",
            reads=(chat, exported),
        ),
    )
    return Road(
        stages,
        opens=(
            ("talk with it", ("chat", f"--workdir={chat}")),
            ("serve it to a browser and to programs", ("serve", f"--workdir={chat}")),
            ("read its report", f"{workdir}/report.html"),
        ),
    )
