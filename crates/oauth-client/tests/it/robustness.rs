use oauth_client::{Callback, Class, Dialect};
use proptest::prelude::*;
use provider_catalog::Catalog;
use serde_json::Value;

use crate::world::{NOW, answer, read, refresh_call};

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2})?"
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(name(), inner, 0..4)
                .prop_map(|members| members.into_iter().collect()),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "access_token",
            "refresh_token",
            "id_token",
            "token_type",
            "expires_in",
            "expires_at",
            "scope",
            "error",
            "error_description",
            "message",
            "code",
            "status",
            "ok",
            "refresh_token_expires_in",
            "error_codes",
            "error_subtype",
            "error_subcode",
            "authed_user",
            "data",
            "token",
        ])
        .prop_map(str::to_owned),
        ".{0,6}",
    ]
}

proptest! {
    #[test]
    fn reading_an_answer_never_panics(
        status in 100_u16..1000,
        body in prop::collection::hash_map(name(), value(), 0..8),
        retry_after in "[ -~]{0,40}",
    ) {
        let body = Value::from_iter(body).to_string();
        let outcome = read(status, &[("retry-after", &retry_after)], &body);
        if let Ok(tokens) = outcome {
            prop_assert!((200..300).contains(&status));
            prop_assert!(!tokens.access_token.expose().is_empty());
            prop_assert!(tokens.refresh_token.is_none_or(|token| !token.expose().is_empty()));
            prop_assert!(!tokens.raw.contains_key("access_token"));
        } else if let Err(failure) = outcome {
            prop_assert!(failure.description.is_none_or(|text| text.chars().count() <= 256 && !text.chars().any(char::is_control)));
            prop_assert!(failure.code.is_none_or(|code| code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_graphic())));
        }
    }

    /// In every dialect of the catalogue; and a server that has broken down ends no grant in any of them.
    #[test]
    fn reading_an_answer_in_any_dialect_never_panics(
        status in 100_u16..1000,
        body in prop::collection::hash_map(name(), value(), 0..8),
    ) {
        let body = Value::from_iter(body).to_string();
        for provider in Catalog::builtin().iter() {
            let outcome = refresh_call(&Dialect::from(provider)).read(Ok(answer(status, &[], &body)), NOW, NOW);
            match outcome {
                Ok(tokens) => {
                    prop_assert!((200..300).contains(&status));
                    prop_assert!(!tokens.access_token.expose().is_empty());
                    prop_assert!(tokens.others.iter().all(|other| !other.access_token.expose().is_empty()));
                    let raw = Value::Object(tokens.raw).to_string();
                    let all = std::iter::once(&tokens.access_token).chain(tokens.others.iter().map(|other| &other.access_token));
                    for token in all.filter(|token| token.expose().len() > 8) {
                        prop_assert!(!raw.contains(token.expose().as_str()));
                    }
                }
                Err(failure) => prop_assert!(
                    !(500..=599).contains(&status) || !matches!(failure.class, Class::Reauthorization(_)),
                    "{}: {failure:?}",
                    provider.key.as_str()
                ),
            }
        }
    }

    #[test]
    fn reading_any_bytes_never_panics(status in 100_u16..1000, body: Vec<u8>) {
        let mut response = answer(status, &[], "");
        response.body = body.into();
        // Only the absence of a panic counts: any bytes may be anything.
        let _ = refresh_call(&Dialect::default()).read(Ok(response), NOW, NOW);
    }

    #[test]
    fn reading_a_callback_never_panics(parameters: Vec<(String, String)>, known in prop::collection::vec((name(), ".{0,20}"), 0..4)) {
        let all = parameters.iter().chain(&known).map(|(name, value)| (name.as_str(), value.as_str()));
        if let Ok(callback) = Callback::parse(all) {
            prop_assert!(!callback.state.expose().is_empty());
        }
    }
}
