//! OAuth clients, and whether their providers refuse them.

use std::time::Duration;

use common::identity::Actor;
use common::pg::{Json, Row, Scope, ToSql, Tx, audit, outbox};
use time::OffsetDateTime;

use super::data_keys::{is_shredded, refuse_shredded};
use super::{Store, StoreError, get, texts, word};
use crate::contract;
use crate::grant::ClientKey;
use crate::oauth_client::{AuthMethod, OAuthClient, OwnEndpoints, Refusal, Settings, refusal_wait};

macro_rules! client_columns {
    () => {
        "provider, token_endpoint, refresh_endpoint, revocation_endpoint, pushed_authorization_request_endpoint,
    device_authorization_endpoint, issuer, jwks_uri, auth_method, client_id, key_id, token_params, refresh_margin_ms,
    secret, previous_secret, previous_secret_expires_at, secret_version, key_version, version"
    };
}

const CLIENT_GET: &str = concat!(
    "-- {schema}.oauth_client_get
SELECT ",
    client_columns!(),
    ", refused_at, refused_error, refused_until, refusals, now() AS read_at
FROM {schema}.oauth_clients
WHERE bucket = $1
  AND tenant_id = $2
  AND oauth_client_id = $3
  AND NOT ",
    is_shredded!("oauth_clients")
);

const CLIENT_PUT: &str = concat!(
    "-- {schema}.oauth_client_put
INSERT INTO {schema}.oauth_clients (bucket, tenant_id, oauth_client_id, ",
    client_columns!(),
    ", created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, now(), now())
ON CONFLICT (bucket, tenant_id, oauth_client_id) DO UPDATE
SET provider = EXCLUDED.provider,
    token_endpoint = EXCLUDED.token_endpoint,
    refresh_endpoint = EXCLUDED.refresh_endpoint,
    revocation_endpoint = EXCLUDED.revocation_endpoint,
    pushed_authorization_request_endpoint = EXCLUDED.pushed_authorization_request_endpoint,
    device_authorization_endpoint = EXCLUDED.device_authorization_endpoint,
    issuer = EXCLUDED.issuer,
    jwks_uri = EXCLUDED.jwks_uri,
    auth_method = EXCLUDED.auth_method,
    client_id = EXCLUDED.client_id,
    key_id = EXCLUDED.key_id,
    token_params = EXCLUDED.token_params,
    refresh_margin_ms = EXCLUDED.refresh_margin_ms,
    secret = EXCLUDED.secret,
    previous_secret = EXCLUDED.previous_secret,
    previous_secret_expires_at = EXCLUDED.previous_secret_expires_at,
    secret_version = EXCLUDED.secret_version,
    key_version = EXCLUDED.key_version,
    version = EXCLUDED.version,
    refused_until = EXCLUDED.refused_until,
    updated_at = EXCLUDED.updated_at
WHERE oauth_clients.version = EXCLUDED.version - 1"
);

const CLIENT_DELETE: &str = "-- {schema}.oauth_client_delete
DELETE FROM {schema}.oauth_clients
WHERE bucket = $1
  AND tenant_id = $2
  AND oauth_client_id = $3";

const CLIENT_LOCK: &str = "-- {schema}.oauth_client_lock
SELECT refused_at, refused_until, refusals, version, now() AS read_at
FROM {schema}.oauth_clients
WHERE bucket = $1
  AND tenant_id = $2
  AND oauth_client_id = $3
FOR UPDATE";

const CLIENT_REFUSE: &str = "-- {schema}.oauth_client_refuse
UPDATE {schema}.oauth_clients
SET refused_at = $4,
    refused_error = $5,
    refused_until = $6,
    refusals = $7
WHERE bucket = $1
  AND tenant_id = $2
  AND oauth_client_id = $3";

/// What became of a PutOAuthClient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PutOutcome {
    /// It stands.
    Written,
    /// Another call changed it meanwhile.
    Changed,
}

impl Store {
    pub(crate) async fn oauth_client_get(
        &self,
        key: ClientKey,
    ) -> Result<Option<OAuthClient>, StoreError> {
        let params: &[&(dyn ToSql + Sync)] = &[&key.tenant.bucket(), &key.tenant.id(), &key.id];
        let row = self
            .db
            .query_opt(Scope::Tenant(key.tenant), CLIENT_GET, params)
            .await?;
        row.map(|row| client_from(&row, key)).transpose()
    }

