-- Tenants, what is unique over all of them, and how they are configured.

CREATE TABLE {schema}.tenants (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    company_name text NOT NULL,
    external_id text,
    subdomain text,
    billing_customer_id text,
    tier text NOT NULL CHECK (tier IN ('starter', 'professional', 'enterprise')),
    status text NOT NULL CHECK (status IN ('trial', 'active', 'past_due', 'cancelled')),
    trial_ends_at timestamptz,
    documents_per_user_per_day bigint NOT NULL,
    connections bigint NOT NULL,
    max_backfill_days integer NOT NULL,
    sync_weight integer NOT NULL,
    support_contact text NOT NULL,
    logo_url text NOT NULL,
    allowed_origins text[] NOT NULL,
    state text NOT NULL CHECK (state IN ('active', 'suspended', 'deleting', 'deleted')),
    deletion text NOT NULL,
    -- Company name, subdomain, and external id in lower case, each on a line of its own.
    search_text text NOT NULL,
    revision bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, tenant_id)
);
-- An operator's list, which goes over all buckets.
CREATE INDEX tenants_in_order ON {schema}.tenants (tenant_id) WHERE state <> 'deleted';

ALTER TABLE {schema}.tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.tenants FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.tenants TO hawser_{schema}_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON {schema}.tenants TO hawser_{schema}_system USING (true);

-- What differs from the defaults.
CREATE TABLE {schema}.tenant_configs (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    field_mappings jsonb NOT NULL,
    risk_rules jsonb NOT NULL,
    priority_weights jsonb NOT NULL,
    revision bigint NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, tenant_id)
);

ALTER TABLE {schema}.tenant_configs ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.tenant_configs FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.tenant_configs TO hawser_{schema}_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON {schema}.tenant_configs TO hawser_{schema}_system USING (true);

-- Names that are unique over all tenants. The bucket is that of the name's hash.
CREATE TABLE {schema}.names (
    bucket smallint NOT NULL,
    kind text NOT NULL CHECK (kind IN ('subdomain', 'external_id', 'billing_customer_id')),
    name text NOT NULL,
    claim_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    confirmed boolean NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (bucket, kind, name)
);
CREATE INDEX names_unconfirmed ON {schema}.names (claimed_at) WHERE NOT confirmed;

ALTER TABLE {schema}.names ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.names FORCE ROW LEVEL SECURITY;
CREATE POLICY system ON {schema}.names TO hawser_{schema}_system USING (true);

-- What has become of a claim, decided once, in the tenant's own bucket.
CREATE TABLE {schema}.name_claims (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    claim_id uuid NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    state text NOT NULL CHECK (state IN ('used', 'released', 'freed', 'refused')),
    decided_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, claim_id)
);
CREATE INDEX name_claims_by_tenant ON {schema}.name_claims (bucket, tenant_id, kind);
CREATE INDEX name_claims_to_clear ON {schema}.name_claims (state, decided_at) WHERE state <> 'used';

ALTER TABLE {schema}.name_claims ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.name_claims FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.name_claims TO hawser_{schema}_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON {schema}.name_claims TO hawser_{schema}_system USING (true);

-- Which tenant a request to create one is about, before there is one. The bucket is that of the request id's hash.
CREATE TABLE {schema}.creations (
    bucket smallint NOT NULL,
    request_id text NOT NULL,
    body_hash bytea NOT NULL,
    tenant_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (bucket, request_id)
);
CREATE INDEX creations_by_age ON {schema}.creations (created_at);

ALTER TABLE {schema}.creations ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.creations FORCE ROW LEVEL SECURITY;
CREATE POLICY system ON {schema}.creations TO hawser_{schema}_system USING (true);
