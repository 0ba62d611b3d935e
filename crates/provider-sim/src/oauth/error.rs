//! Errors of the token and revocation endpoints.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::grants::GrantError;
use crate::config::TokenShape;
use crate::fixtures;
use crate::observe::Outcome;

/// An error of RFC 6749, section 5.2.
#[derive(Clone, Debug)]
pub(crate) struct OAuthError {
    pub(crate) status: StatusCode,
    pub(crate) code: String,
    pub(crate) description: String,
    /// The client tried `Authorization: Basic`, so a 401 has to name that scheme.
    pub(crate) challenge_basic: bool,
}

impl OAuthError {
    pub(crate) fn new(code: &str, description: impl Into<String>) -> Self {
        let status = match code {
            "invalid_client" => StatusCode::UNAUTHORIZED,
            "server_error" => StatusCode::INTERNAL_SERVER_ERROR,
            "temporarily_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self {
            status,
            code: code.to_owned(),
            description: description.into(),
            challenge_basic: false,
        }
    }

    pub(crate) fn invalid_request(description: impl Into<String>) -> Self {
        Self::new("invalid_request", description)
    }

    pub(crate) fn into_response(self, shape: TokenShape) -> Response {
        let body = match shape {
            TokenShape::Microsoft => microsoft(&self),
            TokenShape::Standard | TokenShape::Procore => {
                json!({"error": self.code, "error_description": self.description})
            }
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
        if self.challenge_basic {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"provider-sim\""),
            );
        }
        response.extensions_mut().insert(Outcome(self.code));
        response
    }
}

/// The refusal of a code or refresh token: always `invalid_grant`, but for the scope (RFC 6749, section 5.2).
impl From<GrantError> for OAuthError {
    fn from(error: GrantError) -> Self {
        let code = if error == GrantError::Scope {
            "invalid_scope"
        } else {
            "invalid_grant"
        };
        Self::new(code, format!("The grant is not valid: {error}."))
    }
}

fn microsoft(error: &OAuthError) -> Value {
    let number = match error.code.as_str() {
        "invalid_client" => 7_000_215,
        "invalid_scope" => 70_011,
        "invalid_request" => 900_144,
        "unsupported_grant_type" => 70_003,
        "temporarily_unavailable" => 90_033,
        _ if error.description.contains("expired") => 70_008,
        _ => 70_000,
    };
    let fields = json!({
        "error": error.code,
        "error_description": format!("AADSTS{number}: {}", error.description),
        "error_codes": [number],
    });
    Value::Object(fixtures::filled(&fixtures::MICROSOFT_TOKEN_ERROR, fields))
}
