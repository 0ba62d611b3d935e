#!/usr/bin/env python3
"""The formats of docs/sealed-values.md a second time, with Python's `cryptography`.

    vectors.py FILE           recomputes every vector in FILE from its inputs, and opens what it says is sealed
    vectors.py --write FILE   writes FILE anew from the inputs below
"""

import hashlib
import hmac
import json
import struct
import sys
import uuid

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE = bytes(12)


class Refused(Exception):
    pass


def derive(key, salt, info):
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(key)


def fields(*values):
    return b"".join(struct.pack(">I", len(value)) + value for value in values)


def lock(root, purpose, prefix, place, plaintext, salt):
    head = prefix + salt + derive(root, salt, purpose + b" commitment")
    return head + AESGCM(derive(root, salt, purpose + b" key")).encrypt(NONCE, plaintext, head + place)


def unlock(root, purpose, prefix_len, place, locked):
    head, body = locked[: prefix_len + 64], locked[prefix_len + 64 :]
    salt, commitment = head[prefix_len : prefix_len + 32], head[prefix_len + 32 :]
    if len(body) < 16:
        raise Refused("not sealed")
    if not hmac.compare_digest(commitment, derive(root, salt, purpose + b" commitment")):
        raise Refused("wrong key")
    try:
        return AESGCM(derive(root, salt, purpose + b" key")).decrypt(NONCE, body, head + place)
    except InvalidTag:
        raise Refused("refused") from None


def associated_data(place):
    return fields(
        place["service"].encode(),
        place["table"].encode(),
        place["column"].encode(),
        bytes.fromhex(place["tenant"]),
        bytes.fromhex(place["row"]),
        struct.pack(">q", place["row_version"]),
    )


def seal(vector):
    return lock(
        bytes.fromhex(vector["data_key"]),
        b"hawser sealed value v1",
        b"HSV\x01" + struct.pack(">I", vector["data_key_version"]),
        associated_data(vector["place"]),
        bytes.fromhex(vector["plaintext"]),
        bytes.fromhex(vector["salt"]),
    )


def open_sealed(vector):
    sealed = bytes.fromhex(vector["sealed"])
    if sealed[:3] != b"HSV":
        raise Refused("not sealed")
    if sealed[3] != 1:
        raise Refused("unknown format")
    if struct.unpack(">I", sealed[4:8])[0] != vector["data_key_version"]:
        raise Refused("key version")
    return unlock(
        bytes.fromhex(vector["data_key"]),
        b"hawser sealed value v1",
        8,
        associated_data(vector["place"]),
        sealed,
    )


def wrapping_place(vector):
    return fields(b"data key", bytes.fromhex(vector["tenant"]), struct.pack(">I", vector["data_key_version"]))


def wrap(vector):
    kek_id = vector["kek_id"].encode()
    return lock(
        bytes.fromhex(vector["kek"]),
        b"hawser wrapped key v1",
        b"HWK\x01" + bytes([len(kek_id)]) + kek_id,
        wrapping_place(vector),
        bytes.fromhex(vector["data_key"]),
        bytes.fromhex(vector["salt"]),
    )


def mac_key_place(vector):
    return fields(b"mac key", vector["of"].encode(), vector["purpose"].encode())


def wrap_mac_key(vector):
    kek_id = vector["kek_id"].encode()
    return lock(
        bytes.fromhex(vector["kek"]),
        b"hawser wrapped key v1",
        b"HWK\x01" + bytes([len(kek_id)]) + kek_id,
        mac_key_place(vector),
        bytes.fromhex(vector["mac_key"]),
        bytes.fromhex(vector["salt"]),
    )


def unwrap_mac_key(vector):
    return unlock(
        bytes.fromhex(vector["kek"]),
        b"hawser wrapped key v1",
        5 + len(vector["kek_id"].encode()),
        mac_key_place(vector),
        bytes.fromhex(vector["wrapped"]),
    )


def key_place(vector):
    """What a key service is given: as bytes, and as names with values."""
    if "tenant" in vector:
        names = {
            "hawser:key": "data key",
            "hawser:tenant": str(uuid.UUID(vector["tenant"])),
            "hawser:version": str(vector["data_key_version"]),
        }
        return wrapping_place(vector), names
    names = {"hawser:key": "mac key", "hawser:of": vector["of"], "hawser:purpose": vector["purpose"]}
    return mac_key_place(vector), names


def unwrap(vector):
    prefix_len = 5 + len(vector["kek_id"].encode())
    return unlock(
        bytes.fromhex(vector["kek"]),
        b"hawser wrapped key v1",
        prefix_len,
        wrapping_place(vector),
        bytes.fromhex(vector["wrapped"]),
    )


def service_key(vector):
    return derive(bytes.fromhex(vector["data_key"]), None, b"hawser service key v1" + fields(vector["service"].encode()))


def fingerprint(vector):
    return derive(bytes.fromhex(vector["kek"]), None, b"hawser key-encryption key fingerprint v1")[:8]


def mac(vector):
    key = derive(bytes.fromhex(vector["kek"]), None, b"hawser mac key v1" + fields(vector["purpose"].encode()))
    return hmac.new(key, bytes.fromhex(vector["message"]), hashlib.sha256).digest()


