//! A symmetric key in AWS KMS. What is wrapped is bound to its place by the encryption context.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use common::{Deps, Secret};
use egress::{Egress, Request, Response, Url};
use envelope::{KEY_LEN, Kek, KekId, KeyFuture, KeyPlace};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::aws_credentials::{CredentialSource, Sts, element};
use super::service::{Attempts, Failure, Next, ServiceError, secret_body, wipe};
use crate::config::AwsKmsConfig;

/// The format byte: what follows the header is KMS's ciphertext blob.
const FORMAT: u8 = 2;
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

#[derive(Debug)]
pub(super) struct AwsKms {
    id: KekId,
    key: String,
    region: String,
    endpoint: Url,
    sts_endpoint: Url,
    egress: Egress,
    credentials: CredentialSource,
    timeout: Duration,
    deps: Deps,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Encrypt<'a> {
    key_id: &'a str,
    plaintext: &'a str,
    encryption_context: BTreeMap<&'static str, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Encrypted {
    ciphertext_blob: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypt<'a> {
    key_id: &'a str,
    ciphertext_blob: String,
    encryption_context: BTreeMap<&'static str, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Decrypted {
    plaintext: String,
}

/// `message` with a capital in some of the services behind one address.
#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(rename = "__type", default)]
    kind: String,
    #[serde(alias = "Message", default)]
    message: String,
}

impl AwsKms {
    /// `None` where the region gives no address.
    pub(super) fn new(
        id: &KekId,
        config: &AwsKmsConfig,
        region: String,
        egress: Egress,
        credentials: CredentialSource,
        deps: &Deps,
    ) -> Option<Self> {
        let endpoint = config.endpoint.clone();
        let sts_endpoint = config.sts_endpoint.clone();
        Some(Self {
            id: id.clone(),
            key: config.key.clone(),
            endpoint: endpoint.or_else(|| address("kms", &region))?,
            sts_endpoint: sts_endpoint.or_else(|| address("sts", &region))?,
            region,
            egress,
            credentials,
            timeout: config.timeout.get(),
            deps: deps.clone(),
        })
    }

    /// The key's id in the header is bound with the rest.
    fn context(&self, place: KeyPlace<'_>) -> BTreeMap<&'static str, String> {
        let mut context: BTreeMap<_, _> = place.names().into_iter().collect();
        context.insert("hawser:kek", self.id.to_string());
        context
    }

    async fn call(&self, action: &'static str, body: Bytes) -> Result<Response, Failure> {
        let mut attempts = Attempts::new(&self.deps, self.timeout);
        loop {
            let failure = match self.attempt(action, body.clone()).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            match attempts.after(&failure).await {
                Next::Again => {}
                Next::Renew => self.credentials.renew().await,
                Next::GiveUp => return Err(failure),
            }
        }
    }

    async fn attempt(&self, action: &'static str, body: Bytes) -> Result<Response, Failure> {
        let sts = Sts {
            egress: &self.egress,
            endpoint: &self.sts_endpoint,
            timeout: self.timeout,
            deps: &self.deps,
        };
        let credentials = self.credentials.get(sts).await?;
        let target = format!("TrentService.{action}");
        let mut request = Request::post(self.endpoint.clone())
            .header("x-amz-target", &target)
            .body(CONTENT_TYPE, body.clone())
            .timeout(self.timeout)
            .repeatable();
        let signature = self.sign(&credentials, &target, &body);
        for (name, value) in signature.map_err(Failure::Lasting)? {
            request = request.secret_header(&name, &value);
        }
        let response = self.egress.send(request).await?;
        if response.status.is_success() {
            Ok(response)
        } else {
            Err(refusal(&response))
        }
    }

    /// The headers of Signature Version 4.
    fn sign(
        &self,
        credentials: &Credentials,
        target: &str,
        body: &[u8],
    ) -> Result<Vec<(String, Secret<String>)>, ServiceError> {
        let identity = credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("kms")
            .time(SystemTime::from(self.deps.now()))
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| ServiceError::Signing(Box::new(error)))?
            .into();
        let headers = [("content-type", CONTENT_TYPE), ("x-amz-target", target)];
        let signed = SignableRequest::new(
            "POST",
            self.endpoint.as_str(),
            headers.into_iter(),
            SignableBody::Bytes(body),
        )
        .and_then(|request| sign(request, &params))
        .map_err(|error| ServiceError::Signing(Box::new(error)))?;
        let (instructions, _) = signed.into_parts();
        let headers = instructions.headers();
        Ok(headers
            .map(|(name, value)| (name.to_owned(), Secret::from(value)))
            .collect())
    }

    async fn encrypt(&self, place: KeyPlace<'_>, key: &[u8; KEY_LEN]) -> Result<Vec<u8>, Failure> {
        let plaintext = Zeroizing::new(STANDARD.encode(key));
        let request = Encrypt {
            key_id: &self.key,
            plaintext: &plaintext,
            encryption_context: self.context(place),
        };
        let response = self.call("Encrypt", secret_body(&request)).await?;
        let blob = response
            .json::<Encrypted>()
            .ok()
            .and_then(|answer| STANDARD.decode(answer.ciphertext_blob).ok());
        blob.ok_or_else(|| unintelligible(&response))
    }

