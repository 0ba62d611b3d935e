//! `/oauth/authorize`: the authorization request, the consent page's answer, and the way back to the client
//! (RFC 6749, section 4.1; RFC 7636; RFC 9207; OAuth 2.0 Form Post Response Mode).

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use url::{Url, form_urlencoded};

use super::consent_page;
use super::error::OAuthError;
use super::grants::Code;
use super::parameters::Parameters;
use super::pkce;
use super::token::{kept, requested_scope};
use crate::config::{Pkce, ProviderConfig};
use crate::observe::Outcome;
use crate::random;
use crate::world::Site;

/// How long a consent page can be answered.
const PAGE_LIFETIME_MS: i64 = 10 * 60 * 1000;
const COOKIE: &str = "provider_sim_consent";

/// A checked authorization request that waits for its user.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(super) provider: String,
    pub(super) client_id: String,
    redirect: Redirect,
    pub(super) scope: Vec<String>,
    challenge: Option<String>,
    nonce: Option<String>,
    pub(super) login_hint: Option<String>,
    /// Must come back in the form and in the cookie.
    csrf: String,
    shown_ms: i64,
}

/// The way back to the client.
#[derive(Clone, Debug)]
struct Redirect {
    uri: String,
    state: Option<String>,
    form_post: bool,
}

/// Whether consent is given without a page, and by whom.
enum Automatic {
    No,
    As(String),
    Deny,
}

/// `GET`: shows the consent page, or answers at once where consent is automatic.
pub(crate) async fn show(
    State(site): State<Site>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let provider = site.provider();
    let parameters = match Parameters::parse(query.unwrap_or_default().as_bytes()) {
        Ok(parameters) => parameters,
        Err(name) => return refuse_page(&format!("The parameter {name} came twice.")),
    };
    // RFC 9126, section 4: what was pushed counts, and nothing else.
    let parameters = match parameters.get("request_uri") {
        Some(request_uri) => {
            let client_id = parameters.get("client_id");
            match site.world.pushed().take(&site, request_uri, client_id) {
                Some(pushed) => pushed,
                None => return refuse_page("request_uri is not known, or was used already."),
            }
        }
        None if provider.require_pushed_requests => {
            return refuse_page("Authorization requests have to be pushed.");
        }
        None => parameters,
    };
    // Errors about the client or its redirect URI are shown to the user: there is nowhere safe to send them (section 4.1.2.1).
    let redirect = match redirect(&provider, &parameters) {
        Ok(redirect) => redirect,
        Err(description) => return refuse_page(&description),
    };
    let pending = match check(&site, &provider, &parameters, redirect.clone()) {
        Ok(pending) => pending,
        Err(error) => return redirect_error(&site, &provider, &redirect, &error),
    };
    match automatic(&site, &provider, &parameters, &pending) {
        Automatic::As(user) => {
            let scope = pending.scope.clone();
            allow(&site, &provider, pending, &user, scope).await
        }
        Automatic::Deny => redirect_error(&site, &provider, &redirect, &denied()),
        // OpenID Connect Core, section 3.1.2.6.
        Automatic::No if parameters.get("prompt") == Some("none") => redirect_error(
            &site,
            &provider,
            &redirect,
            &OAuthError::new("login_required", "Nobody is logged in."),
        ),
        Automatic::No => page(&site, &provider, pending, &headers),
    }
}

/// `POST`: what the user said.
pub(crate) async fn decide(State(site): State<Site>, headers: HeaderMap, body: Bytes) -> Response {
    let provider = site.provider();
    let field = |wanted: &str| {
        form_urlencoded::parse(&body)
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.into_owned())
    };
    let id = field("request").unwrap_or_default();
    let pending = {
        let mut pages = site.world.pending();
        let genuine = |pending: &Pending| {
            pending.provider == provider.slug
                && field("csrf").as_deref() == Some(pending.csrf.as_str())
                && cookies(&headers).any(|value| value == pending.csrf)
                && site.world.clock.now_ms() < pending.shown_ms + PAGE_LIFETIME_MS
        };
        if pages.get(&id).is_some_and(genuine) {
            pages.remove(&id)
        } else {
            None
        }
    };
    let Some(pending) = pending else {
        return refuse_page(
            "This page was answered already, has expired, or was not opened in this browser.",
        );
    };
    match (field("decision").as_deref(), field("user")) {
        (Some("allow"), Some(user)) if site.world.user(&user).is_some() => {
            let scope = if provider.granular_consent {
                let ticked: Vec<String> = form_urlencoded::parse(&body)
                    .filter(|(name, _)| name == "scope")
                    .map(|(_, value)| value.into_owned())
                    .collect();
                pending
                    .scope
                    .iter()
                    .filter(|scope| ticked.contains(scope))
                    .cloned()
                    .collect()
            } else {
                pending.scope.clone()
            };
            allow(&site, &provider, pending, &user, scope).await
        }
        (Some("allow"), _) => refuse_page("Nobody was chosen to log in as."),
        _ => redirect_error(&site, &provider, &pending.redirect, &denied()),
    }
}

