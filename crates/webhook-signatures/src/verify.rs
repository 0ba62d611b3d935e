//! Deciding whether a request is the provider's.

use std::time::Duration;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    Refused, RequestParts, Scheme, SchemeOptions, Verified,
    event::{self, Signed, header},
    scheme::{
        Header, HeaderSet, SignatureMethod, SignatureVerifier, Timestamp, TimestampFormat, Verifier,
    },
    template::Part,
};

/// A rotation needs a handful; more are there to cost us time.
const MAX_SIGNATURES: usize = 32;

/// Says whether the request was signed with one of the secrets, and reads what it says of itself.
///
/// `secrets` are the source's, as the provider shows them: the current one and, during a rotation, the one before.
/// Nothing of the request is believed where this fails.
pub fn verify(
    scheme: &Scheme,
    options: &SchemeOptions,
    secrets: &[&[u8]],
    request: &RequestParts<'_>,
    now: OffsetDateTime,
) -> Result<Verified, Refused> {
    if request.body.len() > scheme.max_body {
        return Err(Refused::BodyTooLarge);
    }
    let signed = match &scheme.verifier {
        Verifier::Signature(verifier) => {
            verifier.verify(options.tolerance, secrets, request, now)?
        }
    };
    event::read(scheme, options, signed, request)
}

impl SignatureVerifier {
    fn verify(
        &self,
        tolerance: Option<Duration>,
        secrets: &[&[u8]],
        request: &RequestParts<'_>,
        now: OffsetDateTime,
    ) -> Result<Signed, Refused> {
        let names = self.header_set(request);
        let signature_header = required(request, &names.signature)?;
        let id = names
            .id
            .as_ref()
            .map(|name| required(request, name))
            .transpose()?;
        let timestamp = names
            .timestamp
            .as_ref()
            .map(|name| required(request, name))
            .transpose()?;

        self.refuse_terminators(names, id, timestamp)?;
        let signed_at = self.check_time(names, timestamp, tolerance, now)?;
        let content = self.content(request, id, timestamp)?;
        let signatures = self.signatures(names, signature_header)?;
        check(&signatures, secrets, &content)?;
        Ok(Signed {
            id: id.map(str::to_owned),
            timestamp: signed_at,
        })
    }

    /// The first set whose signature is there; where there is none the first, whose header is then found missing.
    fn header_set(&self, request: &RequestParts<'_>) -> &HeaderSet {
        let present = |set: &&HeaderSet| request.headers.contains_key(&set.signature.0);
        self.headers
            .iter()
            .find(present)
            .unwrap_or(&self.headers[0])
    }

    /// An id that held the text that ends it would let one signature stand for two messages.
    fn refuse_terminators(
        &self,
        names: &HeaderSet,
        id: Option<&str>,
        timestamp: Option<&str>,
    ) -> Result<(), Refused> {
        let values = [
            (&Part::Id, &names.id, id),
            (&Part::Timestamp, &names.timestamp, timestamp),
        ];
        for (part, name, value) in values {
            let (Some(name), Some(value)) = (name, value) else {
                continue;
            };
            if self
                .content
                .terminator(part)
                .is_some_and(|end| value.contains(end))
            {
                return Err(malformed(name));
            }
        }
        Ok(())
    }

    fn check_time(
        &self,
        names: &HeaderSet,
        value: Option<&str>,
        tolerance: Option<Duration>,
        now: OffsetDateTime,
    ) -> Result<Option<OffsetDateTime>, Refused> {
        let (Some(timestamp), Some(name), Some(value)) = (self.timestamp, &names.timestamp, value)
        else {
            return Ok(None);
        };
        let signed_at = timestamp.parse(value).ok_or_else(|| malformed(name))?;
        let tolerance = tolerance.unwrap_or(timestamp.tolerance);
        if now - signed_at > tolerance {
            return Err(Refused::StaleTimestamp);
        }
        if signed_at - now > tolerance {
            return Err(Refused::FutureTimestamp);
        }
        Ok(Some(signed_at))
    }

