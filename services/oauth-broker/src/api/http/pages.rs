//! A session's pages, and what the person says on them.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};
use axum::response::{Html, IntoResponse as _, Response};
use common::Secret;
use common::pg::Scope;
use common::problem::Chain;
use contracts::broker::v1::ConnectSessionState;
use http::{HeaderValue, StatusCode, header};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::cookies::{self, Cookies, Kind};
use crate::broker::{Broker, browser_caller};
use crate::error::Error;
use crate::link_token;
use crate::pages::words::{self, Words};
use crate::pages::{Choice, Consent, Outcome, choose_account, consent, message};
use crate::session::Session;
use crate::store::sessions::session_get;

/// What a browser has shown of itself.
struct Known {
    session: Session,
    /// The secret that it is known by, once it is bound.
    bound: Option<String>,
    /// Stands in its forms, so that no other site can send them.
    csrf: String,
}

/// Shows the session as it is.
pub(super) async fn show(broker: &Broker, session_id: Uuid, cookies: &Cookies) -> Response {
    match known(broker, session_id, cookies).await {
        Ok(known) => page(broker, &known).await,
        Err(response) => response,
    }
}

/// Does what the person said.
pub(super) async fn answer(
    broker: &Broker,
    session_id: Uuid,
    cookies: &Cookies,
    form: &HashMap<String, String>,
) -> Response {
    let known = match known(broker, session_id, cookies).await {
        Ok(known) => known,
        Err(response) => return response,
    };
    let csrf = form.get("csrf").map(String::as_str).unwrap_or_default();
    if !bool::from(csrf.as_bytes().ct_eq(known.csrf.as_bytes())) {
        return said(broker, StatusCode::FORBIDDEN, words::pages::COOKIES);
    }
    match known.session.state_at(broker.deps.now()) {
        ConnectSessionState::ChoosingAccount if known.bound.is_some() => {
            chosen(broker, &known, form).await
        }
        _ if known.session.is_open(broker.deps.now()) => begin(broker, known, form).await,
        _ => page(broker, &known).await,
    }
}

async fn begin(broker: &Broker, known: Known, form: &HashMap<String, String>) -> Response {
    let session = &known.session;
    let wanted = form
        .get("integration")
        .map(String::as_str)
        .unwrap_or_default();
    let id = match session.allowed_integration_ids.as_slice() {
        [only] => only.as_str(),
        several => match several.iter().find(|id| *id == wanted) {
            Some(id) => id.as_str(),
            None => return page(broker, &known).await,
        },
    };
    let browser = known
        .bound
        .clone()
        .map_or_else(|| broker.deps.token(""), Secret::new);
    let start = async {
        let integration = match &session.integration {
            Some((owner, fixed)) if fixed == id => broker.integration_of(*owner, fixed).await?,
            _ => broker.integration(session.tenant, id).await?,
        };
        broker
            .start_authorization(session, &integration, &browser)
            .await
    };
    match common::identity::scope(browser_caller(session), start).await {
        Ok(url) => {
            let mut response = see_other(url.as_str());
            let left = session.expires_at - broker.deps.now();
            let value = browser.expose();
            cookies::put(
                &mut response,
                &broker.public_url,
                Kind::Browser,
                session.session_id,
                value,
                left,
            );
            response
        }
        Err(Error::SessionOver { .. }) => {
            said(broker, StatusCode::FORBIDDEN, words::pages::OTHER_BROWSER)
        }
        Err(error @ Error::Misconfigured(_)) => match broker
            .fail_session(session, &error, None)
            .await
        {
            Ok(crate::finish_authorization::Finished::Session(session)) => shown(broker, &session),
            Ok(_) => said(broker, StatusCode::BAD_REQUEST, words::pages::MISCONFIGURED),
            Err(error) => broken(broker, &error),
        },
        Err(error) => broken(broker, &error),
    }
}

async fn chosen(broker: &Broker, known: &Known, form: &HashMap<String, String>) -> Response {
    let account = form.get("account").map(String::as_str).unwrap_or_default();
    match broker.choose_account(&known.session, account).await {
        Ok(finished) => super::after(broker, finished),
        Err(Error::NotFound("account")) => page(broker, known).await,
        Err(error) => broken(broker, &error),
    }
}

