//! Where AWS credentials come from, under the names that AWS gives them.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use common::{Deps, Secret};
use egress::{Egress, Request, Response, Url};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Mutex;

use super::service::{Failure, ServiceError, WatchedSecret, wipe};
use crate::config::AwsKmsConfig;

/// Credentials that end sooner than this are replaced.
const SOON: Duration = Duration::from_mins(5);
const SESSION: &str = "hawser-token-vault";
const DEFAULT_PROFILE: &str = "default";

/// One of the places.
#[derive(Debug)]
pub(super) enum CredentialSource {
    /// Of the environment, for as long as the process lives.
    Fixed(Credentials),
    /// A file as the AWS CLI has it.
    File {
        file: WatchedSecret,
        profile: String,
    },
    /// A role that is assumed with a token which Kubernetes renews in a file.
    WebIdentity {
        role: String,
        session: String,
        token: WatchedSecret,
        kept: Mutex<Option<Credentials>>,
    },
}

/// How STS is reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sts<'a> {
    pub(super) egress: &'a Egress,
    pub(super) endpoint: &'a Url,
    pub(super) timeout: Duration,
    pub(super) deps: &'a Deps,
}

impl CredentialSource {
    /// What is configured; else what the environment names.
    pub(super) fn find(
        config: &AwsKmsConfig,
        variable: &dyn Fn(&str) -> Option<Secret<String>>,
    ) -> Option<Self> {
        let set = |name| variable(name).filter(|value| !value.expose().is_empty());
        let path = |name| set(name).map(|value| PathBuf::from(value.expose()));
        let text = |name| set(name).map(|value| value.expose().clone());
        let profile = || {
            let chosen = config.profile.clone().or_else(|| text("AWS_PROFILE"));
            chosen.unwrap_or_else(|| DEFAULT_PROFILE.to_owned())
        };
        let file = |path: PathBuf| Self::File {
            file: WatchedSecret::new(path),
            profile: profile(),
        };
        let web_identity = |token: PathBuf, role: String| Self::WebIdentity {
            role,
            session: text("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| SESSION.to_owned()),
            token: WatchedSecret::projected(token),
            kept: Mutex::new(None),
        };
        let configured_role = || {
            Some((
                config.web_identity_token_file.clone()?,
                config.role_arn.clone()?,
            ))
        };
        let given_role = || Some((path("AWS_WEB_IDENTITY_TOKEN_FILE")?, text("AWS_ROLE_ARN")?));
        let fixed = || {
            Some(Self::Fixed(Credentials::new(
                text("AWS_ACCESS_KEY_ID")?,
                text("AWS_SECRET_ACCESS_KEY")?,
                text("AWS_SESSION_TOKEN"),
                None,
                "environment",
            )))
        };
        config
            .credentials_file
            .clone()
            .map(file)
            .or_else(|| configured_role().map(|(token, role)| web_identity(token, role)))
            .or_else(fixed)
            .or_else(|| given_role().map(|(token, role)| web_identity(token, role)))
            .or_else(|| path("AWS_SHARED_CREDENTIALS_FILE").map(file))
    }

    /// Credentials that are good for some minutes.
    pub(super) async fn get(&self, sts: Sts<'_>) -> Result<Credentials, Failure> {
        match self {
            Self::Fixed(credentials) => Ok(credentials.clone()),
            Self::File { file, profile } => {
                let text = file.get().await.map_err(Failure::Lasting)?;
                parse(text.expose(), profile).ok_or_else(|| {
                    let advice = "the credentials file has no aws_access_key_id and aws_secret_access_key for the profile";
                    Failure::Lasting(ServiceError::said(advice, "", profile))
                })
            }
            Self::WebIdentity {
                role,
                session,
                token,
                kept,
            } => {
                let mut kept = kept.lock().await;
                let until = |kept: &Credentials| kept.expiry().unwrap_or(SystemTime::UNIX_EPOCH);
                let now = SystemTime::from(sts.deps.now());
                if let Some(good) = kept.as_ref().filter(|kept| until(kept) > now + SOON) {
                    return Ok(good.clone());
                }
                let token = token.get().await.map_err(Failure::Lasting)?;
                match sts.assume(role, session, &token).await {
                    Ok(new) => {
                        *kept = Some(new.clone());
                        Ok(new)
                    }
                    Err(failure) => match kept.as_ref().filter(|kept| until(kept) > now) {
                        Some(still_good) => Ok(still_good.clone()),
                        None => Err(failure),
                    },
                }
            }
        }
    }

    /// Drops what was assumed, so that the next is new.
    pub(super) async fn renew(&self) {
        if let Self::WebIdentity { kept, .. } = self {
            *kept.lock().await = None;
        }
    }
}

impl Sts<'_> {
    /// `AssumeRoleWithWebIdentity`, which the token alone authenticates.
    async fn assume(
        &self,
        role: &str,
        session: &str,
        token: &Secret<String>,
    ) -> Result<Credentials, Failure> {
        let request = Request::post(self.endpoint.clone())
            .form([
                ("Action", "AssumeRoleWithWebIdentity"),
                ("Version", "2011-06-15"),
                ("RoleArn", role),
                ("RoleSessionName", session),
                ("WebIdentityToken", token.expose()),
            ])
            .timeout(self.timeout)
            .repeatable();
        let response = self.egress.send(request).await?;
        let outcome = assumed(&response);
        wipe(response.body);
        outcome
    }
}

fn assumed(response: &Response) -> Result<Credentials, Failure> {
    let xml = str::from_utf8(&response.body).unwrap_or_default();
    let status = response.status.as_u16();
    if !response.status.is_success() {
        return Err(refusal(status, xml));
    }
    let credentials = || {
        let until = OffsetDateTime::parse(element(xml, "Expiration")?, &Rfc3339).ok()?;
        Some(Credentials::new(
            element(xml, "AccessKeyId")?,
            element(xml, "SecretAccessKey")?,
            Some(element(xml, "SessionToken")?.to_owned()),
            Some(until.into()),
            "web identity",
        ))
    };
    credentials().ok_or(Failure::Lasting(ServiceError::Unintelligible { status }))
}

fn refusal(status: u16, xml: &str) -> Failure {
    let code = element(xml, "Code").unwrap_or_default();
    let advice = match code {
        "AccessDenied" => {
            "let the role's trust policy name the cluster's issuer and the vault's service account"
        }
        "ExpiredTokenException" | "InvalidIdentityToken" => {
            "see that the token in the file is the projected one, for the audience sts.amazonaws.com"
        }
        "" => "see that the address of STS is right",
        _ => "STS gives no credentials for the role",
    };
    let error = ServiceError::said(advice, code, element(xml, "Message").unwrap_or_default());
    if status >= 500 || matches!(code, "Throttling" | "IDPCommunicationError") {
        Failure::Passing(error)
    } else {
        Failure::Lasting(error)
    }
}

/// The text of the first element of that name. Keys, tokens and codes hold no character that XML escapes.
pub(super) fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(text.trim())
}

/// A profile's keys in the file that the AWS CLI writes.
fn parse(text: &str, profile: &str) -> Option<Credentials> {
    let heading = format!("[{profile}]");
    let lines = text.lines().map(str::trim);
    let settings: Vec<_> = lines
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect();
    let get = |name| {
        let found = settings.iter().find(|(found, _)| *found == name)?;
        Some(found.1.to_owned())
    };
    Some(Credentials::new(
        get("aws_access_key_id")?,
        get("aws_secret_access_key")?,
        get("aws_session_token"),
        None,
        "file",
    ))
}

#[cfg(test)]
mod tests;
