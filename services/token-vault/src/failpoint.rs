//! Points at which a crash test can kill the process. Without the feature `failpoints` they are not there.

/// Kills the process, as `kill -9` does, where `HAWSER_VAULT_FAILPOINT` names this point.
#[cfg(feature = "failpoints")]
pub(crate) fn reach(point: &str) {
    use std::sync::LazyLock;

    static ARMED: LazyLock<Option<String>> = LazyLock::new(|| {
        #[expect(
            clippy::disallowed_methods,
            reason = "no setting of a release: it is there for crash tests alone"
        )]
        std::env::var("HAWSER_VAULT_FAILPOINT").ok()
    });
    if ARMED.as_deref() == Some(point) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    }
}

/// Nothing happens.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) fn reach(_point: &str) {}
