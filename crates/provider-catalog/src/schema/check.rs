//! What an entry has to fulfil beyond each of its values.

use std::collections::BTreeSet;

use super::{
    AuthMode, CallMethod, FieldProblem, Location, Pointer, Provider, RefreshStrategy, ReplayWindow,
    TokenCarrier, TokenErrorClass,
};

impl Provider {
    /// Everything that does not fit together.
    pub fn problems(&self) -> Vec<FieldProblem> {
        let mut problems = Vec::new();
        self.check_names(&mut problems);
        self.check_places(&mut problems);
        self.check_oauth2(&mut problems);
        self.check_renewal(&mut problems);
        self.check_token_response(&mut problems);
        self.check_errors(&mut problems);
        self.check_api(&mut problems);
        problems
    }

    /// The fields of `required_overrides` that hold nothing although `mode` needs them: endpoints only where no issuer can
    /// tell them, and the authorization endpoint only where a browser goes there.
    pub fn missing_overrides(&self, mode: AuthMode) -> Vec<&str> {
        let document = serde_json::to_value(self).unwrap_or_default();
        let needed = |field: &&str| match *field {
            "endpoints.authorization" => self.issuer.is_none() && mode == AuthMode::OAuth2Code,
            field => !(field.starts_with("endpoints.") && self.issuer.is_some()),
        };
        let missing = |field: &&str| {
            document
                .pointer(&format!("/{}", field.replace('.', "/")))
                .is_none_or(serde_json::Value::is_null)
        };
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
            if !is_name(name) || ["account", "secret"].contains(&name.as_str()) {
                problems.push(FieldProblem::new(
                    &field,
                    "must be named by small letters and underscores, not account or secret",
                ));
            }
            if let Some(captured) = &parameter.captured
                && [
                    captured.callback.is_some(),
                    captured.token_response.is_some(),
                    captured.identity.is_some(),
                ]
                .into_iter()
                .filter(|is_set| *is_set)
                .count()
                    != 1
            {
                problems.push(FieldProblem::new(
                    format!("{field}.captured"),
                    "must name one of callback, token_response and identity",
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
            let is_header = path.starts_with("api.headers.");
            if !is_header
                && document
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
            // An API may have the account in its address.
            let also: &[&str] = if field == "api.base_url" {
                &["account"]
            } else {
                &[]
            };
            check(field, url.places(), also);
        }
        check("docs_url", self.docs_url.places(), &[]);
        if let Some(audience) = self
            .refresh
            .jwt_bearer
            .as_ref()
            .and_then(|bearer| bearer.audience.as_ref())
        {
            check("refresh.jwt_bearer.audience", audience.places(), &[]);
        }
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
    }

    fn check_renewal(&self, problems: &mut Vec<FieldProblem>) {
        let refresh = &self.refresh;
        let needed = [
            (
                "refresh.jwt_bearer",
                refresh.jwt_bearer.is_some(),
                refresh.strategy == RefreshStrategy::JwtBearer
                    || self.speaks(&[AuthMode::OAuth2JwtBearer]),
            ),
            (
                "refresh.token_exchange",
                refresh.token_exchange.is_some(),
                refresh.strategy == RefreshStrategy::TokenExchange,
            ),
        ];
        for (field, present, wanted) in needed {
            if wanted != present {
                let description = if wanted {
                    "is needed for the strategy"
                } else {
                    "belongs to another strategy"
                };
                problems.push(FieldProblem::new(field, description));
            }
        }
        if refresh.rotates == Some(true) && refresh.strategy != RefreshStrategy::RefreshToken {
            problems.push(FieldProblem::new(
                "refresh.rotates",
                "is for the strategy refresh_token alone",
            ));
        }
        if refresh.rotates == Some(false) && refresh.replay_window != ReplayWindow::None {
            problems.push(FieldProblem::new(
                "refresh.replay_window",
                "is for refresh tokens that rotate",
            ));
        }
        if self.revocation.method == CallMethod::Get {
            problems.push(FieldProblem::new(
                "revocation.method",
                "must be POST or DELETE",
            ));
        }
        if self.revocation.method == CallMethod::Delete
            && self.revocation.carried != TokenCarrier::BearerToken
        {
            problems.push(FieldProblem::new(
                "revocation.carried",
                "must be bearer_token, since a DELETE has no body",
            ));
        }
    }

    fn check_token_response(&self, problems: &mut Vec<FieldProblem>) {
        let response = &self.token_response;
        if response.main.is_empty() || response.access_token.is_empty() {
            problems.push(FieldProblem::new(
                "token_response",
                "must say where the access token stands",
            ));
        }
        for (name, place) in &response.others {
            if !is_name(name) || *place == Pointer::default() {
                problems.push(FieldProblem::new(
                    format!("token_response.others.{name}"),
                    "must be named by small letters and underscores, and stand in a member",
                ));
            }
        }
        if response
            .success
            .as_ref()
            .is_some_and(|success| success.any_of.is_empty())
        {
            problems.push(FieldProblem::new(
                "token_response.success.any_of",
                "must not be empty",
            ));
        }
    }

    fn check_errors(&self, problems: &mut Vec<FieldProblem>) {
        for (at, rule) in self.errors.rules.iter().enumerate() {
            let mut problem = |description: &str| {
                problems.push(FieldProblem::new(
                    format!("errors.rules[{at}]"),
                    description,
                ));
            };
            if rule.status.is_empty() && rule.error.is_empty() && rule.at.is_none() {
                problem("must name a status, an error or a place; text alone says nothing");
            }
            if rule.at.is_some() == rule.any_of.is_empty() {
                problem("must have both at and any_of, or neither");
            }
            if rule.cause.is_some() != (rule.means == TokenErrorClass::Reauthorization) {
                problem("must have a cause with reauthorization, and only then");
            }
            if rule.wait.is_some() && rule.means != TokenErrorClass::RateLimited {
                problem("must have a wait with rate_limited alone");
            }
            if rule
                .description_contains
                .as_ref()
                .is_some_and(|text| *text != text.to_lowercase() || text.is_empty())
            {
                problem("must have description_contains in lower case");
            }
        }
        for (at, rule) in self.api.errors.iter().enumerate() {
            let field = format!("api.errors[{at}]");
            if rule.header.is_some() && rule.at.is_some() {
                problems.push(FieldProblem::new(&field, "must look at one place"));
            }
            if (rule.header.is_some() || rule.at.is_some()) == rule.any_of.is_empty() {
                problems.push(FieldProblem::new(
                    &field,
                    "must have any_of beside header or at, and only then",
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

/// Small letters and underscores.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// A token of RFC 9110, 5.6.2, which names headers.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
