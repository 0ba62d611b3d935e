//! The query options that a list of messages understands.

use url::form_urlencoded;

use crate::clock::parse_iso;
use crate::data::Record;

const DEFAULT_TOP: usize = 10;
const MAX_TOP: usize = 1000;

/// A list's query.
#[derive(Debug)]
pub(super) struct Messages {
    pub(super) top: usize,
    pub(super) skip: usize,
    pub(super) count: bool,
    pub(super) filter: Filter,
    pub(super) order: Order,
    pub(super) select: Vec<String>,
    /// Everything but `$skip`, for the next page's link.
    rest: Vec<(String, String)>,
}

/// Comparisons that all have to hold.
#[derive(Debug, Default)]
pub(super) struct Filter(Vec<Comparison>);

#[derive(Debug)]
struct Comparison {
    property: Property,
    operator: Operator,
    value_ms: i64,
}

/// The dates of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Property {
    /// `receivedDateTime` and `createdDateTime`.
    Received,
    /// `lastModifiedDateTime`.
    Modified,
}

#[derive(Clone, Copy, Debug)]
enum Operator {
    Before,
    UpTo,
    From,
    After,
}

/// The order of a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) property: Property,
    pub(super) descending: bool,
}

impl Messages {
    /// `Err` is the error's code.
    pub(super) fn parse(query: &str) -> Result<Self, &'static str> {
        let mut list = Self {
            top: DEFAULT_TOP,
            skip: 0,
            count: false,
            filter: Filter::default(),
            order: Order {
                property: Property::Received,
                descending: true,
            },
            select: Vec::new(),
            rest: Vec::new(),
        };
        let mut ordered = false;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "$top" => {
                    list.top = value
                        .parse()
                        .ok()
                        .filter(|top| (1..=MAX_TOP).contains(top))
                        .ok_or("BadRequest")?;
                }
                "$skip" => list.skip = value.parse().map_err(|_| "BadRequest")?,
                "$count" => list.count = value == "true",
                "$filter" => list.filter = Filter::parse(&value)?,
                "$select" => {
                    list.select = value
                        .split(',')
                        .map(|name| name.trim().to_owned())
                        .collect();
                }
                "$orderby" => {
                    list.order = Order::parse(&value)?;
                    ordered = true;
                }
                name if name.starts_with('$') => return Err("BadRequest"),
                _ => {}
            }
            if name != "$skip" {
                list.rest.push((name.into_owned(), value.into_owned()));
            }
        }
        // "Properties that appear in $orderby must also appear in $filter", and first.
        if ordered
            && list
                .filter
                .0
                .first()
                .is_some_and(|first| first.property != list.order.property)
        {
            return Err("InefficientFilter");
        }
        Ok(list)
    }

    /// The query of the next page.
    pub(super) fn next_query(&self) -> String {
        let skip = (self.skip + self.top).to_string();
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&self.rest)
            .append_pair("$skip", &skip)
            .finish()
    }
}

impl Filter {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let comparison = |text: &str| {
            let mut words = text.split_whitespace();
            let (property, operator, value) = (words.next()?, words.next()?, words.next()?);
            let operator = match operator {
                "lt" => Operator::Before,
                "le" => Operator::UpTo,
                "ge" => Operator::From,
                "gt" => Operator::After,
                _ => return None,
            };
            words.next().is_none().then_some(Comparison {
                property: Property::parse(property)?,
                operator,
                value_ms: parse_iso(value)?,
            })
        };
        let comparisons: Option<Vec<_>> = text.split(" and ").map(comparison).collect();
        comparisons.map(Self).ok_or("ErrorInvalidUrlQueryFilter")
    }

    /// Judged to the second, as dates are shown.
    pub(super) fn admits(&self, record: &Record) -> bool {
        self.0.iter().all(|comparison| {
            let date = match comparison.property {
                Property::Received => record.created_ms,
                Property::Modified => record.updated_ms,
            };
            let (date, value) = (date.div_euclid(1000) * 1000, comparison.value_ms);
            match comparison.operator {
                Operator::Before => date < value,
                Operator::UpTo => date <= value,
                Operator::From => date >= value,
                Operator::After => date > value,
            }
        })
    }

    /// Whether it is of the only form that delta accepts: `receivedDateTime` with `ge` or `gt`.
    pub(super) fn fits_delta(&self) -> bool {
        matches!(
            &self.0[..],
            [Comparison {
                property: Property::Received,
                operator: Operator::From | Operator::After,
                ..
            }]
        )
    }
}

impl Property {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "receivedDateTime" | "createdDateTime" => Some(Self::Received),
            "lastModifiedDateTime" => Some(Self::Modified),
            _ => None,
        }
    }
}

impl Order {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let mut words = text.split_whitespace();
        let property = words.next().and_then(Property::parse).ok_or("BadRequest")?;
        let descending = match words.next() {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(_) => return Err("BadRequest"),
        };
        Ok(Self {
            property,
            descending,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let list = Messages::parse("$top=50&$filter=receivedDateTime+ge+2026-01-01T00:00:00Z+and+receivedDateTime+lt+2026-02-01T00:00:00Z&$orderby=receivedDateTime+desc")
            .expect("a good query");
        assert_eq!(
            (list.top, list.filter.0.len(), list.order.descending),
            (50, 2, true)
        );
        assert!(
            list.next_query().ends_with("%24skip=50"),
            "{}",
            list.next_query()
        );
    }

    #[test]
    fn what_graph_refuses_is_refused() {
        for (query, code) in [
            ("$top=0", "BadRequest"),
            ("$top=1001", "BadRequest"),
            ("$filter=subject eq 'x'", "ErrorInvalidUrlQueryFilter"),
            ("$search=x", "BadRequest"),
            (
                "$filter=receivedDateTime ge 2026-01-01T00:00:00Z&$orderby=lastModifiedDateTime",
                "InefficientFilter",
            ),
        ] {
            assert_eq!(Messages::parse(query).err(), Some(code), "{query}");
        }
    }
}
