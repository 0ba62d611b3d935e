//! The catalogue that is compiled in.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::schema::Provider;

/// All providers, by key.
#[derive(Debug)]
pub struct Catalog {
    providers: BTreeMap<String, Provider>,
}

static BUILTIN: LazyLock<Catalog> = LazyLock::new(|| {
    let providers: Vec<Provider> =
        serde_json::from_str(include_str!(concat!(env!("OUT_DIR"), "/catalog.json")))
            .expect("the build wrote what this schema reads");
    Catalog::new(providers)
});

impl Catalog {
    /// The providers that Hawser knows.
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// A catalogue of other providers.
    pub fn new(providers: impl IntoIterator<Item = Provider>) -> Self {
        Self {
            providers: providers
                .into_iter()
                .map(|provider| (provider.key.as_str().to_owned(), provider))
                .collect(),
        }
    }

    /// The provider with this key.
    pub fn get(&self, key: &str) -> Option<&Provider> {
        self.providers.get(key)
    }

    /// All providers, ordered by key.
    pub fn iter(&self) -> impl Iterator<Item = &Provider> {
        self.providers.values()
    }

    /// The providers whose key, name or category contains `text`, whatever the case; all of them where it is empty.
    pub fn search(&self, text: &str) -> impl Iterator<Item = &Provider> {
        let text = text.to_lowercase();
        self.iter().filter(move |provider| {
            provider.key.as_str().contains(&text)
                || provider.display_name.to_lowercase().contains(&text)
                || provider
                    .categories
                    .iter()
                    .any(|category| category.to_lowercase().contains(&text))
        })
    }
}
