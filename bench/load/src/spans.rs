//! How long calls took.

use std::time::Duration;

/// Calls of one turn, and how long it lasted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spans {
    micros: Vec<u32>,
    lasted: Duration,
}

/// Calls a second and percentiles in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    pub(crate) calls: usize,
    pub(crate) rate: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) worst: f64,
}

impl Spans {
    pub(crate) fn new(micros: Vec<u32>, lasted: Duration) -> Self {
        Self { micros, lasted }
    }

    pub(crate) fn summary(mut self) -> Summary {
        self.micros.sort_unstable();
        let at = |share: f64| {
            let place = (self.micros.len() as f64 * share) as usize;
            let micros = self
                .micros
                .get(place.min(self.micros.len().saturating_sub(1)));
            f64::from(micros.copied().unwrap_or_default()) / 1000.0
        };
        Summary {
            calls: self.micros.len(),
            rate: self.micros.len() as f64 / self.lasted.as_secs_f64(),
            p50: at(0.5),
            p99: at(0.99),
            worst: at(1.0),
        }
    }
}

/// The one in the middle; of an even number, the lower one of the two.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
        .get(values.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_sorted_calls() {
        let spans = Spans::new(
            (1..=1000).rev().map(|n| n * 1000).collect(),
            Duration::from_secs(2),
        );
        let summary = spans.summary();
        assert_eq!(summary.calls, 1000);
        let near = |a: f64, b: f64| (a - b).abs() < 1.5;
        assert!(near(summary.rate, 500.0));
        assert!(
            near(summary.p50, 500.0) && near(summary.p99, 990.0) && near(summary.worst, 1000.0)
        );
    }

    #[test]
    fn the_median_does_not_move_with_one_that_is_far_off() {
        assert!((median([1.0, 900.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median([4.0]) - 4.0).abs() < f64::EPSILON);
    }
}
