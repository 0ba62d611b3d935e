//! The schemes that are compiled in.

use std::sync::LazyLock;

use crate::Scheme;

/// One line a file in `schemes/`.
const FILES: &[&str] = &[
    include_str!("../schemes/github.yaml"),
    include_str!("../schemes/standard-webhooks.yaml"),
];

static SCHEMES: LazyLock<Vec<Scheme>> = LazyLock::new(|| {
    FILES
        .iter()
        .map(|file| Scheme::parse(file).expect("each file in schemes/ is checked by a test"))
        .collect()
});

/// All schemes, by key.
pub fn schemes() -> &'static [Scheme] {
    &SCHEMES
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::{fs, path::Path};

    #[test]
    fn each_file_is_a_scheme_named_after_its_key_and_compiled_in() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemes");
        let mut keys = Vec::new();
        for entry in fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("readable").path();
            let scheme = Scheme::parse(&fs::read_to_string(&path).expect("readable"))
                .unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
            assert_eq!(
                path.file_name().and_then(|name| name.to_str()),
                Some(&*format!("{}.yaml", scheme.key))
            );
            keys.push(scheme.key);
        }
        keys.sort_unstable();
        let compiled: Vec<_> = schemes().iter().map(|scheme| scheme.key.clone()).collect();
        assert_eq!(compiled, keys);
    }
}
