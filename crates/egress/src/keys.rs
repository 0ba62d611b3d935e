//! Key sets of issuers of users' tokens, fetched like everything else from outside.

use std::future::Future;
use std::pin::Pin;

use common::identity::FetchKeys;
use url::Url;

use crate::{Egress, Request};

/// Fetches JSON Web Key Sets (RFC 7517) for the identity layer.
#[derive(Clone, Debug)]
pub struct KeyFetcher(Egress);

impl KeyFetcher {
    /// Fetches through `egress`, under its rules.
    pub fn new(egress: Egress) -> Self {
        Self(egress)
    }
}

impl FetchKeys for KeyFetcher {
    fn fetch<'a>(
        &'a self,
        url: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'a>> {
        Box::pin(async move {
            let url = Url::parse(url).map_err(|error| error.to_string())?;
            let answered = self.0.send(Request::get(url).accept_json()).await;
            let response = answered.map_err(|error| error.to_string())?;
            if response.status.is_success() {
                Ok(response.body.to_vec())
            } else {
                Err(format!(
                    "the key set's server answers with HTTP {}",
                    response.status.as_u16()
                ))
            }
        })
    }
}
