"""How many tokens a message takes: an estimate that holds without a model's tokenizer.

A budget is a bound only if its counter does not under-count. Bytes divided by four do: a JSON
result of identifiers takes half as many bytes per token as English prose. So text is weighed by
classes (words, capitals, groups of digits, runs of punctuation, line breaks, scripts other than
Latin), each with what it takes in the dearer of OpenAI's two vocabularies, o200k_base and
cl100k_base. The weights were fitted on prose in 25 languages, code, JSON, logs, base64 and tables
(`tests/core/test_tokens.py` asserts the outcome): the estimate is at most `UNDER_COUNT` below the
dearer vocabulary for any text of such kinds that has 200 characters or more.

All work is done by `bytes.translate` and `bytes.count`, so it runs at tens of megabytes per second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any

from tsmemory.engine.codec import encode_value
from tsmemory.errors import InvalidInputError
from tsmemory.model import Block, Message

__all__ = ["UNDER_COUNT", "count_text", "count_tokens", "token_counter", "usage_factor"]

UNDER_COUNT = 0.12
"""The most by which `count_text` is below OpenAI's tokenizers, as a share, on the text it was
fitted to. Other vendors' tokenizers are not public: `usage_factor` corrects for them."""

MESSAGE_OVERHEAD = 4
"""Tokens around each message in the OpenAI chat format."""
CALL_OVERHEAD = 8
"""Tokens around the name and the arguments of a tool call."""
IMAGE_TOKENS = 1600
"""An image of 1.15 megapixels at Anthropic ((width × height) / 750); others charge less."""
_BYTES_PER_MEDIA_TOKEN = 40  # a PDF page of 100 kB is about 2,500 tokens at OpenAI and Anthropic
_MEDIA = frozenset({"image", "audio", "video", "file"})
_CALLS = frozenset({"tool_call", "invalid_tool_call"})


# -- text --------------------------------------------------------------------------------------

_CLASS = bytearray(b"x" * 256)  # l u: letters; d: digit; s: space; n: line break, tab; p: the rest
for _byte in range(128):
    _char = chr(_byte)
    _CLASS[_byte] = ord(
        "l" if _char.islower() else "u" if _char.isupper() else "d" if _char.isdigit()
        else "s" if _char == " " else "n" if _char in "\t\n\v\f\r" else "p"
    )  # fmt: skip
_CLASSES = bytes(_CLASS)
_LETTERS = bytes(ord("l") if c in b"lu" else ord(" ") for c in range(256))
_PUNCTUATION = bytes(ord("p") if c in b"p" else ord(" ") for c in range(256))
_BREAKS = bytes(ord("n") if c in b"n" else ord(" ") for c in range(256))

_SCRIPTS: tuple[tuple[float, bytes], ...] = tuple(
    (weight, bytes(range(first, last + 1)))
    for weight, first, last in (
        (1.00, 0xC2, 0xC5),  # Latin letters with marks
        (1.60, 0xC6, 0xCD),  # further Latin, phonetic, combining
        (1.05, 0xCE, 0xCF),  # Greek
        (0.66, 0xD0, 0xD3),  # Cyrillic
        (1.90, 0xD4, 0xD5),  # Armenian
        (1.12, 0xD6, 0xD7),  # Hebrew
        (0.97, 0xD8, 0xDB),  # Arabic
        (2.00, 0xDC, 0xDF),
        (1.50, 0xE0, 0xE0),  # Indic, Thai
        (2.90, 0xE1, 0xE1),  # Georgian, Ethiopic, Khmer …
        (1.40, 0xE2, 0xE2),  # punctuation, symbols
        (1.08, 0xE3, 0xE3),  # kana
        (1.40, 0xE4, 0xE9),  # Chinese characters
        (1.28, 0xEA, 0xED),  # Hangul
        (1.30, 0xEE, 0xEF),
        (3.00, 0xF0, 0xF4),  # emoji, rare characters
    )
)
"""Tokens per character, by the first byte of its UTF-8."""
_VIETNAMESE = (b"\xe1\xba", b"\xe1\xbb")
_VIETNAMESE_LESS = 1.8

