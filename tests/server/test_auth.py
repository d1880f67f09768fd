"""Tokens: who is let in, and to what."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from resonate_anyio import InvalidArgument
from resonate_anyio._protocol import SNAPSHOT
from resonate_anyio.abc import Clock, Store
from resonate_anyio.server import App, Auth
from resonate_anyio.stores import MemoryStore

from .conftest import Start
from .recordings import ask, call, exchanges
from .tokens import Mint, hmac_signed, jws, part, public_pem, write_public_key


@pytest.fixture
def store() -> Store:
    return MemoryStore()


@pytest.fixture
def mint(clock: Clock) -> Mint:
    return Mint(clock() // 1000)


ADMIN: Final[dict[str, Any]] = {"role": "admin"}
APP1: Final[dict[str, Any]] = {"prefix": "app1"}

# What the token of a recorded line says, by the line's label. The others say `prefix: app1`.
SIGNED: dict[str, Callable[[Mint], str]] = {
    "unsigned in signed mode": lambda mint: mint.unsigned("none", **ADMIN),
    "admin": lambda mint: mint.signed(**ADMIN),
    "ADMIN case-insensitive": lambda mint: mint.signed(role="ADMIN"),
    "no exp": lambda mint: mint.signed(exp=..., **ADMIN),
    "expired 10s ago (leeway)": lambda mint: mint.signed(exp=mint.now - 10, **ADMIN),
    "expired 120s ago": lambda mint: mint.signed(exp=mint.now - 120, **ADMIN),
    "nbf future": lambda mint: mint.signed(nbf=mint.now + 100, **ADMIN),
    "no prefix no role": lambda mint: mint.signed(),
    "prefix null": lambda mint: mint.signed(prefix=None),
    "prefix number": lambda mint: mint.signed(prefix=5),
    "prefix empty = all": lambda mint: mint.signed(prefix=""),
    "prefix empty, search": lambda mint: mint.signed(prefix=""),
    "role other + prefix": lambda mint: mint.signed(role="user", **APP1),
    "prefix mismatch": lambda mint: mint.signed(prefix="app2"),
    "RS384": lambda mint: mint.signed("RS384", **APP1),
    "RS512": lambda mint: mint.signed("RS512", **APP1),
    "HS256 header w/ RSA sig": lambda mint: mint.unsigned("HS256", mint.signed(**ADMIN).rpartition(".")[2], **ADMIN),
    "aud string": lambda mint: mint.signed(aud="resonate", **ADMIN),
    "aud list": lambda mint: mint.signed(aud=["resonate"], **ADMIN),
}


def signed_token(mint: Mint, label: str) -> str:
    if label.endswith("wildcard"):
        return mint.signed(prefix="")

    make = SIGNED.get(label)
    return mint.signed(**APP1) if make is None else make(mint)


POLLS: dict[str, Callable[[str], dict[str, str]]] = {
    "poll no token": lambda _: {},
    "poll bad": lambda _: {"Authorization": "Bearer abc"},
    "poll lower-case scheme": lambda token: {"Authorization": f"bearer {token}"},
    "poll header ok": lambda token: {"Authorization": f"Bearer {token}"},
}


async def answer_to(app: App, exchange: dict[str, Any], token: str) -> tuple[int, str]:
    """Send a recorded request with a new token; give the status and the text of a refusal."""
    label: str = exchange["label"]
    if "request" not in exchange:
        # A stream has no end; asking for its head only is judged alike.
        method = "HEAD" if label == "poll header ok" else exchange["method"]
        answer = await call(app, method, exchange["path"], POLLS[label](token) if label in POLLS else {})
        return answer.status, answer.body.decode()

    document = exchange["request"]
    if document["head"].get("auth") == "<token>":
        document["head"]["auth"] = token

    headers = {"Authorization": f"Bearer {token}"} if label.startswith("token only in") else {}
    answer = await call(app, "POST", "/", headers, json.dumps(document).encode())
    text = answer.json()["data"] if answer.status in {401, 403} else ""
    return answer.status, text


async def test_recorded_with_signatures(start: Start, mint: Mint, clock: Clock, tmp_path: Path) -> None:
    """Each token of the recording, minted anew, is let in or refused as it was there."""
    auth = Auth(write_public_key(tmp_path, "rsa"), clock=clock)
    async with start(SNAPSHOT, auth=auth, debug=True) as app:
        for exchange in exchanges("snapshot/auth-signed.jsonl.xz"):
            status, text = await answer_to(app, exchange, signed_token(mint, exchange["label"]))
            refusal = {401: "Unauthorized", 403: "Forbidden"}.get(exchange["status"], "")
            assert (exchange["status"], refusal) == (status, text), exchange["label"]


def mine(mint: Mint, algorithm: str = "HS256", signature: str = "", **claims: Any) -> str:
    """An unsigned token for this server, but for these claims."""
    named: dict[str, Any] = {"iss": "me", "aud": ["resonate"], **ADMIN, **claims}
    return mint.unsigned(algorithm, signature, **named)


UNSIGNED: dict[str, Callable[[Mint], str]] = {
    "alg none": lambda mint: mine(mint, "none"),
    "alg HS256, empty signature": lambda mint: mine(mint, "HS256"),
    "alg HS256, junk signature": lambda mint: mine(mint, "HS256", "junk!"),
    "alg RS256 header": lambda mint: mine(mint, "RS256"),
    "wrong iss": lambda mint: mine(mint, iss="you"),
    "missing iss": lambda mint: mine(mint, iss=...),
    "wrong aud": lambda mint: mine(mint, aud=["else"]),
    "aud string": lambda mint: mine(mint, aud="resonate"),
    "missing aud": lambda mint: mine(mint, aud=...),
}


async def test_recorded_without_signatures(start: Start, mint: Mint, clock: Clock) -> None:
    """Where signatures are not checked, the claims and the name of the algorithm are."""
    async with start(SNAPSHOT, auth=Auth("none", "me", "resonate", clock)) as app:
        for exchange in exchanges("snapshot/auth-unsigned.jsonl.xz"):
            status, _ = await answer_to(app, exchange, UNSIGNED[exchange["label"]](mint))
            assert exchange["status"] == status, exchange["label"]


def get(token: str, **data: Any) -> dict[str, Any]:
    head = {"corrId": "c", "version": "2026-04-01", "auth": token}
    return {"kind": "promise.get", "head": head, "data": {"id": "app1.x"} | data}


@pytest.mark.parametrize(
    ("kind", "algorithm", "status"),
    [
        *(("rsa", algorithm, 404) for algorithm in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
        ("p256", "ES256", 404),
        ("p384", "ES384", 404),
        ("ed25519", "EdDSA", 404),
    ],
)
async def test_every_kind_of_key(
    start: Start, clock: Clock, tmp_path: Path, kind: str, algorithm: str, status: int
) -> None:
    """RSA, EC and Ed25519 keys verify the tokens of their own families, and those signed by another key are refused."""
    auth = Auth(write_public_key(tmp_path, kind), clock=clock)
    mint = Mint(clock() // 1000, kind, algorithm)
    token = mint.signed(**ADMIN)
    others = {
        "rsa": ("p256", "ES256"),
        "p256": ("p384", "ES384"),
        "p384": ("p256", "ES256"),
        "ed25519": ("rsa", "RS256"),
    }
    stranger = Mint(mint.now, *others[kind]).signed(**ADMIN)
    async with start(auth=auth) as app:
        assert status == (await ask(app, get(token))).status
        assert 401 == (await ask(app, get(stranger))).status
        # With the right algorithm's name above it, the signature is still another's.
        forged = mint.unsigned(algorithm, stranger.rpartition(".")[2], **ADMIN)
        assert 401 == (await ask(app, get(forged))).status


BAD: dict[str, Callable[[Mint], str]] = {
    "two parts": lambda mint: mint.signed(**ADMIN).rpartition(".")[0],
    "four parts": lambda mint: mint.signed(**ADMIN) + ".x",
    "no JSON": lambda mint: f"{part({'alg': 'RS256'})}.eA.eA",
    "not ASCII": lambda _: "\u2603.\u2603.\u2603",
    "claims that are a list": lambda mint: jws(b"[]"),
    "another payload": lambda mint: mint.unsigned("RS256", mint.signed(**APP1).rpartition(".")[2], **ADMIN),
    "no signature": lambda mint: mint.unsigned("RS256", **ADMIN),
    "no algorithm": lambda mint: f"{part({})}.{part(mint.claims(**ADMIN))}.",
    "HMAC with the public key": lambda mint: hmac_signed(public_pem("rsa"), mint.claims(**ADMIN)),
    "exp as a text": lambda mint: mint.signed(exp="9999999999", **ADMIN),
    "exp as true": lambda mint: mint.signed(exp=True, **ADMIN),
    "expired 61s ago": lambda mint: mint.signed(exp=mint.now - 61, **ADMIN),
    "aud of numbers": lambda mint: mint.signed(aud=[1], **ADMIN),
    "bearer": lambda mint: f"Bearer {mint.signed(**ADMIN)}",
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_tokens(start: Start, mint: Mint, clock: Clock, tmp_path: Path, name: str) -> None:
    """A token that is broken, forged, stale or of the wrong shape is refused, by requests and by streams."""
    token = BAD[name](mint)
    async with start(auth=Auth(write_public_key(tmp_path, "rsa"), clock=clock)) as app:
        answer = await ask(app, get(token))
        assert (401, "Unauthorized") == (answer.status, answer.json()["data"])
        if token.isascii():
            assert 401 == (await call(app, "GET", "/poll/g/i", {"Authorization": f"Bearer {token}"})).status


@pytest.mark.parametrize(("iss", "aud"), [("me", None), (None, "resonate"), ("me", "resonate")])
async def test_issuer_and_audience_with_signatures(
    start: Start, mint: Mint, clock: Clock, tmp_path: Path, iss: str | None, aud: str | None
) -> None:
    """What the server was told to expect must be in the token, and nothing else."""
    auth = Auth(write_public_key(tmp_path, "rsa"), iss, aud, clock)
    right: dict[str, Any] = {"iss": "me", "aud": ["other", "resonate"], **ADMIN}
    async with start(auth=auth) as app:
        assert 404 == (await ask(app, get(mint.signed(**right)))).status
        for claim, wanted in (("iss", iss), ("aud", aud)):
            for wrong in (..., ["you"] if claim == "aud" else "you"):
                claims: dict[str, Any] = right | {claim: wrong}
                answer = await ask(app, get(mint.signed(**claims)))
                assert (404 if wanted is None else 401) == answer.status, (claim, wrong)


@pytest.mark.parametrize("exp", [0, 59, 60])
async def test_leeway(start: Start, mint: Mint, clock: Clock, exp: int) -> None:
    """A token is good for a minute after its end, because clocks differ."""
    async with start(auth=Auth("none", clock=clock)) as app:
        assert 404 == (await ask(app, get(mint.unsigned("HS256", exp=mint.now - exp, **ADMIN)))).status


async def test_a_prefix_is_of_characters(start: Start, mint: Mint, clock: Clock) -> None:
    """A prefix is compared with the text of an id, whatever its segments; an id that is none is a bad request."""
    token = mint.unsigned("HS256", **APP1)
    async with start(auth=Auth("none", clock=clock)) as app:
        assert 404 == (await ask(app, get(token, id="app10"))).status
        assert 403 == (await ask(app, get(token, id="app"))).status
        assert 400 == (await ask(app, get(token, id=5))).status


async def test_a_heartbeat_is_for_each_task(start: Start, mint: Mint, clock: Clock) -> None:
    """One task that the token does not allow refuses all; entries that are none are bad requests."""
    document = get(mint.unsigned("HS256", **APP1)) | {"kind": "task.heartbeat"}

    async def status(tasks: object) -> int:
        return (await ask(app, document | {"data": {"pid": "p", "tasks": tasks}})).status

    async with start(auth=Auth("none", clock=clock)) as app:
        assert 200 == await status([{"id": "app1.x", "version": 1}])
        assert 403 == await status([{"id": "app1.x", "version": 1}, {"id": "app2.x", "version": 1}])
        assert 400 == await status([5])
        assert 400 == await status(5)


async def test_probes_are_free(start: Start) -> None:
    """Nobody needs a token to see whether the server lives."""
    async with start(auth=Auth("none")) as app:
        assert [200, 200] == [(await call(app, "GET", path)).status for path in ("/health", "/ready")]


async def test_the_order_of_checks(start: Start) -> None:
    """What is wrong with the envelope is told before, what is wrong with the operation after the token is judged."""
    async with start(auth=Auth("none")) as app:
        assert 400 == (await ask(app, get("bad") | {"data": 5})).status
        assert 401 == (await ask(app, get("bad") | {"kind": "nope"})).status
        assert 401 == (await ask(app, get("bad") | {"kind": "debug.snap"})).status
        assert 401 == (await ask(app, get("bad", id=5))).status


async def test_tokens_are_not_shown(
    start: Start, mint: Mint, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither answers nor logs contain a token, good or bad, nor what it says."""
    caplog.set_level(logging.DEBUG)
    auth = Auth(write_public_key(tmp_path, "rsa"), clock=clock)
    good = mint.signed(secret="do-not-tell", **ADMIN)
    bad = good[:-8] + "forged"
    async with start(auth=auth) as app:
        shown = [(await ask(app, get(token))).body.decode() for token in (good, bad)]
        shown += [(await ask(app, get(bad) | {"kind": 5})).body.decode()]
        shown += [(await call(app, "GET", "/poll/g/i", {"Authorization": f"Bearer {bad}"})).body.decode()]

    told = "\n".join([*shown, caplog.text, repr(auth), repr(app)])
    assert [] == [secret for secret in (good, bad, *good.split("."), "do-not-tell") if secret in told]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("missing", "the public key .*missing.pem cannot be read: No such file"),
        ("garbage", "garbage.pem is not a public key in PEM"),
        ("p521", "p521.pem is a key of a kind that signs no tokens here"),
    ],
)
def test_keys_that_cannot_be_used(tmp_path: Path, kind: str, text: str) -> None:
    """A key that is not there, no key or of another kind is named."""
    (tmp_path / "garbage.pem").write_text("-----BEGIN PUBLIC KEY-----\n")
    path = write_public_key(tmp_path, "p521") if kind == "p521" else str(tmp_path / f"{kind}.pem")

    with pytest.raises(InvalidArgument, match=text):
        Auth(path)
