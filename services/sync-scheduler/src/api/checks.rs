//! What is checked of requests in more than one place.

use common::validate::Fields;

/// Bytes of a reason that a person gives.
pub(super) const MOST_REASON: usize = 1000;
/// Streams, records and the like in one request.
const MOST_NAMES: usize = 1000;
/// Bytes of one of them.
const LONGEST_NAME: usize = 512;
/// Bytes of a request id.
const LONGEST_REQUEST_ID: usize = 200;

/// A request id may be empty, and is not endless.
pub(super) fn check_request_id(fields: &mut Fields, request_id: &str) {
    fields.at_most("request_id", request_id, LONGEST_REQUEST_ID);
}

/// A name that may be empty.
pub(super) fn check_name(fields: &mut Fields, field: &str, name: &str) {
    fields.at_most(field, name, LONGEST_NAME);
}

/// Names, each of which says something.
pub(super) fn check_names(fields: &mut Fields, field: &str, names: &[String]) {
    let count = names.len();
    if !fields.check(
        count <= MOST_NAMES,
        field,
        format_args!("must have at most {MOST_NAMES} items, and has {count}"),
    ) {
        return;
    }
    for (index, name) in names.iter().enumerate() {
        let field = format!("{field}[{index}]");
        fields.require(&field, name);
        check_name(fields, &field, name);
    }
}
