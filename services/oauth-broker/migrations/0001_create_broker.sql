-- How a tenant, or the platform for all of them, uses a provider.
CREATE TABLE broker.integrations (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    integration_id text NOT NULL,
    provider text NOT NULL,
    display_name text NOT NULL,
    auth_mode smallint NOT NULL,
    -- The vault's name for the client and its secret; NULL where there is no token endpoint.
    oauth_client_id uuid,
    client_id text NOT NULL,
    scopes text[] NOT NULL,
    cardinality smallint NOT NULL,
    exclusive_accounts boolean NOT NULL,
    overrides jsonb NOT NULL,
    -- What the issuer said of itself when the integration was made or changed last.
    discovered jsonb,
    allowed_origins text[] NOT NULL,
    accept_unverified boolean NOT NULL,
    configuration_error text NOT NULL DEFAULT '',
    revision bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, tenant_id, integration_id)
);
CREATE UNIQUE INDEX integrations_oauth_client ON broker.integrations (bucket, oauth_client_id)
    WHERE oauth_client_id IS NOT NULL;

-- One user's way through an authorization. The link's token is kept as its hash alone.
CREATE TABLE broker.connect_sessions (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    session_id uuid NOT NULL,
    token_hash bytea NOT NULL,
    -- The one browser that has said yes.
    browser_hash bytea,
    state smallint NOT NULL,
    user_id text NOT NULL,
    user_email text NOT NULL,
    -- NULL until chosen.
    integration_tenant_id uuid,
    integration_id text,
    allowed_integration_ids text[] NOT NULL,
    return_url text NOT NULL,
    opener_origin text NOT NULL,
    locale text NOT NULL,
    connection_parameters jsonb NOT NULL,
    labels jsonb NOT NULL,
    scopes text[] NOT NULL,
    authorization_params jsonb NOT NULL,
    reconnect_connection_id uuid,
    require_confirmation boolean NOT NULL,
    confirmation_hash bytea,
    -- The grant, and what the provider said, until an account is chosen or the host application has confirmed.
    authorized jsonb,
    connection_id uuid,
    external_user_id text NOT NULL DEFAULT '',
    external_account_id text NOT NULL DEFAULT '',
    error text NOT NULL DEFAULT '',
    error_reason text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    finished_at timestamptz,
    PRIMARY KEY (bucket, session_id),
    CONSTRAINT connect_sessions_token UNIQUE (bucket, token_hash)
);
-- What is still open, for the reaper.
CREATE INDEX connect_sessions_open ON broker.connect_sessions (bucket, expires_at) WHERE finished_at IS NULL;
CREATE INDEX connect_sessions_finished ON broker.connect_sessions (bucket, finished_at) WHERE finished_at IS NOT NULL;

-- One trip to a provider and back. The state is kept as its hash alone, and consumed once.
CREATE TABLE broker.authorizations (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    state_hash bytea NOT NULL,
    session_id uuid NOT NULL,
    browser_hash bytea NOT NULL,
    integration_tenant_id uuid NOT NULL,
    integration_id text NOT NULL,
    redirect_uri text NOT NULL,
    -- Chosen before the exchange, so that repeating it cannot make a second grant.
    grant_id uuid NOT NULL,
    requested_scopes text[] NOT NULL,
    -- Verifier and nonce; destroyed when the state is consumed.
    sealed bytea,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    consumed_at timestamptz,
    PRIMARY KEY (bucket, state_hash),
    FOREIGN KEY (bucket, session_id) REFERENCES broker.connect_sessions (bucket, session_id) ON DELETE CASCADE
);
CREATE INDEX authorizations_session ON broker.authorizations (bucket, session_id);

-- A user's connection to a provider.
CREATE TABLE broker.connections (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    connection_id uuid NOT NULL,
    integration_tenant_id uuid NOT NULL,
    integration_id text NOT NULL,
    provider text NOT NULL,
    -- What makes two connections the same one: a JSON list that follows the integration's cardinality.
    identity_key text NOT NULL,
    -- Empty while it is unclaimed.
    user_id text NOT NULL,
    user_email text NOT NULL,
    external_user_id text NOT NULL,
    state smallint NOT NULL,
    grant_id uuid NOT NULL,
    scopes text[] NOT NULL,
    requested_scopes text[] NOT NULL,
    scope_raw text NOT NULL,
    token_type text NOT NULL,
    has_refresh_token boolean NOT NULL,
    token_expires_at timestamptz,
    refresh_token_expires_at timestamptz,
    parameters jsonb NOT NULL,
    labels jsonb NOT NULL,
    metadata_json text NOT NULL,
    last_error text NOT NULL,
    reauthorization_cause text NOT NULL,
    connected_at timestamptz NOT NULL,
    disconnected_at timestamptz,
    revoked_at timestamptz,
    updated_at timestamptz NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (bucket, connection_id),
    CONSTRAINT connections_identity
        UNIQUE (bucket, tenant_id, integration_tenant_id, integration_id, identity_key)
);
CREATE UNIQUE INDEX connections_grant ON broker.connections (bucket, grant_id);
CREATE INDEX connections_list ON broker.connections (bucket, tenant_id, connection_id);
-- For operators, over every tenant.
CREATE INDEX connections_list_all ON broker.connections (connection_id);
CREATE INDEX connections_user ON broker.connections (bucket, tenant_id, user_id, connection_id);
CREATE INDEX connections_integration ON broker.connections (integration_tenant_id, integration_id, connection_id);

