use std::collections::BTreeMap;

use proptest::prelude::*;
use provider_catalog::{FillError, UrlTemplate};

fn fill(template: &str, value: &str) -> Result<String, FillError> {
    let template = UrlTemplate::try_from(template.to_owned()).expect("a template");
    let values = BTreeMap::from([("x".to_owned(), value.to_owned())]);
    template.fill(&values).map(|url| url.to_string())
}

#[test]
fn checklist_52_a_value_stays_in_its_place() {
    let host = "https://{x}.example.com/oauth/token";
    assert_eq!(
        fill(host, "acme").expect("fits"),
        "https://acme.example.com/oauth/token"
    );
    let breaking_out = [
        "evil.com/",
        "evil.com#",
        "evil.com?",
        "a@evil.com/",
        "a:b@evil.com#",
        "a.b",
        "a/../b",
        "",
        "evil.com\\",
        "127.0.0.1:80/",
        "a:443",
        "a b",
        "evil.com%2f",
        "[::1]/",
    ];
    for value in breaking_out {
        assert_eq!(fill(host, value), Err(FillError::Shape), "{value:?}");
    }

    let path = "https://example.com/t/{x}/token";
    assert_eq!(
        fill(path, "acme").expect("fits"),
        "https://example.com/t/acme/token"
    );
    for value in ["..", ".", "a/b", "%2e%2e", "a?b=c", "a#b", "\\..\\"] {
        assert_eq!(fill(path, value), Err(FillError::Shape), "{value:?}");
    }

    let query = "https://example.com/t?tenant={x}";
    assert_eq!(
        fill(query, "acme").expect("fits"),
        "https://example.com/t?tenant=acme"
    );
    for value in ["a&b=c", "a#b"] {
        assert_eq!(fill(query, value), Err(FillError::Shape), "{value:?}");
    }
}

#[test]
fn a_whole_host_is_its_parameters_own_affair() {
    let template = "https://{x}/token";
    assert_eq!(
        fill(template, "gitlab.acme.example").expect("fits"),
        "https://gitlab.acme.example/token"
    );
    for value in ["a@b", "a/b", "a:1", "a?b", "a#b"] {
        assert_eq!(fill(template, value), Err(FillError::Shape), "{value:?}");
    }
}

#[test]
fn a_place_without_a_value_is_named() {
    let template = UrlTemplate::try_from("https://{where_to}/".to_owned()).expect("a template");
    assert_eq!(
        template.fill(&BTreeMap::new()),
        Err(FillError::Missing {
            name: "where_to".to_owned()
        })
    );
}

#[test]
fn only_https_or_this_machine() {
    let good = [
        "https://example.com",
        "http://localhost:1",
        "http://a.localhost/",
        "http://127.0.0.1:2/x",
        "http://[::1]:3/",
    ];
    for text in good {
        assert!(UrlTemplate::try_from(text.to_owned()).is_ok(), "{text}");
    }
    let bad = [
        "http://example.com",
        "ftp://example.com",
        "//example.com",
        "/path",
        "",
        "https://",
        "https://u:p@example.com",
        "https://example.com/#f",
        "https://{X}.example.com",
        "https://{}.example.com",
        "https://a}.example.com",
        "javascript:x",
    ];
    for text in bad {
        assert!(UrlTemplate::try_from(text.to_owned()).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn no_value_leads_to_another_host(value in ".{0,24}") {
        if let Ok(url) = fill("https://{x}.example.com/a/{x}/b?c={x}", &value) {
            let url = url::Url::parse(&url).expect("it was one");
            prop_assert!(url.host_str().is_some_and(|host| host.ends_with(".example.com")));
            prop_assert_eq!(url.path_segments().map(Iterator::count), Some(3));
            prop_assert!(url.username().is_empty() && url.port().is_none() && url.fragment().is_none());
        }
    }
}
