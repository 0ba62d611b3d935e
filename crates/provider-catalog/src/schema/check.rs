//! What an entry has to fulfil beyond each of its values.

use std::collections::BTreeSet;

use super::{AuthMode, FieldProblem, Location, Provider, RefreshStrategy, ReplayWindow};

impl Provider {
    /// Everything that does not fit together.
    pub fn problems(&self) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        self.check_names(&mut problems);
        self.check_places(&mut problems);
        self.check_oauth2(&mut problems);
        self.check_api(&mut problems);
        problems
    }

    /// The fields of `required_overrides` that hold nothing although `mode` needs them: endpoints only where no issuer can
    /// tell them, and the authorization endpoint only where a browser goes there.
    pub fn missing_overrides(&self, mode: AuthMode) -> Vec<&str> {
        let present: BTreeSet<_> = self.urls().into_iter().map(|(field, _)| field).collect();
        let needed = |field: &&str| match *field {
            "endpoints.authorization" => self.issuer.is_none() && mode == AuthMode::OAuth2Code,
            field => !(field.starts_with("endpoints.") && self.issuer.is_some()),
        };
        let missing = |field: &&str| !present.contains(field);
        self.required_overrides
            .iter()
            .map(String::as_str)
            .filter(needed)
            .filter(missing)
            .collect()
    }

    fn check_names(&self, problems: &mut Vec<FieldProblem>) {
        if self.display_name.trim().is_empty() {
            problems.push(FieldProblem::new("display_name", "must not be empty"));
        }
        if self.auth_modes.is_empty() {
            problems.push(FieldProblem::new(
                "auth_modes",
                "must name at least one way to authenticate",
            ));
        }
        if self.scopes.separator.is_empty() {
            problems.push(FieldProblem::new("scopes.separator", "must not be empty"));
        }
        for (name, parameter) in &self.parameters {
            let field = format!("parameters.{name}");
            let is_name = !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            if !is_name || ["account", "secret"].contains(&name.as_str()) {
                problems.push(FieldProblem::new(
                    &field,
                    "must be named by small letters and underscores, not account or secret",
                ));
            }
            for (member, value) in [
                ("default", &parameter.default),
                ("example", &parameter.example),
            ] {
                if value
                    .as_ref()
                    .is_some_and(|value| !parameter.pattern.matches(value))
                {
                    problems.push(FieldProblem::new(
                        format!("{field}.{member}"),
                        "must match the pattern",
                    ));
                }
            }
        }
        let document = serde_json::to_value(self).unwrap_or_default();
        for path in self.sources.keys().chain(&self.required_overrides) {
            let field = if self.sources.contains_key(path) {
                format!("sources.{path}")
            } else {
                "required_overrides".to_owned()
            };
            if document
                .pointer(&format!("/{}", path.replace('.', "/")))
                .is_none()
            {
                problems.push(FieldProblem::new(
                    field,
                    format!("names a field that does not exist: {path}"),
                ));
            }
        }
    }

    /// Each place in a template is a declared parameter.
    fn check_places(&self, problems: &mut Vec<FieldProblem>) {
        let mut check = |field: &str, places: BTreeSet<&str>, also: &[&str]| {
            for name in places {
                if !self.parameters.contains_key(name) && !also.contains(&name) {
                    problems.push(FieldProblem::new(
                        field,
                        format!("names {{{name}}}, which is no parameter of the provider"),
                    ));
                }
            }
        };
        for (field, url) in self.urls() {
            check(field, url.places(), &[]);
        }
        check("docs_url", self.docs_url.places(), &[]);
        for (field, location) in self.locations() {
            check(field, location.places(), &[]);
        }
        for (name, header) in &self.api.headers {
            check(
                &format!("api.headers.{name}"),
                header.places(),
                &["account"],
            );
        }
        check(
            "api.credential.format",
            self.api.credential.format.places(),
            &["secret"],
        );
    }

    fn check_oauth2(&self, problems: &mut Vec<FieldProblem>) {
        let comes_later = |field: &str| {
            self.required_overrides
                .iter()
                .any(|required| required == field)
        };
        let discovered =
            self.issuer.is_some() || self.discovery_url.is_some() || comes_later("issuer");
        let needed = [
            (
                "endpoints.authorization",
                self.endpoints.authorization.is_some(),
                self.speaks(&[AuthMode::OAuth2Code]),
            ),
            (
                "endpoints.token",
                self.endpoints.token.is_some(),
                self.auth_modes.iter().any(|mode| mode.is_oauth2()),
            ),
            (
                "endpoints.device_authorization",
                self.endpoints.device_authorization.is_some(),
                self.speaks(&[AuthMode::OAuth2Device]),
            ),
        ];
        for (field, present, wanted) in needed {
            if wanted && !present && !discovered && !comes_later(field) {
                problems.push(FieldProblem::new(
                    field,
                    "is needed for the provider's auth_modes",
                ));
            }
        }
        if self.client_auth.is_empty() && self.auth_modes.iter().any(|mode| mode.is_oauth2()) {
            problems.push(FieldProblem::new(
                "client_auth",
                "must name at least one method",
            ));
        }
        if self.discovery_url.is_some() && self.issuer.is_none() {
            problems.push(FieldProblem::new(
                "issuer",
                "is needed beside discovery_url, to compare with",
            ));
        }
        if self.refresh.rotates == Some(true)
            && self.refresh.strategy != RefreshStrategy::RefreshToken
        {
            problems.push(FieldProblem::new(
                "refresh.rotates",
                "is for the strategy refresh_token alone",
            ));
        }
        if self.refresh.rotates == Some(false) && self.refresh.replay_window != ReplayWindow::None {
            problems.push(FieldProblem::new(
                "refresh.replay_window",
                "is for refresh tokens that rotate",
            ));
        }
        for (at, rule) in self.token_errors.iter().enumerate() {
            let field = format!("token_errors[{at}]");
            if rule.status.is_none()
                && rule.error.is_none()
                && rule.description_contains.is_none()
                && rule.at.is_none()
            {
                problems.push(FieldProblem::new(&field, "must state a condition"));
            }
            if rule.at.is_some() != rule.equals.is_some() {
                problems.push(FieldProblem::new(
                    &field,
                    "must have both at and equals, or neither",
                ));
            }
            if rule.cause.is_some() != (rule.means == super::TokenErrorClass::Reauthorization) {
                problems.push(FieldProblem::new(
                    &field,
                    "must have a cause with reauthorization, and only then",
                ));
            }
            if rule
                .description_contains
                .as_ref()
                .is_some_and(|text| *text != text.to_lowercase())
            {
                problems.push(FieldProblem::new(
                    &field,
                    "must have description_contains in lower case",
                ));
            }
        }
    }

    fn check_api(&self, problems: &mut Vec<FieldProblem>) {
        for (field, location) in self.locations() {
            if location.absolute().is_none() && self.api.base_url.is_none() {
                problems.push(FieldProblem::new(
                    field,
                    "is a path, which needs api.base_url",
                ));
            }
        }
        if self.multiple_accounts && self.accounts.is_none() {
            problems.push(FieldProblem::new(
                "accounts",
                "is needed where multiple_accounts is set",
            ));
        }
        if !self.api.credential.format.places().contains("secret") {
            problems.push(FieldProblem::new(
                "api.credential.format",
                "must contain {secret}",
            ));
        }
        if !is_token(&self.api.credential.name) {
            problems.push(FieldProblem::new(
                "api.credential.name",
                "must be the name of a header or a query parameter",
            ));
        }
        for name in self.api.headers.keys() {
            let own = [
                "authorization",
                "host",
                "cookie",
                "content-length",
                "transfer-encoding",
                "connection",
            ];
            if !is_token(name) || own.contains(&name.to_ascii_lowercase().as_str()) {
                problems.push(FieldProblem::new(
                    format!("api.headers.{name}"),
                    "is not a header that can be set here",
                ));
            }
        }
        if self
            .api
            .base_url
            .as_ref()
            .is_some_and(|url| url.as_str().contains('?'))
        {
            problems.push(FieldProblem::new(
                "api.base_url",
                "must not contain a query",
            ));
        }
    }

    fn locations(&self) -> impl Iterator<Item = (&'static str, &Location)> {
        [
            ("identity.endpoint", self.identity.endpoint.as_ref()),
            (
                "accounts.endpoint",
                self.accounts.as_ref().map(|accounts| &accounts.endpoint),
            ),
            (
                "verify.endpoint",
                self.verify.as_ref().map(|verify| &verify.endpoint),
            ),
        ]
        .into_iter()
        .filter_map(|(field, location)| Some((field, location?)))
    }

    fn speaks(&self, modes: &[AuthMode]) -> bool {
        self.auth_modes.iter().any(|mode| modes.contains(mode))
    }
}

/// A token of RFC 9110, 5.6.2, which names headers.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
