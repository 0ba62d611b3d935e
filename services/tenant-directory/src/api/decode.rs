//! What fields of several messages have in common.

use common::identity::Caller;
use common::validate::Fields;
use common::{Problem, TenantKey};
use prost_types::Timestamp;
use time::OffsetDateTime;
use time::macros::datetime;
use url::{Host, Url};
use uuid::Uuid;

use crate::email::Email;
use crate::page_token::{PageTokenError, Query};

/// Of a list with more wrong items so many are named: an answer's details have to fit into its trailers.
pub(crate) const MOST_NAMED: usize = 10;
/// The longest external id, billing customer id, or user id.
pub(crate) const LONGEST_ID: usize = 255;
const LONGEST_URL: usize = 2048;

/// A text for people: trimmed, on one line, of at most `limit` bytes.
pub(crate) fn text(fields: &mut Fields, field: &str, value: &str, limit: usize) -> Option<String> {
    let value = value.trim();
    let fits = fields.at_most(field, value, limit);
    let plain = fields.check(
        !value.contains(char::is_control),
        field,
        "must not have control characters in it",
    );
    (fits && plain).then(|| value.to_owned())
}

/// An id that somebody else made, taken as it is.
pub(crate) fn foreign_id(fields: &mut Fields, field: &str, value: &str) -> Option<String> {
    let fits = fields.at_most(field, value, LONGEST_ID);
    let plain = !value.contains(char::is_control) && value.trim() == value;
    let plain = fields.check(
        plain,
        field,
        "must not have control characters in it, or blanks around it",
    );
    (fits && plain).then(|| value.to_owned())
}

/// As [`foreign_id`], where there must be one.
pub(crate) fn required_id(fields: &mut Fields, field: &str, value: &str) -> Option<String> {
    if fields.require(field, value) {
        foreign_id(fields, field, value)
    } else {
        None
    }
}

/// A moment between the years 1 and 9999, to the microsecond; `None` where none is given.
#[expect(
    clippy::option_option,
    reason = "outside: whether it can be taken; inside: whether it is given"
)]
pub(crate) fn moment(
    fields: &mut Fields,
    field: &str,
    value: Option<&Timestamp>,
) -> Option<Option<OffsetDateTime>> {
    let Some(value) = value else {
        return Some(None);
    };
    let nanos = i128::from(value.seconds) * 1_000_000_000 + i128::from(value.nanos) / 1_000 * 1_000;
    let moment = OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .filter(|moment| {
            (datetime!(0001-01-01 0:00 UTC)..=datetime!(9999-12-31 23:59:59.999999 UTC))
                .contains(moment)
        })
        .filter(|_| (0..1_000_000_000).contains(&value.nanos));
    fields.check(
        moment.is_some(),
        field,
        "must be a time between the years 1 and 9999",
    );
    moment.map(Some)
}

/// An address or a link for people who need help.
pub(crate) fn contact(fields: &mut Fields, field: &str, value: &str) -> Option<String> {
    let value = text(fields, field, value, LONGEST_URL)?;
    let is_link = |url: Url| matches!(url.scheme(), "https" | "http" | "mailto" | "tel");
    let holds =
        value.is_empty() || Email::parse(&value).is_ok() || Url::parse(&value).is_ok_and(is_link);
    fields
        .check(holds, field, "must be an e-mail address or a link")
        .then_some(value)
}

/// Where an image is.
pub(crate) fn image_url(fields: &mut Fields, field: &str, value: &str) -> Option<String> {
    let value = text(fields, field, value, LONGEST_URL)?;
    let holds = value.is_empty() || Url::parse(&value).is_ok_and(|url| is_safe(&url));
    fields
        .check(holds, field, "must be an https address")
        .then_some(value)
}

/// An origin (RFC 6454): scheme, host and port, and nothing else.
pub(crate) fn origin(fields: &mut Fields, field: &str, value: &str) -> Option<String> {
    let url = Url::parse(value).ok().filter(|url| {
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        bare && url.username().is_empty() && url.password().is_none() && is_safe(url)
    });
    fields.check(
        url.is_some(),
        field,
        "must be an origin, as in https://app.example.com, without a path",
    );
    url.map(|url| url.origin().ascii_serialization())
}

