-- Everything in columns of type bytea is sealed or wrapped, but for hashes, MACs, and salts.

-- One value, sealed under the key-encryption key: a wrong key is found at start.
CREATE TABLE {schema}.key_checks (
    id smallint PRIMARY KEY CHECK (id = 1),
    value bytea NOT NULL,
    created_at timestamptz NOT NULL
);

-- The vaults, and when each was last heard of; written while it has intents open.
CREATE TABLE {schema}.instances (
    instance_id uuid PRIMARY KEY,
    heartbeat_at timestamptz NOT NULL
);

CREATE TABLE {schema}.data_keys (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    wrapped bytea NOT NULL,
    kek_id text NOT NULL,
    -- Reserved in blocks, ahead of use.
    uses bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, tenant_id, version)
);
CREATE INDEX data_keys_by_kek ON {schema}.data_keys (kek_id);

CREATE TABLE {schema}.oauth_clients (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    oauth_client_id uuid NOT NULL,
    provider text NOT NULL,
    token_endpoint text,
    refresh_endpoint text,
    revocation_endpoint text,
    pushed_authorization_request_endpoint text,
    device_authorization_endpoint text,
    issuer text,
    jwks_uri text,
    auth_method text NOT NULL
        CHECK (auth_method IN ('secret_basic', 'secret_post', 'private_key_jwt', 'none')),
    client_id text NOT NULL,
    key_id text,
    token_params jsonb NOT NULL,
    refresh_margin_ms bigint,
    -- Sealed with the row's version `secret_version`, together with where the secret may be sent.
    secret bytea,
    previous_secret bytea,
    previous_secret_expires_at timestamptz,
    secret_version bigint NOT NULL,
    key_version integer NOT NULL,
    version bigint NOT NULL,
    -- Set while the provider refuses the client.
    refused_at timestamptz,
    refused_error text,
    refused_until timestamptz,
    refusals integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, tenant_id, oauth_client_id)
);

CREATE TABLE {schema}.grants (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    grant_id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('oauth2', 'api_key', 'basic')),
    strategy text NOT NULL CHECK (strategy IN ('refresh_token', 'client_credentials', 'jwt_bearer', 'none')),
    oauth_client_tenant_id uuid,
    oauth_client_id uuid,
    state text NOT NULL CHECK (state IN (
        'exchanging', 'exchange_failed', 'unconfirmed', 'active', 'refresh_failing', 'reauthorization_required',
        'revoking', 'revoked'
    )),
    -- One more with each new set of tokens; 0 before the first.
    version bigint NOT NULL,
    -- One more with each change that others are told of.
    revision bigint NOT NULL,

    -- Sealed with `version` as the row's version.
    credential bytea,
    refresh_token bytea,
    previous_refresh_token bytea,
    previous_until timestamptz,
    -- An answer that came after another one: sealed with `alternate_version`.
    alternate_refresh_token bytea,
    alternate_version bigint,
    key_version integer NOT NULL,

    token_type text NOT NULL DEFAULT '',
    scopes text[] NOT NULL DEFAULT '{}',
    scope_raw text NOT NULL DEFAULT '',
    token_names text[] NOT NULL DEFAULT '{}',
    issued_at timestamptz,
    expires_at timestamptz,
    refresh_token_expires_at timestamptz,
    raw_json text NOT NULL DEFAULT '',
    parameters jsonb NOT NULL,

    -- The lease on the grant's token endpoint, and what its holder is about.
    fence bigint NOT NULL,
    lease_until timestamptz,
    intent_kind text CHECK (intent_kind IN ('refresh', 'exchange')),
    intent_instance uuid,
    intent_version bigint,
    intent_at timestamptz,
    -- Set before the first byte leaves: without it, the provider cannot have acted.
    intent_sent_at timestamptz,
    exchange_hash bytea,

    consecutive_failures integer NOT NULL DEFAULT 0,
    last_failure text
        CHECK (last_failure IN ('transient', 'ambiguous', 'rate_limited', 'provider_bug', 'configuration')),
    last_error text NOT NULL DEFAULT '',
    -- A request for tokens after `version` may have been acted on, and its answer was lost.
    answer_lost boolean NOT NULL DEFAULT false,
    reauthorization_cause text CHECK (reauthorization_cause IN (
        'revoked', 'expired', 'lost_rotation', 'account_disabled', 'admin_action', 'interaction_required'
    )),
    refreshed_at timestamptz,
    next_refresh_at timestamptz,
    -- No request goes to the provider before.
    retry_at timestamptz,
    confirm_until timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    revoked_at timestamptz,
    PRIMARY KEY (bucket, tenant_id, grant_id)
);
-- Which buckets have work that is due, and which grants those are.
CREATE INDEX grants_due ON {schema}.grants (next_refresh_at, bucket) WHERE next_refresh_at IS NOT NULL;
CREATE INDEX grants_due_in_bucket ON {schema}.grants (bucket, next_refresh_at) WHERE next_refresh_at IS NOT NULL;
CREATE INDEX grants_to_confirm ON {schema}.grants (confirm_until) WHERE confirm_until IS NOT NULL;
CREATE INDEX grants_with_intent ON {schema}.grants (intent_instance) WHERE intent_instance IS NOT NULL;
CREATE INDEX grants_of_client ON {schema}.grants (bucket, oauth_client_id);

