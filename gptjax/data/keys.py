"""The names of a batch's arrays. The modules of `data` write them, and objectives read them."""

TOKENS = "tokens"  # int32 [B, T]: the tokens that the model reads
TARGETS = "targets"  # int32 [B, T]: the token to predict at each position
WEIGHTS = "weights"  # float32 [B, T], or [B] for labelled texts: 0 where nothing is predicted
LABELS = "labels"  # int32 [B]: the number of a text's label
SEGMENTS = "segments"  # int32 [B, T]: documents of a packed row, from 1; 0 is padding
POSITIONS = "positions"  # int32 [B, T]: from 0 within each segment
PROMPT = "prompt"  # int32 [B, S]: the tokens that a model continues
PROMPT_LENGTH = "prompt_length"  # int32 [B]: 0 for a row that only fills up a batch
ANSWER = "answer"  # int32 [B, T - S]: the tokens of the known answer
NUMBER = "number"  # int32 [B]: of a held-out prompt among all that are stored; 0 for a row that only fills up a batch
REWARDS = "rewards"  # float32 [B, G]: of the texts that the model has written after a prompt
LOGPROBS = "logprobs"  # float32 [B, G, T]: of their tokens, when they were written
REJECTED = "rejected_"  # prefix of tokens, targets and weights of a preference's other answer
REFERENCE = "reference_logprob"  # float32 [B]: of a preference's answer, by the reference, if computed once
SOURCE = "source"  # int32 [B, S]: the tokens that an encoder reads
SOURCE_SEGMENTS = "source_segments"
SOURCE_POSITIONS = "source_positions"
