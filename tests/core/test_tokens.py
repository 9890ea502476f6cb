"""The default counter against OpenAI's tokenizers: it does not under-count by more than it says."""

from __future__ import annotations

import base64
import json
import os
import random
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

import tsmemory
from tests._chat_api import conversations
from tsmemory import InvalidInputError, Message, ToolCall, Window, count_tokens, open_store
from tsmemory.window import UNDER_COUNT, count_text, token_counter

U = Message.user

PROSE = {
    "Amharic": "ስብሰባው በሚቀጥለው ረቡዕ ከጠዋቱ ሦስት ሰዓት በሦስተኛው ፎቅ በሚገኘው አዳራሽ ይካሄዳል።",
    "Arabic": "سيعقد الاجتماع يوم الأربعاء القادم في الساعة التاسعة صباحا في قاعة الاجتماعات.",
    "Bengali": "আগামী বুধবার সকাল নয়টায় তৃতীয় তলার সভাকক্ষে সভা অনুষ্ঠিত হবে।",
    "Chinese": "会议定于下周三上午九点在三楼的会议室举行,请各部门提前准备好上个季度的工作总结。",
    "English": "The meeting takes place next Wednesday at nine in the room on the third floor.",
    "Finnish": "Kokous pidetään ensi keskiviikkona kello yhdeksän kolmannen kerroksen huoneessa.",
    "French": "La réunion aura lieu mercredi prochain à neuf heures dans la salle du haut.",
    "Georgian": "შეხვედრა გაიმართება მომავალ ოთხშაბათს დილის ცხრა საათზე მესამე სართულის დარბაზში.",
    "German": "Die Besprechung findet am nächsten Mittwoch um neun Uhr im Sitzungszimmer statt.",
    "Greek": "Η συνάντηση θα γίνει την επόμενη Τετάρτη στις εννέα το πρωί στην αίθουσα.",
    "Hebrew": "הפגישה תתקיים ביום רביעי הבא בתשע בבוקר בחדר הישיבות שבקומה השלישית.",
    "Hindi": "बैठक अगले बुधवार को सुबह नौ बजे तीसरी मंज़िल के सभाकक्ष में होगी।",
    "Hungarian": "A megbeszélés jövő szerdán kilenc órakor lesz a harmadik emeleti tárgyalóban.",
    "Japanese": "来週の水曜日の午前九時から、三階の会議室で打ち合わせを行います。",
    "Korean": "다음 주 수요일 오전 아홉 시에 삼층 회의실에서 회의를 합니다.",
    "Polish": "Spotkanie odbędzie się w przyszłą środę o dziewiątej rano w sali konferencyjnej.",
    "Russian": "Совещание состоится в следующую среду в девять часов утра в переговорной.",
    "Spanish": "La reunión será el próximo miércoles a las nueve de la mañana en la sala.",
    "Swahili": "Mkutano utafanyika Jumatano ijayo saa tatu asubuhi katika chumba cha mikutano.",
    "Tamil": "அடுத்த புதன்கிழமை காலை ஒன்பது மணிக்கு மூன்றாவது மாடியில் கூட்டம் நடைபெறும்.",
    "Thai": "การประชุมจะมีขึ้นในวันพุธหน้าเวลาเก้าโมงเช้าที่ห้องประชุมชั้นสาม",
    "Turkish": "Toplantı gelecek çarşamba sabah saat dokuzda üçüncü kattaki odada yapılacaktır.",
    "Ukrainian": "Нарада відбудеться наступної середи о дев'ятій годині ранку в залі.",
    "Vietnamese": "Cuộc họp sẽ diễn ra vào chín giờ sáng thứ Tư tuần tới tại phòng họp tầng ba.",
    "emoji": "😀😂🤣😍👍🙏🎉🔥✨😎🚀🌍🎈🐳🍕",
    "symbols": "x → y ⇒ z ∀ε>0 ∃δ: |x−y|<δ • ∑ᵢ aᵢ ≤ √(n²) — “quoted” … ≈ π·r² ½ € £ ¥ ✓ ✗ ★",
}


def data() -> dict[str, str]:
    rnd = random.Random(1)
    rows = [{"id": rnd.randrange(9999), "userName": f"ab{i}", "ok": True} for i in range(40)]
    package = Path(tsmemory.__file__).parent
    return {
        "Python": (package / "store.py").read_text(encoding="utf-8"),
        "JSON": json.dumps(rows),
        "compact JSON": json.dumps(rows, separators=(",", ":")),
        "indented JSON": json.dumps(rows, indent=2),
        "base64": base64.b64encode(rnd.randbytes(2000)).decode(),
        "hex": rnd.randbytes(800).hex(),
        "UUIDs": "\n".join(str(uuid.UUID(int=rnd.getrandbits(128))) for _ in range(40)),
        "codes": " ".join(f"{rnd.randrange(36**6):06X}" for _ in range(200)),
        "numbers": ",".join(f"{rnd.random() * 1000:.2f}" for _ in range(300)),
        "log": "\n".join(
            f"2026-01-{i % 28 + 1:02}T10:{i:02}:07.123Z INFO [worker-{i}] request={i * 7919:x} "
            f"path=/api/v1/users/{i} status=200 ms={i * 1.7:.2f}"
            for i in range(40)
        ),
        "table": "| name | seats | price |\n| --- | --- | --- |\n" + "| Ada | 12 | 3.50 |\n" * 30,
        "capitals": "THE FERRY LEAVES AT HALF PAST EIGHT FROM THE OLD PIER. " * 8,
    }