    async fn decrypt(
        &self,
        place: KeyPlace<'_>,
        blob: &[u8],
    ) -> Result<Zeroizing<[u8; KEY_LEN]>, Failure> {
        let request = Decrypt {
            key_id: &self.key,
            ciphertext_blob: STANDARD.encode(blob),
            encryption_context: self.context(place),
        };
        let response = self.call("Decrypt", secret_body(&request)).await?;
        let mut key = Zeroizing::new([0; KEY_LEN]);
        let decoded = response.json::<Decrypted>().ok().and_then(|answer| {
            let text = Zeroizing::new(answer.plaintext);
            STANDARD.decode_slice(&*text, key.as_mut_slice()).ok()
        });
        let outcome = match decoded {
            Some(KEY_LEN) => Ok(key),
            _ => Err(unintelligible(&response)),
        };
        wipe(response.body);
        outcome
    }
}

impl Kek for AwsKms {
    fn id(&self) -> &KekId {
        &self.id
    }

    fn format(&self) -> u8 {
        FORMAT
    }

    fn wrap<'a>(
        &'a self,
        _header: &'a [u8],
        place: KeyPlace<'a>,
        key: &'a [u8; KEY_LEN],
    ) -> KeyFuture<'a, Vec<u8>> {
        Box::pin(async move {
            let wrapped = self.encrypt(place, key).await;
            wrapped.map_err(|failure| failure.into_error(&self.id))
        })
    }

    fn unwrap<'a>(
        &'a self,
        _header: &'a [u8],
        place: KeyPlace<'a>,
        body: &'a [u8],
    ) -> KeyFuture<'a, Zeroizing<[u8; KEY_LEN]>> {
        Box::pin(async move {
            let key = self.decrypt(place, body).await;
            key.map_err(|failure| failure.into_error(&self.id))
        })
    }
}

/// The region's own address; China has a domain of its own.
fn address(service: &str, region: &str) -> Option<Url> {
    let domain = if region.starts_with("cn-") {
        "amazonaws.com.cn"
    } else {
        "amazonaws.com"
    };
    Url::parse(&format!("https://{service}.{region}.{domain}/")).ok()
}

fn unintelligible(response: &Response) -> Failure {
    Failure::Lasting(ServiceError::Unintelligible {
        status: response.status.as_u16(),
    })
}

fn refusal(response: &Response) -> Failure {
    let refusal: Refusal = response.json().unwrap_or_default();
    // `com.amazonaws.kms#DisabledException` in some answers; in XML what is refused before KMS has read it.
    let xml = str::from_utf8(&response.body).unwrap_or_default();
    let code = match refusal.kind.rsplit('#').next() {
        Some("") | None => element(xml, "Code").unwrap_or_default(),
        Some(code) => code,
    };
    let message = match refusal.message.as_str() {
        "" => element(xml, "Message").unwrap_or_default(),
        message => message,
    };
    let said = |advice| ServiceError::said(advice, code, message);
    match code {
        "InvalidCiphertextException" => Failure::Refused,
        "IncorrectKeyException" => Failure::WrongKey,
        "ThrottlingException" | "RequestLimitExceeded" | "LimitExceededException" => {
            Failure::Passing(said(
                "KMS's request quota is used up; ask AWS for a higher one",
            ))
        }
        "KMSInternalException"
        | "InternalFailure"
        | "DependencyTimeoutException"
        | "KeyUnavailableException"
        | "ServiceUnavailableException" => Failure::Passing(said("KMS has trouble of its own")),
        "DisabledException" => Failure::Lasting(said("enable the key in KMS")),
        "KMSInvalidStateException" => Failure::Lasting(said(
            "the key is about to be deleted, or its material is missing; cancel the deletion, or bring it back",
        )),
        "NotFoundException" => Failure::Lasting(said(
            "there is no such key in the region; correct `key` and `region`",
        )),
        "InvalidKeyUsageException" => {
            Failure::Lasting(said("take a symmetric key whose usage is ENCRYPT_DECRYPT"))
        }
        "AccessDeniedException" | "AccessDenied" => Failure::Lasting(said(
            "allow kms:Encrypt and kms:Decrypt on the key to the vault's role, in the key's policy or in IAM",
        )),
        "ExpiredTokenException" | "UnrecognizedClientException" | "InvalidClientTokenId" => {
            Failure::Credentials(said(
                "the AWS credentials are not valid (any more); renew them",
            ))
        }
        "InvalidSignatureException" | "SignatureDoesNotMatch" | "IncompleteSignatureException" => {
            Failure::Lasting(said(
                "see that the secret access key is the access key's, and that this machine's clock is right",
            ))
        }
        "" => match response.status.as_u16() {
            429 | 500.. => Failure::Passing(said("KMS has trouble of its own")),
            status => Failure::Lasting(ServiceError::Unintelligible { status }),
        },
        _ if response.status.is_server_error() => {
            Failure::Passing(said("KMS has trouble of its own"))
        }
        _ => Failure::Lasting(said("KMS refuses the request")),
    }
}
