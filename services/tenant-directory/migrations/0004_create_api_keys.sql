-- API keys. They belong to the platform, whose bucket and tenant id their rows bear.

CREATE TABLE {schema}.api_keys (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    api_key_id uuid NOT NULL,
    display_name text NOT NULL,
    -- The tenants that it reaches; empty for every one.
    reaches uuid[] NOT NULL,
    role text NOT NULL,
    expires_at timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, tenant_id, api_key_id)
);

ALTER TABLE {schema}.api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.api_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.api_keys TO hawser_{schema}_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON {schema}.api_keys TO hawser_{schema}_system USING (true);

-- A key's secrets, as their SHA-256: the present one, and those that a rotation left good for a while.
CREATE TABLE {schema}.api_key_secrets (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    hash bytea NOT NULL,
    api_key_id uuid NOT NULL,
    prefix text NOT NULL,
    -- NULL for the present one.
    good_until timestamptz,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, hash),
    FOREIGN KEY (bucket, tenant_id, api_key_id) REFERENCES {schema}.api_keys (bucket, tenant_id, api_key_id)
);
CREATE UNIQUE INDEX api_key_secrets_present ON {schema}.api_key_secrets (bucket, api_key_id) WHERE good_until IS NULL;

ALTER TABLE {schema}.api_key_secrets ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.api_key_secrets FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.api_key_secrets TO hawser_{schema}_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON {schema}.api_key_secrets TO hawser_{schema}_system USING (true);

-- Finds the key behind a hash. The bucket is that of the hash, so that looking up spreads over all shards.
CREATE TABLE {schema}.api_key_hashes (
    bucket smallint NOT NULL,
    hash bytea NOT NULL,
    api_key_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (bucket, hash)
);

ALTER TABLE {schema}.api_key_hashes ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.api_key_hashes FORCE ROW LEVEL SECURITY;
CREATE POLICY system ON {schema}.api_key_hashes TO hawser_{schema}_system USING (true);
