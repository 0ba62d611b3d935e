//! How long a provider asks us to wait, in the forms in which they say it.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use time::OffsetDateTime;

/// Where the provider limits the rate and does not say for how long.
const UNKNOWN_WAIT: Duration = Duration::from_secs(30);
/// A number of seconds that is larger is a time since 1970.
const LONGEST_SPAN: u64 = 1_000_000_000;
/// When the present window of calls ends: seconds from now, or a time.
const RESETS: [&str; 3] = ["x-rate-limit-reset", "x-ratelimit-reset", "ratelimit-reset"];
/// How many calls are left in it.
const REMAINING: [&str; 3] = [
    "x-rate-limit-remaining",
    "x-ratelimit-remaining",
    "ratelimit-remaining",
];

/// The wait that an answer asks for; `None` where it is no word about the rate.
pub(crate) fn wait(
    status: StatusCode,
    headers: &HeaderMap,
    now: OffsetDateTime,
) -> Option<Duration> {
    let retry_after = egress::retry_after(headers, now);
    match status {
        StatusCode::TOO_MANY_REQUESTS => Some(
            retry_after
                .or_else(|| reset(headers, now))
                .unwrap_or(UNKNOWN_WAIT),
        ),
        StatusCode::SERVICE_UNAVAILABLE => retry_after,
        // Some say so when the calls of a window are used up.
        StatusCode::FORBIDDEN => retry_after.or_else(|| {
            let used_up = number(headers, &REMAINING) == Some(0);
            used_up.then(|| reset(headers, now).unwrap_or(UNKNOWN_WAIT))
        }),
        _ => None,
    }
}

fn reset(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let number = number(headers, &RESETS)?;
    if number < LONGEST_SPAN {
        return Some(Duration::from_secs(number));
    }
    let since_1970 = u64::try_from(now.unix_timestamp()).unwrap_or_default();
    Some(Duration::from_secs(number.saturating_sub(since_1970)))
}

fn number(headers: &HeaderMap, names: &[&str]) -> Option<u64> {
    let values = names
        .iter()
        .filter_map(|name| headers.get(*name)?.to_str().ok());
    values
        .filter_map(|text| text.trim().parse::<f64>().ok())
        .find(|number| *number >= 0.0)
        .map(|number| number.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-06-01 12:00 UTC);

    fn asked(status: u16, headers: &[(&'static str, String)]) -> Option<u64> {
        let pairs = headers.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::try_from(value).expect("a value"),
            )
        });
        let status = StatusCode::from_u16(status).expect("a status");
        wait(status, &pairs.collect(), NOW).map(|wait| wait.as_secs())
    }

    #[test]
    fn every_usual_form_is_understood() {
        let at = (NOW.unix_timestamp() + 90).to_string();
        assert_eq!(asked(429, &[("retry-after", "17".to_owned())]), Some(17));
        assert_eq!(
            asked(
                429,
                &[("retry-after", "Mon, 01 Jun 2026 12:01:00 GMT".to_owned())]
            ),
            Some(60)
        );
        assert_eq!(asked(429, &[("x-rate-limit-reset", at.clone())]), Some(90));
        assert_eq!(
            asked(429, &[("x-ratelimit-reset", "45".to_owned())]),
            Some(45)
        );
        assert_eq!(
            asked(429, &[("x-ratelimit-reset", "0.4".to_owned())]),
            Some(1)
        );
        assert_eq!(asked(429, &[]), Some(30));
        assert_eq!(
            asked(
                403,
                &[
                    ("x-ratelimit-remaining", "0".to_owned()),
                    ("x-ratelimit-reset", at)
                ]
            ),
            Some(90)
        );
        assert_eq!(
            asked(403, &[("x-ratelimit-remaining", "5".to_owned())]),
            None
        );
        assert_eq!(asked(403, &[]), None);
        assert_eq!(asked(503, &[("retry-after", "5".to_owned())]), Some(5));
        assert_eq!(asked(503, &[]), None);
        assert_eq!(asked(500, &[("retry-after", "5".to_owned())]), None);
    }
}