_SAMPLE = 4096  # bytes in which the language of prose is looked for
_ENGLISH = (
    b" the ", b" of ", b" and ", b" to ", b" in ", b" is ", b" you ", b" for ", b" your ",
    b" with ", b" that ", b" it ", b" on ", b" or ",
)  # fmt: skip
_WESTERN = (
    b" de ", b" la ", b" que ", b" et ", b" en ", b" el ", b" le ", b" les ", b" der ", b" die ",
    b" und ", b" den ", b" di ", b" il ", b" van ", b" het ", b" do ", b" para ", b" y ",
)  # fmt: skip
_LETTER_WESTERN = 0.33
_LETTER_OTHER = 0.44


def count_text(text: str) -> int:
    """The estimated number of tokens of `text`."""
    if not text:
        return 0
    utf8 = text.encode("utf-8", "surrogatepass")
    classes = utf8.translate(_CLASSES)
    letters = b" " + classes.translate(_LETTERS)
    words = letters.count(b" l")
    runs = (b" " + classes.translate(_PUNCTUATION)).count(b" p")
    breaks = (b" " + classes.translate(_BREAKS)).count(b" n")
    digits = classes.replace(b"ddd", b"D").replace(b"dd", b"D")  # tokenizers cut them by threes
    cost = (
        0.90 * runs
        + 0.15 * classes.count(b"pp")
        + 2.30 * classes.count(b"pppp")
        + 0.90 * breaks
        + 0.07 * classes.count(b"ss")
        + 1.15 * (digits.count(b"D") + digits.count(b"d"))
        + 1.20 * classes.count(b"sd")  # a space is a token of its own before a digit
        + 10.0 * letters.count(b"l" * 24)  # no word: an identifier, random letters
    )
    by_letter = _per_letter(utf8, words, runs) if words >= 20 else 0.0
    if by_letter:
        cost += by_letter * letters.count(b"l")
    else:
        cost += (
            1.05 * words
            + 1.80 * classes.count(b"lu")  # camelCase
            + 0.22 * letters.count(b"llllllllllll")
            + 0.50 * classes.count(b"uu")
        )
    if not text.isascii():
        cost += _other_scripts(utf8)
    return int(cost) + 1


def _per_letter(utf8: bytes, words: int, runs: int) -> float:
    """Tokens per letter where the text is prose that is not English, else 0.

    Most English words are one token; words of other languages are cut by letters. Code, names and
    data are not prose: in them fewer words stand behind a space, or more punctuation.
    """
    if runs > 0.4 * words:
        return 0.0
    sample = utf8[:_SAMPLE].lower()
    spaces = sample.count(b" ")
    if spaces < 0.45 * min(words, _SAMPLE / 8):
        return 0.0
    english = sum(map(sample.count, _ENGLISH))
    if english >= 0.06 * spaces:
        return 0.0
    western = sum(map(sample.count, _WESTERN))
    return _LETTER_WESTERN if western >= 0.06 * spaces else _LETTER_OTHER


def _other_scripts(utf8: bytes) -> float:
    size = len(utf8)
    cost = 0.0
    for weight, leads in _SCRIPTS:
        cost += weight * (size - len(utf8.translate(None, leads)))
    return cost - _VIETNAMESE_LESS * sum(map(utf8.count, _VIETNAMESE))


# -- messages ----------------------------------------------------------------------------------


def count_tokens(message: Message) -> int:
    """An estimate of the tokens that `message` takes in a prompt, meant not to be too low.

    Every kind of block counts: text by its classes (`count_text`), tool calls and provider blocks
    by their JSON, an image as 1,600 tokens, another medium by its size. `Window.token_counter`
    takes another counter: `token_counter` makes one of a tokenizer.
    """
    return _count(message, count_text)


def token_counter(encode: Callable[[str], Sized]) -> Callable[[Message], int]:
    """Same as `count_tokens`, but with a tokenizer of your own for the text.

    Args:
        encode: from a text to its tokens: ``tiktoken.get_encoding("o200k_base").encode_ordinary``,
            ``llama_index.core.utils.get_tokenizer()``, a Hugging Face tokenizer's ``encode``.
    """
    if not callable(encode):
        raise InvalidInputError(
            f"encode is a function from a text to its tokens, not a {type(encode).__name__}"
        )

    def count(message: Message) -> int:
        return _count(message, lambda text: len(encode(text)))

    return count