/// The client's redirect URI, compared as a string (RFC 9700, section 2.1), and how to answer there.
fn redirect(provider: &ProviderConfig, parameters: &Parameters) -> Result<Redirect, String> {
    let client_id = parameters.get("client_id").ok_or("client_id is missing.")?;
    let client = provider
        .client(client_id)
        .ok_or("There is no such client.")?;
    let uri = parameters
        .get("redirect_uri")
        .ok_or("redirect_uri is missing.")?;
    if !client.redirect_uris.iter().any(|known| known == uri) {
        return Err("redirect_uri is not one that this client has registered.".to_owned());
    }
    Ok(Redirect {
        uri: uri.to_owned(),
        state: parameters.get("state").map(str::to_owned),
        form_post: parameters.get("response_mode") == Some("form_post"),
    })
}

fn check(
    site: &Site,
    provider: &ProviderConfig,
    parameters: &Parameters,
    redirect: Redirect,
) -> Result<Pending, OAuthError> {
    match parameters.get("response_type") {
        Some("code") => {}
        Some(_) => {
            return Err(OAuthError::new(
                "unsupported_response_type",
                "Only the response type code is supported.",
            ));
        }
        None => return Err(OAuthError::invalid_request("response_type is missing.")),
    }
    if !matches!(
        parameters.get("response_mode"),
        None | Some("query" | "form_post")
    ) {
        return Err(OAuthError::invalid_request(
            "The response mode is not supported.",
        ));
    }
    // OpenID Connect Core, section 3.1.2.6.
    if parameters.get("request").is_some() {
        return Err(OAuthError::new(
            "request_not_supported",
            "Request objects are not supported.",
        ));
    }
    let challenge = challenge(provider, parameters)?;
    Ok(Pending {
        provider: provider.slug.clone(),
        client_id: parameters.require("client_id")?.to_owned(),
        redirect,
        scope: requested_scope(provider, parameters)?,
        challenge,
        nonce: parameters.get("nonce").map(str::to_owned),
        login_hint: parameters.get("login_hint").map(str::to_owned),
        csrf: random::token(""),
        shown_ms: site.world.clock.now_ms(),
    })
}

/// RFC 7636, section 4.4.1. A method that is left out means `plain`, which is not supported.
fn challenge(
    provider: &ProviderConfig,
    parameters: &Parameters,
) -> Result<Option<String>, OAuthError> {
    match (
        parameters.get("code_challenge"),
        parameters.get("code_challenge_method"),
    ) {
        (None, None) if provider.pkce == Pkce::Optional => Ok(None),
        (None, _) => Err(OAuthError::invalid_request("code_challenge is required.")),
        (Some(challenge), Some("S256")) => {
            if !pkce::is_challenge(challenge) {
                return Err(OAuthError::invalid_request(
                    "code_challenge is not the base64url form of a SHA-256 hash.",
                ));
            }
            Ok(Some(challenge.to_owned()))
        }
        (Some(_), _) => Err(OAuthError::invalid_request(
            "code_challenge_method has to be S256.",
        )),
    }
}

