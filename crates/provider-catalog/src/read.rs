//! Reading a provider's answers by the entry's pointers.

use serde_json::Value;

use crate::schema::{Accounts, Identity, Pointer};

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
        let accounts = items.iter().filter_map(|item| {
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
