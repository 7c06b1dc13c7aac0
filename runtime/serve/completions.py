"""Completions: of a prompt, or of a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..streams.best_of import mean_logprob
from ..streams.encoding import checked_tokens
from ..streams.generation import GeneratedToken
from ..streams.session import Session
from .answers import Answer, finish_reason
from .bodies import Completion, StreamCompletion
from .errors import RequestError
from .event_stream import EventStream, unless_gone
from .host import Host
from .job import Piece
from .reading import check_length, encode
from .sampling import sampling_of
from .served import Served, body_of, client_of
from .texts import Plan, Texts

__all__ = ["Wish", "answered", "chat", "complete", "prompts_of"]


class Wish:
    """A request for texts, understood. Made in the thread that reads: a long text takes a while.

    Args:
        host: The model.
        body: The request's body.
        prompts: The prompts, as they came.
    """

    def __init__(
        self, host: Host, body: Completion | StreamCompletion, prompts: Sequence[str | list[int]]
    ) -> None:
        self.host, self.body = host, body
        self.params = sampling_of(host.model, body, host.limits)
        self.n = (body.n or 1) if isinstance(body, Completion) else 1
        self.best_of = (body.best_of or self.n) if isinstance(body, Completion) else 1
        self.texts: list[str] = []
        self.tokens: list[list[int]] = []
        self.warnings: list[str] = []
        for prompt in prompts:
            self._add(prompt)
        if self.best_of < self.n or (self.best_of > self.n and self.is_streamed):
            raise RequestError(
                f"best_of is {self.best_of} and n {self.n}; best_of must be n or above, and which "
                "texts are best is known at their ends alone: do not stream them",
                param="best_of",
            )
        count = self.best_of * len(self.tokens)
        if not 0 < count <= host.limits.choices:
            raise RequestError(
                f"the request asks for {count} texts; ask for 1 to {host.limits.choices}",
                param="n",
            )

    @property
    def is_streamed(self) -> bool:
        """Whether text is wanted as it comes."""
        return bool(self.body.stream)

    def plan(self, session: Session | None = None) -> Plan:
        """What is to be done, in a stream that there is or in new ones."""
        return Plan(
            self.tokens,
            self.params,
            self.best_of,
            eager=self.is_streamed,
            predictions=bool(self.body.echo) and self.body.logprobs is not None,
            session=session,
        )

    def answer(self) -> Answer:
        """An empty answer."""
        read = sum(map(len, self.tokens))
        logprobs = self.body.logprobs is not None
        return Answer(self.host.name, self.host.model.tokenizer, logprobs, read, self.warnings)

    def _add(self, prompt: str | list[int]) -> None:
        model = self.host.model
        if isinstance(prompt, str):
            tokens, warning = encode(model, prompt, self.host.limits)
            if warning is not None and warning not in self.warnings:
                self.warnings.append(warning)
        else:
            tokens, prompt = prompt, ""
            check_length(tokens, self.host.limits)
            checked_tokens(tokens, model.vocab_size)
            if self.body.echo:
                prompt = model.tokenizer.decode(tokens)
        self.texts.append(prompt)
        self.tokens.append(tokens)


def prompts_of(body: Completion | StreamCompletion) -> list[str | list[int]]:
    """The prompts of a request, one or several."""
    prompt: Any = "" if body.prompt is None else body.prompt
    if isinstance(prompt, str):
        return [prompt]
    if prompt and not isinstance(prompt[0], int):
        return list(prompt)
    return [prompt]


async def answered(request: Request, wish: Wish, texts: Texts) -> Response:
    """Answer a request for texts, at once or as they come."""
    if not wish.is_streamed:
        content = await unless_gone(request, _gathered(wish, texts))
        return JSONResponse(content)
    events = _events(wish, texts)
    try:
        first = await unless_gone(request, anext(events))
    except BaseException:
        await events.aclose()
        raise
    return EventStream(first, events)


async def _gathered(wish: Wish, texts: Texts) -> dict[str, Any]:
    answer = wish.answer()
    plan = wish.plan()
    shown: list[list[str]] = [[] for _ in range(plan.count)]
    tokens: list[list[GeneratedToken]] = [[] for _ in range(plan.count)]
    reasons: list[str | None] = [None] * plan.count
    async with texts:
        async for pieces in texts.pieces():
            for piece in pieces:
                shown[piece.choice].append(answer.count(piece.tokens))
                reasons[piece.choice] = piece.finish_reason
                tokens[piece.choice] += piece.tokens
    choices: list[dict[str, Any]] = []
    for written in _best(wish, tokens):
        prompt, draft = divmod(written, wish.best_of)
        before = wish.texts[prompt] if wish.body.echo else ""
        noted = texts.noted[prompt] if plan.predictions else []
        wanted = wish.body.logprobs is not None
        choices.append(
            {
                "index": len(choices),
                "text": before + "".join(shown[written]),
                "logprobs": answer.logprobs(written, noted + tokens[written]) if wanted else None,
                "finish_reason": finish_reason(reasons[written]),
                "seed": texts.seed + draft,
            }
        )
    return answer.whole(choices)


def _best(wish: Wish, tokens: list[list[GeneratedToken]]) -> list[int]:
    """The texts to return of those that were written: of each prompt, the likeliest first."""
    if wish.best_of == wish.n:
        return list(range(len(tokens)))
    best = []
    for first in range(0, len(tokens), wish.best_of):
        drafts = range(first, first + wish.best_of)
        ranked = sorted(drafts, key=lambda draft: mean_logprob(tokens[draft]), reverse=True)
        best += ranked[: wish.n]
    return best


async def _events(wish: Wish, texts: Texts) -> AsyncGenerator[bytes, None]:
    answer, echoed = wish.answer(), set[int]()
    async with texts:
        async for pieces in texts.pieces():
            events = []
            for index, tokens, reason in _merged(pieces):
                text, shown_tokens = answer.count(tokens), tokens
                if wish.body.echo and index not in echoed:
                    echoed.add(index)
                    text = wish.texts[index // wish.n] + text
                    if texts.noted:
                        shown_tokens = texts.noted[index // wish.n] + tokens
                if text or reason is not None or (shown_tokens and wish.body.logprobs is not None):
                    events.append(answer.chunk(index, text, shown_tokens, reason))
            if events:
                yield b"".join(events)
    if wish.body.stream_options is not None and wish.body.stream_options.include_usage:
        yield answer.last_chunk()


def _merged(pieces: list[Piece]) -> Iterator[tuple[int, list[GeneratedToken], str | None]]:
    """One entry for each text that has gained something: its tokens, and why it ended."""
    if len(pieces) == 1:
        yield pieces[0].choice, pieces[0].tokens, pieces[0].finish_reason
        return
    gained: dict[int, tuple[list[GeneratedToken], str | None]] = {}
    for piece in pieces:
        tokens, _ = gained.get(piece.choice, ([], None))
        gained[piece.choice] = (tokens + piece.tokens, piece.finish_reason)
    for index, (tokens, reason) in gained.items():
        yield index, tokens, reason


async def complete(request: Request, served: Served) -> Response:
    """Continue prompts, each in a stream of its own."""
    body = await body_of(request, Completion)
    host = served.host(body.model)
    wish = await host.turns.call(lambda: Wish(host, body, prompts_of(body)))
    return await answered(request, wish, Texts(host, client_of(request), wish.plan()))


async def chat(request: Request, served: Served) -> Response:
    """Refuse: no model here can do it."""
    name = next(iter(served.hosts))
    raise RequestError(
        f"{name} continues text: it is no chat model, knows no roles and follows no instructions; "
        "send a prompt to /v1/completions",
        404,
        code="not_a_chat_model",
    )
