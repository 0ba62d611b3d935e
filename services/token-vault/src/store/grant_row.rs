//! The columns of `grants`, to and from a [`Grant`].

use std::collections::BTreeMap;

use common::TenantKey;
use common::pg::{Json, Row, ToSql};
use provider_catalog::ReauthorizationCause;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{StoreError, get, opt_word, tenant, texts, word};
use crate::grant::{
    Alternate, ClientKey, FailureKind, Grant, GrantKey, Intent, IntentKind, Kind, Previous, State,
    Strategy,
};

const TABLE: &str = "grants";

/// Every column, in the order of [`RowValues::params`], and the database's time.
macro_rules! grant_columns {
    () => {
        "bucket, tenant_id, grant_id, kind, strategy, oauth_client_tenant_id, oauth_client_id, state, version, revision,
    credential, refresh_token, previous_refresh_token, previous_until, alternate_refresh_token, alternate_version,
    key_version, token_type, scopes, scope_raw, token_names, issued_at, expires_at, refresh_token_expires_at, raw_json,
    parameters, fence, lease_until, intent_kind, intent_instance, intent_version, intent_at, intent_sent_at,
    exchange_hash, consecutive_failures, last_failure, last_error, answer_lost, reauthorization_cause, refreshed_at,
    next_refresh_at, retry_at, confirm_until, created_at, revoked_at, consent_ends_at, remind_at"
    };
}
pub(super) use grant_columns;

/// The statement that writes a new row.
pub(super) const GRANT_INSERT: &str = concat!(
    "-- {schema}.grant_insert
INSERT INTO {schema}.grants (",
    grant_columns!(),
    ", updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25,
    $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, $42, $43, $44, $45, $46, $47, now())
ON CONFLICT (bucket, tenant_id, grant_id) DO NOTHING"
);

/// The statement that writes a locked row back.
pub(super) const GRANT_SAVE: &str = "-- {schema}.grant_save
UPDATE {schema}.grants
SET kind = $4,
    strategy = $5,
    oauth_client_tenant_id = $6,
    oauth_client_id = $7,
    state = $8,
    version = $9,
    revision = $10,
    credential = $11,
    refresh_token = $12,
    previous_refresh_token = $13,
    previous_until = $14,
    alternate_refresh_token = $15,
    alternate_version = $16,
    key_version = $17,
    token_type = $18,
    scopes = $19,
    scope_raw = $20,
    token_names = $21,
    issued_at = $22,
    expires_at = $23,
    refresh_token_expires_at = $24,
    raw_json = $25,
    parameters = $26,
    fence = $27,
    lease_until = $28,
    intent_kind = $29,
    intent_instance = $30,
    intent_version = $31,
    intent_at = $32,
    intent_sent_at = $33,
    exchange_hash = $34,
    consecutive_failures = $35,
    last_failure = $36,
    last_error = $37,
    answer_lost = $38,
    reauthorization_cause = $39,
    refreshed_at = $40,
    next_refresh_at = $41,
    retry_at = $42,
    confirm_until = $43,
    created_at = $44,
    revoked_at = $45,
    consent_ends_at = $46,
    remind_at = $47,
    updated_at = now()
WHERE bucket = $1
  AND tenant_id = $2
  AND grant_id = $3";

