"""The embedding model all-MiniLM-L6-v2, computed with numpy: six layers of a BERT encoder, mean over the tokens, length 1.

It is imported in the worker's process alone, since numpy and the tokenizer are optional. The texts of a call go through the large
matrix products together, one after another in one array, and each attends to itself only: nothing is padded, and what a text comes
to does not depend on those beside it, but for rounding. Above is `embedder`, which speaks HTTP. The model is described in
"Sentence-BERT" (Reimers, Gurevych 2019) and on the card that its weights come with.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

Array: TypeAlias = NDArray[np.float32]

MOST_TOKENS: Final = 256
"""Most tokens of a text, the two that mark its ends among them: what the model was tuned for. What is beyond is not read."""

_TOKENS_AT_ONCE = 2048
"""Most tokens that are computed together: 12 MB for the widest array."""

_LEAST_NORM = np.float32(1e-12)


class MiniLM:
    """The model, loaded.

    Attributes:
        dimensions: How long its vectors are.
        vocabulary: How many tokens it knows; their numbers are below that.
    """

    def __init__(self, folder: Path) -> None:
        """Loads the model from the folder that holds its files.

        Raises:
            OSError: A file is missing.
            Exception: A file is damaged; the libraries that read them have no common error.
        """
        config = json.loads((folder / "config.json").read_text())
        weights: dict[str, Array] = load_file(folder / "model.safetensors")
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MOST_TOKENS)
        self._tokenizer.no_padding()  # its file asks for what other uses need
        self._begin: Any
        self._end: Any
        self._begin, self._end = (self._tokenizer.token_to_id(mark) for mark in ("[CLS]", "[SEP]"))
        self._heads: int = config["num_attention_heads"]
        self._epsilon = np.float32(config["layer_norm_eps"])
        self._words = weights["embeddings.word_embeddings.weight"]
        # There is but one kind of segment, so its vector belongs to every place.
        self._places = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
        self._first_norm = (weights["embeddings.LayerNorm.weight"], weights["embeddings.LayerNorm.bias"])
        self._layers = [_Layer(weights, f"encoder.layer.{n}.") for n in range(config["num_hidden_layers"])]
        self.vocabulary, self.dimensions = self._words.shape

    def tokens_of(self, text: str) -> list[int]:
        """Returns a text as the numbers of its tokens, those of its ends included, cut after `MOST_TOKENS`."""
        return list(self._tokenizer.encode(text).ids)

    def framed(self, tokens: Sequence[int]) -> list[int]:
        """Returns tokens with those of a text's ends around them, cut after `MOST_TOKENS`."""
        return [self._begin, *tokens[: MOST_TOKENS - 2], self._end]

    def embed(self, texts: Sequence[Sequence[int]]) -> Array:
        """Returns a vector of length 1 for each text, given as its tokens; there must be at least one text."""
        return np.concatenate([self._embed(pack) for pack in _packs(texts)])

    def _embed(self, texts: Sequence[Sequence[int]]) -> Array:
        sizes = [len(text) for text in texts]
        ends = np.cumsum(sizes)
        bounds = [slice(int(end) - size, int(end)) for end, size in zip(ends, sizes, strict=True)]
        places = np.concatenate([np.arange(size) for size in sizes])
        hidden = _normalised(self._words[np.concatenate(texts)] + self._places[places], *self._first_norm, self._epsilon)
        for layer in self._layers:
            hidden = layer.applied(hidden, bounds, self._heads, self._epsilon)
        means = np.stack([hidden[bound].mean(axis=0) for bound in bounds])
        vectors: Array = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), _LEAST_NORM)
        return vectors


class _Layer:
    """One layer of the encoder: attention, then two linear maps with GELU between them, each added to what came in."""

    def __init__(self, weights: dict[str, Array], prefix: str) -> None:
        def linear(name: str) -> tuple[Array, Array]:
            return np.ascontiguousarray(weights[f"{prefix}{name}.weight"].T), weights[f"{prefix}{name}.bias"]

        def norm(name: str) -> tuple[Array, Array]:
            return weights[f"{prefix}{name}.LayerNorm.weight"], weights[f"{prefix}{name}.LayerNorm.bias"]

        parts = [linear(f"attention.self.{name}") for name in ("query", "key", "value")]
        self._ask = (np.concatenate([part[0] for part in parts], axis=1), np.concatenate([part[1] for part in parts]))
        self._attended = linear("attention.output.dense")
        self._attended_norm = norm("attention.output")
        self._wide = linear("intermediate.dense")
        self._narrow = linear("output.dense")
        self._norm = norm("output")

    def applied(self, hidden: Array, bounds: Sequence[slice], heads: int, epsilon: np.float32) -> Array:
        asked = hidden @ self._ask[0] + self._ask[1]
        attended: Any = np.concatenate([_attention(asked[bound], heads) for bound in bounds])
        hidden = _normalised(hidden + attended @ self._attended[0] + self._attended[1], *self._attended_norm, epsilon)
        wide = _gelu(hidden @ self._wide[0] + self._wide[1])
        return _normalised(hidden + wide @ self._narrow[0] + self._narrow[1], *self._norm, epsilon)


def _packs(texts: Sequence[Sequence[int]]) -> Iterator[Sequence[Sequence[int]]]:
    """Gives the texts in order, as many at a time as are computed together."""
    begin = size = 0
    for number, text in enumerate(texts):
        if size + len(text) > _TOKENS_AT_ONCE and number > begin:
            yield texts[begin:number]
            begin, size = number, 0
        size += len(text)
    yield texts[begin:]


def _attention(asked: Array, heads: int) -> Array:
    """Returns what each token of one text takes from the others; `asked` holds query, key and value side by side."""
    tokens = len(asked)
    query, key, value = asked.reshape(tokens, 3, heads, -1).transpose(1, 2, 0, 3)
    scores = query @ key.transpose(0, 2, 1) / np.float32(np.sqrt(query.shape[-1]))
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    attended: Array = (scores @ value).transpose(1, 0, 2).reshape(tokens, -1)
    return attended


def _normalised(values: Array, weight: Array, bias: Array, epsilon: np.float32) -> Array:
    centred = values - values.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    normalised: Array = centred / np.sqrt(variance + epsilon) * weight + bias
    return normalised


def _gelu(values: Array) -> Array:
    """Returns GELU by the error function, which is Abramowitz and Stegun's 7.1.26: off by 1.5e-7 at most."""
    scaled = np.abs(values) * np.float32(np.sqrt(0.5))
    t = np.float32(1) / (np.float32(1) + np.float32(0.3275911) * scaled)
    series: Any = t * np.float32(1.061405429) - np.float32(1.453152027)
    for factor in (1.421413741, -0.284496736, 0.254829592):
        series = series * t + np.float32(factor)
    error = np.float32(1) - series * t * np.exp(-np.square(scaled))
    result: Array = np.float32(0.5) * values * (np.float32(1) + np.copysign(error, values))
    return result
