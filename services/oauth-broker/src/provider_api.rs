//! What the broker itself asks a provider's API: who the user is, which accounts there are, whether a credential is taken.

use std::collections::BTreeMap;

use egress::{Egress, Request};
use http::{HeaderMap, Method};
use provider_catalog::{IdentitySource, Person, ResolvedProvider, VerifyMethod};
use serde_json::Value;
use url::Url;

use crate::connection::Account;
use crate::credential::{Carried, Credential};
use crate::error::ProviderError;

/// A listing is followed this far.
const MOST_PAGES: usize = 20;
/// More accounts than that are not kept.
const MOST_ACCOUNTS: usize = 2000;

/// A provider's API, as one connection reaches it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProviderApi<'a> {
    pub(crate) egress: &'a Egress,
    pub(crate) resolved: &'a ResolvedProvider,
    pub(crate) parameters: &'a BTreeMap<String, String>,
}

impl ProviderApi<'_> {
    /// Who gave the grant. `raw` is the token response, with the id_token's claims in it once the vault has believed them.
    pub(crate) async fn person(
        &self,
        raw: &Value,
        credential: &Credential,
    ) -> Result<Person, ProviderError> {
        let identity = &self.resolved.provider().identity;
        let claims = raw.get("id_token").filter(|claims| claims.is_object());
        let mut documents = Vec::new();
        for source in &identity.from {
            let known = identity.read(&documents);
            match source {
                IdentitySource::IdToken => documents.extend(claims.cloned()),
                IdentitySource::TokenResponse => documents.push(raw.clone()),
                IdentitySource::Endpoint if known.user_id.is_some() && known.email.is_some() => {}
                IdentitySource::Endpoint => {
                    if let Some(url) = self.resolved.identity_url(self.parameters)? {
                        documents.push(self.get(url, credential).await?.0);
                    }
                }
            }
        }
        Ok(identity.read(&documents))
    }

    /// The accounts that the grant reaches, in the provider's order; none where the catalogue knows of no listing.
    pub(crate) async fn accounts(
        &self,
        person: &Person,
        credential: &Credential,
    ) -> Result<Vec<Account>, ProviderError> {
        let account = |id: String, name: String, usable: bool| Account {
            external_account_id: id,
            name,
            usable,
            active: false,
            disconnected_at: None,
        };
        let Some(listing) = &self.resolved.provider().accounts else {
            let only = person.account_id.clone().map(|id| {
                let name = person.account_name.clone().unwrap_or_else(|| id.clone());
                account(id, name, true)
            });
            return Ok(only.into_iter().collect());
        };
        let mut next = Some(self.resolved.locate(&listing.endpoint, self.parameters)?);
        let mut accounts: Vec<Account> = Vec::new();
        for _ in 0..MOST_PAGES {
            let Some(url) = next.take() else { break };
            let (document, headers) = self.get(url.clone(), credential).await?;
            for found in listing.read(&document).ok_or(ProviderError::Shape)? {
                if !accounts
                    .iter()
                    .any(|known| known.external_account_id == found.id)
                {
                    accounts.push(account(found.id, found.name, found.active));
                }
            }
            next = next_page(&url, &headers).filter(|_| accounts.len() < MOST_ACCOUNTS);
        }
        accounts.truncate(MOST_ACCOUNTS);
        Ok(accounts)
    }

    /// The status of a harmless call; `None` where the catalogue knows of none.
    pub(crate) async fn verify(
        &self,
        account: Option<&str>,
        credential: &Credential,
    ) -> Result<Option<u16>, ProviderError> {
        let provider = self.resolved.provider();
        let (url, method) = match &provider.verify {
            Some(verify) => {
                let method = match verify.method {
                    VerifyMethod::Get => Method::GET,
                    VerifyMethod::Post => Method::POST,
                };
                (
                    self.resolved.locate(&verify.endpoint, self.parameters)?,
                    method,
                )
            }
            None => match self.resolved.identity_url(self.parameters)? {
                Some(url) => (url, Method::GET),
                None => return Ok(None),
            },
        };
        let carried = credential.carried(self.resolved, account, self.parameters)?;
        let response = self.egress.send(request(method, url, &carried)).await?;
        Ok(Some(response.status.as_u16()))
    }

    async fn get(
        &self,
        url: Url,
        credential: &Credential,
    ) -> Result<(Value, HeaderMap), ProviderError> {
        let carried = credential.carried(self.resolved, None, self.parameters)?;
        let response = self
            .egress
            .send(request(Method::GET, url, &carried))
            .await?;
        if !response.status.is_success() {
            return Err(ProviderError::Status(response.status.as_u16()));
        }
        let document = response.json().map_err(|_| ProviderError::Shape)?;
        Ok((document, response.headers))
    }
}

fn request(method: Method, mut url: Url, carried: &Carried) -> Request {
    if !carried.query.is_empty() {
        url.query_pairs_mut().extend_pairs(&carried.query);
    }
    carried.headers.iter().fold(
        Request::new(method, url).accept_json(),
        |request, (name, value)| request.secret_header(name, &common::Secret::from(value.as_str())),
    )
}

/// The next page as RFC 8288 names it, on the same origin: the credential goes nowhere else.
fn next_page(url: &Url, headers: &HeaderMap) -> Option<Url> {
    let links = headers
        .get_all(http::header::LINK)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let next = links.flat_map(|value| value.split(',')).find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters.split(';').any(|parameter| {
            let relation = parameter
                .trim()
                .strip_prefix("rel=")
                .map(|value| value.trim_matches('"'));
            relation.is_some_and(|relation| {
                relation
                    .split(' ')
                    .any(|word| word.eq_ignore_ascii_case("next"))
            })
        });
        is_next.then(|| url.join(target).ok()).flatten()
    })?;
    (next.origin() == url.origin()).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_one_of_the_same_origin() {
        let url = Url::parse("https://api.example/companies").expect("a URL");
        let next = |link: &str| {
            let headers =
                HeaderMap::from_iter([(http::header::LINK, link.parse().expect("a header"))]);
            next_page(&url, &headers).map(|url| url.to_string())
        };
        assert_eq!(
            next("<https://api.example/companies?page=1>; rel=\"first\", </companies?page=3>; rel=\"next\"").as_deref(),
            Some("https://api.example/companies?page=3")
        );
        assert_eq!(
            next("<https://evil.example/companies?page=2>; rel=next"),
            None
        );
        assert_eq!(
            next("<https://api.example/companies?page=2>; rel=prev"),
            None
        );
        assert_eq!(next("nonsense"), None);
    }
}
