"""A post is scored in a process of its own; a route publishes it, drops it, or asks a person, who may take too long."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from headrace import Flow, Signal, TaskContext, task


class Post(BaseModel):
    author: str
    text: str


class Verdict(BaseModel):
    post: Post
    score: int


judgement = Signal("judgement", bool)


@task(isolation="process", timeout="30s", retries=2)
def score(post: Post) -> Verdict:
    """Heavy work that may hang or crash: its process can be killed."""
    return Verdict(post=post, score=sum(character == "!" for character in post.text))


@task
def triage(verdict: Verdict) -> Literal["publish", "drop", "ask"]:
    return "publish" if verdict.score == 0 else "drop" if verdict.score > 3 else "ask"


@task
async def publish(verdict: Verdict, ctx: TaskContext) -> str:
    return f"published {verdict.post.author}'s post under key {ctx.idempotency_key}"


@task
def drop(verdict: Verdict) -> str:
    return f"dropped {verdict.post.author}'s post"


@task
def decide(given: tuple[Verdict, bool]) -> str:
    asked, approved = given
    return f"a person {'approved' if approved else 'refused'} {asked.post.author}'s post"


@task
def nobody_answered(verdict: Verdict) -> tuple[Verdict, bool]:
    return verdict, False


by_hand = (
    Flow("by_hand", input=Verdict)
    .wait_for_signal(judgement, timeout="48h", on_timeout=nobody_answered, keep_input=True)
    .then(decide)
)

moderation = (
    Flow("moderation", input=Post)
    .delay("500ms")  # time to think again
    .then(score)
    .route(triage)
    .branch("publish", publish)
    .branch("drop", drop)
    .branch("ask", by_hand)
    .end_route()
)