-- Tokens that are to be revoked at their provider: a grant's, or those of an answer that came too late.
CREATE TABLE {schema}.revocations (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    revocation_id uuid NOT NULL,
    grant_id uuid NOT NULL,
    oauth_client_tenant_id uuid NOT NULL,
    oauth_client_id uuid NOT NULL,
    parameters jsonb NOT NULL,
    tokens bytea NOT NULL,
    key_version integer NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    give_up_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, tenant_id, revocation_id)
);
CREATE INDEX revocations_due ON {schema}.revocations (next_attempt_at, bucket);
CREATE INDEX revocations_of_grant ON {schema}.revocations (bucket, grant_id);

-- Who was handed what. `bucket` is the log bucket of the vault that wrote it, `sequence` counts within its chain.
CREATE TABLE {schema}.access_records (
    bucket smallint NOT NULL,
    chain_id uuid NOT NULL,
    sequence bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    grant_id uuid,
    resource text NOT NULL,
    caller text NOT NULL,
    user_id text NOT NULL,
    action text NOT NULL,
    purpose text NOT NULL,
    trace_id text NOT NULL,
    PRIMARY KEY (bucket, chain_id, sequence, occurred_at)
) PARTITION BY RANGE (occurred_at);
CREATE TABLE {schema}.access_records_default PARTITION OF {schema}.access_records DEFAULT;
CREATE INDEX access_records_of_tenant ON {schema}.access_records (tenant_id, occurred_at, chain_id, sequence);

-- One link for each batch of records: the MAC of its records and of the link before it.
CREATE TABLE {schema}.access_links (
    bucket smallint NOT NULL,
    chain_id uuid NOT NULL,
    sequence bigint NOT NULL,
    records integer NOT NULL,
    kek_id text NOT NULL,
    mac bytea NOT NULL,
    occurred_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, chain_id, sequence)
);

ALTER TABLE {schema}.data_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.data_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.data_keys TO hawser_{schema}_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON {schema}.data_keys TO hawser_{schema}_system USING (true);

ALTER TABLE {schema}.oauth_clients ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.oauth_clients FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.oauth_clients TO hawser_{schema}_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON {schema}.oauth_clients TO hawser_{schema}_system USING (true);

ALTER TABLE {schema}.grants ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.grants FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.grants TO hawser_{schema}_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON {schema}.grants TO hawser_{schema}_system USING (true);

ALTER TABLE {schema}.revocations ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.revocations FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.revocations TO hawser_{schema}_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON {schema}.revocations TO hawser_{schema}_system USING (true);

ALTER TABLE {schema}.access_records ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.access_records FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.access_records TO hawser_{schema}_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON {schema}.access_records TO hawser_{schema}_system USING (true);

-- No record and no link is ever changed.
REVOKE UPDATE, DELETE ON {schema}.access_records, {schema}.access_links FROM hawser_{schema}_tenant, hawser_{schema}_system;
