-- When the user's consent ends, whatever happens; and when others are next told that the end is near.
ALTER TABLE {schema}.grants
    ADD COLUMN consent_ends_at timestamptz,
    ADD COLUMN remind_at timestamptz;
CREATE INDEX grants_to_remind ON {schema}.grants (remind_at) WHERE remind_at IS NOT NULL;