/// What stands in a row and not as such in the grant.
pub(super) struct RowValues<'a> {
    grant: &'a Grant,
    bucket: i16,
    tenant_id: Uuid,
    words: [&'static str; 3],
    client: (Option<Uuid>, Option<Uuid>),
    previous: (Option<&'a [u8]>, Option<OffsetDateTime>),
    alternate: (Option<&'a [u8]>, Option<i64>),
    parameters: Json<&'a BTreeMap<String, String>>,
    intent_kind: Option<&'static str>,
    intent: (
        Option<Uuid>,
        Option<i64>,
        Option<OffsetDateTime>,
        Option<OffsetDateTime>,
    ),
    last_failure: Option<&'static str>,
    cause: Option<&'static str>,
}

impl<'a> RowValues<'a> {
    pub(super) fn of(grant: &'a Grant) -> Self {
        let (previous, alternate, intent) = (
            grant.previous.as_ref(),
            grant.alternate.as_ref(),
            grant.intent,
        );
        Self {
            grant,
            bucket: grant.key.tenant.bucket(),
            tenant_id: grant.key.tenant.id(),
            words: [
                grant.kind.as_str(),
                grant.strategy.as_str(),
                grant.state.as_str(),
            ],
            client: (
                grant.client.map(|client| client.tenant.id()),
                grant.client.map(|client| client.id),
            ),
            previous: (
                previous.map(|kept| kept.sealed.as_slice()),
                previous.map(|kept| kept.until),
            ),
            alternate: (
                alternate.map(|kept| kept.sealed.as_slice()),
                alternate.map(|kept| kept.version),
            ),
            parameters: Json(&grant.parameters),
            intent_kind: intent.map(|intent| intent.kind.as_str()),
            intent: (
                intent.map(|intent| intent.instance),
                intent.map(|intent| intent.version),
                intent.map(|intent| intent.at),
                intent.and_then(|intent| intent.sent_at),
            ),
            last_failure: grant.last_failure.map(FailureKind::as_str),
            cause: grant.cause.map(cause_word),
        }
    }

    /// In the order of the columns.
    pub(super) fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        let grant = self.grant;
        vec![
            &self.bucket,
            &self.tenant_id,
            &grant.key.id,
            &self.words[0],
            &self.words[1],
            &self.client.0,
            &self.client.1,
            &self.words[2],
            &grant.version,
            &grant.revision,
            &grant.credential,
            &grant.refresh_token,
            &self.previous.0,
            &self.previous.1,
            &self.alternate.0,
            &self.alternate.1,
            &grant.key_version,
            &grant.token_type,
            &grant.scopes,
            &grant.scope_raw,
            &grant.token_names,
            &grant.issued_at,
            &grant.expires_at,
            &grant.refresh_token_expires_at,
            &grant.raw_json,
            &self.parameters,
            &grant.fence,
            &grant.lease_until,
            &self.intent_kind,
            &self.intent.0,
            &self.intent.1,
            &self.intent.2,
            &self.intent.3,
            &grant.exchange_hash,
            &grant.consecutive_failures,
            &self.last_failure,
            &grant.last_error,
            &grant.answer_lost,
            &self.cause,
            &grant.refreshed_at,
            &grant.next_refresh_at,
            &grant.retry_at,
            &grant.confirm_until,
            &grant.created_at,
            &grant.revoked_at,
            &grant.consent_ends_at,
            &grant.remind_at,
        ]
    }
}

/// The row as it is in the database; `key` is the request's, not the row's.
pub(super) fn grant_from(row: &Row, key: GrantKey) -> Result<Grant, StoreError> {
    let mut grant = Grant {
        key,
        kind: word(row, TABLE, "kind", Kind::from_word)?,
        strategy: word(row, TABLE, "strategy", Strategy::from_word)?,
        client: client_from(row)?,
        state: word(row, TABLE, "state", State::from_word)?,
        version: get(row, "version")?,
        revision: get(row, "revision")?,
        credential: get(row, "credential")?,
        refresh_token: get(row, "refresh_token")?,
        previous: both(
            get(row, "previous_refresh_token")?,
            get(row, "previous_until")?,
        )
        .map(|(sealed, until)| Previous { sealed, until }),
        alternate: both(
            get(row, "alternate_refresh_token")?,
            get(row, "alternate_version")?,
        )
        .map(|(sealed, version)| Alternate { sealed, version }),
        key_version: get(row, "key_version")?,
        token_type: get(row, "token_type")?,
        scopes: get(row, "scopes")?,
        scope_raw: get(row, "scope_raw")?,
        token_names: get(row, "token_names")?,
        issued_at: get(row, "issued_at")?,
        expires_at: get(row, "expires_at")?,
        refresh_token_expires_at: get(row, "refresh_token_expires_at")?,
        raw_json: get(row, "raw_json")?,
        parameters: texts(row, "parameters")?,
        fence: get(row, "fence")?,
        lease_until: get(row, "lease_until")?,
        intent: intent_from(row)?,
        exchange_hash: get(row, "exchange_hash")?,
        consecutive_failures: get(row, "consecutive_failures")?,
        last_failure: opt_word(row, TABLE, "last_failure", FailureKind::from_word)?,
        last_error: get(row, "last_error")?,
        answer_lost: get(row, "answer_lost")?,
        cause: opt_word(row, TABLE, "reauthorization_cause", cause_from)?,
        refreshed_at: get(row, "refreshed_at")?,
        next_refresh_at: get(row, "next_refresh_at")?,
        retry_at: get(row, "retry_at")?,
        confirm_until: get(row, "confirm_until")?,
        created_at: get(row, "created_at")?,
        revoked_at: get(row, "revoked_at")?,
        consent_ends_at: get(row, "consent_ends_at")?,
        remind_at: get(row, "remind_at")?,
        read_at: get(row, "read_at")?,
    };
    if get(row, "is_shredded")? {
        grant.shred();
    }
    Ok(grant)
}

/// Which grant a row is about, for work that spans tenants.
pub(super) fn key_from(row: &Row) -> Result<GrantKey, StoreError> {
    Ok(GrantKey {
        tenant: tenant(row, TABLE, "tenant_id")?,
        id: get(row, "grant_id")?,
    })
}

fn client_from(row: &Row) -> Result<Option<ClientKey>, StoreError> {
    let found: (Option<Uuid>, Option<Uuid>) = (
        get(row, "oauth_client_tenant_id")?,
        get(row, "oauth_client_id")?,
    );
    let (Some(tenant_id), Some(id)) = found else {
        return Ok(None);
    };
    let impossible = |_| StoreError::Impossible {
        table: TABLE,
        what: "oauth_client_tenant_id",
    };
    Ok(Some(ClientKey {
        tenant: TenantKey::from_id(tenant_id).map_err(impossible)?,
        id,
    }))
}

fn intent_from(row: &Row) -> Result<Option<Intent>, StoreError> {
    let Some(kind) = opt_word(row, TABLE, "intent_kind", IntentKind::from_word)? else {
        return Ok(None);
    };
    Ok(Some(Intent {
        kind,
        instance: get(row, "intent_instance")?,
        version: get(row, "intent_version")?,
        at: get(row, "intent_at")?,
        sent_at: get(row, "intent_sent_at")?,
    }))
}

fn both<A, B>(a: Option<A>, b: Option<B>) -> Option<(A, B)> {
    a.zip(b)
}

fn cause_word(cause: ReauthorizationCause) -> &'static str {
    match cause {
        ReauthorizationCause::Revoked => "revoked",
        ReauthorizationCause::Expired => "expired",
        ReauthorizationCause::LostRotation => "lost_rotation",
        ReauthorizationCause::AccountDisabled => "account_disabled",
        ReauthorizationCause::AdminAction => "admin_action",
        ReauthorizationCause::InteractionRequired => "interaction_required",
    }
}

pub(super) fn cause_from(word: &str) -> Option<ReauthorizationCause> {
    [
        ReauthorizationCause::Revoked,
        ReauthorizationCause::Expired,
        ReauthorizationCause::LostRotation,
        ReauthorizationCause::AccountDisabled,
        ReauthorizationCause::AdminAction,
        ReauthorizationCause::InteractionRequired,
    ]
    .into_iter()
    .find(|cause| cause_word(*cause) == word)
}