/// `auto_consent` in the request (a user's key, `true`, or `deny`), or the provider's setting; the user is the one hinted at, or the first.
fn automatic(
    site: &Site,
    provider: &ProviderConfig,
    parameters: &Parameters,
    pending: &Pending,
) -> Automatic {
    let world = &site.world;
    let hinted = pending.login_hint.as_ref().and_then(|hint| {
        world
            .users
            .iter()
            .find(|user| user.key == *hint || user.email == *hint)
    });
    let default = hinted.or(world.users.first()).map(|user| user.key.clone());
    match parameters.get("auto_consent") {
        Some("deny") => Automatic::Deny,
        Some(key) if world.user(key).is_some() => Automatic::As(key.to_owned()),
        Some("true" | "1") => default.map_or(Automatic::No, Automatic::As),
        None if provider.auto_consent => default.map_or(Automatic::No, Automatic::As),
        Some(_) | None => Automatic::No,
    }
}

async fn allow(
    site: &Site,
    provider: &ProviderConfig,
    pending: Pending,
    user: &str,
    scope: Vec<String>,
) -> Response {
    let code = Code {
        provider: pending.provider,
        client_id: pending.client_id,
        user: user.to_owned(),
        redirect_uri: pending.redirect.uri.clone(),
        challenge: pending.challenge,
        nonce: pending.nonce,
        scope,
        issued_ms: site.world.clock.now_ms(),
        exchanged: None,
    };
    let code = site.world.grants().issue_code(code);
    match kept(site).await {
        Ok(()) => send_back(site, provider, &pending.redirect, vec![("code", code)]),
        Err(error) => redirect_error(site, provider, &pending.redirect, &error),
    }
}

fn page(
    site: &Site,
    provider: &ProviderConfig,
    mut pending: Pending,
    headers: &HeaderMap,
) -> Response {
    // Pages in several tabs share the browser's cookie.
    if let Some(shared) = cookies(headers).find(|value| pkce::is_challenge(value)) {
        shared.clone_into(&mut pending.csrf);
    }
    let id = random::token("");
    let html = consent_page::render(provider, &site.world.users, &pending, &id, &pending.csrf);
    let path = format!("{}/oauth/authorize", provider.path);
    // Lax is what a browser needs to send it after the client's redirect; Secure cannot be, on plain HTTP.
    let cookie = format!(
        "{COOKIE}={}; Path={path}; HttpOnly; SameSite=Lax; Max-Age=600",
        pending.csrf
    );
    let now = pending.shown_ms;
    let mut pages = site.world.pending();
    pages.retain(|_, pending| now < pending.shown_ms + PAGE_LIFETIME_MS);
    pages.insert(id, pending);
    let mut response = html_page(StatusCode::OK, html);
    response.headers_mut().insert(
        header::SET_COOKIE,
        HeaderValue::try_from(cookie).expect("base64url and a path are ASCII"),
    );
    response
}

fn denied() -> OAuthError {
    OAuthError::new("access_denied", "The user said no.")
}

fn redirect_error(
    site: &Site,
    provider: &ProviderConfig,
    redirect: &Redirect,
    error: &OAuthError,
) -> Response {
    let fields = vec![
        ("error", error.code.clone()),
        ("error_description", error.description.clone()),
    ];
    let mut response = send_back(site, provider, redirect, fields);
    response
        .extensions_mut()
        .insert(Outcome(error.code.clone()));
    response
}

/// Sends the user back with 303, which a browser follows with GET whatever came before (RFC 9700, section 4.12).
fn send_back(
    site: &Site,
    provider: &ProviderConfig,
    redirect: &Redirect,
    mut fields: Vec<(&str, String)>,
) -> Response {
    if let Some(state) = &redirect.state {
        fields.push(("state", state.clone()));
    }
    if provider.iss_in_response {
        fields.push(("iss", site.world.issuer(provider)));
    }
    if redirect.form_post {
        return html_page(
            StatusCode::OK,
            consent_page::form_post(&redirect.uri, &fields),
        );
    }
    let mut target = Url::parse(&redirect.uri)
        .expect("a client's redirect URIs are checked when it is configured");
    target.query_pairs_mut().extend_pairs(&fields);
    let headers = [
        (header::LOCATION, target.as_str()),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}

fn refuse_page(description: &str) -> Response {
    let mut response = html_page(StatusCode::BAD_REQUEST, consent_page::refusal(description));
    response
        .extensions_mut()
        .insert(Outcome("refused_page".to_owned()));
    response
}

fn html_page(status: StatusCode, html: String) -> Response {
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, consent_page::POLICY),
    ];
    (status, headers, Html(html)).into_response()
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value)
}
