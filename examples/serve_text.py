"""A server behind Ray Serve: one optimized model, a session for each request, streaming, beside the original.

pip install 'marche-fx[ray,text]' && python examples/serve_text.py
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import ray
import torch
from ray import serve
from starlette.requests import Request
from starlette.responses import StreamingResponse

import marche_fx
from examples.text_service import TextService
from marche_fx.models import load_text_model, load_tokenizer

URL = "http://127.0.0.1:8000"
PROMPT = "And it came to pass, when the king heard these words, that"


class Texts:
    """POST ``{"prompt": str, "length": int, "steps": int}``; a line of the text so far after each step."""

    def __init__(self, is_optimized: bool, compile: bool) -> None:
        torch.set_num_threads(1)
        model = load_text_model()
        self.service = TextService(model)
        if is_optimized:
            optimized = marche_fx.transform(model, compile=compile)
            self.service = TextService(optimized, lambda: marche_fx.decoding(optimized))
        self.tokenizer: Any = load_tokenizer()

    async def __call__(self, request: Request) -> StreamingResponse:
        asked = await request.json()
        return StreamingResponse(self.lines(asked["prompt"], asked["length"], asked["steps"]), media_type="text/plain")

    async def lines(self, prompt: str, length: int, steps: int) -> AsyncIterator[str]:
        ids = torch.tensor([self.tokenizer.encode(prompt).ids])
        async for written in self.service.stream(ids, length, steps):
            yield json.dumps(self.tokenizer.decode(written[0].tolist())) + "\n"

    def open_sessions(self) -> int:
        """Requests that are being answered."""
        return self.service.open


def ask(path: str, length: int, *, lines: int | None = None) -> list[str]:
    """What is streamed for a text of ``length`` pieces; a reader of so many ``lines`` leaves before the end."""
    asked = json.dumps({"prompt": PROMPT, "length": length, "steps": length // 2}).encode()
    with urllib.request.urlopen(urllib.request.Request(URL + path, asked), timeout=600) as answer:
        return [json.loads(line) for _, line in zip(range(lines or length), answer)]


def main(lengths: tuple[int, ...] = (64, 96, 128, 192), requests: int = 8, compile: bool = False) -> dict[str, float]:
    """Start both servers, ask each for the same texts, all at once; pieces a second of each."""
    found = {}
    deployment = serve.deployment(max_ongoing_requests=32)(Texts)
    handles: dict[str, Any] = {}
    for name in ("original", "optimized"):
        handles[name] = serve.run(deployment.bind(name == "optimized", compile), name=name, route_prefix=f"/{name}")
    for name, handle in handles.items():
        asked = [lengths[number % len(lengths)] for number in range(requests)]
        with ThreadPoolExecutor(requests + 1) as readers:
            # Of each length once before: captures are made then.
            list(readers.map(partial(ask, f"/{name}"), lengths))
            began = time.perf_counter()
            leaves = readers.submit(ask, f"/{name}", lengths[-1], lines=2)
            texts = list(readers.map(partial(ask, f"/{name}"), asked))
            found[name] = sum(asked) / (time.perf_counter() - began)
        left = handle.open_sessions.remote().result()
        print(f"{name}: {found[name]:.1f} pieces/s, {requests} readers and one who left, {left} sessions left open")
        print(f"  {texts[0][-1]}")
        assert len(leaves.result()) == 2
    print(f"{found['optimized'] / found['original']:.2f} times the original")
    serve.shutdown()
    ray.shutdown()
    return found


if __name__ == "__main__":
    main()
