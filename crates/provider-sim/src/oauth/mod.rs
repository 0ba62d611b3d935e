//! The OAuth 2.1 and OpenID Connect server.

pub(crate) mod assertion;
pub(crate) mod authorize;
pub(crate) mod client_auth;
mod consent_page;
pub(crate) mod device;
pub(crate) mod device_page;
pub(crate) mod error;
pub(crate) mod grants;
pub(crate) mod keys;
pub(crate) mod metadata;
pub(crate) mod par;
mod parameters;
mod pkce;
pub(crate) mod revoke;
pub(crate) mod token;
pub(crate) mod trades;