    /// What was signed, without a copy of the body.
    fn content<'a>(
        &'a self,
        request: &RequestParts<'a>,
        id: Option<&'a str>,
        timestamp: Option<&'a str>,
    ) -> Result<Vec<&'a [u8]>, Refused> {
        let parts = self.content.parts().iter().map(|part| match part {
            Part::Literal(text) => Ok(text.as_bytes()),
            Part::Body => Ok(request.body),
            Part::Method => Ok(request.method.as_str().as_bytes()),
            Part::Url => Ok(request.url.as_bytes()),
            Part::Id => Ok(id.unwrap_or_default().as_bytes()),
            Part::Timestamp => Ok(timestamp.unwrap_or_default().as_bytes()),
            Part::Header(name) => {
                let value = header(request.headers, name)?;
                let value = value.ok_or_else(|| Refused::MissingHeader {
                    header: name.clone(),
                })?;
                let ends = self
                    .content
                    .terminator(part)
                    .is_some_and(|end| value.contains(end));
                if ends {
                    Err(Refused::MalformedHeader {
                        header: name.clone(),
                    })
                } else {
                    Ok(value.as_bytes())
                }
            }
        });
        parts.collect()
    }

    /// The signatures in the header, by method. Those of an unknown version are passed over, as others may be good.
    fn signatures<'a>(
        &'a self,
        names: &HeaderSet,
        value: &str,
    ) -> Result<Vec<Presented<'a>>, Refused> {
        let entries: Vec<&str> = match self.separator {
            Some(separator) => value.split(separator).take(MAX_SIGNATURES + 1).collect(),
            None => vec![value],
        };
        if entries.len() > MAX_SIGNATURES {
            return Err(malformed(&names.signature));
        }
        let presented = self.methods.iter().map(|method| {
            let texts = entries
                .iter()
                .filter_map(|entry| entry.strip_prefix(method.prefix.as_str()));
            Presented {
                method,
                signatures: texts
                    .filter_map(|text| method.encoding.decode(text))
                    .collect(),
            }
        });
        let presented: Vec<_> = presented.collect();
        let any = presented
            .iter()
            .any(|presented| !presented.signatures.is_empty());
        if any {
            Ok(presented)
        } else {
            Err(malformed(&names.signature))
        }
    }
}

/// The signatures of one method that a request bears.
struct Presented<'a> {
    method: &'a SignatureMethod,
    signatures: Vec<Vec<u8>>,
}

/// Tries every signature with every secret that fits its method, whichever matches first.
fn check(presented: &[Presented<'_>], secrets: &[&[u8]], content: &[&[u8]]) -> Result<(), Refused> {
    let mut usable = false;
    let mut matched = false;
    for Presented { method, signatures } in presented {
        for secret in secrets {
            let Some(key) = method.secret.key(method.algorithm, secret) else {
                continue;
            };
            usable = true;
            matched |= method.algorithm.any_matches(&key, content, signatures);
        }
    }
    match (matched, usable) {
        (true, _) => Ok(()),
        (false, true) => Err(Refused::SignatureMismatch),
        (false, false) => Err(Refused::UnusableSecret),
    }
}

impl Timestamp {
    /// Digits alone: a sign or a space would be another text for the same time.
    fn parse(self, text: &str) -> Option<OffsetDateTime> {
        let digits = |max| -> Option<i64> {
            let all =
                (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
            if all { text.parse().ok() } else { None }
        };
        match self.format {
            TimestampFormat::UnixSeconds => OffsetDateTime::from_unix_timestamp(digits(11)?).ok(),
            TimestampFormat::UnixMillis => {
                OffsetDateTime::from_unix_timestamp_nanos(i128::from(digits(14)?) * 1_000_000).ok()
            }
            TimestampFormat::Rfc3339 => OffsetDateTime::parse(text, &Rfc3339).ok(),
        }
    }
}

fn required<'a>(request: &RequestParts<'a>, name: &Header) -> Result<&'a str, Refused> {
    match header(request.headers, &name.0)? {
        Some("") => Err(malformed(name)),
        Some(text) => Ok(text),
        None => Err(Refused::MissingHeader {
            header: name.0.clone(),
        }),
    }
}

fn malformed(name: &Header) -> Refused {
    Refused::MalformedHeader {
        header: name.0.clone(),
    }
}
