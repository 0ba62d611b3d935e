-- What every service keeps beside its own: events on their way out, its place in others' events, answers by request
-- id, audit events, statistics.

-- Events, written in the transaction that causes them, until they are numbered. `appended_at` is taken when the row is
-- written: of two changes to a resource the later one has waited for the first, so it is numbered later.
CREATE TABLE {schema}.outbox (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    event_id uuid NOT NULL,
    resource text NOT NULL,
    revision bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    appended_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    traceparent text NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (bucket, event_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX outbox_order ON {schema}.outbox (appended_at, revision, event_id);
ALTER TABLE {schema}.outbox ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.outbox TO hawser_{schema}_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON {schema}.outbox TO hawser_{schema}_system USING (true);
REVOKE SELECT, UPDATE, DELETE ON {schema}.outbox FROM hawser_{schema}_tenant;
REVOKE UPDATE ON {schema}.outbox FROM hawser_{schema}_system;

-- The one row that numbering locks: the newest event's number and day (since 1970, UTC), the newest number that is no longer
-- kept, and the newest day whose partition has been emptied. `log_id` tells this log's cursors from another's.
CREATE TABLE {schema}.event_head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    log_id uuid NOT NULL,
    number bigint NOT NULL,
    day integer NOT NULL,
    floor bigint NOT NULL,
    emptied_to integer NOT NULL
) WITH (fillfactor = 20);
INSERT INTO {schema}.event_head (log_id, number, day, floor, emptied_to)
SELECT gen_random_uuid(), 0, today, 0, today + 31
FROM (SELECT (extract(epoch FROM now()) / 86400)::integer AS today) AS calendar;
REVOKE INSERT, DELETE ON {schema}.event_head FROM hawser_{schema}_system;

-- The numbered log. A day's events lie in the partition of its number modulo 32, which is emptied before its turn comes
-- again: so the last 30 days are kept at least, and nobody needs the right to create tables while running.
CREATE TABLE {schema}.event_log (
    slot smallint NOT NULL,
    number bigint NOT NULL,
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    event_id uuid NOT NULL,
    resource text NOT NULL,
    revision bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    traceparent text NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (slot, number)
) PARTITION BY LIST (slot);
CREATE TABLE {schema}.event_log_00 PARTITION OF {schema}.event_log FOR VALUES IN (0);
CREATE TABLE {schema}.event_log_01 PARTITION OF {schema}.event_log FOR VALUES IN (1);
CREATE TABLE {schema}.event_log_02 PARTITION OF {schema}.event_log FOR VALUES IN (2);
CREATE TABLE {schema}.event_log_03 PARTITION OF {schema}.event_log FOR VALUES IN (3);
CREATE TABLE {schema}.event_log_04 PARTITION OF {schema}.event_log FOR VALUES IN (4);
CREATE TABLE {schema}.event_log_05 PARTITION OF {schema}.event_log FOR VALUES IN (5);
CREATE TABLE {schema}.event_log_06 PARTITION OF {schema}.event_log FOR VALUES IN (6);
CREATE TABLE {schema}.event_log_07 PARTITION OF {schema}.event_log FOR VALUES IN (7);
CREATE TABLE {schema}.event_log_08 PARTITION OF {schema}.event_log FOR VALUES IN (8);
CREATE TABLE {schema}.event_log_09 PARTITION OF {schema}.event_log FOR VALUES IN (9);
CREATE TABLE {schema}.event_log_10 PARTITION OF {schema}.event_log FOR VALUES IN (10);
CREATE TABLE {schema}.event_log_11 PARTITION OF {schema}.event_log FOR VALUES IN (11);
CREATE TABLE {schema}.event_log_12 PARTITION OF {schema}.event_log FOR VALUES IN (12);
CREATE TABLE {schema}.event_log_13 PARTITION OF {schema}.event_log FOR VALUES IN (13);
CREATE TABLE {schema}.event_log_14 PARTITION OF {schema}.event_log FOR VALUES IN (14);
CREATE TABLE {schema}.event_log_15 PARTITION OF {schema}.event_log FOR VALUES IN (15);
CREATE TABLE {schema}.event_log_16 PARTITION OF {schema}.event_log FOR VALUES IN (16);
CREATE TABLE {schema}.event_log_17 PARTITION OF {schema}.event_log FOR VALUES IN (17);
CREATE TABLE {schema}.event_log_18 PARTITION OF {schema}.event_log FOR VALUES IN (18);
CREATE TABLE {schema}.event_log_19 PARTITION OF {schema}.event_log FOR VALUES IN (19);
CREATE TABLE {schema}.event_log_20 PARTITION OF {schema}.event_log FOR VALUES IN (20);
CREATE TABLE {schema}.event_log_21 PARTITION OF {schema}.event_log FOR VALUES IN (21);
CREATE TABLE {schema}.event_log_22 PARTITION OF {schema}.event_log FOR VALUES IN (22);
CREATE TABLE {schema}.event_log_23 PARTITION OF {schema}.event_log FOR VALUES IN (23);
CREATE TABLE {schema}.event_log_24 PARTITION OF {schema}.event_log FOR VALUES IN (24);
CREATE TABLE {schema}.event_log_25 PARTITION OF {schema}.event_log FOR VALUES IN (25);
CREATE TABLE {schema}.event_log_26 PARTITION OF {schema}.event_log FOR VALUES IN (26);
CREATE TABLE {schema}.event_log_27 PARTITION OF {schema}.event_log FOR VALUES IN (27);
CREATE TABLE {schema}.event_log_28 PARTITION OF {schema}.event_log FOR VALUES IN (28);
CREATE TABLE {schema}.event_log_29 PARTITION OF {schema}.event_log FOR VALUES IN (29);
CREATE TABLE {schema}.event_log_30 PARTITION OF {schema}.event_log FOR VALUES IN (30);
CREATE TABLE {schema}.event_log_31 PARTITION OF {schema}.event_log FOR VALUES IN (31);
ALTER TABLE {schema}.event_log ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY system ON {schema}.event_log TO hawser_{schema}_system USING (true);
REVOKE ALL ON {schema}.event_log FROM hawser_{schema}_tenant;
REVOKE UPDATE, DELETE ON {schema}.event_log FROM hawser_{schema}_system;
GRANT TRUNCATE ON
    {schema}.event_log_00, {schema}.event_log_01, {schema}.event_log_02, {schema}.event_log_03,
    {schema}.event_log_04, {schema}.event_log_05, {schema}.event_log_06, {schema}.event_log_07,
    {schema}.event_log_08, {schema}.event_log_09, {schema}.event_log_10, {schema}.event_log_11,
    {schema}.event_log_12, {schema}.event_log_13, {schema}.event_log_14, {schema}.event_log_15,
    {schema}.event_log_16, {schema}.event_log_17, {schema}.event_log_18, {schema}.event_log_19,
    {schema}.event_log_20, {schema}.event_log_21, {schema}.event_log_22, {schema}.event_log_23,
    {schema}.event_log_24, {schema}.event_log_25, {schema}.event_log_26, {schema}.event_log_27,
    {schema}.event_log_28, {schema}.event_log_29, {schema}.event_log_30, {schema}.event_log_31
    TO hawser_{schema}_system;

-- How far this service has come in another one's events, and which replica is at it.
CREATE TABLE {schema}.consumers (
    name text PRIMARY KEY,
    fence bigint NOT NULL DEFAULT 0,
    holder uuid,
    lease_until timestamptz NOT NULL DEFAULT 'epoch',
    cursor text NOT NULL DEFAULT '',
    stored_at timestamptz
) WITH (fillfactor = 50);

-- The newest revision of another service's resource that has been applied here.
CREATE TABLE {schema}.applied_revisions (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    consumer text NOT NULL,
    resource text NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (bucket, tenant_id, consumer, resource)
);
ALTER TABLE {schema}.applied_revisions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.applied_revisions TO hawser_{schema}_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON {schema}.applied_revisions TO hawser_{schema}_system USING (true);

-- First answers to calls that may be repeated.
CREATE TABLE {schema}.request_ids (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    method text NOT NULL,
    request_id text NOT NULL,
    body_hash bytea NOT NULL,
    answer bytea,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, tenant_id, method, request_id)
);
CREATE INDEX request_ids_age ON {schema}.request_ids (bucket, created_at);
ALTER TABLE {schema}.request_ids ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.request_ids TO hawser_{schema}_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON {schema}.request_ids TO hawser_{schema}_system USING (true);
REVOKE DELETE ON {schema}.request_ids FROM hawser_{schema}_tenant;

