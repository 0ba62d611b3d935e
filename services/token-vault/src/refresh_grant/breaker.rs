//! The breaker of one token endpoint: while it is open nothing is sent there, and then one request finds out.
//!
//! Pure: time and randomness come in as values, time by a clock that runs through suspension.

use std::time::Duration;

/// Opens after so many requests in a row that the endpoint did not answer.
const THRESHOLD: u32 = 5;
const FIRST_OPENING: Duration = Duration::from_secs(5);
const LONGEST_OPENING: Duration = Duration::from_mins(2);
/// No word of a provider's keeps everybody away for longer.
const LONGEST_TOLD: Duration = Duration::from_mins(15);
/// While one request finds out, the others come again after this.
const WHILE_PROBED: Duration = Duration::from_secs(1);

/// Whether an endpoint may be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Breaker {
    state: State,
    /// How often it was opened since it was last closed.
    openings: u32,
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Requests pass.
    Closed {
        /// So many failed in a row.
        failures: u32,
    },
    /// None does.
    Open {
        /// Then the next one is a probe.
        until: Duration,
    },
    /// One is on its way, and the others wait for what it finds.
    HalfOpen,
}

/// What a request may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It passes.
    Free,
    /// It passes, and decides for the others.
    Probe,
    /// It may come again after this long.
    Refused(Duration),
}

impl Breaker {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Closed { failures: 0 },
            openings: 0,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// How long a request would have to wait; `None` where it could pass.
    pub(crate) fn wait(&self, now: Duration) -> Option<Duration> {
        match self.state {
            State::Closed { .. } => None,
            State::Open { until } => Some(until.saturating_sub(now)).filter(|wait| !wait.is_zero()),
            State::HalfOpen => Some(WHILE_PROBED),
        }
    }

    /// Asks to pass. Whoever becomes the probe has to say what came of it.
    pub(crate) fn admit(&mut self, now: Duration) -> Admission {
        match (self.wait(now), self.state) {
            (Some(wait), _) => Admission::Refused(wait),
            (None, State::Closed { .. }) => Admission::Free,
            (None, _) => {
                self.state = State::HalfOpen;
                Admission::Probe
            }
        }
    }

    /// The endpoint answered; whether that closed the breaker.
    pub(crate) fn answered(&mut self) -> bool {
        let was_closed = matches!(self.state, State::Closed { .. });
        *self = Self::new();
        !was_closed
    }

    /// The endpoint did not answer, or said that it cannot, perhaps for how long; how long the breaker is open, if that
    /// opened it. `random` is from 0 to 1, so that replicas do not probe together.
    pub(crate) fn failed(
        &mut self,
        is_probe: bool,
        told: Option<Duration>,
        now: Duration,
        random: f64,
    ) -> Option<Duration> {
        let opens = match &mut self.state {
            State::Closed { failures } => {
                *failures += 1;
                *failures >= THRESHOLD || told.is_some()
            }
            State::HalfOpen => is_probe,
            // Others that were on their way have come back with the same news.
            State::Open { .. } => false,
        };
        if !opens {
            return None;
        }
        let span = FIRST_OPENING
            .saturating_mul(1 << self.openings.min(10))
            .min(LONGEST_OPENING);
        let told = told.unwrap_or_default().min(LONGEST_TOLD);
        let wait = told.max(span.mul_f64(0.5 + random / 2.0));
        self.openings += 1;
        self.state = State::Open { until: now + wait };
        Some(wait)
    }

    /// The probe was never sent: the next request is one.
    pub(crate) fn not_probed(&mut self, now: Duration) {
        if self.state == State::HalfOpen {
            self.state = State::Open { until: now };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_hours(1);

    fn opened() -> (Breaker, Duration) {
        let mut breaker = Breaker::new();
        for _ in 1..THRESHOLD {
            assert_eq!(breaker.failed(false, None, NOW, 1.0), None);
        }
        let wait = breaker.failed(false, None, NOW, 1.0);
        (breaker, wait.expect("it was the last straw"))
    }

    #[test]
    fn it_opens_after_failures_in_a_row_alone() {
        let mut breaker = Breaker::new();
        for _ in 0..20 {
            for _ in 1..THRESHOLD {
                assert_eq!(breaker.failed(false, None, NOW, 0.5), None);
            }
            assert!(!breaker.answered());
            assert_eq!(breaker.admit(NOW), Admission::Free);
        }
        let (mut breaker, wait) = opened();
        assert_eq!(wait, FIRST_OPENING);
        assert_eq!(breaker.admit(NOW), Admission::Refused(wait));
    }

    #[test]
    fn one_probe_decides_for_all() {
        let (mut breaker, wait) = opened();
        let later = NOW + wait;
        assert_eq!(breaker.admit(later), Admission::Probe);
        assert_eq!(breaker.admit(later), Admission::Refused(WHILE_PROBED));
        assert_eq!(
            breaker.failed(false, None, later, 1.0),
            None,
            "an older request says nothing new"
        );
        assert_eq!(
            breaker.failed(true, None, later, 1.0),
            Some(FIRST_OPENING * 2)
        );
        let later = later + FIRST_OPENING * 2;
        assert_eq!(breaker.admit(later), Admission::Probe);
        assert!(breaker.answered());
        assert_eq!(breaker.admit(later), Admission::Free);
        assert_eq!(breaker.state(), State::Closed { failures: 0 });
    }

    #[test]
    fn a_probe_that_was_not_sent_leaves_it_to_the_next() {
        let (mut breaker, wait) = opened();
        let later = NOW + wait;
        assert_eq!(breaker.admit(later), Admission::Probe);
        breaker.not_probed(later);
        assert_eq!(breaker.admit(later), Admission::Probe);
    }

    #[test]
    fn it_is_never_open_for_long() {
        let (mut breaker, _) = opened();
        let mut now = NOW;
        let mut longest = Duration::ZERO;
        for round in 0..100 {
            now += breaker.wait(now).unwrap_or_default();
            assert_eq!(breaker.admit(now), Admission::Probe, "{round}");
            let wait = breaker.failed(true, None, now, 1.0);
            longest = longest.max(wait.expect("the probe failed"));
        }
        assert_eq!(longest, LONGEST_OPENING);
    }

    #[test]
    fn a_provider_that_says_for_how_long_it_is_away_is_believed_within_reason() {
        let minute = Duration::from_mins(1);
        let mut breaker = Breaker::new();
        assert_eq!(
            breaker.failed(false, Some(minute), NOW, 0.0),
            Some(minute),
            "once is enough"
        );
        let mut breaker = Breaker::new();
        assert_eq!(
            breaker.failed(false, Some(minute * 600), NOW, 0.0),
            Some(LONGEST_TOLD)
        );
    }
}
