//! OAuth 2 as a client speaks it to a provider: what is asked, what an answer means, and which failure is which.
//!
//! - [`AuthorizationRequest`], [`Verifier`], [`Callback`]: the browser's way there and back (RFC 6749, 7636, 9207).
//! - [`TokenEndpoint`], [`TokenCall`], [`TokenSet`]: the exchange and the refresh.
//! - [`Failure`], [`Class`]: what went wrong, sorted by what has to be done about it.
//! - [`Documents`], [`Metadata`]: what an issuer says about itself (RFC 8414, OpenID Connect Discovery), and its keys.
//! - [`IdToken`]: who signed in (OpenID Connect Core, 3.1.3.7).
//! - [`PushEndpoint`], [`DeviceEndpoint`]: what comes before the tokens (RFC 9126, 8628).
//! - [`RevocationEndpoint`]: the end of a token (RFC 7009).
//!
//! Nothing is stored here and nothing is decided about grants: `token-vault` does that. All HTTP goes through `egress`.
//! What differs from provider to provider comes in as a [`Dialect`], from `provider-catalog`.

mod authorization;
mod callback;
mod classify;
mod client;
mod device;
mod dialect;
mod discovery;
mod documents;
mod failure;
mod form_call;
mod id_token;
mod json;
mod jwt_bearer;
mod metadata;
mod par;
mod pkce;
mod revocation;
mod text;
mod token_call;
mod token_exchange;
mod token_response;

pub use authorization::AuthorizationRequest;
pub use callback::{Callback, CallbackProblem};
pub use client::{BadKey, Client, ClientAuth, SigningKey};
pub use device::{DeviceAuthorization, DeviceCall, DeviceEndpoint, Poll};
pub use dialect::Dialect;
pub use discovery::{DiscoveryError, discover};
pub use documents::Documents;
pub use failure::{Class, Failure};
pub use id_token::{IdToken, IdTokenError, IdTokenExpectations};
pub use metadata::Metadata;
pub use par::{PushCall, PushEndpoint, PushedRequest};
pub use pkce::Verifier;
pub use provider_catalog::ReauthorizationCause;
pub use revocation::{RevocationCall, RevocationEndpoint, TokenTypeHint};
pub use token_call::{TokenCall, TokenEndpoint, TokenGrant};
pub use token_response::{NamedToken, TokenSet};
