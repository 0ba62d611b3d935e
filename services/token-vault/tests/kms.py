#!/usr/bin/env python3
"""AWS KMS, IAM and STS as moto plays them, for the tests of key-encryption keys.

Prints one line of JSON with what there is, then obeys lines on standard input, answering each with a line:

    disable KEY | enable KEY | delete KEY
    deny ACTION | allow         for whoever the role or user is

It ends with its standard input. Requests are authenticated as AWS does it, signatures included.
"""

import json
import logging
import sys

import boto3
import moto.kms.models as kms_models
from moto import settings
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.authorization import ActionAuthenticatorMixin
from moto.core.exceptions import JsonRESTError
from moto.iam.models import iam_backends
from moto.server import ThreadedMotoServer

REGION = "eu-central-1"
TRUST = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:*", "Principal": "*"}]}


class Unusable(JsonRESTError):
    code = 400


def usable(backend, key_id):
    """What KMS does and moto does not: it refuses to use a key that is disabled, or about to be deleted."""
    key = backend.keys.get(backend.any_id_to_key_id(key_id))
    if key is not None and key.key_state == "PendingDeletion":
        raise Unusable("KMSInvalidStateException", f"{key.arn} is pending deletion.")
    if key is not None and not key.enabled:
        raise Unusable("DisabledException", f"{key.arn} is disabled.")


def refuse_unusable_keys():
    encrypt, decrypt = kms_models.KmsBackend.encrypt, kms_models.KmsBackend.decrypt

    def checked_encrypt(self, key_id, plaintext, encryption_context):
        usable(self, key_id)
        return encrypt(self, key_id, plaintext, encryption_context)

    def checked_decrypt(self, ciphertext_blob, encryption_context, key_id=None):
        if key_id is not None:
            usable(self, key_id)
        return decrypt(self, ciphertext_blob, encryption_context, key_id)

    kms_models.KmsBackend.encrypt = checked_encrypt
    kms_models.KmsBackend.decrypt = checked_decrypt


def take_web_identities_unsigned():
    """The one call that a token authenticates and no signature."""
    authorize = ActionAuthenticatorMixin._authenticate_and_authorize_normal_action

    def checked(self, resource="*"):
        if self._get_action() != "AssumeRoleWithWebIdentity":
            authorize(self, resource)

    ActionAuthenticatorMixin._authenticate_and_authorize_normal_action = checked


def policy(*denied):
    allow = {"Effect": "Allow", "Action": ["kms:*"], "Resource": "*"}
    deny = [{"Effect": "Deny", "Action": list(denied), "Resource": "*"}] if denied else []
    return json.dumps({"Version": "2012-10-17", "Statement": [allow, *deny]})


def main():
    refuse_unusable_keys()
    take_web_identities_unsigned()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    session = boto3.Session(aws_access_key_id="setup", aws_secret_access_key="setup", region_name=REGION)
    kms, iam = (session.client(name, endpoint_url=endpoint) for name in ("kms", "iam"))
    keys = [kms.create_key(Description=name)["KeyMetadata"]["Arn"] for name in ("first", "second")]
    kms.create_alias(AliasName="alias/hawser", TargetKeyId=keys[0])
    iam.create_user(UserName="vault")
    made = iam.create_access_key(UserName="vault")["AccessKey"]
    iam.put_user_policy(UserName="vault", PolicyName="kms", PolicyDocument=policy())
    role = iam.create_role(RoleName="vault", AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
    iam.put_role_policy(RoleName="vault", PolicyName="kms", PolicyDocument=policy())
    # From now on.
    ActionAuthenticatorMixin.request_count = 0
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    say(
        {
            "endpoint": endpoint,
            "region": REGION,
            "keys": keys,
            "access_key_id": made["AccessKeyId"],
            "secret_access_key": made["SecretAccessKey"],
            "role": role,
        }
    )
    for line in sys.stdin:
        command, *arguments = line.split()
        obey(command, arguments)
        say({"done": command})
    server.stop()


def obey(command, arguments):
    """In the server's own memory: it does not take unsigned requests any more."""
    backend = kms_models.kms_backends[DEFAULT_ACCOUNT_ID][REGION]
    if command in ("disable", "enable", "delete"):
        key_id = backend.any_id_to_key_id(arguments[0])
        if command == "disable":
            backend.disable_key(key_id)
        elif command == "enable":
            backend.enable_key(key_id)
        else:
            backend.schedule_key_deletion(key_id, 7)
    elif command in ("deny", "allow"):
        iam = iam_backends[DEFAULT_ACCOUNT_ID]["aws"]
        iam.put_user_policy("vault", "kms", policy(*arguments))
        iam.put_role_policy("vault", "kms", policy(*arguments))
    else:
        raise SystemExit(f"no such command: {command}")


def say(value):
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
