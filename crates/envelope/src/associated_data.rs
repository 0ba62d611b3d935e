//! The place that a sealed value belongs to.

use uuid::Uuid;

/// Where a value lies. It opens only where every field is the same as when it was sealed.
///
/// A field that is missing does not compile, so there is no way to seal "somewhere". Build `tenant` from the request,
/// never from the row that is being read: the row is what a writer in the database can bend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssociatedData<'a> {
    /// The service that owns the value, `"vault"`.
    pub service: &'a str,
    /// The table without its schema, `"grants"`.
    pub table: &'a str,
    /// The column, `"refresh_token"`.
    pub column: &'a str,
    /// The tenant that the value belongs to.
    pub tenant: Uuid,
    /// The row's key within the table: the bytes of its id, or several parts in an encoding of the caller's that
    /// cannot be read in two ways.
    pub row: &'a [u8],
    /// Goes up with each new value of the row, so that an old value cannot be put back under a new version.
    pub row_version: i64,
}

impl AssociatedData<'_> {
    /// The fields in their order, each behind its length, so that two places never have the same encoding.
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode_fields(&[
            self.service.as_bytes(),
            self.table.as_bytes(),
            self.column.as_bytes(),
            self.tenant.as_bytes(),
            self.row,
            &self.row_version.to_be_bytes(),
        ])
    }
}

/// Each field behind its length as 4 bytes, most significant first.
pub(crate) fn encode_fields(fields: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(fields.iter().map(|field| 4 + field.len()).sum());
    for field in fields {
        let len =
            u32::try_from(field.len()).expect("a field of associated data is far below 4 GiB");
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(field);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn a_letter_that_moves_over_a_border_changes_the_encoding() {
        assert_ne!(encode_fields(&[b"ab", b"c"]), encode_fields(&[b"a", b"bc"]));
        assert_ne!(encode_fields(&[b"", b"a"]), encode_fields(&[b"a", b""]));
        assert_ne!(encode_fields(&[b"a"]), encode_fields(&[b"a", b""]));
    }

    proptest! {
        #[test]
        fn the_encoding_can_be_read_back(fields in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..7)) {
            let slices: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
            let encoded = encode_fields(&slices);

            let mut read = Vec::new();
            let mut rest = encoded.as_slice();
            while let Some((len, tail)) = rest.split_first_chunk::<4>() {
                let (field, tail) = tail.split_at(u32::from_be_bytes(*len) as usize);
                read.push(field.to_vec());
                rest = tail;
            }
            prop_assert_eq!(read, fields);
        }
    }
}
