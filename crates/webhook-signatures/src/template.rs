//! What of a request is signed: `{id}.{timestamp}.{body}`.

use http::HeaderName;
use serde::Deserialize;
use thiserror::Error;

/// The parts of the signed content, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Literal(String),
    Body,
    Method,
    Url,
    Id,
    Timestamp,
    Header(HeaderName),
}

/// A template that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "content is text with {{body}}, {{id}}, {{timestamp}}, {{method}}, {{url}} or {{header:NAME}} in it"
)]
pub(crate) struct InvalidTemplate;

impl Template {
    pub(crate) fn parts(&self) -> &[Part] {
        &self.0
    }

    pub(crate) fn count(&self, part: &Part) -> usize {
        self.0.iter().filter(|other| *other == part).count()
    }

    /// The text that ends `part` in the content. A value that held it could be read in two ways, and the signature of
    /// one message would be good for another.
    pub(crate) fn terminator(&self, part: &Part) -> Option<&str> {
        let after = self.0.iter().position(|other| other == part)? + 1;
        match self.0.get(after) {
            Some(Part::Literal(text)) => Some(text),
            _ => None,
        }
    }
}

impl TryFrom<String> for Template {
    type Error = InvalidTemplate;

    fn try_from(text: String) -> Result<Self, InvalidTemplate> {
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while let Some((literal, tail)) = rest.split_once('{') {
            push_literal(&mut parts, literal)?;
            let (name, tail) = tail.split_once('}').ok_or(InvalidTemplate)?;
            parts.push(match name {
                "body" => Part::Body,
                "id" => Part::Id,
                "method" => Part::Method,
                "timestamp" => Part::Timestamp,
                "url" => Part::Url,
                _ => {
                    let header = name.strip_prefix("header:").ok_or(InvalidTemplate)?;
                    Part::Header(header.parse().map_err(|_| InvalidTemplate)?)
                }
            });
            rest = tail;
        }
        push_literal(&mut parts, rest)?;
        Ok(Self(parts))
    }
}

fn push_literal(parts: &mut Vec<Part>, text: &str) -> Result<(), InvalidTemplate> {
    if text.contains('}') {
        return Err(InvalidTemplate);
    }
    if !text.is_empty() {
        parts.push(Part::Literal(text.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Template, InvalidTemplate> {
        text.to_owned().try_into()
    }

    #[test]
    fn parts_are_read_in_their_order() {
        let template = parse("v0:{timestamp}:{header:X-Id}{body}").expect("valid");
        assert_eq!(
            template.parts(),
            [
                Part::Literal("v0:".into()),
                Part::Timestamp,
                Part::Literal(":".into()),
                Part::Header(HeaderName::from_static("x-id")),
                Part::Body,
            ]
        );
        assert_eq!(template.terminator(&Part::Timestamp), Some(":"));
        assert_eq!(template.terminator(&Part::Body), None);
        assert_eq!(template.terminator(&Part::Id), None);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for text in [
            "{",
            "}",
            "{body",
            "body}",
            "{Body}",
            "{header:}",
            "{header:a b}",
            "{}",
            "{{body}}",
        ] {
            assert_eq!(parse(text), Err(InvalidTemplate), "{text}");
        }
    }
}
