//! An e-mail address as people sign in with it.

use std::fmt;

/// An address, kept as it was typed but for its domain, which is in lower case.
///
/// Two addresses are the same where their [keys](Email::key) are: RFC 5321, section 2.4, leaves the case of what stands
/// before the `@` to the receiving host, and no host in use tells people apart by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email(String);

/// The text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an e-mail address, as in name@example.com")]
pub struct EmailError;

/// RFC 5321, section 4.5.3.1, less the angle brackets of a path.
const LONGEST: usize = 254;
const LONGEST_LOCAL: usize = 64;
const LONGEST_LABEL: usize = 63;

impl Email {
    /// Reads an address, with blanks around it taken off.
    ///
    /// # Errors
    /// [`EmailError`] where it is none.
    pub fn parse(text: &str) -> Result<Self, EmailError> {
        let (local, domain) = text.trim().rsplit_once('@').ok_or(EmailError)?;
        let domain = domain.to_lowercase();
        let address = format!("{local}@{domain}");
        let holds = is_local(local) && is_domain(&domain) && address.len() <= LONGEST;
        if holds {
            Ok(Self(address))
        } else {
            Err(EmailError)
        }
    }

    pub(crate) fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// For showing, and for writing to.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// By which it is unique within a tenant.
    pub fn key(&self) -> String {
        self.0.to_lowercase()
    }
}

fn is_local(local: &str) -> bool {
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || "@<>()[]:;,\\\"".contains(c);
    !local.is_empty()
        && local.len() <= LONGEST_LOCAL
        && !local.contains(forbidden)
        && local.split('.').all(|atom| !atom.is_empty())
}

/// Labels of letters, digits and hyphens; letters of any script, as in internationalised addresses (RFC 6531).
fn is_domain(domain: &str) -> bool {
    domain.split('.').all(|label| {
        !label.is_empty()
            && label.len() <= LONGEST_LABEL
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    })
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_domain_is_in_lower_case_and_the_rest_as_typed() {
        let email = Email::parse("  Jo.Doe+Tag@EXAMPLE.com ").expect("it is an address");
        assert_eq!(email.as_str(), "Jo.Doe+Tag@example.com");
        assert_eq!(email.key(), "jo.doe+tag@example.com");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long_local = format!("{}@example.com", "a".repeat(65));
        let long = format!(
            "a@{}.com",
            [
                "b".repeat(60),
                "c".repeat(60),
                "d".repeat(60),
                "e".repeat(70)
            ]
            .join(".")
        );
        let texts = [
            "",
            "@",
            "a@",
            "@b",
            "a b@c.d",
            "a@b c",
            "a@b..c",
            "a..b@c.d",
            "a@-b.c",
            "a@b@c.d",
            "a\n@b.c",
            "<a@b.c>",
            "a@b.",
            &long_local,
            &long,
        ];
        for text in texts {
            assert_eq!(Email::parse(text), Err(EmailError), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn reading_is_idempotent_and_the_key_ignores_case(text in "[ ]{0,2}[a-zA-Z0-9.+_-]{1,20}@[a-zA-Z0-9-]{1,10}\\.[a-zA-Z]{2,5}[ ]{0,2}") {
            if let Ok(email) = Email::parse(&text) {
                prop_assert_eq!(Email::parse(email.as_str()), Ok(email.clone()));
                let upper = Email::parse(&text.to_uppercase()).expect("case makes no difference");
                prop_assert_eq!(upper.key(), email.key());
                prop_assert_eq!(Email::parse(&email.key()).expect("a key is an address").key(), email.key());
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}") {
            let _ = Email::parse(&text);
        }
    }
}
