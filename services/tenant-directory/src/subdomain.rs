//! A tenant's subdomain: the first label of its host name.

use std::fmt;

/// A label as RFC 1035, section 2.3.1, has it, in lower case, that is not reserved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subdomain(String);

/// Why a text is no subdomain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubdomainError {
    /// Not a label.
    #[error(
        "must be a DNS label: 1 to 63 letters, digits and hyphens, beginning with a letter and not ending with a hyphen"
    )]
    NotALabel,
    /// Third and fourth character are hyphens, which RFC 5891 keeps for encoded names.
    #[error("must not have hyphens in third and fourth place, which mark encoded names")]
    Encoded,
    /// Nobody's.
    #[error("is reserved: choose another one")]
    Reserved,
}

const RESERVED: &str = include_str!("../data/reserved_subdomains.txt");
const LONGEST: usize = 63;

impl Subdomain {
    /// Reads a label; upper case is taken as lower case, as DNS does.
    ///
    /// # Errors
    /// [`SubdomainError`] where it is none, or reserved.
    pub fn parse(text: &str) -> Result<Self, SubdomainError> {
        let label = text.to_ascii_lowercase();
        let bytes = label.as_bytes();
        let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
        let is_label = bytes.len() <= LONGEST
            && bytes.first().is_some_and(u8::is_ascii_lowercase)
            && bytes.last().is_some_and(|byte| *byte != b'-')
            && bytes.iter().all(inner);
        if !is_label {
            Err(SubdomainError::NotALabel)
        } else if bytes.get(2..4) == Some(b"--") {
            Err(SubdomainError::Encoded)
        } else if reserved().any(|reserved| reserved == label) {
            Err(SubdomainError::Reserved)
        } else {
            Ok(Self(label))
        }
    }

    /// What was stored is one, also where the list of reserved words has grown since.
    pub(crate) fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The label.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn reserved() -> impl Iterator<Item = &'static str> {
    RESERVED.lines().filter(|line| !line.starts_with('#'))
}

impl fmt::Display for Subdomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn labels_are_taken_in_lower_case() {
        for (text, label) in [
            ("acme", "acme"),
            ("ACME", "acme"),
            ("a", "a"),
            ("a-1--2", "a-1--2"),
            ("x9", "x9"),
        ] {
            assert_eq!(
                Subdomain::parse(text).map(|label| label.to_string()),
                Ok(label.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_label_is_refused() {
        let long = "a".repeat(64);
        for text in [
            "", "-a", "a-", "9lives", "a.b", "a_b", " acme", "acme ", "äcme", "a\u{0}", &long,
        ] {
            assert_eq!(
                Subdomain::parse(text),
                Err(SubdomainError::NotALabel),
                "{text:?}"
            );
        }
        assert_eq!(
            Subdomain::parse("xn--80ak6aa92e"),
            Err(SubdomainError::Encoded)
        );
    }

    #[test]
    fn reserved_words_are_refused_in_any_case() {
        for text in ["www", "WWW", "admin", "hawser", "api"] {
            assert_eq!(
                Subdomain::parse(text),
                Err(SubdomainError::Reserved),
                "{text}"
            );
        }
    }

    #[test]
    fn the_list_is_in_order_and_could_be_asked_for() {
        let all: Vec<_> = reserved().collect();
        assert!(all.is_sorted() && all.len() > 100);
        for word in all {
            assert_eq!(
                Subdomain::parse(word),
                Err(SubdomainError::Reserved),
                "{word}"
            );
        }
    }

    proptest! {
        #[test]
        fn reading_is_idempotent_and_ignores_case(text in "[a-zA-Z][a-zA-Z0-9-]{0,61}[a-zA-Z0-9]") {
            if let Ok(label) = Subdomain::parse(&text) {
                prop_assert_eq!(Subdomain::parse(label.as_str()), Ok(label.clone()));
                prop_assert_eq!(Subdomain::parse(&text.to_ascii_uppercase()), Ok(label));
            }
        }

        #[test]
        fn no_text_makes_it_panic_or_accept_more_than_a_label(text in "\\PC{0,80}") {
            if let Ok(label) = Subdomain::parse(&text) {
                prop_assert!(label.as_str().len() <= LONGEST);
                prop_assert!(label.as_str().is_ascii());
            }
        }
    }
}