    /// Writes the client, if it is still at the version before. What the provider thought of the one before is asked anew.
    pub(crate) async fn oauth_client_put(
        &self,
        client: &OAuthClient,
        actor: &Actor,
    ) -> Result<PutOutcome, StoreError> {
        let (client, actor) = (client.clone(), actor.clone());
        self.db
            .run_tx(
                "TokenVaultService/PutOAuthClient",
                Scope::Tenant(client.key.tenant),
                async move |tx: &Tx| {
                    refuse_shredded(tx, client.key.tenant).await?;
                    if put(tx, &client).await? != 1 {
                        return Ok(PutOutcome::Changed);
                    }
                    let resource = format!("oauth_clients/{}", client.key.id);
                    audit::append(
                        tx,
                        client.key.tenant,
                        &actor,
                        "TokenVaultService/PutOAuthClient",
                        &resource,
                        "",
                    )
                    .await?;
                    Ok(PutOutcome::Written)
                },
            )
            .await
    }

    /// `false` where there was none.
    pub(crate) async fn oauth_client_delete(
        &self,
        key: ClientKey,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        let actor = actor.clone();
        self.db
            .run_tx(
                "oauth_client_delete",
                Scope::Tenant(key.tenant),
                async move |tx: &Tx| {
                    let deleted = tx
                        .execute(
                            CLIENT_DELETE,
                            &[&key.tenant.bucket(), &key.tenant.id(), &key.id],
                        )
                        .await?
                        == 1;
                    if deleted {
                        let resource = format!("oauth_clients/{}", key.id);
                        audit::append(
                            tx,
                            key.tenant,
                            &actor,
                            "TokenVaultService/DeleteOAuthClient",
                            &resource,
                            "",
                        )
                        .await?;
                    }
                    Ok(deleted)
                },
            )
            .await
    }

    /// The provider refuses the client: others are told the first time, and its grants wait. `version` is the one that
    /// was refused; a newer one has not been tried yet. Says how long to wait.
    pub(crate) async fn oauth_client_refused(
        &self,
        key: ClientKey,
        version: i64,
        error: &str,
    ) -> Result<Option<Duration>, StoreError> {
        let error = error.to_owned();
        self.db
            .run_tx(
                "oauth_client_refused",
                Scope::Tenant(key.tenant),
                async move |tx: &Tx| {
                    let Some(locked) = lock(tx, key).await? else {
                        return Ok(None);
                    };
                    if locked.version != version {
                        return Ok(None);
                    }
                    let wait = refusal_wait(locked.refusals);
                    if locked
                        .refused_until
                        .is_some_and(|until| until > locked.read_at)
                    {
                        // Others that were on their way have come back with the same news.
                        return Ok(Some(wait));
                    }
                    let (since, until) = (
                        locked.refused_at.unwrap_or(locked.read_at),
                        locked.read_at + wait,
                    );
                    let params: &[&(dyn ToSql + Sync)] = &[
                        &key.tenant.bucket(),
                        &key.tenant.id(),
                        &key.id,
                        &Some(since),
                        &Some(&error),
                        &Some(until),
                        &(locked.refusals + 1),
                    ];
                    tx.execute(CLIENT_REFUSE, params).await?;
                    if locked.refused_at.is_none() {
                        tell(tx, key, &locked, contract::client_refused(key, &error)).await?;
                    }
                    Ok(Some(wait))
                },
            )
            .await
    }

    /// The provider takes the client again.
    pub(crate) async fn oauth_client_accepted(&self, key: ClientKey) -> Result<(), StoreError> {
        self.db
            .run_tx(
                "oauth_client_accepted",
                Scope::Tenant(key.tenant),
                async move |tx: &Tx| {
                    let Some(locked) = lock(tx, key).await? else {
                        return Ok(());
                    };
                    if locked.refused_at.is_none() {
                        return Ok(());
                    }
                    let nothing: Option<OffsetDateTime> = None;
                    let params: &[&(dyn ToSql + Sync)] = &[
                        &key.tenant.bucket(),
                        &key.tenant.id(),
                        &key.id,
                        &nothing,
                        &None::<&str>,
                        &nothing,
                        &0_i32,
                    ];
                    tx.execute(CLIENT_REFUSE, params).await?;
                    tell(tx, key, &locked, contract::client_accepted(key)).await
                },
            )
            .await
    }
}

