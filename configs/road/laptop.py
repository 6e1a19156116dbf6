"""A chat model about Python's documentation, from nothing but the installed packages, in minutes on two CPU cores.

  python -m gptjax.road --config=configs/road/laptop.py --workdir=runs/road          (make road)
  python -m gptjax.road --config=configs/road/laptop.py --workdir=runs/my_road --text=FOLDER --chats=chats.jsonl

Without --text and --chats, experiments/road/documentation.py makes both from the documentation strings of the standard
library and of packages that gptjax needs: 12 MB of text, 16,000 conversations, and questions about functions that were
held out. With your own text, the model reads nothing else before it learns to chat; with your own conversations, it is
asked about them alone, and only its losses say how well it does.

laptop.py:smoke goes through the same stages at a size that learns nothing and takes some minutes.
"""

from gptjax.config import ConfigError
from gptjax.roads import Road, Stage

SIZES = {  # flags of the documentation, of its corpus (yours decides its vocabulary), and of training on conversations
    "full": (
        (),
        ("--vocab_size=4096",),
        (
            "--config.training.duration=200 steps",
            "--config.checkpoint.every=100 steps",
            "--config.evaluation.every=100 steps",
        ),
    ),
    "smoke": (
        ("--packages=absl,optax",),
        ("--vocab_size=512",),
        (
            "--config.training.duration=4 steps",
            "--config.checkpoint.every=4 steps",
            "--config.evaluation.every=4 steps",
        ),
    ),
}
ASKED = (  # each in a conversation of its own
    "Hello! Who are you?",
    "What does `json.loads(s)` do?",
    "Which parameters does `resize(image, width, height=None)` take?",
    "What is the default of `height` in `resize(image, width, height=None)`?",
    "Write a one-line docstring for `def is_empty()`.",
)


def get_road(arg: str = "full", *, workdir: str, text: str, chats: str) -> Road:
    if arg not in SIZES:
        raise ConfigError(f"laptop:{arg}: expected full or smoke")
    of_documentation, of_corpus, of_chats = SIZES[arg]
    documentation, corpus, base = f"{workdir}/documentation", f"{workdir}/corpus", f"{workdir}/base"
    conversations, chat = f"{workdir}/conversations", f"{workdir}/chat"
    stages = []
    if not (text and chats):
        stages.append(
            Stage(
                "documentation",
                "text, conversations and questions from the installed packages",
                ("experiments/road/documentation.py", f"--output={documentation}", *of_documentation),
                makes=documentation,
            )
        )
    stages += [
        Stage(
            "corpus",
            "text to tokens, with a tokenizer learned from it",
            (
                "prepare",
                f"--input={text or f'{documentation}/text'}",
                f"--output={corpus}",
                *(() if text else of_corpus),
            ),
            makes=corpus,
            reads=tuple((text or f"{documentation}/text").split(",")),
        ),
        Stage(
            "base",
            "a model that continues text",
            (
                "train",
                f"--config=configs/road/laptop_base.py:{arg}",
                f"--config.data.path={corpus}",
                f"--workdir={base}",
            ),
            makes=base,
            reads=(corpus,),
        ),
        evaluation_of_base(base, corpus, "" if text or chats else documentation),
        Stage(
            "conversations",
            "instructions to tokens, with the base model's tokenizer",
            (
                "prepare",
                f"--conversations={chats or f'{documentation}/chats.jsonl'}",
                f"--tokenizer={base}",
                f"--output={conversations}",
            ),
            makes=conversations,
            reads=(base, *(chats or f"{documentation}/chats.jsonl").split(",")),
        ),
        Stage(
            "chat",
            "the base model learns to answer",
            (
                "train",
                f"--config=configs/instructions.py:{base}",
                f"--config.data.path={conversations}",
                f"--workdir={chat}",
                "--config.optimizer.learning_rate=1e-3",
                *of_chats,
            ),
            makes=chat,
            reads=(base, conversations),
        ),
    ]
    if not (text or chats):
        names = ",".join(f"{documentation}/questions/{name}.toml" for name in ("summaries", "lookups", "purposes"))
        stages.append(
            Stage(
                "questions",
                "the same questions before and after, and two kinds that only a chat model can answer",
                ("evaluate", f"--workdir={chat}", f"--tasks={names}", "--chat"),
                reads=(chat, documentation),
            )
        )
    stages.append(
        Stage(
            "talk",
            "a first conversation",
            ("chat", f"--workdir={chat}", "--temperature=0", "--max_new_tokens=60"),
            lines=tuple(line for question in (ASKED if not chats else ASKED[:1]) for line in (question, "/clear")),
            reads=(chat,),
        )
    )
    exported = f"{workdir}/export"
    stages += [
        Stage(
            "export",
            "weights, tokenizer and chat template for transformers, vLLM, MLX and llama.cpp's converter",
            ("export", f"--workdir={chat}", f"--output={exported}"),
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
    ]
    return Road(
        tuple(stages),
        opens=(
            ("talk with it", ("chat", f"--workdir={chat}")),
            ("serve it to a browser and to programs", ("serve", f"--workdir={chat}")),
            ("read its report", f"{workdir}/report.html"),
            ("let the base model go on with a text", ("sample", f"--workdir={base}", "--prompt=json.")),
        ),
    )


def evaluation_of_base(base: str, corpus: str, documentation: str) -> Stage:
    """documentation: the folder of the road's own text; "": the text is the user's, whose held-out part is read."""
    text, tasks = corpus, ()
    if documentation:
        text, tasks = f"{documentation}/held_out", (f"--tasks={documentation}/questions/summaries.toml",)
    return Stage(
        "evaluation",
        "perplexity of held-out text, and questions about held-out functions",
        ("evaluate", f"--workdir={base}", f"--text={text}", *tasks),
        reads=(base, text),
    )
