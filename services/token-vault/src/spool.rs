//! The spool: providers' answers on the instance's own disk, before the database has taken them.
//!
//! A slot is a file that is allocated, and its name made durable, before a request is sent; so that when the answer is
//! there, writing it down is one write and one fsync. What is in it is sealed.
//!
//! The folder belongs to one instance, whose id is kept in it: the instance comes back with its answers, or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use common::{Deps, TenantKey};
use uuid::Uuid;

use crate::failpoint;
use crate::grant::Answer;

const MAGIC: &[u8; 8] = b"HWSPOOL1";
const DIGEST_LEN: usize = 32;
const HEAD_LEN: usize = MAGIC.len() + 8 + DIGEST_LEN;
/// Reserved ahead, so that a full disk is found before the request is sent and not after.
const RESERVED: usize = 32 * 1024;
const SUFFIX: &str = "answer";

/// The folder. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    folder: Arc<Path>,
    instance: Uuid,
    /// Answers that the database has not taken yet.
    depth: Arc<AtomicI64>,
    /// Held for as long as anybody has the spool.
    _lock: Arc<File>,
}

/// Room for one answer. Removed with this value unless an answer lies in it.
#[derive(Debug)]
pub(crate) struct Slot {
    path: PathBuf,
    file: Option<File>,
    is_written: bool,
    depth: Arc<AtomicI64>,
}

/// The spool's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    /// The disk failed.
    #[error("the spool in {} cannot be used", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Two vaults with one folder.
    #[error("another vault uses the spool in {}: give each its own `spool_dir`", path.display())]
    InUse { path: PathBuf },
}

impl Spool {
    /// Opens the folder, made where there is none, for this process alone.
    pub(crate) fn open(folder: &Path, deps: &Deps) -> Result<Self, SpoolError> {
        let failed = |source| SpoolError::Io {
            path: folder.to_owned(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(folder.join("lock"));
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(SpoolError::InUse {
                    path: folder.to_owned(),
                });
            }
            Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
        let instance = instance_id(folder, deps).map_err(failed)?;
        let depth = Arc::new(AtomicI64::new(0));
        observe(&depth, deps);
        Ok(Self {
            folder: folder.into(),
            instance,
            depth,
            _lock: Arc::new(lock),
        })
    }

    /// The id of the instance that the folder belongs to.
    pub(crate) fn instance(&self) -> Uuid {
        self.instance
    }

    /// Allocates room for an answer; its name is durable when this returns.
    pub(crate) async fn allocate(&self, attempt: Uuid) -> Result<Slot, SpoolError> {
        let (folder, depth) = (Arc::clone(&self.folder), Arc::clone(&self.depth));
        self.blocking(move || {
            let path = folder.join(format!("{attempt}.{SUFFIX}"));
            let mut file = OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&path)?;
            let reserved = file
                .write_all(&vec![0; RESERVED])
                .and_then(|()| file.sync_all());
            let slot = Slot {
                path,
                file: Some(file),
                is_written: false,
                depth,
            };
            reserved?;
            sync_folder(&folder)?;
            Ok(slot)
        })
        .await
    }

    /// What lies in the folder: answers, and slots that nothing was written to, which are removed.
    pub(crate) async fn recover(&self) -> Result<Vec<(Slot, Answer)>, SpoolError> {
        let (folder, depth) = (Arc::clone(&self.folder), Arc::clone(&self.depth));
        self.blocking(move || {
            let mut found = Vec::new();
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.extension().is_none_or(|extension| extension != SUFFIX) {
                    continue;
                }
                match read(&path)? {
                    Content::Answer(answer) => {
                        depth.fetch_add(1, Ordering::Relaxed);
                        let slot = Slot {
                            path,
                            file: None,
                            is_written: true,
                            depth: Arc::clone(&depth),
                        };
                        found.push((slot, *answer));
                    }
                    // The request of this slot was never answered, or not before the process ended.
                    Content::Nothing => fs::remove_file(&path)?,
                    Content::Foreign => {
                        depth.fetch_add(1, Ordering::Relaxed);
                        tracing::error!(
                            event = "answer_not_understood",
                            file = %path.display(),
                            "an answer in the spool was written by another release: run that one until its spool is empty"
                        );
                    }
                }
            }
            Ok(found)
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let outcome = tokio::task::spawn_blocking(work)
            .await
            .expect("work on the spool does not panic");
        outcome.map_err(|source| SpoolError::Io {
            path: self.folder.to_path_buf(),
            source,
        })
    }
}

impl Slot {
    /// Writes the answer; it is durable when this returns.
    pub(crate) async fn write(mut self, answer: &Answer) -> Result<Self, SpoolError> {
        let content =
            serde_json::to_vec(answer).expect("an answer has nothing in it that JSON has not");
        let (path, grant) = (self.path.clone(), answer.grant_id);
        let written = tokio::task::spawn_blocking(move || {
            let mut file = self
                .file
                .take()
                .ok_or_else(|| io::Error::other("the slot holds an answer already"))?;
            // From here on the file may hold the answer.
            self.is_written = true;
            let mut record = Vec::with_capacity(HEAD_LEN + content.len());
            record.extend_from_slice(MAGIC);
            record.extend_from_slice(&(content.len() as u64).to_be_bytes());
            record.extend_from_slice(digest(&SHA256, &content).as_ref());
            record.extend_from_slice(&content);
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&record)?;
            failpoint::reach("written", grant);
            file.sync_data()?;
            self.depth.fetch_add(1, Ordering::Relaxed);
            Ok(self)
        });
        let written: io::Result<Self> = written.await.expect("work on the spool does not panic");
        written.map_err(|source| SpoolError::Io { path, source })
    }

