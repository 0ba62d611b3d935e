//! A place in the log, as callers hold it: opaque, and refused where it is not ours.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

const VERSION: u8 = 1;
const LENGTH: usize = 1 + 16 + 8 + 4;

/// Behind this event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) log_id: Uuid,
    pub(super) number: i64,
    /// The event's day, or an earlier one: where to go on looking.
    pub(super) day: i32,
}

impl Position {
    pub(super) fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.push(VERSION);
        bytes.extend(self.log_id.as_bytes());
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(self.day.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(super) fn decode(cursor: &str) -> Option<Self> {
        let bytes: [u8; LENGTH] = URL_SAFE_NO_PAD.decode(cursor).ok()?.try_into().ok()?;
        let (version, rest) = bytes.split_first()?;
        let (log_id, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (day, _) = rest.split_first_chunk()?;
        (*version == VERSION).then_some(Self {
            log_id: Uuid::from_bytes(*log_id),
            number: i64::from_be_bytes(*number),
            day: i32::from_be_bytes(*day),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is() {
        let position = Position {
            log_id: Uuid::from_u128(7),
            number: 1 << 40,
            day: 20_000,
        };
        let cursor = position.encode();
        assert_eq!(Position::decode(&cursor), Some(position));
        for wrong in [
            "",
            "7",
            "not a cursor",
            &cursor[1..],
            &format!("{cursor}AA"),
            &cursor.replace('A', "B"),
        ] {
            assert_ne!(Position::decode(wrong), Some(position), "{wrong}");
        }
        assert_eq!(Position::decode(&cursor[..cursor.len() - 2]), None);
    }
}