def check(vectors):
    for vector in vectors["sealed"]:
        assert associated_data(vector["place"]).hex() == vector["associated_data"], vector["name"]
        assert seal(vector).hex() == vector["sealed"], vector["name"]
        assert open_sealed(vector).hex() == vector["plaintext"], vector["name"]
    for vector in vectors["refused"]:
        try:
            open_sealed(vector)
        except Refused as error:
            assert str(error) == vector["reason"], (vector["name"], str(error))
        else:
            raise AssertionError(vector["name"] + " was opened")
    for vector in vectors["wrapped"]:
        assert wrap(vector).hex() == vector["wrapped"], vector["name"]
        assert unwrap(vector).hex() == vector["data_key"], vector["name"]
    for vector in vectors["service_keys"]:
        assert service_key(vector).hex() == vector["service_key"], vector["service"]
    for vector in vectors["mac_keys"]:
        assert fingerprint(vector).hex() == vector["fingerprint"], vector["purpose"]
        assert mac(vector).hex() == vector["mac"], vector["purpose"]
    for vector in vectors["wrapped_mac_keys"]:
        assert wrap_mac_key(vector).hex() == vector["wrapped"], vector["of"]
        assert unwrap_mac_key(vector).hex() == vector["mac_key"], vector["of"]
    for vector in vectors["key_places"]:
        associated, names = key_place(vector)
        assert associated.hex() == vector["associated_data"], vector
        assert names == vector["names"], vector
    return sum(len(group) for group in vectors.values())


def pattern(label, length=32):
    """Bytes that look random and are the same each time."""
    return hashlib.shake_256(label.encode()).digest(length)


def written():
    tenant = bytes.fromhex("0190a0b1c2d3740588060708090a002a")
    place = {
        "service": "vault",
        "table": "grants",
        "column": "refresh_token",
        "tenant": tenant.hex(),
        "row": "0190a0b1c2d37405880607080911002a",
        "row_version": 3,
    }
    empty = {"service": "", "table": "", "column": "", "tenant": bytes(16).hex(), "row": "", "row_version": -1}
    sealed = []
    for name, version, where, plaintext in [
        ("a refresh token", 1, place, b"1//0gexample-refresh-token"),
        ("nothing", 1, place, b""),
        ("one block and a byte, high version", 4294967295, place, pattern("block", 17)),
        ("empty fields", 2, empty, b"x"),
        ("text beyond ASCII", 7, place | {"table": "größe", "row": "00" * 40}, "schlüssel".encode()),
    ]:
        vector = {
            "name": name,
            "data_key_version": version,
            "data_key": pattern("data key " + name).hex(),
            "place": where,
            "plaintext": plaintext.hex(),
            "salt": pattern("salt " + name).hex(),
        }
        vector["associated_data"] = associated_data(where).hex()
        vector["sealed"] = seal(vector).hex()
        sealed.append(vector)

    first = sealed[0]
    refused = []

    def refuse(name, reason, **changes):
        kept = {key: first[key] for key in ("data_key_version", "data_key", "place", "sealed")}
        refused.append({"name": name, "reason": reason} | kept | changes)

    altered = bytearray.fromhex(first["sealed"])
    altered[-1] ^= 1
    refuse("a bit of the tag", "refused", sealed=altered.hex())
    refuse("another column", "refused", place=place | {"column": "access_token"})
    refuse("an older version of the row", "refused", place=place | {"row_version": 2})
    refuse("another tenant", "refused", place=place | {"tenant": bytes(16).hex()})
    refuse("another data key", "wrong key", data_key=pattern("another").hex())
    refuse("another data key version", "key version", data_key_version=2)
    refuse("a later format", "unknown format", sealed="48535602" + first["sealed"][8:])
    refuse("other bytes", "not sealed", sealed="00" * 100)
    refuse("cut short", "not sealed", sealed=first["sealed"][: 2 * 87])

    kek = pattern("kek")
    wrapped = []
    for kek_id, version in [("2026-07", 1), ("arn:aws:kms:eu-central-1:000000000000:key/1", 12)]:
        vector = {
            "name": kek_id,
            "kek_id": kek_id,
            "kek": kek.hex(),
            "tenant": tenant.hex(),
            "data_key_version": version,
            "data_key": pattern("wrapped data key").hex(),
            "salt": pattern("salt " + kek_id).hex(),
        }
        vector["wrapped"] = wrap(vector).hex()
        wrapped.append(vector)

    service_keys = []
    for service in ["ingest", "broker"]:
        vector = {"data_key": first["data_key"], "service": service}
        vector["service_key"] = service_key(vector).hex()
        service_keys.append(vector)

    mac_keys = []
    for purpose in ["access records", ""]:
        vector = {"kek": kek.hex(), "purpose": purpose, "message": b"a record".hex()}
        vector["fingerprint"] = fingerprint(vector).hex()
        vector["mac"] = mac(vector).hex()
        mac_keys.append(vector)

    wrapped_mac_keys = []
    for of in ["2025-01", "arn:aws:kms:eu-central-1:000000000000:key/1"]:
        vector = {
            "kek_id": "2026-07",
            "kek": kek.hex(),
            "of": of,
            "purpose": "access records",
            "mac_key": pattern("mac key " + of).hex(),
            "salt": pattern("mac salt " + of).hex(),
        }
        vector["wrapped"] = wrap_mac_key(vector).hex()
        wrapped_mac_keys.append(vector)

    key_places = []
    for vector in [
        {"tenant": tenant.hex(), "data_key_version": 12},
        {"of": "2025-01", "purpose": "access records"},
    ]:
        associated, vector["names"] = key_place(vector)
        vector["associated_data"] = associated.hex()
        key_places.append(vector)

    return {
        "sealed": sealed,
        "refused": refused,
        "wrapped": wrapped,
        "service_keys": service_keys,
        "mac_keys": mac_keys,
        "wrapped_mac_keys": wrapped_mac_keys,
        "key_places": key_places,
    }


def main():
    *options, path = sys.argv[1:]
    if options == ["--write"]:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(written(), file, indent=2, ensure_ascii=False)
            file.write("\n")
    with open(path, encoding="utf-8") as file:
        print(check(json.load(file)), "vectors hold")


if __name__ == "__main__":
    main()
