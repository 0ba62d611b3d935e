//! Reading a provider's answers by the entry's pointers.

use serde_json::Value;

use crate::schema::{Accounts, Api, ApiErrorClass, ApiErrorRule, Identity, Pointer, is_any_of};

/// Who the user is at the provider, as far as the documents tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// The user's id, which never changes.
    pub user_id: Option<String>,
    /// The user's e-mail: for people, never for comparing.
    pub email: Option<String>,
    /// The user's name.
    pub name: Option<String>,
    /// The account's id.
    pub account_id: Option<String>,
    /// The account's name.
    pub account_name: Option<String>,
}

/// One of the accounts that a grant reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The provider's id of it.
    pub id: String,
    /// Its name; the id where it has none.
    pub name: String,
    /// Whether it can be used.
    pub active: bool,
}

impl Identity {
    /// Reads the documents, best first: what one does not tell is taken from the next.
    pub fn read<'a>(&self, documents: impl IntoIterator<Item = &'a Value>) -> Person {
        let documents: Vec<_> = documents.into_iter().collect();
        let first = |places: &[Pointer]| {
            documents
                .iter()
                .find_map(|document| places.iter().find_map(|place| place.text(document)))
        };
        Person {
            user_id: first(&self.user_id),
            email: first(&self.email),
            name: first(&self.name),
            account_id: first(&self.account_id),
            account_name: first(&self.account_name),
        }
    }
}

impl Accounts {
    /// Reads a listing; `None` where it is not what the entry describes. Items without an id are left out.
    pub fn read(&self, document: &Value) -> Option<Vec<Account>> {
        let items = self.items.find(document)?.as_array()?;
        let counts = |item: &&Value| self.only.as_ref().is_none_or(|only| only.holds(item));
        let accounts = items.iter().filter(counts).filter_map(|item| {
            let id = self.id.text(item)?;
            let active = self
                .active
                .as_ref()
                .and_then(|place| place.find(item))
                .and_then(Value::as_bool);
            Some(Account {
                name: self.name.text(item).unwrap_or_else(|| id.clone()),
                active: active.unwrap_or(true),
                id,
            })
        });
        Some(accounts.collect())
    }
}

impl Api {
    /// What an answer says of the credential or the account; `None` where it says nothing of them.
    pub fn error_class<'a>(
        &self,
        status: u16,
        header: impl Fn(&str) -> Option<&'a str>,
        body: &Value,
    ) -> Option<ApiErrorClass> {
        let fits = |rule: &&ApiErrorRule| {
            let found = match (&rule.header, &rule.at) {
                (Some(name), _) => header(name).map(Value::from),
                (None, Some(at)) => at.find(body).cloned(),
                (None, None) => return rule.status == status,
            };
            rule.status == status && found.is_some_and(|found| is_any_of(&found, &rule.any_of))
        };
        let own = self.errors.iter().find(fits).map(|rule| rule.means);
        own.or(match status {
            401 => Some(ApiErrorClass::TokenRefused),
            429 => Some(ApiErrorClass::RateLimited),
            408 | 425 | 500..=599 => Some(ApiErrorClass::Transient),
            _ => None,
        })
    }
}
