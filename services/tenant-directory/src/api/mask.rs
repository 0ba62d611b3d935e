//! Which fields an update is about.
//!
//! A mask names them; without one it is every field that has a value (AIP-134); `*` is all of them.

use common::validate::Fields;
use prost_types::FieldMask;

use super::decode::{MOST_NAMED, shown};
use crate::field_path::FieldPath;

const MASK: &str = "update_mask";
const MOST_PATHS: usize = 200;
const LONGEST_PATH: usize = 300;

/// The mask's paths, or `populated` where it has none. What `known` does not know is a violation.
pub(crate) fn paths(
    fields: &mut Fields,
    mask: Option<&FieldMask>,
    populated: impl FnOnce() -> Vec<FieldPath>,
    all: &[&str],
    known: impl Fn(&FieldPath) -> bool,
) -> Vec<FieldPath> {
    let given = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
    if given.is_empty() {
        return populated();
    }
    if !fields.check(
        given.len() <= MOST_PATHS,
        MASK,
        format_args!("must have at most {MOST_PATHS} paths"),
    ) {
        return Vec::new();
    }
    let (mut paths, mut wrong) = (Vec::new(), 0);
    for text in given {
        if wrong == MOST_NAMED {
            break;
        }
        let name = shown(text);
        match FieldPath::parse(text) {
            _ if text == "*" => paths.extend(all.iter().map(|path| of(path))),
            Ok(_) if text.len() > LONGEST_PATH => {
                fields.violate(
                    MASK,
                    format_args!("`{name}` is longer than {LONGEST_PATH} bytes"),
                );
                wrong += 1;
            }
            Ok(path) if known(&path) => paths.push(path),
            Ok(_) => {
                fields.violate(
                    MASK,
                    format_args!("`{name}` is not a field that can be changed"),
                );
                wrong += 1;
            }
            Err(error) => {
                fields.violate(MASK, format_args!("`{name}` {error}"));
                wrong += 1;
            }
        }
    }
    paths
}

/// A path of ours.
pub(crate) fn of(path: &str) -> FieldPath {
    FieldPath::parse(path).expect("the names of our fields are paths")
}
