-- Where providers send their webhooks.
CREATE TABLE ingest.sources (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    source_id text NOT NULL,
    -- This source, and no later one that is called the same.
    source_key uuid NOT NULL,
    -- SHA-256 of the token in the address; the token itself is sealed.
    token_hash bytea NOT NULL,
    token_sealed bytea NOT NULL,
    -- The platform's or the tenant's own; no integration, no connections.
    integration_tenant_id uuid,
    integration_id text NOT NULL,
    scheme text NOT NULL,
    scheme_options jsonb NOT NULL,
    trigger_streams jsonb NOT NULL,
    sealed_bodies boolean NOT NULL,
    accept_unverified boolean NOT NULL,
    -- Goes up with each rotation; the secret before has the version before.
    secret_version bigint NOT NULL,
    secret_sealed bytea NOT NULL,
    previous_secret_sealed bytea,
    previous_secret_until timestamptz,
    revision bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, tenant_id, source_id),
    UNIQUE (bucket, token_hash)
);

-- Webhooks as they came in. A day's lie in the partition of its number (since 1970, UTC) modulo 32, which is emptied before
-- its turn comes again; an event's id says its time, and so its partition. Nobody needs the right to create tables
-- while running.
CREATE TABLE ingest.events (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    event_id uuid NOT NULL,
    slot smallint NOT NULL,
    -- The source's own tenant: the platform, where the event was split off from one of the platform's.
    source_tenant_id uuid NOT NULL,
    source_id text NOT NULL,
    source_key uuid NOT NULL,
    inbound_event_id uuid,
    external_event_id text NOT NULL,
    event_type text NOT NULL,
    -- [["account", "123"], …]: one name may have several values.
    routing_keys jsonb NOT NULL,
    headers jsonb NOT NULL,
    body bytea NOT NULL,
    -- 0: as it came; 1: sealed.
    body_form smallint NOT NULL,
    state smallint NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    replays integer NOT NULL DEFAULT 0,
    connection_ids uuid[] NOT NULL DEFAULT '{}',
    job_ids text[] NOT NULL DEFAULT '{}',
    last_error text NOT NULL DEFAULT '',
    traceparent text NOT NULL,
    occurred_at timestamptz,
    received_at timestamptz NOT NULL,
    processed_at timestamptz,
    PRIMARY KEY (bucket, tenant_id, event_id, slot)
) PARTITION BY LIST (slot);
CREATE TABLE ingest.events_00 PARTITION OF ingest.events FOR VALUES IN (0);
CREATE TABLE ingest.events_01 PARTITION OF ingest.events FOR VALUES IN (1);
CREATE TABLE ingest.events_02 PARTITION OF ingest.events FOR VALUES IN (2);
CREATE TABLE ingest.events_03 PARTITION OF ingest.events FOR VALUES IN (3);
CREATE TABLE ingest.events_04 PARTITION OF ingest.events FOR VALUES IN (4);
CREATE TABLE ingest.events_05 PARTITION OF ingest.events FOR VALUES IN (5);
CREATE TABLE ingest.events_06 PARTITION OF ingest.events FOR VALUES IN (6);
CREATE TABLE ingest.events_07 PARTITION OF ingest.events FOR VALUES IN (7);
CREATE TABLE ingest.events_08 PARTITION OF ingest.events FOR VALUES IN (8);
CREATE TABLE ingest.events_09 PARTITION OF ingest.events FOR VALUES IN (9);
CREATE TABLE ingest.events_10 PARTITION OF ingest.events FOR VALUES IN (10);
CREATE TABLE ingest.events_11 PARTITION OF ingest.events FOR VALUES IN (11);
CREATE TABLE ingest.events_12 PARTITION OF ingest.events FOR VALUES IN (12);
CREATE TABLE ingest.events_13 PARTITION OF ingest.events FOR VALUES IN (13);
CREATE TABLE ingest.events_14 PARTITION OF ingest.events FOR VALUES IN (14);
CREATE TABLE ingest.events_15 PARTITION OF ingest.events FOR VALUES IN (15);
CREATE TABLE ingest.events_16 PARTITION OF ingest.events FOR VALUES IN (16);
CREATE TABLE ingest.events_17 PARTITION OF ingest.events FOR VALUES IN (17);
CREATE TABLE ingest.events_18 PARTITION OF ingest.events FOR VALUES IN (18);
CREATE TABLE ingest.events_19 PARTITION OF ingest.events FOR VALUES IN (19);
CREATE TABLE ingest.events_20 PARTITION OF ingest.events FOR VALUES IN (20);
CREATE TABLE ingest.events_21 PARTITION OF ingest.events FOR VALUES IN (21);
CREATE TABLE ingest.events_22 PARTITION OF ingest.events FOR VALUES IN (22);
CREATE TABLE ingest.events_23 PARTITION OF ingest.events FOR VALUES IN (23);
CREATE TABLE ingest.events_24 PARTITION OF ingest.events FOR VALUES IN (24);
CREATE TABLE ingest.events_25 PARTITION OF ingest.events FOR VALUES IN (25);
CREATE TABLE ingest.events_26 PARTITION OF ingest.events FOR VALUES IN (26);
CREATE TABLE ingest.events_27 PARTITION OF ingest.events FOR VALUES IN (27);
CREATE TABLE ingest.events_28 PARTITION OF ingest.events FOR VALUES IN (28);
CREATE TABLE ingest.events_29 PARTITION OF ingest.events FOR VALUES IN (29);
CREATE TABLE ingest.events_30 PARTITION OF ingest.events FOR VALUES IN (30);
CREATE TABLE ingest.events_31 PARTITION OF ingest.events FOR VALUES IN (31);
GRANT TRUNCATE ON
    ingest.events_00, ingest.events_01, ingest.events_02, ingest.events_03,
    ingest.events_04, ingest.events_05, ingest.events_06, ingest.events_07,
    ingest.events_08, ingest.events_09, ingest.events_10, ingest.events_11,
    ingest.events_12, ingest.events_13, ingest.events_14, ingest.events_15,
    ingest.events_16, ingest.events_17, ingest.events_18, ingest.events_19,
    ingest.events_20, ingest.events_21, ingest.events_22, ingest.events_23,
    ingest.events_24, ingest.events_25, ingest.events_26, ingest.events_27,
    ingest.events_28, ingest.events_29, ingest.events_30, ingest.events_31
    TO hawser_ingest_system;

