"""What records look like in a notebook: in headless Chromium, in light and dark hosts.

The hosts' own rules for tables and code are written after JupyterLab's, which are what an output
stands among: right-aligned cells, striped rows, code in a colour of the theme.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path

import pytest

from tsmemory import Message, ToolCall, Window, open_store

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    "rkJggg=="
)
HOST = """
.host { background: %(back)s; color: %(text)s; }
.host table { border: none; color: %(text)s; font-size: 12px; margin: 1em auto; }
.host thead, .host tr, .host th, .host td { text-align: right; vertical-align: middle; }
.host tbody tr:nth-child(odd) { background: %(stripe)s; }
.host tbody tr:hover { background: %(stripe)s; }
.host code, .host pre { color: %(text)s; background-color: %(back)s; }
.host a { color: blue; }
"""
LIGHT = {"back": "#ffffff", "text": "rgba(0,0,0,.87)", "stripe": "#f5f5f5"}
DARK = {"back": "#111111", "text": "#ffffff", "stripe": "#222222"}
HOSTS = {
    "JupyterLab, light": ('data-jp-theme-light="true"', LIGHT),
    "JupyterLab, dark": ('data-jp-theme-light="false"', DARK),
    "VS Code, dark": ('class="vscode-dark"', DARK),
    "no theme": ("", LIGHT),
}
MEASURE = """
const channel = v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; };
const light = c => .2126 * channel(c[0]) + .7152 * channel(c[1]) + .0722 * channel(c[2]);
const parse = text => text.match(/[\\d.]+/g).map(Number);
const back = (e, look) => {
  for (; e; e = e.parentElement) {
    const c = parse(look(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c;
  }
  return [255, 255, 255];
};
const measure = page => {
  const look = e => page.defaultView.getComputedStyle(e), found = [];
  for (const e of page.querySelectorAll(".tsm, .tsm *")) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || e.tagName === "STYLE") continue;
    const a = light(parse(look(e).color)), b = light(back(e, look));
    found.push({tag: e.tagName, text: e.textContent.slice(0, 40), align: look(e).textAlign,
                ratio: (Math.max(a, b) + .05) / (Math.min(a, b) + .05)});
  }
  return {found, pictures: [...page.images].map(i => i.naturalWidth)};
};
const frames = [...document.querySelectorAll("iframe")];
document.getElementById("found").textContent =
  JSON.stringify(frames.map(frame => measure(frame.contentDocument)));
"""


def outputs() -> str:
    """One of each record's output."""
    with open_store("memory:") as store:
        chat = store.conversation("trip", user_id="ada")
        stored = chat.append(
            Message.system("Be brief."),
            Message.user([{"type": "image", "base64": PIXEL, "mime_type": "image/png"}]),
            Message.assistant("One moment.", tool_calls=[ToolCall("c1", "look", {"to": "Bergen"})]),
            Message.tool("08:30", tool_call_id="c1"),
            Message.user([{"type": "reasoning", "reasoning": "hm"}, {"type": "audio"}]),
            Message("critic", "Too long."),
            Message.assistant("At 08:30."),
        )
        chat.update_session(title="A trip", metadata={"topic": "travel"})
        shown = (
            chat, stored, chat.window(Window(last=2, max_tokens=500), explain=True),
            chat.session(), store.list_sessions(), chat.list_messages(limit=1),
            store.search_messages("08:30", kinds=("text", "tool_results"), limit=1),
            store.search_sessions("trip"), store.search_messages("nowhere"),
        )  # fmt: skip
        return "".join(record._repr_html_() for record in shown)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_every_text_is_readable_in_every_host(tmp_path: Path) -> None:
    html = outputs().replace("<details>", "<details open>")
    hosts = [
        f"<!doctype html><meta charset=utf-8><style>{HOST % colours}</style>"
        f"<body {attribute}><div class=host>{html}</div>"
        for attribute, colours in HOSTS.values()
    ]
    page = tmp_path / "page.html"
    page.write_text(
        "<!doctype html><meta charset=utf-8>"
        + "".join(
            f'<iframe width=1000 height=800 srcdoc="{escape(host)}"></iframe>' for host in hosts
        )
        + f"<pre id=found></pre><script>onload = () => {{{MEASURE}}}</script>",
        encoding="utf-8",
    )
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    shown = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert shown, done.stderr
    for name, result in zip(HOSTS, json.loads(unescape(shown[1])), strict=True):
        assert len(result["found"]) > 60
        assert result["pictures"] == [1, 1]  # their width: they are drawn
        for text in result["found"]:
            assert text["ratio"] >= 4.5, (name, text)  # WCAG 2.2, 1.4.3
            assert text["tag"] not in ("TD", "TH") or text["align"] == "left", (name, text)
