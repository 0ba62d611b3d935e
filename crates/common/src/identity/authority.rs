//! A certificate authority for development and tests: `hawser up` and the test kit make one; production brings its own.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::Duration;

use super::Identity;
use super::tls::TlsConfig;
use crate::Deps;

/// An authority whose key lies in a folder.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    deps: Deps,
}

/// Certificates could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file could not be read or written.
    #[error("{path} cannot be read or written; check that the folder is yours")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What is there is not what was written.
    #[error(
        "the development certificates are damaged; delete their folder, and they are made anew"
    )]
    Damaged(#[from] rcgen::Error),
}

const AUTHORITY_LIFE: Duration = Duration::days(3650);
const CERTIFICATE_LIFE: Duration = Duration::days(365);

impl Authority {
    /// Opens the authority in `folder`, made where there is none.
    ///
    /// # Errors
    /// [`AuthorityError`] where the folder cannot be used.
    pub fn open(folder: &Path, deps: &Deps) -> Result<Self, AuthorityError> {
        fs::create_dir_all(folder).map_err(|source| AuthorityError::File {
            path: folder.to_owned(),
            source,
        })?;
        let (certificate, key) = (folder.join("ca.pem"), folder.join("ca-key.pem"));
        let params = authority_params(deps);
        let key_pair = if certificate.exists() && key.exists() {
            KeyPair::from_pem(&read(&key)?)?
        } else {
            let key_pair = KeyPair::generate()?;
            write(&key, &key_pair.serialize_pem())?;
            write(&certificate, &params.self_signed(&key_pair)?.pem())?;
            key_pair
        };
        // Name and key are all that the certificates it signs take from it.
        let issuer = Issuer::new(params, key_pair);
        Ok(Self {
            folder: folder.to_owned(),
            issuer,
            deps: deps.clone(),
        })
    }

    /// A certificate for `identity`, good for loopback and for `names`; an existing one is kept while it has a month.
    ///
    /// # Errors
    /// [`AuthorityError`] where the folder cannot be used.
    pub fn issue(&self, identity: &Identity, names: &[&str]) -> Result<TlsConfig, AuthorityError> {
        let uri = identity.to_string();
        let file = uri.trim_start_matches("spiffe://hawser/").replace('/', "-");
        let config = TlsConfig {
            ca_file: self.folder.join("ca.pem"),
            cert_file: self.folder.join(format!("{file}.pem")),
            key_file: self.folder.join(format!("{file}-key.pem")),
        };
        if self.is_fresh(&config) {
            return Ok(config);
        }
        let now = self.deps.now();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, file);
        params.subject_alt_names = vec![
            SanType::URI(Ia5String::try_from(uri)?),
            SanType::DnsName(Ia5String::try_from("localhost")?),
            SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()),
        ];
        for name in names {
            params
                .subject_alt_names
                .push(SanType::DnsName(Ia5String::try_from(*name)?));
        }
        params.not_before = now - Duration::hours(1);
        params.not_after = now + CERTIFICATE_LIFE;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        write(&config.key_file, &key.serialize_pem())?;
        write(&config.cert_file, &certificate.pem())?;
        Ok(config)
    }

    fn is_fresh(&self, config: &TlsConfig) -> bool {
        let made_at = fs::metadata(&config.cert_file).and_then(|metadata| metadata.modified());
        let key_is_there = config.key_file.exists();
        made_at.is_ok_and(|made_at| {
            let age = self.deps.now() - time::OffsetDateTime::from(made_at);
            key_is_there && age < CERTIFICATE_LIFE - Duration::days(30)
        })
    }
}

fn authority_params(deps: &Deps) -> CertificateParams {
    let now = deps.now();
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "Hawser development authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now - Duration::hours(1);
    params.not_after = now + AUTHORITY_LIFE;
    params
}

fn read(path: &Path) -> Result<String, AuthorityError> {
    fs::read_to_string(path).map_err(|source| AuthorityError::File {
        path: path.to_owned(),
        source,
    })
}

/// Written whole or not at all, readable by its owner alone.
fn write(path: &Path, text: &str) -> Result<(), AuthorityError> {
    let failed = |source| AuthorityError::File {
        path: path.to_owned(),
        source,
    };
    let draft = path.with_extension("tmp");
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&draft)
        .map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    fs::rename(&draft, path).map_err(failed)
}
