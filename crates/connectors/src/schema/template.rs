//! Texts with variables: `receivedDateTime ge {from}`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// A text with variables in braces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

/// What a template can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variable {
    /// The provider account.
    Account,
    /// The number of a page.
    Page,
    /// Records asked for at a time.
    PageSize,
    /// The provider's word for the next page, or for where the stream stood.
    Cursor,
    /// Where the window begins, inclusive: RFC 3339 in UTC, to the second.
    From,
    /// Where the window ends, exclusive.
    Until,
    /// A record's id.
    Id,
}

/// The variables' values, where they have one.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// See [`Variable::Account`].
    pub account: Option<String>,
    /// See [`Variable::Page`].
    pub page: Option<u32>,
    /// See [`Variable::PageSize`].
    pub page_size: Option<u32>,
    /// See [`Variable::Cursor`].
    pub cursor: Option<String>,
    /// See [`Variable::From`].
    pub from: Option<String>,
    /// See [`Variable::Until`].
    pub until: Option<String>,
    /// See [`Variable::Id`].
    pub id: Option<String>,
}

/// What is done to a value on its way into a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// Nothing: query parameters and headers, which are escaped as a whole or not at all.
    Nothing,
    /// Percent-encoded, so that it stays within its path segment.
    Segment,
}

/// Unreserved characters (RFC 3986, 2.3) stay as they are.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

impl Variable {
    const ALL: [(&'static str, Self); 7] = [
        ("account", Self::Account),
        ("page", Self::Page),
        ("page_size", Self::PageSize),
        ("cursor", Self::Cursor),
        ("from", Self::From),
        ("until", Self::Until),
        ("id", Self::Id),
    ];

    /// Its name in a template.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, variable)| *variable == self);
        found.map_or("", |(name, _)| name)
    }

    fn named(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, variable)| *variable)
    }
}

impl Values {
    fn get(&self, variable: Variable) -> Option<String> {
        match variable {
            Variable::Account => self.account.clone(),
            Variable::Page => self.page.map(|page| page.to_string()),
            Variable::PageSize => self.page_size.map(|size| size.to_string()),
            Variable::Cursor => self.cursor.clone(),
            Variable::From => self.from.clone(),
            Variable::Until => self.until.clone(),
            Variable::Id => self.id.clone(),
        }
    }
}

impl Template {
    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The variables in it.
    pub fn variables(&self) -> impl Iterator<Item = Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(variable) => Some(*variable),
            Part::Text(_) => None,
        })
    }

    /// The text with its variables' values in place.
    ///
    /// # Errors
    /// The first variable without a value.
    pub fn fill(&self, values: &Values, escape: Escape) -> Result<String, Variable> {
        let mut filled = String::with_capacity(self.text.len());
        for part in &self.parts {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Variable(variable) => {
                    let value = values.get(*variable).ok_or(*variable)?;
                    match escape {
                        Escape::Nothing => filled.push_str(&value),
                        Escape::Segment => filled.extend(utf8_percent_encode(&value, SEGMENT)),
                    }
                }
            }
        }
        Ok(filled)
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after
                .split_once('}')
                .ok_or("has a brace that is not closed")?;
            let variable = Variable::named(name).ok_or_else(|| {
                let known: Vec<_> = Variable::ALL.iter().map(|(name, _)| *name).collect();
                format!("has no variable `{name}`; there are {}", known.join(", "))
            })?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Variable(variable));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { text, parts })
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Template {
        Template::try_from(text.to_owned()).expect("a good template")
    }

    #[test]
    fn variables_are_filled_in() {
        let values = Values {
            from: Some("2026-01-01T00:00:00Z".to_owned()),
            until: Some("2026-02-01T00:00:00Z".to_owned()),
            ..Values::default()
        };
        let filled = template("{from}...{until}").fill(&values, Escape::Nothing);
        assert_eq!(
            filled.as_deref(),
            Ok("2026-01-01T00:00:00Z...2026-02-01T00:00:00Z")
        );
        assert_eq!(
            template("a{cursor}").fill(&values, Escape::Nothing),
            Err(Variable::Cursor)
        );
    }

    #[test]
    fn a_value_cannot_leave_its_segment() {
        let values = Values {
            id: Some("../admin?x=1#é".to_owned()),
            ..Values::default()
        };
        assert_eq!(
            template("/messages/{id}")
                .fill(&values, Escape::Segment)
                .as_deref(),
            Ok("/messages/..%2Fadmin%3Fx%3D1%23%C3%A9"),
        );
    }

    #[test]
    fn an_unknown_variable_is_named() {
        let error = Template::try_from("{acount}".to_owned()).expect_err("misspelt");
        assert!(
            error.contains("acount") && error.contains("account"),
            "{error}"
        );
        assert!(Template::try_from("{account".to_owned()).is_err());
    }
}
