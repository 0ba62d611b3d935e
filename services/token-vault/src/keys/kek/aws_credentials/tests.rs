//! Files, answers, and which place wins.

use std::collections::BTreeMap;

use super::*;

const FILE: &str = "
# made by hand
[other]
aws_access_key_id = OTHER
aws_secret_access_key = other-secret

[default]
aws_access_key_id=DEFAULT
aws_secret_access_key = a=b/c+d==
aws_session_token = session

[empty]
region = eu-central-1
";

fn find(config: &AwsKmsConfig, variables: &[(&str, &str)]) -> Option<CredentialSource> {
    let variables: BTreeMap<_, _> = variables.iter().copied().collect();
    CredentialSource::find(config, &|name| {
        variables.get(name).map(|value| Secret::from(*value))
    })
}

#[test]
fn a_profile_is_read_out_of_the_file() {
    let default = parse(FILE, "default").expect("it is there");
    assert_eq!(default.access_key_id(), "DEFAULT");
    assert_eq!(default.secret_access_key(), "a=b/c+d==");
    assert_eq!(default.session_token(), Some("session"));
    let other = parse(FILE, "other").expect("it is there");
    assert_eq!(other.access_key_id(), "OTHER");
    assert_eq!(other.session_token(), None);
    for absent in ["empty", "none", ""] {
        assert!(parse(FILE, absent).is_none(), "{absent}");
    }
}

#[test]
fn what_is_configured_comes_before_the_environment() {
    let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
    let role = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "r")];
    let shared = [("AWS_SHARED_CREDENTIALS_FILE", "/c"), ("AWS_PROFILE", "p")];
    let all: Vec<_> = [keys, role, shared].concat();
    let none = AwsKmsConfig::default();
    let file = AwsKmsConfig {
        credentials_file: Some("/configured".into()),
        ..AwsKmsConfig::default()
    };
    let identity = AwsKmsConfig {
        web_identity_token_file: Some("/configured".into()),
        role_arn: Some("configured".into()),
        ..AwsKmsConfig::default()
    };
    assert!(matches!(
        find(&file, &all),
        Some(CredentialSource::File { profile, .. }) if profile == "p"
    ));
    assert!(matches!(
        find(&identity, &all),
        Some(CredentialSource::WebIdentity { role, .. }) if role == "configured"
    ));
    assert!(matches!(
        find(&none, &all),
        Some(CredentialSource::Fixed(_))
    ));
    assert!(matches!(
        find(&none, &[role, shared].concat()),
        Some(CredentialSource::WebIdentity { role, .. }) if role == "r"
    ));
    assert!(matches!(
        find(&none, &shared),
        Some(CredentialSource::File { .. })
    ));
    assert!(find(&none, &[]).is_none());
    // Kubernetes sets variables to nothing where a value is optional.
    assert!(find(&none, &[("AWS_ACCESS_KEY_ID", ""), keys[1]]).is_none());
}

#[test]
fn credentials_are_not_printed() {
    let source = find(
        &AwsKmsConfig::default(),
        &[
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "canary"),
            ("AWS_SESSION_TOKEN", "canary"),
        ],
    );
    assert!(!format!("{source:?}").contains("canary"));
}
