-- A tenant's data keys as a whole: which version seals, and whether they were destroyed.
CREATE TABLE {schema}.tenant_keys (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    -- The version that seals; 0 where there was never any.
    current_version integer NOT NULL CHECK (current_version >= 0),
    current_made_at timestamptz NOT NULL,
    -- No value is sealed under an older version than this one, but for what is being written.
    resealed_version integer NOT NULL,
    -- Set once, and for good: nothing of the tenant's is opened, and no key is made for it any more.
    shredded_at timestamptz,
    keys_destroyed bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (bucket, tenant_id)
);
CREATE INDEX tenant_keys_behind ON {schema}.tenant_keys (bucket, tenant_id)
    WHERE resealed_version < current_version AND shredded_at IS NULL;

ALTER TABLE {schema}.data_keys
    ADD COLUMN superseded_at timestamptz,
    -- Another service may have sealed something under a key that was derived from this one.
    ADD COLUMN is_handed_out boolean NOT NULL DEFAULT false;
DROP INDEX {schema}.data_keys_by_kek;
CREATE INDEX data_keys_by_kek ON {schema}.data_keys (kek_id, bucket, tenant_id, version);
CREATE INDEX data_keys_to_retire ON {schema}.data_keys (superseded_at, tenant_id, version)
    WHERE superseded_at IS NOT NULL AND NOT is_handed_out;

-- The oldest of the data key versions in the headers of what the row has sealed; as bytes it is ordered as its number is.
ALTER TABLE {schema}.grants
    ADD COLUMN oldest_key_version bytea GENERATED ALWAYS AS (LEAST(
        substring(credential FROM 5 FOR 4),
        substring(refresh_token FROM 5 FOR 4),
        substring(previous_refresh_token FROM 5 FOR 4),
        substring(alternate_refresh_token FROM 5 FOR 4)
    )) STORED;
CREATE INDEX grants_by_key_version ON {schema}.grants (bucket, tenant_id, oldest_key_version)
    WHERE oldest_key_version IS NOT NULL;

-- What goes through all keys or all sealed values, one runner at a time, by a fenced lease.
CREATE TABLE {schema}.key_jobs (
    job_id uuid PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('rewrap', 'rotate', 'erase')),
    -- The key-encryption key to wrap under; the tenant, or * for all.
    subject text NOT NULL,
    requested_at timestamptz NOT NULL,
    fence bigint NOT NULL DEFAULT 0,
    lease_until timestamptz NOT NULL,
    -- How often it has gone through everything.
    passes integer NOT NULL DEFAULT 0,
    done bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    finished_at timestamptz
);
CREATE UNIQUE INDEX key_jobs_unfinished ON {schema}.key_jobs (kind, subject) WHERE finished_at IS NULL;

ALTER TABLE {schema}.tenant_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.tenant_keys TO hawser_{schema}_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON {schema}.tenant_keys TO hawser_{schema}_system USING (true);

-- The owner sees rows while their security is not forced.
ALTER TABLE {schema}.data_keys NO FORCE ROW LEVEL SECURITY;
INSERT INTO {schema}.tenant_keys (bucket, tenant_id, current_version, current_made_at, resealed_version)
SELECT bucket, tenant_id, max(version), max(created_at), min(version)
FROM {schema}.data_keys
GROUP BY bucket, tenant_id;
ALTER TABLE {schema}.data_keys FORCE ROW LEVEL SECURITY;
ALTER TABLE {schema}.tenant_keys FORCE ROW LEVEL SECURITY;

-- A tenant's keys end, and the row that says so does not.
REVOKE DELETE ON {schema}.tenant_keys FROM hawser_{schema}_tenant, hawser_{schema}_system;
