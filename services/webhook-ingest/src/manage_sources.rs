//! Making, changing and ending sources, and turning their secrets over.

use std::collections::BTreeMap;
use std::time::Duration;

use common::identity::Caller;
use common::pg::request_ids::{self, Call};
use common::pg::{Scope, Tx, audit};
use common::{Problem, Secret, TenantKey};
use contracts::ingest::v1::{CreateSourceRequest, CreateSourceResponse, Source as Described};
use serde_json::Value;
use webhook_signatures::Scheme;

use crate::app::Ingest;
use crate::encode;
use crate::error::Error;
use crate::keys::Place;
use crate::source::{Integration, Previous, SealedSecrets, SealedToken, Source};
use crate::source_token::{new_token, token_hash};
use crate::store::sources::{source_delete, source_get, source_insert, source_lock, source_update};

/// What a new source is to be, once everything about it has been checked.
#[derive(Debug)]
pub(crate) struct NewSource {
    pub(crate) tenant: TenantKey,
    /// Made where empty.
    pub(crate) source_id: String,
    pub(crate) integration_id: String,
    pub(crate) scheme: &'static Scheme,
    pub(crate) scheme_options: Value,
    pub(crate) trigger_streams: BTreeMap<String, String>,
    pub(crate) sealed_bodies: bool,
    pub(crate) accept_unverified: bool,
    pub(crate) secret: Secret<String>,
}

/// What of a source is to change.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) integration_id: Option<String>,
    pub(crate) scheme_options: Option<Value>,
    pub(crate) trigger_streams: Option<BTreeMap<String, String>>,
    pub(crate) sealed_bodies: Option<bool>,
}

/// Makes a source with an address of its own.
///
/// # Errors
/// [`Error::SourceExists`]; an integration that there is not.
pub(crate) async fn create_source(
    ingest: &Ingest,
    caller: &Caller,
    new: NewSource,
    request: CreateSourceRequest,
) -> Result<CreateSourceResponse, Error> {
    let (tenant, deps) = (new.tenant, &ingest.deps);
    let integration = integration(ingest, tenant, &new.integration_id).await?;
    let source_key = tenant.new_id(deps);
    let token = new_token(tenant, deps);
    let hash = token_hash(token.expose()).expect("it was just made");
    let sealed_token = ingest
        .keys
        .seal(
            tenant,
            Place::SourceToken { source_key },
            token.expose().as_bytes(),
        )
        .await?;
    let secret = seal_secret(ingest, tenant, source_key, 1, &new.secret).await?;
    let now = ingest.now();
    let source = Source {
        tenant,
        source_id: if new.source_id.is_empty() {
            source_key.to_string()
        } else {
            new.source_id
        },
        source_key,
        integration,
        scheme: new.scheme.key.clone(),
        scheme_options: new.scheme_options,
        trigger_streams: new.trigger_streams,
        sealed_bodies: new.sealed_bodies,
        accept_unverified: new.accept_unverified,
        token: SealedToken {
            hash: hash.hash,
            sealed: sealed_token,
        },
        secrets: SealedSecrets {
            version: 1,
            current: secret,
            previous: None,
        },
        revision: 1,
        created_at: now,
        updated_at: now,
    };
    let described = encode::source(&source, &ingest.address(token.expose()));
    let caller = caller.clone();
    // The body that is hashed and the answer that is stored hold no secret: the address is sealed again when it is read.
    let without_secret = CreateSourceRequest {
        secret: String::new(),
        ..request
    };
    let answer = ingest
        .database
        .run_tx(
            "source_create",
            Scope::Tenant(tenant),
            async move |tx: &Tx| {
                let call = Call {
                    tenant,
                    method: "WebhookSourceService/CreateSource",
                    request_id: &without_secret.request_id,
                    body: &without_secret,
                };
                let work = async || {
                    if !source_insert(tx, &source).await? {
                        return Err(Error::SourceExists);
                    }
                    note(tx, &caller, tenant, "CreateSource", &source.source_id, "").await?;
                    Ok(CreateSourceResponse {
                        source: Some(described.clone()),
                    })
                };
                request_ids::run_without(tx, call, work, without_url).await
            },
        )
        .await?;
    match &answer.source {
        // A repeated call: its answer was stored without the address.
        Some(first) if first.url.is_empty() => {
            let source = get_source(ingest, tenant, &first.source_id).await?;
            Ok(CreateSourceResponse {
                source: Some(source),
            })
        }
        _ => Ok(answer),
    }
}