    /// The database has it.
    pub(crate) async fn remove(mut self) {
        let path = std::mem::take(&mut self.path);
        self.is_written = true;
        self.depth.fetch_sub(1, Ordering::Relaxed);
        let removed = tokio::task::spawn_blocking(move || fs::remove_file(&path)).await;
        if !matches!(removed, Ok(Ok(()))) {
            tracing::warn!(
                event = "spool_not_removed",
                "an answer that is stored could not be removed from the spool"
            );
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.is_written {
            // What is left over is removed at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn instance_id(folder: &Path, deps: &Deps) -> io::Result<Uuid> {
    let path = folder.join("instance");
    match fs::read_to_string(&path) {
        Ok(text) => text
            .trim()
            .parse()
            .map_err(|_| io::Error::other("the file `instance` holds no id")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = TenantKey::PLATFORM.new_id(deps);
            let draft = folder.join("instance.draft");
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&draft)?;
            file.write_all(id.to_string().as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            sync_folder(folder)?;
            Ok(id)
        }
        Err(error) => Err(error),
    }
}

/// What a slot holds.
enum Content {
    /// Nothing whole: no answer was ever acknowledged.
    Nothing,
    Answer(Box<Answer>),
    /// Something whole that this release cannot read.
    Foreign,
}

fn read(path: &Path) -> io::Result<Content> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let Some((head, rest)) = bytes.split_at_checked(HEAD_LEN) else {
        return Ok(Content::Nothing);
    };
    let (magic, head) = head.split_at(MAGIC.len());
    let (len, expected) = head.split_at(8);
    let len = len
        .try_into()
        .map_or(usize::MAX, |len| u64::from_be_bytes(len) as usize);
    let content = rest.get(..len).filter(|_| magic == MAGIC);
    let whole = content.filter(|content| digest(&SHA256, content).as_ref() == expected);
    Ok(match whole.map(serde_json::from_slice) {
        None => Content::Nothing,
        Some(Ok(answer)) => Content::Answer(Box::new(answer)),
        Some(Err(_)) => Content::Foreign,
    })
}

/// The gauge holds the number weakly, so that a vault that has ended can go.
fn observe(depth: &Arc<AtomicI64>, deps: &Deps) {
    let depth = Arc::downgrade(depth);
    deps.meter
        .i64_observable_up_down_counter("hawser.vault.spool.depth")
        .with_unit("{answer}")
        .with_description("Providers' answers that the database has not taken yet")
        .with_callback(move |observer| {
            if let Some(depth) = depth.upgrade() {
                observer.observe(depth.load(Ordering::Relaxed), &[]);
            }
        })
        .build();
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content: &[u8]) -> Vec<u8> {
        let mut record = MAGIC.to_vec();
        record.extend_from_slice(&(content.len() as u64).to_be_bytes());
        record.extend_from_slice(digest(&SHA256, content).as_ref());
        record.extend_from_slice(content);
        record
    }

    #[tokio::test]
    async fn what_is_not_whole_is_removed_and_what_is_not_understood_stays() {
        let folder = tempfile::tempdir().expect("there is room");
        let deps = Deps::system("test");
        let spool = Spool::open(folder.path(), &deps).expect("it is ours");
        let put = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name).with_extension(SUFFIX);
            fs::write(&path, bytes).expect("there is room");
            path
        };
        let whole = record(b"{\"of\":\"another release\"}");
        let foreign = put("foreign", &whole);
        let mut bent = whole.clone();
        *bent.last_mut().expect("it is not empty") ^= 1;
        let rest = [
            put("bent", &bent),
            put("cut", &whole[..whole.len() - 1]),
            put("reserved", &vec![0; RESERVED]),
            put("empty", b""),
        ];
        let found = spool.recover().await.expect("the disk works");
        assert!(found.is_empty());
        assert!(foreign.exists(), "another release can bring it home");
        assert!(rest.iter().all(|path| !path.exists()));
        assert_eq!(spool.depth.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_folder_has_one_owner_who_keeps_its_id() {
        let folder = tempfile::tempdir().expect("there is room");
        let deps = Deps::system("test");
        let spool = Spool::open(folder.path(), &deps).expect("it is ours");
        let second = Spool::open(folder.path(), &deps);
        assert!(matches!(second, Err(SpoolError::InUse { .. })));
        let instance = spool.instance();
        drop(spool);
        let again = Spool::open(folder.path(), &deps).expect("nobody has it");
        assert_eq!(again.instance(), instance);
    }
}
