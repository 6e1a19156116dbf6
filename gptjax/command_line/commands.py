"""The commands of gptjax, each a module of that name, and what they do in a few words."""

COMMANDS = {
    "road": "goes from raw text to a model to talk with, stage by stage",
    "prepare": "turns text, web pages, code, books or papers into tokens",
    "plan": "says what a run needs before it starts: memory, time, price, loss",
    "train": "trains a model; resumes after a stop or a crash",
    "sample": "writes text with a trained model",
    "chat": "talks with a model that was trained on conversations",
    "serve": "serves a trained model as OpenAI's API and as a chat page",
    "evaluate": "evaluates a trained model on tasks and texts, and compares runs by their scores",
    "classify": "labels texts with a trained classifier, or scores it",
    "adapter": "takes the adapter out of a fine-tuned run, or merges it into the model",
    "export": "writes a run's model for other programs, such as transformers and vLLM",
    "import": "makes a run of a model in a folder of transformers",
    "report": "writes a report on runs to share: a page, a PDF, a model card",
    "compare": "compares runs: a table, a plot, and the differences of their configs",
    "sweep": "trains many runs and shows which settings are best",
    "trace": "shows which documents a training step read, and where they come from",
}
