-- Access records by day. A day's records lie in the partition of its number (days since 1970, UTC) modulo 416, which is
-- emptied before its turn comes again: so nobody needs the right to make or drop tables while running.

ALTER TABLE {schema}.access_records NO FORCE ROW LEVEL SECURITY;
ALTER TABLE {schema}.access_records RENAME TO old_access_records;
ALTER INDEX {schema}.access_records_pkey RENAME TO old_access_records_pkey;
ALTER INDEX {schema}.access_records_of_tenant RENAME TO old_access_records_of_tenant;

-- Who was handed what. `bucket` is the log bucket of the vault that wrote it, `sequence` counts within its chain.
CREATE TABLE {schema}.access_records (
    bucket smallint NOT NULL,
    slot smallint NOT NULL,
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
    -- Of the record and of the one before it; records of before this migration share that of the last one of their batch.
    mac bytea,
    PRIMARY KEY (bucket, chain_id, sequence, slot)
) PARTITION BY LIST (slot);
CREATE INDEX access_records_of_tenant ON {schema}.access_records (tenant_id, occurred_at, chain_id, sequence);
CREATE INDEX access_records_of_grant ON {schema}.access_records (grant_id, occurred_at, chain_id, sequence);

-- Records are written and read through the whole; of a partition, the vault may but end a day.
DO $$
BEGIN
    FOR slot IN 0..415 LOOP
        EXECUTE format('CREATE TABLE {schema}.access_records_%s PARTITION OF {schema}.access_records FOR VALUES IN (%s)',
            lpad(slot::text, 3, '0'), slot);
        EXECUTE format('REVOKE ALL ON {schema}.access_records_%s FROM hawser_{schema}_tenant, hawser_{schema}_system',
            lpad(slot::text, 3, '0'));
        EXECUTE format('GRANT TRUNCATE ON {schema}.access_records_%s TO hawser_{schema}_system',
            lpad(slot::text, 3, '0'));
    END LOOP;
END $$;

-- A chain of records for each run of a vault, and where what is kept of it begins: the last record that is not kept, its
-- MAC, and a seal over both, so that nobody else can move it.
CREATE TABLE {schema}.access_chains (
    bucket smallint NOT NULL,
    chain_id uuid NOT NULL,
    kek_id text NOT NULL,
    started_at timestamptz NOT NULL,
    anchor_sequence bigint NOT NULL DEFAULT 0,
    anchor_mac bytea NOT NULL DEFAULT '',
    anchor_seal bytea NOT NULL DEFAULT '',
    PRIMARY KEY (bucket, chain_id)
);

-- The newest day whose records are not kept any more.
CREATE TABLE {schema}.access_retention (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    dropped_to integer NOT NULL
);

INSERT INTO {schema}.access_records
    (bucket, slot, chain_id, sequence, occurred_at, tenant_id, grant_id, resource, caller, user_id, action, purpose, trace_id, mac)
SELECT r.bucket, mod(floor(extract(epoch FROM r.occurred_at) / 86400)::integer, 416), r.chain_id, r.sequence, r.occurred_at,
    r.tenant_id, r.grant_id, r.resource, r.caller, r.user_id, r.action, r.purpose, r.trace_id, l.mac
FROM {schema}.old_access_records AS r
LEFT JOIN {schema}.access_links AS l ON l.bucket = r.bucket
  AND l.chain_id = r.chain_id
  AND l.sequence = r.sequence;
INSERT INTO {schema}.access_chains (bucket, chain_id, kek_id, started_at)
SELECT bucket, chain_id, min(kek_id), min(occurred_at)
FROM {schema}.access_links
GROUP BY bucket, chain_id;
INSERT INTO {schema}.access_retention (dropped_to)
SELECT floor(extract(epoch FROM least(now(), min(occurred_at))) / 86400)::integer - 1
FROM {schema}.old_access_records;
DROP TABLE {schema}.old_access_records, {schema}.access_links;

ALTER TABLE {schema}.access_records ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.access_records FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.access_records TO hawser_{schema}_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON {schema}.access_records TO hawser_{schema}_system USING (true);

-- No record is ever changed, and no chain forgotten.
REVOKE INSERT, UPDATE, DELETE ON {schema}.access_records FROM hawser_{schema}_tenant;
REVOKE UPDATE, DELETE ON {schema}.access_records FROM hawser_{schema}_system;
REVOKE DELETE ON {schema}.access_chains FROM hawser_{schema}_system;
REVOKE INSERT, DELETE ON {schema}.access_retention FROM hawser_{schema}_system;
