-- The place of one stream of one connection and account: its lease, its cursor, its schedule.
CREATE TABLE scheduler.streams (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    connection_id uuid NOT NULL,
    external_account_id text NOT NULL,
    stream text NOT NULL,
    provider text NOT NULL,
    integration_id text NOT NULL,
    user_id text NOT NULL,
    user_email text NOT NULL,
    -- Counts every lease of any of its jobs.
    epoch bigint NOT NULL DEFAULT 0,
    running_job_id uuid,
    lease_until timestamptz,
    cursor_json bytea,
    cursor_version bigint NOT NULL DEFAULT 0,
    -- Who serves its scheduled runs, and how often they are to be; NULL where it runs only when it is asked to.
    queue text NOT NULL DEFAULT 'connectors',
    cadence_seconds integer,
    -- How far back its initial sync reached; NULL until that is complete.
    backfilled_from timestamptz,
    next_run_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, connection_id, external_account_id, stream)
);
CREATE INDEX streams_due ON scheduler.streams (bucket, next_run_at) WHERE next_run_at IS NOT NULL;
CREATE INDEX streams_tenant ON scheduler.streams (bucket, tenant_id, connection_id);

CREATE TABLE scheduler.cursor_versions (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    connection_id uuid NOT NULL,
    external_account_id text NOT NULL,
    stream text NOT NULL,
    version bigint NOT NULL,
    cursor_json bytea NOT NULL,
    job_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, connection_id, external_account_id, stream, version)
);

-- The one-time historical sync. It outlives the connection: its key is who synced what, not by which connection.
CREATE TABLE scheduler.sync_locks (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    integration_id text NOT NULL,
    user_id text NOT NULL,
    external_account_id text NOT NULL,
    stream text NOT NULL,
    connection_id uuid NOT NULL,
    provider text NOT NULL,
    user_email text NOT NULL,
    run_id uuid NOT NULL,
    state smallint NOT NULL,
    reason text NOT NULL,
    locked_at timestamptz NOT NULL,
    completed_at timestamptz,
    revision bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (bucket, tenant_id, integration_id, user_id, external_account_id, stream)
);
CREATE INDEX sync_locks_connection ON scheduler.sync_locks (bucket, connection_id);
CREATE INDEX sync_locks_run ON scheduler.sync_locks (bucket, run_id);

CREATE TABLE scheduler.overrides (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    override_id uuid NOT NULL,
    -- NULL for whichever connection of the tenant starts first.
    connection_id uuid,
    reason text NOT NULL,
    granted_by text NOT NULL,
    granted_at timestamptz NOT NULL,
    expires_at timestamptz,
    used_at timestamptz,
    used_by_job_id uuid,
    revoked_at timestamptz,
    PRIMARY KEY (bucket, override_id)
);
CREATE INDEX overrides_in_force ON scheduler.overrides (bucket, tenant_id, granted_at)
    WHERE used_at IS NULL AND revoked_at IS NULL;

CREATE TABLE scheduler.jobs (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    job_id uuid NOT NULL,
    run_id uuid NOT NULL,
    connection_id uuid NOT NULL,
    external_account_id text NOT NULL,
    stream text NOT NULL,
    provider text NOT NULL,
    integration_id text NOT NULL,
    queue text NOT NULL,
    kind smallint NOT NULL,
    state smallint NOT NULL,
    triggered_by smallint NOT NULL,
    user_id text NOT NULL,
    -- Whose connection it is; who asked may be another.
    owner_id text NOT NULL,
    priority integer NOT NULL,
    window_start timestamptz,
    window_end timestamptz,
    external_ids text[] NOT NULL DEFAULT '{}',
    -- When it may be leased; while it is leased, when the lease ends.
    due_at timestamptz NOT NULL,
    fence bigint NOT NULL DEFAULT 0,
    worker_id text NOT NULL DEFAULT '',
    lease_request_id text NOT NULL DEFAULT '',
    attempt integer NOT NULL DEFAULT 0,
    -- Failed attempts since the last progress.
    failures integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL,
    checkpoint_number bigint NOT NULL DEFAULT 0,
    cursor_json bytea,
    -- Which version of the stream's cursor it began with; -1 before it has.
    cursor_version bigint NOT NULL DEFAULT -1,
    incremental_cursor_json bytea,
    progress jsonb NOT NULL DEFAULT '{}',
    last_error text NOT NULL DEFAULT '',
    waiting_for text NOT NULL DEFAULT '',
    traceparent text NOT NULL DEFAULT '',
    scheduled_at timestamptz NOT NULL,
    started_at timestamptz,
    leased_at timestamptz,
    finished_at timestamptz,
    revision bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (bucket, job_id)
);
-- Queued, running, retrying, cancelling: what may become due.
CREATE INDEX jobs_due ON scheduler.jobs (bucket, due_at) WHERE state IN (1, 2, 3, 8);
-- Triggers for the same work become one while it has not begun.
CREATE UNIQUE INDEX jobs_one_queued ON scheduler.jobs (bucket, connection_id, external_account_id, stream, queue)
    WHERE state = 1 AND kind = 2;
CREATE INDEX jobs_connection ON scheduler.jobs (bucket, tenant_id, connection_id, job_id);
CREATE INDEX jobs_run ON scheduler.jobs (bucket, run_id);

-- When each tenant was last given a lease: whose turn it is.
CREATE TABLE scheduler.turns (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    served_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, tenant_id)
);

ALTER TABLE scheduler.streams ENABLE ROW LEVEL SECURITY;
ALTER TABLE scheduler.streams FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON scheduler.streams TO hawser_scheduler_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON scheduler.streams TO hawser_scheduler_system USING (true);

ALTER TABLE scheduler.cursor_versions ENABLE ROW LEVEL SECURITY;
ALTER TABLE scheduler.cursor_versions FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON scheduler.cursor_versions TO hawser_scheduler_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON scheduler.cursor_versions TO hawser_scheduler_system USING (true);

ALTER TABLE scheduler.sync_locks ENABLE ROW LEVEL SECURITY;
ALTER TABLE scheduler.sync_locks FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON scheduler.sync_locks TO hawser_scheduler_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON scheduler.sync_locks TO hawser_scheduler_system USING (true);

ALTER TABLE scheduler.overrides ENABLE ROW LEVEL SECURITY;
ALTER TABLE scheduler.overrides FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON scheduler.overrides TO hawser_scheduler_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON scheduler.overrides TO hawser_scheduler_system USING (true);

ALTER TABLE scheduler.jobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE scheduler.jobs FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON scheduler.jobs TO hawser_scheduler_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON scheduler.jobs TO hawser_scheduler_system USING (true);

ALTER TABLE scheduler.turns ENABLE ROW LEVEL SECURITY;
ALTER TABLE scheduler.turns FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON scheduler.turns TO hawser_scheduler_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON scheduler.turns TO hawser_scheduler_system USING (true);