struct Locked {
    refused_at: Option<OffsetDateTime>,
    refused_until: Option<OffsetDateTime>,
    refusals: i32,
    version: i64,
    read_at: OffsetDateTime,
}

async fn lock(tx: &Tx, key: ClientKey) -> Result<Option<Locked>, StoreError> {
    let row = tx
        .query_opt(
            CLIENT_LOCK,
            &[&key.tenant.bucket(), &key.tenant.id(), &key.id],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Locked {
        refused_at: get(&row, "refused_at")?,
        refused_until: get(&row, "refused_until")?,
        refusals: get(&row, "refusals")?,
        version: get(&row, "version")?,
        read_at: get(&row, "read_at")?,
    }))
}

/// The revision is the time: refusals and acceptances of a client follow each other by milliseconds at least.
async fn tell(
    tx: &Tx,
    key: ClientKey,
    locked: &Locked,
    payload: Vec<u8>,
) -> Result<(), StoreError> {
    let event = outbox::Event {
        event_id: key.tenant.new_id(tx.deps()),
        resource: format!("oauth_clients/{}", key.id),
        revision: (locked.read_at.unix_timestamp_nanos() / 1000) as i64,
        payload,
    };
    outbox::append(tx, key.tenant, &event).await?;
    Ok(())
}

async fn put(tx: &Tx, client: &OAuthClient) -> Result<u64, StoreError> {
    let settings = &client.settings;
    let own = &settings.endpoints;
    let margin = settings
        .refresh_margin
        .map(|margin| margin.as_millis() as i64);
    let (method, params) = (settings.auth_method.as_str(), Json(&settings.token_params));
    let params: &[&(dyn ToSql + Sync)] = &[
        &client.key.tenant.bucket(),
        &client.key.tenant.id(),
        &client.key.id,
        &settings.provider,
        &own.token,
        &own.refresh,
        &own.revocation,
        &own.pushed_authorization_request,
        &own.device_authorization,
        &settings.issuer,
        &own.jwks,
        &method,
        &settings.client_id,
        &settings.key_id,
        &params,
        &margin,
        &client.secret,
        &client.previous_secret,
        &client.previous_secret_expires_at,
        &client.secret_version,
        &client.key_version,
        &client.version,
    ];
    Ok(tx.execute(CLIENT_PUT, params).await?)
}

fn client_from(row: &Row, key: ClientKey) -> Result<OAuthClient, StoreError> {
    let refusal: (Option<OffsetDateTime>, Option<OffsetDateTime>) =
        (get(row, "refused_at")?, get(row, "refused_until")?);
    let read_at = get(row, "read_at")?;
    Ok(OAuthClient {
        key,
        settings: Settings {
            provider: get(row, "provider")?,
            endpoints: OwnEndpoints {
                token: get(row, "token_endpoint")?,
                refresh: get(row, "refresh_endpoint")?,
                revocation: get(row, "revocation_endpoint")?,
                pushed_authorization_request: get(row, "pushed_authorization_request_endpoint")?,
                device_authorization: get(row, "device_authorization_endpoint")?,
                jwks: get(row, "jwks_uri")?,
            },
            issuer: get(row, "issuer")?,
            auth_method: word(row, "oauth_clients", "auth_method", AuthMethod::from_word)?,
            client_id: get(row, "client_id")?,
            key_id: get(row, "key_id")?,
            token_params: texts(row, "token_params")?,
            refresh_margin: get::<Option<i64>>(row, "refresh_margin_ms")?
                .map(|ms| Duration::from_millis(ms as u64)),
        },
        secret: get(row, "secret")?,
        previous_secret: get(row, "previous_secret")?,
        previous_secret_expires_at: get(row, "previous_secret_expires_at")?,
        secret_version: get(row, "secret_version")?,
        key_version: get(row, "key_version")?,
        version: get(row, "version")?,
        refusal: match refusal {
            // A client that was put again is asked at once, and stays refused until the provider has taken it.
            (Some(since), until) => Some(Refusal {
                since,
                error: get::<Option<String>>(row, "refused_error")?.unwrap_or_default(),
                until: until.unwrap_or(read_at),
                count: get(row, "refusals")?,
            }),
            (None, _) => None,
        },
        read_at,
    })
}