fn without_url(answer: CreateSourceResponse) -> CreateSourceResponse {
    CreateSourceResponse {
        source: answer.source.map(|source| Described {
            url: String::new(),
            ..source
        }),
    }
}

/// The source, with its address.
///
/// # Errors
/// [`Error::NotFound`].
pub(crate) async fn get_source(
    ingest: &Ingest,
    tenant: TenantKey,
    source_id: &str,
) -> Result<Described, Error> {
    let source = source_get(&ingest.database, tenant, source_id).await?;
    describe(ingest, &source.ok_or(Error::NotFound("source"))?).await
}

/// A source as the contract has it. Its address is opened with the tenant's key.
///
/// # Errors
/// Where the vault is away.
pub(crate) async fn describe(ingest: &Ingest, source: &Source) -> Result<Described, Error> {
    let place = Place::SourceToken {
        source_key: source.source_key,
    };
    let token = ingest
        .keys
        .open(source.tenant, place, &source.token.sealed)
        .await?;
    let token = String::from_utf8_lossy(token.expose());
    Ok(encode::source(source, &ingest.address(&token)))
}

/// Changes what is named.
///
/// # Errors
/// [`Error::NotFound`]; options that do not fit the source's scheme; an integration that there is not.
pub(crate) async fn update_source(
    ingest: &Ingest,
    caller: &Caller,
    tenant: TenantKey,
    source_id: String,
    changes: Changes,
) -> Result<Described, Error> {
    let known = source_get(&ingest.database, tenant, &source_id)
        .await?
        .ok_or(Error::NotFound("source"))?;
    if let Some(options) = &changes.scheme_options {
        let scheme = Scheme::find(&known.scheme).ok_or(Error::Scheme)?;
        encode::scheme_options(scheme, options.clone())
            .map_err(|error| Problem::invalid_field("source.scheme_options", error))?;
    }
    let integration = match &changes.integration_id {
        Some(integration_id) => Some(integration(ingest, tenant, integration_id).await?),
        None => None,
    };
    let (caller, now) = (caller.clone(), ingest.now());
    let source = ingest
        .database
        .run_tx(
            "source_update",
            Scope::Tenant(tenant),
            async move |tx: &Tx| {
                let locked = source_lock(tx, tenant, &source_id).await?;
                let mut source = locked
                    .filter(|locked| locked.source_key == known.source_key)
                    .ok_or(Error::NotFound("source"))?;
                if let Some(integration) = &integration {
                    source.integration.clone_from(integration);
                }
                if let Some(options) = &changes.scheme_options {
                    source.scheme_options.clone_from(options);
                }
                if let Some(streams) = &changes.trigger_streams {
                    source.trigger_streams.clone_from(streams);
                }
                if let Some(sealed) = changes.sealed_bodies {
                    source.sealed_bodies = sealed;
                }
                source.revision += 1;
                source.updated_at = now;
                source_update(tx, &source).await?;
                note(tx, &caller, tenant, "UpdateSource", &source_id, "").await?;
                Ok::<_, Error>(source)
            },
        )
        .await?;
    describe(ingest, &source).await
}

