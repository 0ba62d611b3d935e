//! The control API, JSON over HTTP under `/_sim`. The crate's README lists it.

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post, put};
use axum::{Json, Router};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::{ClientConfig, ProviderConfig};
use crate::control::{Control, ControlError, GrantView, Part};
use crate::counters::CountersView;
use crate::data::{Changed, Changes, CollectionName, RecordSummary};
use crate::faults::{ActiveFault, FaultRule};
use crate::webhook::{WebhookOutcome, WebhookRequest};

/// A JSON body; what cannot be read is answered in the API's own form. A browser cannot send one across origins without being asked.
struct Body<T>(T);

struct Refused(StatusCode, String);

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Reset {
    parts: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_seconds: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    provider: String,
    collection: crate::config::CollectionKind,
    owner: String,
    #[serde(default)]
    insert: Vec<serde_json::Map<String, Value>>,
    #[serde(default)]
    update: Vec<crate::data::Update>,
    #[serde(default)]
    delete: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Churn {
    provider: String,
    collection: crate::config::CollectionKind,
    owner: String,
    count: u32,
    seed: u64,
}

pub(crate) fn router(control: Control) -> Router {
    Router::new()
        .route("/counters", get(counters))
        .route("/reset", post(reset))
        .route("/faults", get(faults).post(inject).delete(clear_faults))
        .route("/faults/{id}", delete(remove_fault))
        .route("/grants", get(grants))
        .route("/grants/{id}/revoke", post(revoke_grant))
        .route("/grants/{id}/expire", post(expire_access_tokens))
        .route("/records", get(records).post(change_records))
        .route("/records/churn", post(churn_records))
        .route("/delta/expire", post(expire_delta_tokens))
        .route("/clock", get(clock).post(advance_clock))
        .route("/providers", get(providers))
        .route("/providers/{slug}", patch(patch_provider))
        .route("/providers/{slug}/clients", put(register_client))
        .route("/webhooks", post(send_webhook))
        .with_state(control)
}

async fn counters(State(control): State<Control>) -> Json<CountersView> {
    Json(control.counters().view())
}

async fn reset(State(control): State<Control>, body: bytes::Bytes) -> Result<StatusCode, Refused> {
    let reset = if body.is_empty() {
        Reset::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?
    };
    control.reset(&reset.parts).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn faults(State(control): State<Control>) -> Json<Vec<ActiveFault>> {
    Json(control.faults())
}

async fn inject(
    State(control): State<Control>,
    Body(rule): Body<FaultRule>,
) -> Result<Json<Value>, Refused> {
    if !(0.0..=1.0).contains(&rule.probability) {
        return Err(bad("probability has to be between 0 and 1".to_owned()));
    }
    Ok(Json(json!({"id": control.inject(rule)})))
}

async fn clear_faults(State(control): State<Control>) -> StatusCode {
    control.clear_faults();
    StatusCode::NO_CONTENT
}

async fn remove_fault(
    State(control): State<Control>,
    Path(id): Path<u64>,
) -> Result<StatusCode, Refused> {
    control.remove_fault(id)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn grants(State(control): State<Control>) -> Json<Vec<GrantView>> {
    Json(control.grants())
}

async fn revoke_grant(
    State(control): State<Control>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refused> {
    control.revoke_grant(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn expire_access_tokens(
    State(control): State<Control>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refused> {
    control.expire_access_tokens(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn records(
    State(control): State<Control>,
    Query(name): Query<CollectionName>,
) -> Result<Json<Vec<RecordSummary>>, Refused> {
    Ok(Json(control.records(&name)?))
}

async fn change_records(
    State(control): State<Control>,
    Body(change): Body<Change>,
) -> Result<Json<Changed>, Refused> {
    let Change {
        provider,
        collection,
        owner,
        insert,
        update,
        delete,
    } = change;
    let name = CollectionName {
        provider,
        collection,
        owner,
    };
    Ok(Json(
        control
            .change_records(
                &name,
                Changes {
                    insert,
                    update,
                    delete,
                },
            )
            .await?,
    ))
}

async fn churn_records(
    State(control): State<Control>,
    Body(churn): Body<Churn>,
) -> Result<Json<Changed>, Refused> {
    let Churn {
        provider,
        collection,
        owner,
        count,
        seed,
    } = churn;
    let name = CollectionName {
        provider,
        collection,
        owner,
    };
    Ok(Json(control.churn_records(&name, count, seed).await?))
}

async fn expire_delta_tokens(State(control): State<Control>) -> Result<StatusCode, Refused> {
    control.expire_delta_tokens().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn clock(State(control): State<Control>) -> Json<Value> {
    Json(json!({"now": control.now()}))
}

async fn advance_clock(
    State(control): State<Control>,
    Body(advance): Body<Advance>,
) -> Result<Json<Value>, Refused> {
    control
        .advance_clock(std::time::Duration::from_secs(
            advance.advance_seconds.into(),
        ))
        .await?;
    Ok(Json(json!({"now": control.now()})))
}

async fn providers(State(control): State<Control>) -> Json<Value> {
    let view = |provider: ProviderConfig| {
        let issuer = control.issuer(&provider.slug).unwrap_or_default();
        json!({"issuer": issuer, "config": provider})
    };
    Json(control.providers().into_iter().map(view).collect())
}

async fn patch_provider(
    State(control): State<Control>,
    Path(slug): Path<String>,
    Body(patch): Body<Value>,
) -> Result<StatusCode, Refused> {
    control.patch_provider(&slug, &patch).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn register_client(
    State(control): State<Control>,
    Path(slug): Path<String>,
    Body(client): Body<ClientConfig>,
) -> Result<StatusCode, Refused> {
    control.register_client(&slug, client).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn send_webhook(
    State(control): State<Control>,
    Body(request): Body<WebhookRequest>,
) -> Result<Json<Vec<WebhookOutcome>>, Refused> {
    Ok(Json(control.send_webhook(&request).await?))
}

fn bad(message: String) -> Refused {
    Refused(StatusCode::BAD_REQUEST, message)
}

impl<S: Send + Sync, T: for<'de> Deserialize<'de>> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: axum::extract::Request, state: &S) -> Result<Self, Refused> {
        let read = Json::<T>::from_request(request, state).await;
        read.map(|Json(body)| Self(body))
            .map_err(|error: JsonRejection| Refused(error.status(), error.body_text()))
    }
}

impl From<ControlError> for Refused {
    fn from(error: ControlError) -> Self {
        let status = match &error {
            ControlError::NoProvider { .. }
            | ControlError::NoCollection
            | ControlError::NoGrant { .. }
            | ControlError::NoDevice { .. }
            | ControlError::NoFault { .. } => StatusCode::NOT_FOUND,
            ControlError::NoRecord(_) | ControlError::Invalid { .. } | ControlError::Webhook(_) => {
                StatusCode::BAD_REQUEST
            }
            ControlError::State(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self(status, message)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Error {
            error: String,
        }
        (self.0, Json(Error { error: self.1 })).into_response()
    }
}