-- Who changed what, and why. Nobody who serves requests can change or remove a line.
CREATE TABLE {schema}.audit_events (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    event_id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    actor text NOT NULL,
    actor_user_id text NOT NULL,
    action text NOT NULL,
    resource text NOT NULL,
    reason text NOT NULL,
    trace_id text NOT NULL,
    PRIMARY KEY (bucket, event_id)
);
CREATE INDEX audit_events_tenant ON {schema}.audit_events (bucket, tenant_id, occurred_at, event_id);
CREATE INDEX audit_events_resource ON {schema}.audit_events (bucket, tenant_id, resource, occurred_at, event_id);
CREATE INDEX audit_events_time ON {schema}.audit_events (occurred_at, event_id);
ALTER TABLE {schema}.audit_events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.audit_events TO hawser_{schema}_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON {schema}.audit_events TO hawser_{schema}_system USING (true);
REVOKE UPDATE, DELETE ON {schema}.audit_events FROM hawser_{schema}_tenant, hawser_{schema}_system;

-- Counts by the minute. Each process has rows of its own and writes their totals, so that writing twice counts once.
CREATE TABLE {schema}.statistics (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    series text NOT NULL,
    labels text NOT NULL,
    minute timestamptz NOT NULL,
    writer uuid NOT NULL,
    value double precision NOT NULL,
    PRIMARY KEY (bucket, tenant_id, series, minute, labels, writer)
);
CREATE INDEX statistics_minute ON {schema}.statistics (minute, series);
ALTER TABLE {schema}.statistics ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.statistics TO hawser_{schema}_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON {schema}.statistics TO hawser_{schema}_system USING (true);
REVOKE INSERT, UPDATE, DELETE ON {schema}.statistics FROM hawser_{schema}_tenant;