/// Takes a new secret; the old one stays good for `overlap`.
///
/// # Errors
/// [`Error::NotFound`]; a secret that the scheme does not take.
pub(crate) async fn rotate_source_secret(
    ingest: &Ingest,
    caller: &Caller,
    tenant: TenantKey,
    source_id: String,
    secret: Secret<String>,
    overlap: Duration,
) -> Result<(), Error> {
    let known = source_get(&ingest.database, tenant, &source_id)
        .await?
        .ok_or(Error::NotFound("source"))?;
    let scheme = Scheme::find(&known.scheme).ok_or(Error::Scheme)?;
    scheme
        .check_secret(secret.expose().as_bytes())
        .map_err(|error| Problem::invalid_field("new_secret", error.to_string()))?;
    let version = known.secrets.version + 1;
    let sealed = seal_secret(ingest, tenant, known.source_key, version, &secret).await?;
    let (caller, now) = (caller.clone(), ingest.now());
    ingest
        .database
        .run_tx(
            "source_rotate",
            Scope::Tenant(tenant),
            async move |tx: &Tx| {
                let locked = source_lock(tx, tenant, &source_id).await?;
                let mut source = locked
                    .filter(|locked| locked.source_key == known.source_key)
                    .ok_or(Error::NotFound("source"))?;
                // It was sealed for this version and no other.
                if source.secrets.version + 1 != version {
                    return Err(Error::Request(Problem::unavailable(
                        "another rotation of the same source came first",
                        Duration::from_millis(100),
                    )));
                }
                let old = std::mem::replace(&mut source.secrets.current, sealed.clone());
                source.secrets.previous = (!overlap.is_zero()).then(|| Previous {
                    sealed: old,
                    until: now + overlap,
                });
                source.secrets.version = version;
                source.revision += 1;
                source.updated_at = now;
                source_update(tx, &source).await?;
                let reason = format!("the old secret is good for another {} s", overlap.as_secs());
                note(
                    tx,
                    &caller,
                    tenant,
                    "RotateSourceSecret",
                    &source_id,
                    &reason,
                )
                .await
            },
        )
        .await
}

/// Ends a source: its address is gone. Its events stay.
///
/// # Errors
/// [`Error::NotFound`].
pub(crate) async fn delete_source(
    ingest: &Ingest,
    caller: &Caller,
    tenant: TenantKey,
    source_id: String,
) -> Result<(), Error> {
    let caller = caller.clone();
    ingest
        .database
        .run_tx(
            "source_delete",
            Scope::Tenant(tenant),
            async move |tx: &Tx| {
                if !source_delete(tx, tenant, &source_id).await? {
                    return Err(Error::NotFound("source"));
                }
                note(tx, &caller, tenant, "DeleteSource", &source_id, "").await
            },
        )
        .await
}

async fn integration(
    ingest: &Ingest,
    tenant: TenantKey,
    integration_id: &str,
) -> Result<Option<Integration>, Error> {
    if integration_id.is_empty() {
        return Ok(None);
    }
    let found = ingest.clients.integration(tenant, integration_id).await?;
    let missing = || {
        Problem::invalid_field(
            "source.integration_id",
            "must be an integration of the tenant's or of the platform's",
        )
    };
    Ok(Some(found.ok_or_else(missing)?))
}

async fn seal_secret(
    ingest: &Ingest,
    tenant: TenantKey,
    source_key: uuid::Uuid,
    version: i64,
    secret: &Secret<String>,
) -> Result<Vec<u8>, Error> {
    let place = Place::SourceSecret {
        source_key,
        version,
    };
    ingest
        .keys
        .seal(tenant, place, secret.expose().as_bytes())
        .await
}

async fn note(
    tx: &Tx,
    caller: &Caller,
    tenant: TenantKey,
    method: &str,
    source_id: &str,
    reason: &str,
) -> Result<(), Error> {
    let action = format!("WebhookSourceService/{method}");
    let resource = format!("sources/{source_id}");
    audit::append(tx, tenant, caller.actor(), &action, &resource, reason).await?;
    tracing::info!(
        event = "source_changed",
        tenant.id = %tenant,
        user.id = caller.user_id(),
        source_id,
        action,
        "a webhook source was changed"
    );
    Ok(())
}
