//! Records, as an answer has them.

use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::PageError;
use crate::json::{self, Object};
use crate::schema::{Escape, RecordShape, Values};

/// One record of the provider's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The provider's id of it, as it was written.
    pub external_id: String,
    /// What people call it; may be empty.
    pub title: String,
    /// When it was last changed, where the provider says so.
    pub updated_at: Option<OffsetDateTime>,
    /// The provider no longer has it.
    pub deleted: bool,
    /// Its address for people; may be empty.
    pub content_url: String,
    /// The record, as it was written; empty where it is gone.
    pub content_json: String,
}

impl RecordShape {
    /// Reads one record.
    pub(crate) fn read(&self, raw: &RawValue, account: &str) -> Result<Record, PageError> {
        let object = Object::read(raw).map_err(|_| PageError::shape("a record is no object"))?;
        let text = |pointer: &Option<_>| {
            pointer
                .as_ref()
                .and_then(|pointer| object.find(pointer))
                .and_then(json::text)
        };
        let external_id = object
            .find(&self.id)
            .and_then(json::text)
            .ok_or_else(|| PageError::shape(format!("a record has no id at {}", self.id)))?;
        let deleted = self
            .deleted
            .as_ref()
            .and_then(|pointer| object.find(pointer))
            .is_some_and(json::is_set);
        let content_url = text(&self.content_url_at)
            .or_else(|| {
                let values = Values {
                    id: Some(external_id.clone()),
                    account: Some(account.to_owned()),
                    ..Values::default()
                };
                self.content_url
                    .as_ref()
                    .and_then(|template| template.fill(&values, Escape::Segment).ok())
            })
            .unwrap_or_default();
        Ok(Record {
            title: text(&self.title).unwrap_or_default(),
            updated_at: text(&self.updated_at).and_then(|text| moment(&text)),
            content_json: if deleted {
                String::new()
            } else {
                raw.get().to_owned()
            },
            content_url,
            deleted,
            external_id,
        })
    }
}

/// A record of which nothing but its end is known.
pub(crate) fn gone(external_id: String) -> Record {
    Record {
        external_id,
        title: String::new(),
        updated_at: None,
        deleted: true,
        content_url: String::new(),
        content_json: String::new(),
    }
}

/// Reads a time: RFC 3339, a date, or a number of seconds or, where it is too large for that, milliseconds since 1970.
pub(crate) fn moment(text: &str) -> Option<OffsetDateTime> {
    const LARGEST_SECONDS: f64 = 1e11;
    if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(at.to_offset(time::UtcOffset::UTC));
    }
    if let Ok(at) = OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339) {
        return Some(at);
    }
    let number: f64 = text
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite())?;
    let micros = if number.abs() < LARGEST_SECONDS {
        number * 1e6
    } else {
        number * 1e3
    };
    OffsetDateTime::from_unix_timestamp_nanos(micros as i128 * 1000).ok()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn times_are_read_in_every_usual_form() {
        let noon = Some(datetime!(2026-03-01 12:00 UTC));
        for text in [
            "2026-03-01T12:00:00Z",
            "2026-03-01T14:00:00+02:00",
            "1772366400",
            "1772366400000",
            "1772366400.000000",
        ] {
            assert_eq!(moment(text), noon, "{text}");
        }
        assert_eq!(moment("2026-03-01"), Some(datetime!(2026-03-01 0:00 UTC)));
        assert_eq!(moment("yesterday"), None);
        assert_eq!(moment("NaN"), None);
    }
}
