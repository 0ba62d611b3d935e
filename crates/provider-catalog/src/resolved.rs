//! An entry with an integration's own values in it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use url::Url;

use crate::schema::{
    AuthMode, Capture, CapturedPart, Endpoints, FieldProblem, FillError, JwtBearer, Location,
    Parameter, Provider, RefreshStrategy, TextTemplate, TokenExchange, UrlTemplate,
};

/// What the catalogue says of a provider, and an integration does not change.
const FIXED: [&str; 9] = [
    "key",
    "display_name",
    "categories",
    "docs_url",
    "confidence",
    "sources",
    "auth_modes",
    "required_overrides",
    "notes",
];
/// More values than this are not an override but another provider.
const MAX_OVERRIDES: usize = 200;
const MAX_PARAMETER_BYTES: usize = 255;

/// A provider as one integration uses it: complete, checked, ready to be asked for URLs.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedProvider {
    provider: Provider,
    hosts_replaced: bool,
}

/// What renews a grant's access token, with what the entry says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal<'a> {
    /// Its refresh token.
    RefreshToken,
    /// The client's own credentials.
    ClientCredentials,
    /// Another assertion of the client's.
    JwtBearer(&'a JwtBearer),
    /// A trade of the access token itself, while it lives.
    TokenExchange(&'a TokenExchange),
    /// Nothing.
    None,
}

impl Provider {
    /// What renews a grant that came about by `mode`. Whoever has neither a refresh token nor anything else to renew with
    /// connects again, whatever this says.
    pub fn renewal(&self, mode: AuthMode) -> Renewal<'_> {
        let refresh = &self.refresh;
        match (mode, refresh.strategy) {
            (AuthMode::ApiKey | AuthMode::Basic, _) => Renewal::None,
            (AuthMode::OAuth2ClientCredentials, _) => Renewal::ClientCredentials,
            (AuthMode::OAuth2JwtBearer, _) | (_, RefreshStrategy::JwtBearer) => refresh
                .jwt_bearer
                .as_ref()
                .map_or(Renewal::None, Renewal::JwtBearer),
            (_, RefreshStrategy::RefreshToken) => Renewal::RefreshToken,
            (_, RefreshStrategy::ClientCredentials) => Renewal::ClientCredentials,
            (_, RefreshStrategy::TokenExchange) => refresh
                .token_exchange
                .as_ref()
                .map_or(Renewal::None, Renewal::TokenExchange),
            (_, RefreshStrategy::None) => Renewal::None,
        }
    }

    /// [`Self::with_overrides_for`] the provider's usual way to authenticate.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn with_overrides(&self, overrides: &Value) -> Result<ResolvedProvider, Vec<FieldProblem>> {
        self.with_overrides_for(self.default_mode(), overrides)
    }

    /// The entry with `overrides` merged over it: objects member by member, everything else replaced, `null` removed.
    ///
    /// # Errors
    ///
    /// Each value that does not fit, as `overrides.<path>`, all at once; and what `mode` needs and nobody supplied.
    pub fn with_overrides_for(
        &self,
        mode: AuthMode,
        overrides: &Value,
    ) -> Result<ResolvedProvider, Vec<FieldProblem>> {
        let (provider, mut problems) = self.merge(overrides);
        for field in provider.missing_overrides(mode) {
            problems.push(FieldProblem::new(
                format!("overrides.{field}"),
                "is required for this provider",
            ));
        }
        if problems.is_empty() {
            problems = provider.problems();
            for problem in &mut problems {
                problem.field.insert_str(0, "overrides.");
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let hosts_replaced =
            provider.parameters != self.parameters || !has_only_hosts_of(&provider, self);
        Ok(ResolvedProvider {
            provider,
            hosts_replaced,
        })
    }

    /// Puts in what fits, and names what does not.
    fn merge(&self, overrides: &Value) -> (Self, Vec<FieldProblem>) {
        let base = serde_json::to_value(self).unwrap_or_default();
        let mut leaves = Vec::new();
        match overrides {
            Value::Null => {}
            Value::Object(members) => collect_leaves(&base, &mut Vec::new(), members, &mut leaves),
            _ => {
                return (
                    self.clone(),
                    vec![FieldProblem::new("overrides", "must be an object")],
                );
            }
        }
        if leaves.len() > MAX_OVERRIDES {
            let description = format!("must have at most {MAX_OVERRIDES} values");
            return (
                self.clone(),
                vec![FieldProblem::new("overrides", description)],
            );
        }
        let mut merged = self.clone();
        let mut problems = Vec::new();
        for (path, value) in leaves {
            let field = path.join(".");
            if FIXED.contains(&path[0].as_str()) {
                problems.push(FieldProblem::new(
                    format!("overrides.{field}"),
                    "cannot be overridden",
                ));
                continue;
            }
            let mut document = serde_json::to_value(&merged).unwrap_or_default();
            put(&mut document, &path, value);
            match serde_path_to_error::deserialize(document) {
                Ok(provider) => merged = provider,
                Err(error) => {
                    let at = error.path().to_string();
                    let field = if at.starts_with(&field) { at } else { field };
                    problems.push(FieldProblem::new(
                        format!("overrides.{field}"),
                        error.into_inner().to_string(),
                    ));
                }
            }
        }
        (merged, problems)
    }
}

/// What a provider says about itself, for parameters that it tells.
#[derive(Clone, Copy, Debug)]
pub enum Captured<'a> {
    /// The callback's parameters.
    Callback(&'a BTreeMap<String, String>),
    /// The token response.
    TokenResponse(&'a Value),
    /// The answer of `identity.endpoint`.
    Identity(&'a Value),
}

impl Captured<'_> {
    fn find(self, capture: &Capture) -> Option<String> {
        match self {
            Self::Callback(parameters) => parameters.get(capture.callback.as_ref()?).cloned(),
            Self::TokenResponse(document) => capture.token_response.as_ref()?.text(document),
            Self::Identity(document) => capture.identity.as_ref()?.text(document),
        }
    }
}

impl Parameter {
    /// Whether a connection may have this value.
    pub fn admits(&self, value: &str) -> bool {
        value.len() <= MAX_PARAMETER_BYTES && self.pattern.matches(value)
    }
}

/// The host of an https URL that is nothing but an origin, with or without a path.
fn host_of(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let is_plain = url.scheme() == "https"
        && url.username().is_empty()
        && url.password().is_none()
        && url.port().is_none();
    is_plain.then(|| url.host_str().map(str::to_owned))?
}

impl ResolvedProvider {
    /// The entry, merged.
    pub fn provider(&self) -> &Provider {
        &self.provider
    }

    /// Whether anything leads to another host than the catalogue's: only a client that is the tenant's own may.
    pub fn hosts_replaced(&self) -> bool {
        self.hosts_replaced
    }

    /// Whether `mode` still misses endpoints that the issuer's metadata can tell.
    pub fn needs_discovery(&self, mode: AuthMode) -> bool {
        let endpoints = &self.provider.endpoints;
        let missing = match mode {
            AuthMode::ApiKey | AuthMode::Basic => false,
            AuthMode::OAuth2Code => {
                endpoints.authorization.is_none()
                    || endpoints.token.is_none()
                    || endpoints.jwks.is_none()
            }
            AuthMode::OAuth2Device => {
                endpoints.device_authorization.is_none() || endpoints.token.is_none()
            }
            AuthMode::OAuth2ClientCredentials | AuthMode::OAuth2JwtBearer => {
                endpoints.token.is_none()
            }
        };
        missing && self.provider.issuer.is_some()
    }

    /// Takes endpoints from the issuer's metadata where the entry has none of its own.
    #[must_use]
    pub fn with_discovered(mut self, discovered: Endpoints) -> Self {
        let own = &mut self.provider.endpoints;
        let pairs = [
            (&mut own.authorization, discovered.authorization),
            (&mut own.token, discovered.token),
            (&mut own.refresh, discovered.refresh),
            (&mut own.revocation, discovered.revocation),
            (&mut own.userinfo, discovered.userinfo),
            (&mut own.jwks, discovered.jwks),
            (
                &mut own.pushed_authorization_request,
                discovered.pushed_authorization_request,
            ),
            (
                &mut own.device_authorization,
                discovered.device_authorization,
            ),
        ];
        for (own, discovered) in pairs {
            if own.is_none() {
                *own = discovered;
            }
        }
        self
    }

    /// A connection's parameters with the defaults filled in.
    ///
    /// # Errors
    ///
    /// Each one that is missing, unknown, or does not match its pattern, as `connection_parameters.<name>`.
    pub fn parameters(
        &self,
        given: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, Vec<FieldProblem>> {
        let declared = &self.provider.parameters;
        let mut values = BTreeMap::new();
        let mut problems = Vec::new();
        let mut problem = |name: &str, description: String| {
            problems.push(FieldProblem::new(
                format!("connection_parameters.{name}"),
                description,
            ));
        };
        for (name, parameter) in declared {
            match given.get(name).or(parameter.default.as_ref()) {
                // The provider will tell.
                None if parameter.captured.is_some() => {}
                None => problem(name, format!("is required: {}", parameter.description)),
                Some(value) if !parameter.admits(value) => {
                    problem(name, format!("must match {}", parameter.pattern.as_str()));
                }
                Some(value) => {
                    values.insert(name.clone(), value.clone());
                }
            }
        }
        for name in given.keys().filter(|name| !declared.contains_key(*name)) {
            problem(name, "is no parameter of this provider".to_owned());
        }
        if problems.is_empty() {
            Ok(values)
        } else {
            Err(problems)
        }
    }

    /// The parameters that the provider tells in `document`, each matched against its pattern: what does not match is
    /// left out, and named. A host that comes from outside decides where a secret is sent.
    ///
    /// # Errors
    ///
    /// Each one that does not match, as `connection_parameters.<name>`.
    pub fn captured(
        &self,
        document: Captured<'_>,
    ) -> Result<BTreeMap<String, String>, Vec<FieldProblem>> {
        let mut values = BTreeMap::new();
        let mut problems = Vec::new();
        for (name, parameter) in &self.provider.parameters {
            let Some(capture) = &parameter.captured else {
                continue;
            };
            let Some(found) = document.find(capture) else {
                continue;
            };
            let value = match capture.part {
                CapturedPart::Whole => Some(found),
                CapturedPart::Host => host_of(&found),
            };
            match value.filter(|value| parameter.admits(value)) {
                Some(value) => drop(values.insert(name.clone(), value)),
                None => problems.push(FieldProblem::new(
                    format!("connection_parameters.{name}"),
                    format!("must match {}", parameter.pattern.as_str()),
                )),
            }
        }
        if problems.is_empty() {
            Ok(values)
        } else {
            Err(problems)
        }
    }

    /// A URL of the entry, filled with a connection's parameters.
    ///
    /// # Errors
    ///
    /// Where a value is missing or breaks out of its place.
    pub fn url(
        &self,
        template: &UrlTemplate,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Url, FillError> {
        template.fill(parameters)
    }

    /// A location of the entry, filled with a connection's parameters.
    ///
    /// # Errors
    ///
    /// As [`Self::url`]; and where a path has no base to stand on.
    pub fn locate(
        &self,
        location: &Location,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Url, FillError> {
        location
            .below(self.provider.api.base_url.as_ref())?
            .fill(parameters)
    }

    /// Where the user's identity is asked for, if anywhere.
    ///
    /// # Errors
    ///
    /// As [`Self::locate`].
    pub fn identity_url(
        &self,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Option<Url>, FillError> {
        match (
            &self.provider.identity.endpoint,
            &self.provider.endpoints.userinfo,
        ) {
            (Some(location), _) => self.locate(location, parameters).map(Some),
            (None, Some(userinfo)) => self.url(userinfo, parameters).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// The headers that every call to the API carries besides the credential. One that names the account is left out
    /// where there is none.
    ///
    /// # Errors
    ///
    /// Where a parameter is missing, or a value would break out of its header.
    pub fn api_headers(
        &self,
        account: Option<&str>,
        parameters: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, FillError> {
        let mut values = parameters.clone();
        values.extend(account.map(|account| ("account".to_owned(), account.to_owned())));
        let applies =
            |header: &TextTemplate| account.is_some() || !header.places().contains("account");
        self.provider
            .api
            .headers
            .iter()
            .filter(|(_, header)| applies(header))
            .map(|(name, header)| {
                let value = header.fill(&values)?;
                if value.chars().any(char::is_control) {
                    return Err(FillError::Shape);
                }
                Ok((name.clone(), value))
            })
            .collect()
    }
}

fn has_only_hosts_of(provider: &Provider, original: &Provider) -> bool {
    let known = original.urls();
    provider.urls().iter().all(|(_, url)| {
        known
            .iter()
            .any(|(_, known)| known.authority() == url.authority())
    })
}

/// Every value that replaces something, with its path: what is an object on both sides is gone into. Whole numbers lose
/// the fraction that `google.protobuf.Struct` gives them.
fn collect_leaves(
    base: &Value,
    path: &mut Vec<String>,
    members: &Map<String, Value>,
    leaves: &mut Vec<(Vec<String>, Value)>,
) {
    for (name, value) in members {
        path.push(name.clone());
        match (value, base.get(name)) {
            (Value::Object(inner), Some(base @ Value::Object(_))) => {
                collect_leaves(base, path, inner, leaves);
            }
            (value, _) => leaves.push((path.clone(), whole(value))),
        }
        path.pop();
    }
}

fn whole(value: &Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 => {
                Value::from(float as i64)
            }
            _ => value.clone(),
        },
        Value::Array(items) => items.iter().map(whole).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), whole(value)))
            .collect(),
        _ => value.clone(),
    }
}

fn put(document: &mut Value, path: &[String], value: Value) {
    let Some((name, rest)) = path.split_first() else {
        return;
    };
    if !document.is_object() {
        *document = Value::Object(Map::new());
    }
    let Value::Object(members) = document else {
        return;
    };
    match (rest.is_empty(), value) {
        (true, Value::Null) => {
            members.remove(name);
        }
        (true, value) => {
            members.insert(name.clone(), value);
        }
        (false, value) => put(
            members.entry(name.clone()).or_insert(Value::Null),
            rest,
            value,
        ),
    }
}
