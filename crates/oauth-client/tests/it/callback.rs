use oauth_client::{Callback, CallbackProblem};

#[test]
fn checklist_13_the_issuer_is_compared_to_the_letter() {
    let callback = |issuer: &str| {
        Callback::parse([("state", "s"), ("code", "c"), ("iss", issuer)]).expect("a good response")
    };
    let asked = Some("https://as.example");
    assert_eq!(
        callback("https://as.example").check_issuer(asked, true),
        Ok(())
    );
    for other in [
        "https://as.example/",
        "https://AS.example",
        "https://evil.example",
    ] {
        assert_eq!(
            callback(other).check_issuer(asked, false),
            Err(CallbackProblem::Issuer),
            "{other}"
        );
    }
    assert_eq!(
        callback("").check_issuer(asked, true),
        Err(CallbackProblem::Issuer)
    );
    assert_eq!(callback("").check_issuer(asked, false), Ok(()));
    assert_eq!(
        callback("https://as.example").check_issuer(None, false),
        Ok(())
    );
}

#[test]
fn checklist_14_errors_are_told_apart_and_cleaned() {
    let outcome = |parameters: &[(&str, &str)]| {
        let state = [("state", "s")];
        Callback::parse(state.iter().chain(parameters).copied())
            .expect("has a state")
            .outcome
            .map(|_| ())
    };
    assert_eq!(
        outcome(&[("error", "access_denied"), ("code", "c")]),
        Err(CallbackProblem::Declined)
    );
    assert_eq!(
        outcome(&[("error", "server_error"), ("error_subcode", "cancel")]),
        Err(CallbackProblem::Declined)
    );
    assert_eq!(outcome(&[]), Err(CallbackProblem::Empty));
    assert_eq!(outcome(&[("code", "")]), Err(CallbackProblem::Empty));

    let long = format!("a\r\nb\u{202e}c{}", "x".repeat(500));
    let Err(CallbackProblem::Refused { code, description }) = outcome(&[
        ("error", "temporarily_unavailable"),
        ("error_description", &long),
    ]) else {
        panic!("refused")
    };
    let description = description.expect("a description");
    assert_eq!(code, "temporarily_unavailable");
    assert!(
        description.starts_with("a  b cx") && description.chars().count() == 256,
        "{description}"
    );

    let markup = outcome(&[("error", "<script>alert(1)</script> and more")]);
    assert_eq!(
        markup,
        Err(CallbackProblem::Refused {
            code: "unknown_error".to_owned(),
            description: None
        })
    );
}

#[test]
fn checklist_16_a_response_without_state_answers_nothing_of_ours() {
    for parameters in [
        &[("code", "c")][..],
        &[("state", ""), ("code", "c")],
        &[("error", "access_denied")],
        &[],
    ] {
        let problem = Callback::parse(parameters.iter().copied()).expect_err("unsolicited");
        assert_eq!(problem, CallbackProblem::Unsolicited);
    }
    let twice = Callback::parse([("state", "s"), ("code", "c"), ("code", "d")]).expect_err("twice");
    assert_eq!(twice, CallbackProblem::Repeated);
    // Others' parameters are their own affair.
    assert!(Callback::parse([("state", "s"), ("code", "c"), ("x", "1"), ("x", "2")]).is_ok());
}
