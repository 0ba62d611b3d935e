-- The tenants' users. There is no password to keep: people sign in at the host application.

CREATE TABLE {schema}.users (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    user_id text NOT NULL,
    -- As it was typed, with its domain in lower case.
    email text,
    -- By which it is unique within the tenant.
    email_key text,
    first_name text NOT NULL,
    last_name text NOT NULL,
    roles text[] NOT NULL,
    external_user_ids jsonb NOT NULL,
    profile_json text NOT NULL,
    last_login_at timestamptz,
    revision bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, tenant_id, user_id),
    CONSTRAINT users_email UNIQUE (bucket, tenant_id, email_key),
    CONSTRAINT users_email_pair CHECK ((email IS NULL) = (email_key IS NULL))
);
CREATE INDEX users_in_order ON {schema}.users (bucket, tenant_id, created_at, user_id);

ALTER TABLE {schema}.users ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.users FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {schema}.users TO hawser_{schema}_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON {schema}.users TO hawser_{schema}_system USING (true);
