//! The documented shape of every answer, read from `fixtures/`.
//!
//! Each file names the page it follows in `_source`, and says in `_assumed` whether any of it is not documented there.

use std::sync::LazyLock;

use serde_json::{Map, Value};

/// A fixture that is parsed once.
pub(crate) type Fixture = LazyLock<Map<String, Value>>;

macro_rules! fixtures {
    ($($name:ident = $file:literal;)*) => {
        $(pub(crate) static $name: Fixture = LazyLock::new(|| parse($file, include_str!(concat!("../fixtures/", $file))));)*

        #[cfg(test)]
        const ALL: &[(&str, &str)] = &[$(($file, include_str!(concat!("../fixtures/", $file)))),*];
    };
}

fixtures! {
    GRAPH_DELTA_REMOVED = "graph/delta_removed.json";
    GRAPH_ERROR = "graph/error.json";
    GRAPH_ME = "graph/me.json";
    GRAPH_MESSAGE = "graph/message.json";
    GRAPH_ORGANIZATION = "graph/organization.json";
    MICROSOFT_TOKEN_ERROR = "oauth/microsoft_token_error.json";
    ERRORS_IN_200 = "oauth/errors_in_200.json";
    PROCORE_COMPANY = "procore/company.json";
    PROCORE_ERRORS = "procore/errors.json";
    PROCORE_ME = "procore/me.json";
    PROCORE_PROJECT = "procore/project.json";
}

fn parse(file: &str, text: &str) -> Map<String, Value> {
    let mut fixture: Map<String, Value> = serde_json::from_str(text)
        .unwrap_or_else(|error| panic!("fixtures/{file} is not a JSON object: {error}"));
    fixture.retain(|name, _| !name.starts_with('_'));
    fixture
}

/// A copy of the fixture with `fields` put over it.
pub(crate) fn filled(fixture: &Fixture, fields: Value) -> Map<String, Value> {
    let mut object = Map::clone(fixture);
    match fields {
        Value::Object(fields) => object.extend(fields),
        other => unreachable!("a fixture is filled with an object, not {other}"),
    }
    object
}

/// The text that a fixture has under `name`.
pub(crate) fn text(fixture: &'static Fixture, name: &str) -> &'static str {
    fixture
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("the fixture has no text {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fixture_cites_its_documentation_and_says_what_is_assumed() {
        for (file, text) in ALL {
            let fixture: Value = serde_json::from_str(text).expect(file);
            let source = fixture["_source"].as_str().unwrap_or_default();
            assert!(source.starts_with("https://"), "{file} has no _source");
            let assumed = fixture["_assumed"].as_bool();
            assert!(assumed.is_some(), "{file} does not say _assumed");
            if assumed == Some(true) {
                assert!(
                    fixture["_assumption"].is_string(),
                    "{file} does not say what is assumed"
                );
            }
        }
    }
}
