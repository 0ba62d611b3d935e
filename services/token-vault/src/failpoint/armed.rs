//! What the points do in a crash test.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{Clock as _, SystemClock};
use nix::sys::signal::{Signal, raise};
use provider_catalog::ReplayWindow;
use uuid::Uuid;

/// What the environment asks for.
struct Armed {
    what: Option<What>,
    log: Option<File>,
    reached: AtomicU64,
    is_done: AtomicBool,
}

enum What {
    At {
        point: String,
        signal: Signal,
    },
    /// At the point with this number, counted from 1.
    Number(u64),
}

static ARMED: LazyLock<Armed> = LazyLock::new(|| Armed {
    what: setting("HAWSER_VAULT_FAILPOINT").and_then(|text| What::parse(&text)),
    log: setting("HAWSER_VAULT_FAILPOINT_LOG").map(|path| {
        let opened = OpenOptions::new().create(true).append(true).open(path);
        opened.expect("the crash test has made a folder for its log")
    }),
    reached: AtomicU64::new(0),
    is_done: AtomicBool::new(false),
});

static REPLAY_WINDOW: LazyLock<Option<ReplayWindow>> = LazyLock::new(|| {
    let seconds = setting("HAWSER_VAULT_REPLAY_WINDOW")?.parse().ok()?;
    Some(ReplayWindow::For(Duration::from_secs(seconds)))
});

impl What {
    fn parse(text: &str) -> Option<Self> {
        if let Some(random) = text.strip_prefix("random:") {
            let (seed, among) = random.split_once(':')?;
            let (seed, among): (u64, u64) = (seed.parse().ok()?, among.parse().ok()?);
            return Some(Self::Number(mixed(seed) % among.max(1) + 1));
        }
        let (point, signal) = match text.split_once('=') {
            Some((point, "stop")) => (point, Signal::SIGSTOP),
            _ => (text, Signal::SIGKILL),
        };
        let point = point.to_owned();
        (!point.is_empty()).then_some(Self::At { point, signal })
    }
}

/// Notes the point, and ends or stops the process where that is what the environment asks for.
pub(crate) fn reach(point: &'static str, grant: Uuid) {
    let armed = &*ARMED;
    if let Some(mut log) = armed.log.as_ref() {
        let micros = SystemClock.now().unix_timestamp_nanos() / 1000;
        let line = format!("{} {micros} {grant} {point}\n", std::process::id());
        // One write, so that the lines of a process that is being killed are whole or not there.
        let _ = log.write_all(line.as_bytes());
    }
    let number = armed.reached.fetch_add(1, Ordering::SeqCst) + 1;
    let signal = match &armed.what {
        Some(What::At { point: at, signal }) if at == point => *signal,
        Some(What::Number(at)) if *at == number => Signal::SIGKILL,
        _ => return,
    };
    if !armed.is_done.swap(true, Ordering::SeqCst) {
        // To this thread, so that it does not go on for a moment while another one takes the signal.
        let _ = raise(signal);
    }
}

/// What the test says, or else the catalogue.
pub(crate) fn replay_window(catalogue: ReplayWindow) -> ReplayWindow {
    REPLAY_WINDOW.unwrap_or(catalogue)
}

#[expect(
    clippy::disallowed_methods,
    reason = "no setting of a release: it is there for crash tests alone"
)]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// `SplitMix64`.
fn mixed(seed: u64) -> u64 {
    let seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    seed ^ (seed >> 31)
}
