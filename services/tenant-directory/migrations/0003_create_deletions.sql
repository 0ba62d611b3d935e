-- Tenants and users on their way out of every service.

CREATE TABLE {schema}.deletions (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    deletion_id uuid NOT NULL,
    -- NULL where it is the whole tenant.
    user_id text,
    delete_documents boolean NOT NULL,
    step smallint NOT NULL CHECK (step BETWEEN 1 AND 6),
    revision bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, deletion_id)
);
CREATE INDEX deletions_open ON {schema}.deletions (deletion_id) WHERE step < 6;
CREATE INDEX deletions_by_tenant ON {schema}.deletions (bucket, tenant_id);

ALTER TABLE {schema}.deletions ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.deletions FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.deletions TO hawser_{schema}_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON {schema}.deletions TO hawser_{schema}_system USING (true);

-- A row for every service and step, from the beginning.
CREATE TABLE {schema}.deletion_parts (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    deletion_id uuid NOT NULL,
    step smallint NOT NULL,
    service text NOT NULL,
    done boolean NOT NULL,
    detail text NOT NULL,
    reported_at timestamptz,
    PRIMARY KEY (bucket, deletion_id, step, service),
    FOREIGN KEY (bucket, deletion_id) REFERENCES {schema}.deletions (bucket, deletion_id) ON DELETE CASCADE
);
CREATE INDEX deletion_parts_open ON {schema}.deletion_parts (service, step) WHERE NOT done;

ALTER TABLE {schema}.deletion_parts ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.deletion_parts FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.deletion_parts TO hawser_{schema}_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON {schema}.deletion_parts TO hawser_{schema}_system USING (true);