@pytest.fixture(scope="module")
def encoders() -> list[Callable[[str], list[int]]]:
    """o200k_base and cl100k_base, whose ranks come with llama-index-core."""
    tiktoken = pytest.importorskip("tiktoken")
    core = pytest.importorskip("llama_index.core")
    os.environ.setdefault(
        "TIKTOKEN_CACHE_DIR", str(Path(core.__file__).parent / "_static" / "tiktoken_cache")
    )
    return [tiktoken.get_encoding(n).encode_ordinary for n in ("o200k_base", "cl100k_base")]


@pytest.mark.parametrize("kind", [*PROSE, *data()])
def test_the_estimate_is_not_below_the_reserve(
    kind: str, encoders: list[Callable[[str], list[int]]]
) -> None:
    text = data().get(kind) or " ".join([PROSE[kind]] * 4)
    real = max(len(encode(text)) for encode in encoders)
    assert count_text(text) >= (1 - UNDER_COUNT) * real, real
    assert count_text(text) <= 1.7 * real, real


def test_windows_of_the_real_conversations_are_within_their_budget(
    encoders: list[Callable[[str], list[int]]],
) -> None:
    """By o200k, instructions apart, which alone are longer than the smallest budget."""
    exact = token_counter(encoders[0])
    over = windows = 0
    unused: list[float] = []
    for name, raws in list(conversations().items())[::10]:
        chat = open_store("memory:").conversation(name)
        for raw in raws:
            chat.append(raw)
            for budget in (1000, 2000, 4000, 8000):
                window = Window(max_tokens=budget, system="drop", start="any")
                report = chat.window(window, explain=True)
                real = sum(map(exact, report.messages))
                over += real > budget
                windows += 1
                if any(reason == "before the window" for _, reason in report.left_out):
                    best = chat.window(
                        Window(max_tokens=budget, system="drop", start="any", token_counter=exact)
                    )
                    unused.append(1 - real / max(real, sum(map(exact, best))))
    assert (over, windows > 250, len(unused) > 20) == (0, True, True)
    assert sum(unused) / len(unused) <= 0.12


# -- what counts ----------------------------------------------------------------------------------

BIG = "the words of a song " * 1600


@pytest.mark.parametrize(
    "block",
    [
        {"type": "text", "text": BIG},
        {"type": "reasoning", "reasoning": BIG},
        {"type": "text-plain", "text": BIG, "mime_type": "text/plain"},
        {"type": "json", "json": {"rows": [BIG]}},
        {"type": "search_result", "source": "u", "content": [{"type": "text", "text": BIG}]},
        {"type": "server_tool_result", "tool_call_id": "s", "output": [{"encrypted": BIG}]},
        {"type": "non_standard", "value": {"type": "document", "source": {"data": BIG}}},
        {"type": "tool_call", "id": "c", "name": "f", "args": {"text": BIG}},
        {"type": "unheard_of", "deep": [{"er": ["x", {"y": BIG}]}]},
    ],
    ids=lambda block: block["type"],
)
def test_every_kind_of_block_counts(block: dict) -> None:
    assert 7_500 < count_tokens(U([block])) < 12_000


def test_media_count_by_what_they_are() -> None:
    image = {"type": "image", "url": "https://example.org/a.png"}
    assert count_tokens(U([image])) == 1604
    inline = {"type": "image", "base64": "A" * 2_000_000, "mime_type": "image/png"}
    assert count_tokens(U([inline])) == 1604
    shot = {"type": "non_standard", "value": {"image_url": "data:image/png;base64," + "A" * 10**6}}
    assert count_tokens(U([shot])) < 1700
    pdf = {"type": "file", "base64": "A" * 4_000_000, "mime_type": "application/pdf"}
    assert 50_000 < count_tokens(U([pdf])) < 100_000


def test_calls_count_once() -> None:
    call = ToolCall("c", "f", {"text": BIG})
    block = {"type": "tool_call", "id": "c", "name": "f", "args": {"text": BIG}}
    alone = count_tokens(Message.assistant("", tool_calls=[call]))
    both = count_tokens(Message.assistant([block], tool_calls=[call]))
    assert 7_500 < both <= alone < 12_000
    kwargs = {"additional_kwargs": {"function_call": {"name": "f", "arguments": BIG}}}
    assert count_tokens(Message.assistant("", extensions={"langchain": kwargs})) > 7_500
    assert count_tokens(U("")) == 4
    assert count_tokens(U("\ud800")) > 4


def test_a_tokenizer_of_one_s_own() -> None:
    count = token_counter(str.split)
    assert count(U("one two three")) == 7
    assert count(Message.assistant("a b", tool_calls=[ToolCall("c", "f", {"x": 1})])) == 4 + 2 + 10
    with pytest.raises(InvalidInputError, match="encode"):
        token_counter(5)  # type: ignore[arg-type]


def test_a_model_s_own_counter() -> None:
    pytest.importorskip("langchain_core")
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel

    from langchain_tsmemory import model_token_counter

    class Counting(GenericFakeChatModel):
        def get_num_tokens_from_messages(self, messages, tools=None) -> int:
            return sum(len(str(m.content).split()) for m in messages)

    count = model_token_counter(Counting(messages=iter([])))
    chat = open_store("memory:").conversation("s")
    chat.append([U("one two three") for _ in range(9)])
    assert len(chat.window(Window(max_tokens=10, token_counter=count))) == 3
    with pytest.raises(InvalidInputError, match="LangChain model"):
        model_token_counter(len)  # type: ignore[arg-type]