/// The session, if this browser came by its link, or is the one it is bound to.
async fn known(broker: &Broker, session_id: Uuid, cookies: &Cookies) -> Result<Known, Response> {
    let found = session_get(&broker.db, Scope::System, session_id).await;
    let session = match found {
        Ok(Some(session)) => session,
        Ok(None) => return Err(said(broker, StatusCode::NOT_FOUND, words::pages::UNKNOWN)),
        Err(error) => return Err(broken(broker, &error.into())),
    };
    let browser = cookies.get(&broker.public_url, Kind::Browser, session_id);
    let link = cookies.get(&broker.public_url, Kind::Link, session_id);
    let is =
        |secret: &String, hash: &[u8]| bool::from(link_token::hash(secret).as_slice().ct_eq(hash));
    let bound = browser.filter(|secret| {
        session
            .browser_hash
            .as_deref()
            .is_some_and(|hash| is(secret, hash))
    });
    let link = link.filter(|token| is(token, &session.token_hash));
    match (&bound, &link, &session.browser_hash) {
        (None, None, _) => Err(said(broker, StatusCode::FORBIDDEN, words::pages::COOKIES)),
        (None, Some(_), Some(_)) => Err(said(
            broker,
            StatusCode::FORBIDDEN,
            words::pages::OTHER_BROWSER,
        )),
        _ => {
            let secret = bound
                .as_ref()
                .or(link.as_ref())
                .cloned()
                .unwrap_or_default();
            let csrf = hex::encode(digest(&SHA256, format!("csrf:{secret}").as_bytes()));
            Ok(Known {
                session,
                bound,
                csrf,
            })
        }
    }
}

async fn page(broker: &Broker, known: &Known) -> Response {
    let session = &known.session;
    let now = broker.deps.now();
    let work = async {
        if session.is_open(now) {
            return consent_page(broker, known).await.map(Some);
        }
        if session.state_at(now) == ConnectSessionState::ChoosingAccount {
            return choice_page(broker, known).await.map(Some);
        }
        Ok(None)
    };
    match common::identity::scope(browser_caller(session), work).await {
        Ok(Some(page)) => Html(page).into_response(),
        Ok(None) => shown(broker, session),
        Err(Error::NotFound(_)) => said(broker, StatusCode::NOT_FOUND, words::pages::UNKNOWN),
        Err(error) => broken(broker, &error),
    }
}

async fn consent_page(broker: &Broker, known: &Known) -> Result<String, Error> {
    let session = &known.session;
    let tenant = broker
        .directory
        .tenant(session.tenant)
        .await?
        .ok_or(Error::NotFound("tenant"))?;
    let mut choices = Vec::new();
    for id in &session.allowed_integration_ids {
        let integration = broker.integration(session.tenant, id).await?;
        choices.push((id.clone(), integration.display_name));
    }
    let user = if session.user_email.is_empty() {
        &session.user_id
    } else {
        &session.user_email
    };
    Ok(consent(&Consent {
        product: &broker.pages.product_name,
        tenant: &tenant.company_name,
        user,
        support: &tenant.support_contact,
        csrf: &known.csrf,
        choices: &choices,
    }))
}

async fn choice_page(broker: &Broker, known: &Known) -> Result<String, Error> {
    let session = &known.session;
    let (owner, id) = session
        .integration
        .as_ref()
        .ok_or(Error::NotFound("integration"))?;
    let integration = broker.integration_of(*owner, id).await?;
    let authorized = session
        .authorized
        .as_ref()
        .ok_or(Error::NotFound("session"))?;
    let accounts: Vec<_> = authorized
        .selectable()
        .map(|account| (account.external_account_id.clone(), account.name.clone()))
        .collect();
    Ok(choose_account(&Choice {
        product: &broker.pages.product_name,
        provider: &integration.display_name,
        csrf: &known.csrf,
        accounts: &accounts,
    }))
}

/// A session that waits for the person is shown on its page; one that is over goes where the host application wants it.
pub(super) fn shown(broker: &Broker, session: &Session) -> Response {
    let now = broker.deps.now();
    let mut state = session.state_at(now);
    if session.is_open(now) || state == ConnectSessionState::ChoosingAccount {
        return see_other(&format!("/connect/session/{}", session.session_id));
    }
    if session.finished_at.is_some() {
        if let Some(url) = session.destination(None) {
            return see_other(url.as_str());
        }
    } else if state != ConnectSessionState::AwaitingConfirmation {
        state = ConnectSessionState::Expired;
    }
    let status = match state {
        ConnectSessionState::Succeeded | ConnectSessionState::AwaitingConfirmation => {
            StatusCode::OK
        }
        ConnectSessionState::Expired => StatusCode::GONE,
        _ => StatusCode::BAD_REQUEST,
    };
    let Outcome(words) = Outcome::of(session, state);
    said(broker, status, words)
}

/// A page that says something.
pub(super) fn said(broker: &Broker, status: StatusCode, words: Words) -> Response {
    (
        status,
        Html(message(&broker.pages.product_name, Outcome(words))),
    )
        .into_response()
}

/// A page for what is nobody's fault who reads it.
pub(super) fn broken(broker: &Broker, error: &Error) -> Response {
    tracing::warn!(event = "page_failed", error = %Chain(error), "a page could not be shown");
    let is_ours = matches!(error, Error::Seal(_) | Error::Corrupt(_));
    let status = if is_ours {
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    said(broker, status, words::pages::BROKEN)
}

/// Another page, by GET (RFC 9700, 4.12: never 307, which would repeat a POST).
pub(super) fn see_other(target: &str) -> Response {
    match HeaderValue::from_str(target) {
        Ok(target) => (StatusCode::SEE_OTHER, [(header::LOCATION, target)]).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