def _count(message: Message, count: Callable[[str], int]) -> int:
    tokens = MESSAGE_OVERHEAD
    for call in message.tool_calls:
        arguments = call.arguments
        if not isinstance(arguments, str):
            arguments = encode_value(arguments).decode("utf-8", "replace")
        tokens += CALL_OVERHEAD + count(call.name) + count(arguments)
    if message.name:
        tokens += count(message.name)
    content = message.content
    if isinstance(content, str):
        tokens += count(content)
    else:
        called = {call.id for call in message.tool_calls}
        for block in content:
            kind = block.get("type")
            if kind == "text" and isinstance(block.get("text"), str):
                tokens += count(block["text"])
            elif not (kind in _CALLS and block.get("id") in called):  # counted above
                tokens += _count_block(block, count)
    legacy = _legacy_call(message)
    return tokens if legacy is None else tokens + CALL_OVERHEAD + count(legacy)


def _count_block(block: Block, count: Callable[[str], int]) -> int:
    kind = block.get("type")
    if kind in _MEDIA and "value" not in block:
        return media_tokens(str(kind), block)
    if kind == "reasoning":
        return count(str(block.get("reasoning", "")))
    tokens = 0
    texts: list[str] = []
    for value in _leaves(block):
        if value.startswith("data:") and ";base64," in value[:80]:
            tokens += IMAGE_TOKENS
        else:
            texts.append(value)
    return tokens + count('","'.join(texts))


def media_tokens(kind: str, block: Block) -> int:
    """A medium by what it is, and by its size where its bytes are in the message."""
    if kind == "image":
        return IMAGE_TOKENS
    encoded = block.get("base64")
    size = len(encoded) * 3 // 4 if isinstance(encoded, (str, bytes)) else 0
    return max(IMAGE_TOKENS, size // _BYTES_PER_MEDIA_TOKEN)


_UNCOUNTED = frozenset({"signature", "thought_signature", "moved", "type"})


def _leaves(value: Any) -> Iterator[str]:
    """Every text in `value`, keys included, as JSON would write it."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in _UNCOUNTED:
                yield str(key)
                yield from _leaves(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _leaves(inner)
    elif isinstance(value, bytes):
        yield "0" * len(value)
    elif value is not None:
        yield str(value)


def _legacy_call(message: Message) -> str | None:
    """The arguments of an OpenAI ``function_call``, which is no neutral tool call."""
    if message.role != "assistant" or not message.extensions or message.tool_calls:
        return None
    for extension in message.extensions.values():
        kwargs = extension.get("additional_kwargs") if isinstance(extension, dict) else None
        call = kwargs.get("function_call") if isinstance(kwargs, dict) else None
        if isinstance(call, dict):
            return f"{call.get('name')} {call.get('arguments')}"
    return None


# -- what providers reported ---------------------------------------------------------------------

_LEAST_REPORTED = 200  # tokens: fewer say little about the tokenizer
_MOST_FACTOR = 2.0
_FACTOR_STEPS = 8  # per unit: a factor that moved with each message would move the window


def usage_factor(messages: Sequence[Message], count: Callable[[Message], int]) -> float:
    """By how much the model's tokenizer exceeds `count`, from the usage its provider reported.

    The output tokens of an answer, its reasoning apart, are a count of that message. Frameworks
    keep them in ``extensions[…]["usage_metadata"]`` (LangChain). Never below 1, at most 2, in
    eighths.
    """
    reported = estimated = 0
    for message in messages:
        if message.role == "assistant" and message.extensions:
            tokens = _output_tokens(message)
            if tokens:
                reported += tokens
                estimated += count(message)
    if reported < _LEAST_REPORTED or not estimated:
        return 1.0
    steps = -(-(reported * _FACTOR_STEPS) // estimated)
    return min(_MOST_FACTOR, max(1.0, steps / _FACTOR_STEPS))


def _output_tokens(message: Message) -> int:
    for extension in message.extensions.values():
        usage = extension.get("usage_metadata") if isinstance(extension, dict) else None
        if not isinstance(usage, dict):
            continue
        tokens = usage.get("output_tokens")
        details = usage.get("output_token_details")
        reasoning = details.get("reasoning", 0) if isinstance(details, dict) else 0
        if not isinstance(tokens, int) or not isinstance(reasoning, int):
            continue
        blocks = [] if isinstance(message.content, str) else message.content
        if not reasoning and any(block.get("type") == "reasoning" for block in blocks):
            return 0  # not counted apart, and its text may be a summary: no measure
        return max(0, tokens - reasoning)
    return 0
