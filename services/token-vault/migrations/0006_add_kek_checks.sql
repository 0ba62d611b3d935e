-- A value that is sealed under one key-encryption key each: a wrong one is found at start. The first of all, in
-- `key_checks`, decides which key a database begins with.
CREATE TABLE {schema}.kek_checks (
    kek_id text PRIMARY KEY,
    value bytea NOT NULL,
    created_at timestamptz NOT NULL
);

-- Keys that records are authenticated with, by the key-encryption key that was current when they were written. Wrapped
-- under the one that is current now, so they outlive it.
CREATE TABLE {schema}.mac_keys (
    kek_id text NOT NULL,
    purpose text NOT NULL,
    wrapped bytea NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (kek_id, purpose)
);