/// https; plain http on the machine itself, to develop against.
fn is_safe(url: &Url) -> bool {
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => return false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback)
}

/// Reads each item of a list of at most `most`; an item is called `field[3]`.
pub(crate) fn each<T>(
    fields: &mut Fields,
    field: &str,
    items: &[String],
    most: usize,
    read: impl Fn(&mut Fields, &str, &str) -> Option<T>,
) -> Option<Vec<T>> {
    if !fields.check(
        items.len() <= most,
        field,
        format_args!("must be at most {most}"),
    ) {
        return None;
    }
    let (mut taken, mut wrong) = (Vec::new(), 0);
    for (place, item) in items.iter().enumerate() {
        match read(fields, &format!("{field}[{place}]"), item) {
            Some(item) => taken.push(item),
            None => wrong += 1,
        }
        if wrong == MOST_NAMED {
            break;
        }
    }
    (wrong == 0).then_some(taken)
}

/// Each text once, where it first was.
pub(crate) fn distinct(texts: Vec<String>) -> Vec<String> {
    let mut once = Vec::new();
    for text in texts {
        if !once.contains(&text) {
            once.push(text);
        }
    }
    once
}

/// The beginning of what somebody sent, to show what is meant.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown: String = text.chars().take(LONGEST).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// The tenant that was named, once everything else is known to be right.
pub(crate) fn reached(caller: &Caller, tenant: Option<TenantKey>) -> Result<TenantKey, Problem> {
    tenant
        .filter(|tenant| caller.reaches(*tenant))
        .ok_or_else(|| Problem::not_found("tenant"))
}

/// The id behind which a list over ids goes on; the lowest there is on the first page.
pub(crate) fn after_id(fields: &mut Fields, query: &Query, token: &str) -> Uuid {
    let key = query.key::<1>(token).and_then(|key| match key {
        None => Ok(Uuid::nil()),
        Some([id]) => id.parse().map_err(|_| PageTokenError),
    });
    fields.value("page_token", key).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(check: impl FnOnce(&mut Fields)) -> bool {
        let mut fields = Fields::new();
        check(&mut fields);
        fields.is_empty()
    }

    #[test]
    fn an_origin_has_no_path_and_is_safe() {
        let mut fields = Fields::new();
        assert_eq!(
            origin(&mut fields, "o", "https://App.Example.com:443/").as_deref(),
            Some("https://app.example.com")
        );
        assert_eq!(
            origin(&mut fields, "o", "http://localhost:5173").as_deref(),
            Some("http://localhost:5173")
        );
        assert!(fields.is_empty());
        for wrong in [
            "",
            "app.example.com",
            "http://app.example.com",
            "https://a.b/c",
            "https://u@a.b",
            "https://a.b?x",
            "javascript:alert(1)",
            "https://*.a.b/x",
            "data:text/html,x",
        ] {
            assert!(!holds(|fields| drop(origin(fields, "o", wrong))), "{wrong}");
        }
    }

    #[test]
    fn a_contact_is_an_address_or_a_link() {
        for right in [
            "",
            "help@acme.example",
            "https://acme.example/help",
            "mailto:help@acme.example",
            "tel:+4512345678",
        ] {
            assert!(holds(|fields| drop(contact(fields, "c", right))), "{right}");
        }
        for wrong in ["ask Kim", "javascript:alert(1)", "a\nb@c.d"] {
            assert!(
                !holds(|fields| drop(contact(fields, "c", wrong))),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_moment_is_one_that_the_database_can_keep() {
        let taken = |seconds, nanos| {
            let mut fields = Fields::new();
            moment(&mut fields, "t", Some(&Timestamp { seconds, nanos }))
        };
        assert_eq!(
            taken(1, 1_999),
            Some(Some(datetime!(1970-01-01 00:00:01.000001 UTC)))
        );
        for (seconds, nanos) in [
            (i64::MAX, 0),
            (i64::MIN, 0),
            (0, -1),
            (0, 1_000_000_000),
            (253_402_300_800, 0),
        ] {
            assert_eq!(taken(seconds, nanos), None, "{seconds} {nanos}");
        }
    }
}
