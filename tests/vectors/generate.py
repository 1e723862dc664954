"""Makes the test vectors for BETs and ECTs: `python tests/vectors/generate.py [DIRECTORY]`.

Nothing of lictor is imported: what these files say is said by other hands (cryptography, rfc8785). Every key, time and
id is fixed, Ed25519 is deterministic and ECDSA is made so (RFC 6979), so the same files come out each time.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

Json = dict[str, Any]
Sign = Callable[[bytes], bytes]

NOW = 1_790_000_000
ONE, TWO = "spiffe://example.test/monitor/one", "spiffe://example.test/monitor/two"
AGENT = "spiffe://example.test/agent/a"
VERIFIER = "spiffe://example.test/verifier"
NODE, BET = "650e8400-e29b-41d4-a716-446655440000", "550e8400-e29b-41d4-a716-446655440000"
WID = "a0b1c2d3-e4f5-4789-abcd-ef0123456789"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def digest(data: bytes) -> str:
    return b64(hashlib.sha256(data).digest())


def thumbprint(jwk: Json) -> str:
    """RFC 7638."""
    members = ("crv", "kty", "x", "y") if jwk["kty"] == "EC" else ("crv", "kty", "x")
    return digest(rfc8785.dumps({name: jwk[name] for name in members}))


class Key:
    """A key of an issuer: `alg`, `kid`, the private JWK, and how it signs."""

    def __init__(self, alg: str, iss: str, jwk: Json, sign: Sign) -> None:
        self.alg, self.kid, self.sign = alg, thumbprint(jwk), sign
        self.jwk = {**jwk, "kid": self.kid, "iss": iss}


def ed25519_key(iss: str, seed: bytes) -> Key:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return Key("EdDSA", iss, {"kty": "OKP", "crv": "Ed25519", "x": b64(raw), "d": b64(seed)}, key.sign)


def p256_key(iss: str, secret: int) -> Key:
    key = ec.derive_private_key(secret, ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    x, y, d = (b64(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y, secret))

    def sign(data: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return Key("ES256", iss, {"kty": "EC", "crv": "P-256", "x": x, "y": y, "d": d}, sign)


MAIN = ed25519_key(ONE, bytes(range(32)))
OTHER = p256_key(TWO, int.from_bytes(bytes(range(1, 33)), "big"))
STRANGER = ed25519_key(ONE, bytes(range(32, 64)))
"""In no key set."""


def token(claims: Json | bytes, header: Json | None = None, key: Key = MAIN) -> str:
    """A compact JWS of exactly this header and these claims, whatever is wrong with them."""
    full = {"alg": key.alg, "kid": key.kid, **(header or {})}
    payload = claims if isinstance(claims, bytes) else rfc8785.dumps(claims)
    signing_input = f"{b64(rfc8785.dumps({k: v for k, v in full.items() if v is not None}))}.{b64(payload)}"
    return f"{signing_input}.{b64(key.sign(signing_input.encode()))}"


def entry(seq: int, timestamp: float, **more: Any) -> Json:
    return {
        "seq": seq,
        "timestamp": timestamp,
        "agent_id": AGENT,
        "action_type": "tool_call",
        "action_target": "urn:example:tool:search#tools/find",
        "action_parameters": {"method": "POST"},
        "decision": "allow",
        "reason": "allowed",
        "behaviors": [],
        "wid": WID,
        "node": NODE,
        "lineage": "root",
        **more,
    }


ENTRIES = [
    entry(5, NOW - 50.5),
    entry(6, NOW - 49.999999, action_type="http_request", action_target="https://xn--bcher-kva.example/ü€😀\u2028"),
    entry(9, NOW - 1, action_parameters={"sizes": [0, 0.001, 0.1, 9007199254740991], "€": None, 'a\u0000"\\': True}),
]


def evidence(entries: list[Json]) -> str:
    """`bhv_evidence`: SHA-256 over the JCS array."""
    return digest(rfc8785.dumps(entries))


BET_CLAIMS: Json = {
    "iss": ONE,
    "sub": AGENT,
    "aud": [VERIFIER],
    "iat": NOW,
    "exp": NOW + 3600,
    "jti": BET,
    "wid": WID,
    "exec_act": "behavioral_verification",
    "par": [NODE],
    "pred": [NODE],
    "bhv_policy": "urn:example:policy:data-access",
    "bhv_result": "pass",
    "bhv_evidence": evidence(ENTRIES),
    "bhv_window": {"start": NOW - 60.25, "end": NOW},
    "bhv_details": [{"behavior_id": "bhv-001", "result": "pass"}],
    "ext": {"log_origin": "example.test/monitor/one", "first_seq": 5, "count": 3, "checkpoint_size": 10},
}
ECT_CLAIMS: Json = {
    "iss": ONE,
    "sub": AGENT,
    "aud": [VERIFIER, TWO],
    "iat": NOW,
    "exp": NOW + 600,
    "jti": NODE,
    "wid": WID,
    "exec_act": "agent_execution",
    "par": [],
    "pred": [],
    "ext": {"observed": True},
    "ect_ext": {"observed": True},
}


class Vectors:
    """Vectors of one kind of token; `claims` is a good one that the bad ones differ from in one thing."""

    def __init__(self, typ: str, claims: Json) -> None:
        self.typ, self.claims = typ, claims
        self.found: list[Json] = []

    def add(self, name: str, shows: str, text: str, good: bool, **more: Any) -> None:
        self.found.append({"name": name, "shows": shows, "good": good, "token": text, **more})

    def good(self, name: str, shows: str, header: Json | None = None, key: Key = MAIN, **changes: Any) -> None:
        entries = changes.pop("entries", None)
        more = {} if entries is None else {"entries": [rfc8785.dumps(e).decode() for e in entries]}
        self.add(name, shows, token(self.change(changes), {"typ": self.typ, **(header or {})}, key), True, **more)

    def bad(self, name: str, shows: str, header: Json | None = None, key: Key = MAIN, **changes: Any) -> None:
        self.add(name, shows, token(self.change(changes), {"typ": self.typ, **(header or {})}, key), False)

    def change(self, changes: Json) -> Json:
        """None takes a claim away."""
        return {name: value for name, value in {**self.claims, **changes}.items() if value is not None}

    def common(self) -> None:
        """What is wrong with either kind in the same way."""
        good = token(self.claims, {"typ": self.typ})
        head, body, signature = good.split(".")
        self.bad("wrong-typ", "`typ` is JWT: a token of another kind", {"typ": "JWT"})
        self.bad("no-typ", "no `typ`", {"typ": None})
        self.bad("unknown-kid", "a key that nobody vouches for", key=STRANGER)
        self.bad("kid-of-another-issuer", "signed by two, said to be of one", key=OTHER)
        self.bad("signed-by-another-key", "the right `kid`, another key's signature", {"kid": MAIN.kid}, key=STRANGER)
        self.bad("unknown-crit", "`crit` names what must be understood and is not", {"crit": ["b64"], "b64": False})
        none = f"{b64(rfc8785.dumps({'alg': 'none', 'kid': MAIN.kid, 'typ': self.typ}))}.{body}"
        self.add("alg-none", "`alg` none without a signature", f"{none}.", False)
        self.add("alg-none-with-bytes", "`alg` none with some signature", f"{none}.{signature}", False)
        mac_head = b64(rfc8785.dumps({"alg": "HS256", "kid": MAIN.kid, "typ": self.typ}))
        public = base64.urlsafe_b64decode(MAIN.jwk["x"] + "=")
        mac = hmac.digest(public, f"{mac_head}.{body}".encode(), "sha256")
        self.add("hmac-with-the-public-key", "HS256 keyed with the public key", f"{mac_head}.{body}.{b64(mac)}", False)
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        stray = alphabet[alphabet.index(signature[-1]) ^ 1]
        self.add("stray-bits", "a second base64url spelling of a signature", f"{good[:-1]}{stray}", False)
        self.add("padded", "base64url with padding", f"{good}==", False)
        changed = b64(rfc8785.dumps({**self.claims, "sub": "spiffe://example.test/agent/b"}))
        self.add("changed-claim", "a claim changed after signing", f"{head}.{changed}.{signature}", False)
        self.add("truncated", "without its signature", f"{head}.{body}", False)
        twice = rfc8785.dumps(self.claims)[:-1] + b',"sub":"spiffe://example.test/agent/b"}'
        self.add("duplicate-claim", "a claim stands twice", token(twice, {"typ": self.typ}), False)
        self.add("not-json", "the claims are no JSON object", token(b"[]", {"typ": self.typ}), False)
        self.bad("wrong-audience", "made out to somebody else", aud=["spiffe://example.test/verifier/other"])
        self.bad("expired", "`exp` has passed", iat=NOW - 700, exp=NOW - 10)
        self.bad("from-the-future", "`iat` is beyond the clock skew of 30 s", iat=NOW + 40, exp=NOW + 640)
        self.bad("exp-before-iat", "`exp` is not after `iat`", exp=NOW)
        self.bad("bool-as-time", "`iat` is true", iat=True)
        self.bad("fraction-as-time", "`iat` has a fraction", iat=NOW + 0.5)
        self.bad("jti-no-uuid", "`jti` is no UUID", jti="1")
        self.bad("names-differ", "`par` and `pred` differ", par=[BET], pred=[WID])
        self.bad("no-predecessors", "neither `par` nor `pred`", par=None, pred=None)
        self.bad("predecessor-twice", "a predecessor stands twice", par=[BET, BET], pred=[BET, BET])
        self.bad("extension-too-large", "`ext` has more than 4096 bytes", ext={"x": "y" * 4100}, ect_ext=None)
        self.bad("extension-too-deep", "`ext` nests deeper than 5", ext={"x": [[[[[1]]]]]}, ect_ext=None)
        self.bad("extensions-clash", "`ext` and `ect_ext` differ", ext={"x": 1}, ect_ext={"x": 2})
        self.bad("control-character", "an id that would steer a terminal", sub="spiffe://example.test/agent/\u001b[2J")
        for name in ("iss", "aud", "iat", "exp", "jti"):
            self.bad(f"no-{name}", f"no `{name}`", **{name: None})

    def write(self, folder: Path) -> None:
        context = {"now": NOW, "audience": [VERIFIER], "keys": "../keys.json"}
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**context, "vectors": self.found}, indent=1, ensure_ascii=True)
        (folder / "vectors.json").write_text(text + "\n")
        rows = [f"| `{v['name']}` | {'good' if v['good'] else 'bad'} | {v['shows']} |" for v in self.found]
        lines = [f"# Test vectors: `{self.typ}`", "", "Made by `../generate.py`; `../README.md` says how to read them."]
        table = ["", "| name | must be | shows |", "|---|---|---|", *rows, ""]
        (folder / "README.md").write_text("\n".join([*lines, *table]))


def bets() -> Vectors:
    vectors = Vectors("bet+jwt", BET_CLAIMS)
    good, bad = vectors.good, vectors.bad
    good("window-of-three", "evidence over three entries with hard numbers, escapes and text", entries=ENTRIES)
    good("window-of-one", "evidence over one entry", entries=ENTRIES[:1], bhv_evidence=evidence(ENTRIES[:1]))
    good("empty-window", "the evidence of `[]`", entries=[], bhv_evidence=evidence([]))
    good("fail", "a result of fail is good evidence", bhv_result="fail",
         bhv_details=[{"behavior_id": "b", "result": "fail"}])  # fmt: skip
    good("partial", "one of two violated", bhv_result="partial",
         bhv_details=[{"behavior_id": n, "result": r} for n, r in (("b", "fail"), ("c", "pass"))])  # fmt: skip
    good("es256", "ES256 with a P-256 key", key=OTHER, iss=TWO)
    good("alg-ed25519", "the algorithm by its name of RFC 9864", {"alg": "Ed25519"})
    good("typ-with-application", "`typ` as a whole media type", {"typ": "application/bet+jwt"})
    good("aud-as-text", "`aud` is one string", aud=VERIFIER)
    good("only-par", "the older name of the predecessors alone", pred=None)
    behavioral = {name: value for name, value in BET_CLAIMS.items() if name.startswith("bhv_")}
    gone = dict.fromkeys(behavioral)
    good("claims-in-ext", "`bhv_*` in the extension object", **gone, ext={**behavioral})
    vectors.common()
    bad("typ-of-an-ect", "`typ` of an ECT", {"typ": "exec+jwt"})
    bad("exec-act-of-an-ect", "`exec_act` of an ECT", exec_act="agent_execution")
    bad("no-parent", "belongs to no node", par=[], pred=[])
    bad("claim-in-two-places", "`bhv_policy` at top level and in `ext`", ext={"bhv_policy": "urn:x"})
    bad("result-unknown", "`bhv_result` is none of pass, fail, partial", bhv_result="ok")
    bad(
        "pass-with-a-failure", "`pass` although a behavior failed", bhv_details=[{"behavior_id": "b", "result": "fail"}]
    )
    bad("window-reversed", "the window ends before it starts", bhv_window={"start": NOW, "end": NOW - 60})
    bad("window-empty", "the window has no time in it", bhv_window={"start": NOW, "end": NOW})
    bad("window-in-the-future", "the window ends after `iat`", bhv_window={"start": NOW, "end": NOW + 31})
    bad("window-array", "the window is an array", bhv_window=[NOW - 60, NOW])
    bad("evidence-no-digest", "`bhv_evidence` is no SHA-256", bhv_evidence=b64(b"this is a hash"))
    bad("evidence-padded", "`bhv_evidence` with padding", bhv_evidence=evidence([]) + "=")
    bad("details-object", "`bhv_details` is an object", bhv_details={"bhv-001": "pass"})
    bad("details-nameless", "a behavior without an id", bhv_details=[{"result": "pass"}])
    bad("count-negative", "a negative count", ext={"count": -1})
    for name in ("sub", "wid", "exec_act", "bhv_policy", "bhv_result", "bhv_evidence", "bhv_window"):
        bad(f"no-{name}", f"no `{name}`", **{name: None})
    return vectors


def ects() -> Vectors:
    vectors = Vectors("exec+jwt", ECT_CLAIMS)
    good, bad = vectors.good, vectors.bad
    good("root", "a root node, with the names of both generations")
    good("child", "a node with two predecessors", par=[BET, WID], pred=[BET, WID])
    good("old-names", "the older `typ`, `par` and `ext` alone", {"typ": "wimse-exec+jwt"}, pred=None, ect_ext=None)
    good("new-names", "the newer `pred` and `ect_ext` alone", par=None, ext=None)
    good("no-workflow", "no `wid`", wid=None)
    good("no-subject", "no `sub`: the issuer's own work", sub=None)
    good("digests", "`inp_hash` and `out_hash`", inp_hash=digest(b"in"), out_hash=digest(b"out"))
    good("es256", "ES256 with a P-256 key", key=OTHER, iss=TWO)
    vectors.common()
    bad("typ-of-a-bet", "`typ` of a BET", {"typ": "bet+jwt"})
    bad("exec-act-of-a-bet", "a BET's `exec_act`", exec_act="behavioral_verification")
    bad("no-exec_act", "no `exec_act`", exec_act=None)
    bad("own-predecessor", "is its own predecessor", par=[NODE], pred=[NODE])
    bad("too-old", "`iat` is more than 900 s ago", iat=NOW - 901, exp=NOW + 60)
    bad("hash-no-digest", "`inp_hash` is no SHA-256", inp_hash="abc")
    many = [f"00000000-0000-4000-8000-{number:012}" for number in range(101)]
    bad("too-many-predecessors", "more than 100 predecessors", par=many, pred=many)
    return vectors


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    keys = {"keys": [MAIN.jwk, OTHER.jwk]}
    (folder / "keys.json").write_text(json.dumps(keys, indent=1) + "\n")
    bets().write(folder / "bet")
    ects().write(folder / "ect")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