-- What is still to be processed. Apart from the events, so that looking for work touches few pages and no body.
CREATE TABLE ingest.event_queue (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    event_id uuid NOT NULL,
    -- When it may be claimed; while it is claimed, when the lease ends.
    due_at timestamptz NOT NULL,
    fence bigint NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    PRIMARY KEY (bucket, event_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX event_queue_due ON ingest.event_queue (bucket, due_at);

-- Providers' event ids that have been seen: two tables that take turns. New ones go into the one whose turn it is, both are
-- looked into, and the turn changes, and the other one is emptied, no sooner than the longest time in which a provider repeats.
CREATE TABLE ingest.dedup_keys (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    generation smallint NOT NULL,
    source_key uuid NOT NULL,
    -- SHA-256 of the provider's event id.
    key_hash bytea NOT NULL,
    event_id uuid NOT NULL,
    PRIMARY KEY (bucket, generation, source_key, key_hash)
) PARTITION BY LIST (generation);
CREATE TABLE ingest.dedup_keys_0 PARTITION OF ingest.dedup_keys FOR VALUES IN (0);
CREATE TABLE ingest.dedup_keys_1 PARTITION OF ingest.dedup_keys FOR VALUES IN (1);
GRANT TRUNCATE ON ingest.dedup_keys_0, ingest.dedup_keys_1 TO hawser_ingest_system;

-- The one row that whoever takes events in shares, and whoever changes the turn or empties a partition has alone.
CREATE TABLE ingest.calendar (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    generation smallint NOT NULL,
    turned_at timestamptz NOT NULL,
    -- The newest day (since 1970, UTC) whose partition of events has been emptied.
    emptied_to integer NOT NULL
);
INSERT INTO ingest.calendar (generation, turned_at, emptied_to)
VALUES (0, now(), floor(extract(epoch FROM now()) / 86400)::integer + 2);
REVOKE INSERT, DELETE ON ingest.calendar FROM hawser_ingest_system;

-- A stream of documents: of a connection and an account, or of what people upload and the API brings (the nil connection).
CREATE TABLE ingest.document_streams (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    connection_id uuid NOT NULL,
    external_account_id text NOT NULL,
    stream text NOT NULL,
    stream_key uuid NOT NULL,
    -- The highest lease epoch that has written.
    epoch bigint NOT NULL,
    -- Of the last change. Its lock is held until the change is committed, so places become visible in their order.
    place bigint NOT NULL,
    PRIMARY KEY (bucket, tenant_id, connection_id, external_account_id, stream),
    UNIQUE (bucket, stream_key)
) WITH (fillfactor = 50);

CREATE TABLE ingest.documents (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    document_id uuid NOT NULL,
    stream_key uuid NOT NULL,
    external_id text NOT NULL,
    title text NOT NULL,
    content bytea NOT NULL,
    content_hash bytea NOT NULL,
    content_url text NOT NULL,
    source_updated_at timestamptz,
    -- Who brought it in first, and how.
    ingested_by_user_id text NOT NULL,
    ingested_by_user_email text NOT NULL,
    ingestion_method smallint NOT NULL,
    -- The job of the last change.
    job_id text NOT NULL,
    first_ingested_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    deleted_at timestamptz,
    revision bigint NOT NULL,
    -- Of its last change, in its stream.
    place bigint NOT NULL,
    -- Who saw it last, changed or not: what a full pass has not seen is gone.
    seen_job_id text NOT NULL,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, tenant_id, document_id),
    UNIQUE (bucket, stream_key, external_id)
);
CREATE INDEX documents_place ON ingest.documents (bucket, stream_key, place);
CREATE INDEX documents_user ON ingest.documents (bucket, tenant_id, ingested_by_user_id, document_id);

-- New documents by user and day (UTC), for quotas.
CREATE TABLE ingest.document_usage (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    user_id text NOT NULL,
    day date NOT NULL,
    documents bigint NOT NULL,
    PRIMARY KEY (bucket, tenant_id, user_id, day)
) WITH (fillfactor = 50);

ALTER TABLE ingest.sources ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON ingest.sources TO hawser_ingest_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON ingest.sources TO hawser_ingest_system USING (true);

ALTER TABLE ingest.events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON ingest.events TO hawser_ingest_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON ingest.events TO hawser_ingest_system USING (true);

ALTER TABLE ingest.event_queue ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON ingest.event_queue TO hawser_ingest_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON ingest.event_queue TO hawser_ingest_system USING (true);

ALTER TABLE ingest.dedup_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON ingest.dedup_keys TO hawser_ingest_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON ingest.dedup_keys TO hawser_ingest_system USING (true);

ALTER TABLE ingest.document_streams ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON ingest.document_streams TO hawser_ingest_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON ingest.document_streams TO hawser_ingest_system USING (true);

ALTER TABLE ingest.documents ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON ingest.documents TO hawser_ingest_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON ingest.documents TO hawser_ingest_system USING (true);

ALTER TABLE ingest.document_usage ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON ingest.document_usage TO hawser_ingest_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON ingest.document_usage TO hawser_ingest_system USING (true);
