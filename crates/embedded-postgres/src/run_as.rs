//! As whom Postgres runs: as ourselves, or, where we are root, as the user `postgres`.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;
use std::{fs, io};

use nix::unistd::{Gid, Uid, User, getgrouplist};

use crate::Error;

/// What would mislead Postgres' programs.
const FOREIGN_SETTINGS: [&str; 10] = [
    "PGDATA",
    "PGHOST",
    "PGHOSTADDR",
    "PGPORT",
    "PGUSER",
    "PGDATABASE",
    "PGPASSWORD",
    "PGOPTIONS",
    "PGSERVICE",
    "PGSSLMODE",
];

/// How programs are run.
#[derive(Clone, Debug)]
pub(crate) struct RunAs {
    /// `None` where it is ourselves.
    user: Option<Other>,
    launcher: Launcher,
}

#[derive(Clone, Debug)]
struct Other {
    name: String,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Launcher {
    Direct,
    Setpriv,
    Runuser,
    Su,
}

impl RunAs {
    pub(crate) fn find(user: &str) -> Result<Self, Error> {
        let setpriv = says("setpriv", "--pdeathsig") && says("setpriv", "--reuid");
        if !Uid::effective().is_root() {
            return Ok(Self {
                user: None,
                launcher: if setpriv {
                    Launcher::Setpriv
                } else {
                    Launcher::Direct
                },
            });
        }
        let no_user = || Error::NoUser {
            user: user.to_owned(),
        };
        let found = User::from_name(user).ok().flatten().ok_or_else(no_user)?;
        let launcher = if setpriv {
            Launcher::Setpriv
        } else if says("runuser", "-u") {
            Launcher::Runuser
        } else if says("su", "-c") {
            Launcher::Su
        } else {
            return Err(Error::NoLauncher);
        };
        let groups = std::ffi::CString::new(user)
            .ok()
            .and_then(|name| getgrouplist(&name, found.gid).ok())
            .unwrap_or_else(|| vec![found.gid]);
        Ok(Self {
            user: Some(Other {
                name: found.name,
                uid: found.uid,
                gid: found.gid,
                groups,
            }),
            launcher,
        })
    }

    /// A command that runs `program`, from the root folder, since ours may be out of the other user's reach. With
    /// `dies_with_us` it is told to shut down fast when the thread that starts it ends.
    pub(crate) fn command(&self, program: &Path, dies_with_us: bool) -> Command {
        let mut words: Vec<OsString> = Vec::new();
        let mut say = |words_in: &[&dyn AsRef<OsStr>]| {
            words.extend(words_in.iter().map(|word| word.as_ref().to_owned()));
        };
        match (self.launcher, &self.user) {
            (Launcher::Setpriv, user) if user.is_some() || dies_with_us => {
                say(&[&"setpriv"]);
                if let Some(user) = user {
                    say(&[
                        &format!("--reuid={}", user.name),
                        &format!("--regid={}", user.gid),
                        &"--init-groups",
                    ]);
                }
                if dies_with_us {
                    say(&[&"--pdeathsig", &"INT"]);
                }
                say(&[&"--", &program]);
            }
            (Launcher::Runuser, Some(user)) => {
                say(&[&"runuser", &"-u", &user.name, &"--", &program]);
            }
            (Launcher::Su, Some(user)) => say(&[
                &"su",
                &"-s",
                &"/bin/sh",
                &user.name,
                &"-c",
                &r#"exec "$0" "$@""#,
                &"--",
                &program,
            ]),
            _ => say(&[&program]),
        }
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .current_dir("/")
            .env("LC_ALL", "C");
        for name in FOREIGN_SETTINGS {
            command.env_remove(name);
        }
        command
    }

    /// Gives a file or folder to the user.
    pub(crate) fn give(&self, path: &Path) -> io::Result<()> {
        match &self.user {
            Some(user) => chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())),
            None => Ok(()),
        }
    }

    /// A folder of the user's own, that nobody else may enter.
    pub(crate) fn private_folder(&self, path: &Path) -> Result<(), Error> {
        let made = fs::create_dir_all(path)
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
            .and_then(|()| self.give(path));
        made.map_err(Error::file(path))
    }

    /// Whether the user can get to `folder`.
    pub(crate) fn check_reach(&self, folder: &Path) -> Result<(), Error> {
        let Some(user) = &self.user else {
            return Ok(());
        };
        let mut way: Vec<&Path> = folder.ancestors().collect();
        way.reverse();
        for folder in way {
            let metadata = fs::metadata(folder).map_err(Error::file(folder))?;
            let mode = metadata.mode();
            let may = if metadata.uid() == user.uid.as_raw() {
                mode & 0o100
            } else if user
                .groups
                .iter()
                .any(|group| group.as_raw() == metadata.gid())
            {
                mode & 0o010
            } else {
                mode & 0o001
            };
            if may == 0 {
                return Err(Error::Unreachable {
                    user: user.name.clone(),
                    folder: folder.to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// Whether the program is there and its help knows the option.
fn says(program: &str, option: &str) -> bool {
    Command::new(program)
        .arg("--help")
        .output()
        .is_ok_and(|output| {
            let said = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&said).contains(option)
        })
}