-- The companies, workspaces, organisations that a connection's grant reaches.
CREATE TABLE broker.accounts (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    connection_id uuid NOT NULL,
    external_account_id text NOT NULL,
    name text NOT NULL,
    -- As the provider listed them.
    position integer NOT NULL,
    -- The provider lets it be used.
    usable boolean NOT NULL,
    active boolean NOT NULL,
    disconnected_at timestamptz,
    PRIMARY KEY (bucket, connection_id, external_account_id),
    FOREIGN KEY (bucket, connection_id) REFERENCES broker.connections (bucket, connection_id) ON DELETE CASCADE
);
-- However many select at once, one is active.
CREATE UNIQUE INDEX accounts_one_active ON broker.accounts (bucket, connection_id) WHERE active;
CREATE INDEX accounts_external ON broker.accounts (bucket, tenant_id, external_account_id);

-- What a webhook may name a connection by. This is the truth; `routing_keys` finds it.
CREATE TABLE broker.connection_routing_keys (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    connection_id uuid NOT NULL,
    name text NOT NULL,
    value text NOT NULL,
    integration_tenant_id uuid NOT NULL,
    integration_id text NOT NULL,
    -- 1 to be published, 2 published, 3 to be withdrawn.
    state smallint NOT NULL,
    PRIMARY KEY (bucket, connection_id, name, value),
    FOREIGN KEY (bucket, connection_id) REFERENCES broker.connections (bucket, connection_id) ON DELETE CASCADE
);
CREATE INDEX connection_routing_keys_unpublished ON broker.connection_routing_keys (bucket, connection_id) WHERE state <> 2;

-- Over all tenants, so its bucket is of the key's hash and not of a tenant. A row may be left over: whoever finds
-- one looks whether the connection has the key.
CREATE TABLE broker.routing_keys (
    bucket smallint NOT NULL,
    integration_tenant_id uuid NOT NULL,
    integration_id text NOT NULL,
    name text NOT NULL,
    value text NOT NULL,
    connection_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    PRIMARY KEY (bucket, integration_tenant_id, integration_id, name, value, connection_id)
);

-- Accounts that may be connected only once, whoever connects them; its bucket is of the account's hash.
CREATE TABLE broker.exclusive_accounts (
    bucket smallint NOT NULL,
    integration_tenant_id uuid NOT NULL,
    integration_id text NOT NULL,
    external_account_id text NOT NULL,
    connection_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    reserved_at timestamptz NOT NULL,
    -- NULL while it is but reserved.
    confirmed_at timestamptz,
    PRIMARY KEY (bucket, integration_tenant_id, integration_id, external_account_id)
);
CREATE INDEX exclusive_accounts_connection ON broker.exclusive_accounts (bucket, connection_id);
CREATE INDEX exclusive_accounts_reserved ON broker.exclusive_accounts (bucket, reserved_at) WHERE confirmed_at IS NULL;

-- What the vault still has to be told of a grant: written with the change, done right after it, and again until it is.
CREATE TABLE broker.grant_duties (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    grant_id uuid NOT NULL,
    -- 1 confirm, 2 revoke at the provider, 3 revoke here alone.
    duty smallint NOT NULL,
    due_at timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    PRIMARY KEY (bucket, grant_id)
);
CREATE INDEX grant_duties_due ON broker.grant_duties (bucket, due_at);

-- The grant that an import makes, chosen before the vault is asked, so that a repeated call makes no second one.
CREATE TABLE broker.imports (
    bucket smallint NOT NULL,
    tenant_id uuid NOT NULL,
    request_id text NOT NULL,
    grant_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, tenant_id, request_id)
);
CREATE INDEX imports_age ON broker.imports (bucket, created_at);

ALTER TABLE broker.integrations ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON broker.integrations TO hawser_broker_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON broker.integrations TO hawser_broker_system USING (true);
ALTER TABLE broker.connect_sessions ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON broker.connect_sessions TO hawser_broker_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON broker.connect_sessions TO hawser_broker_system USING (true);
ALTER TABLE broker.authorizations ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON broker.authorizations TO hawser_broker_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON broker.authorizations TO hawser_broker_system USING (true);
ALTER TABLE broker.connections ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON broker.connections TO hawser_broker_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON broker.connections TO hawser_broker_system USING (true);
ALTER TABLE broker.accounts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON broker.accounts TO hawser_broker_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON broker.accounts TO hawser_broker_system USING (true);
ALTER TABLE broker.connection_routing_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON broker.connection_routing_keys TO hawser_broker_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON broker.connection_routing_keys TO hawser_broker_system USING (true);
ALTER TABLE broker.grant_duties ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON broker.grant_duties TO hawser_broker_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON broker.grant_duties TO hawser_broker_system USING (true);
ALTER TABLE broker.imports ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON broker.imports TO hawser_broker_tenant
    USING (tenant_id = nullif(current_setting('hawser.tenant', true), '')::uuid);
CREATE POLICY system ON broker.imports TO hawser_broker_system USING (true);
ALTER TABLE broker.routing_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY system ON broker.routing_keys TO hawser_broker_system USING (true);
REVOKE ALL ON broker.routing_keys FROM hawser_broker_tenant;
ALTER TABLE broker.exclusive_accounts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY system ON broker.exclusive_accounts TO hawser_broker_system USING (true);
REVOKE ALL ON broker.exclusive_accounts FROM hawser_broker_tenant;
