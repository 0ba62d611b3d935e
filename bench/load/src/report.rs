//! What is said, on standard output, to be kept in `bench/results`.

use std::fmt::{self, Display};
use std::io::{self, Write as _};

/// A line.
pub(crate) fn line(text: impl Display) {
    // Nobody is left to be told where standard output is gone.
    let _ = writeln!(io::stdout(), "{text}");
}

/// What goes on, for whoever waits.
pub(crate) fn progress(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Why there is no result.
pub(crate) fn complain(error: &anyhow::Error) {
    let _ = writeln!(io::stderr(), "{error:#}");
}

/// What was demanded of a figure, and whether it was so.
pub(crate) fn demand(what: &str, seen: impl Display, demanded: impl Display, met: bool) {
    let verdict = if met { "met" } else { "MISSED" };
    line(format_args!(
        "{what:<44} {seen} (demanded: {demanded}; {verdict})"
    ));
}

/// A number with spaces between its thousands.
pub(crate) struct Thousands(pub(crate) u64);

impl Display for Thousands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::new();
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                text.push(' ');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(Thousands(7).to_string(), "7");
        assert_eq!(Thousands(100_000).to_string(), "100 000");
        assert_eq!(Thousands(1_234_567).to_string(), "1 234 567");
    }
}
