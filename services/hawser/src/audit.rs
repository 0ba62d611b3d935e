//! Access records from the command line: their chains verified, and their heads noted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use common::Deps;
use common::identity::tls::{Tls, TlsConfig};
use common::rpc::{self, CallError, Channel, Client, ClientConfig};
use contracts::vault::v1::vault_admin_service_client::VaultAdminServiceClient;
use contracts::vault::v1::{ChainHead, VerifyAccessRecordsRequest, VerifyAccessRecordsResponse};
use serde::Deserialize;

use crate::cli::say;
use crate::data_dir::DataDir;
use crate::instance::Instance;
use crate::remote::Remote;

/// Which vault is asked. Without an address, the one of `hawser.json`.
#[derive(Clone, Debug, Args)]
pub struct VaultArgs {
    /// The data folder of the instance.
    #[arg(long, env = "HAWSER_DATA_DIR", default_value = ".hawser")]
    data_dir: PathBuf,
    /// The vault of another installation, host:port.
    #[arg(long, requires_all = ["ca", "cert", "key"])]
    vault: Option<String>,
    /// Whom to believe, PEM.
    #[arg(long, requires = "vault")]
    ca: Option<PathBuf>,
    /// An operator's certificate, PEM.
    #[arg(long, requires = "vault")]
    cert: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, requires = "vault")]
    key: Option<PathBuf>,
}

/// What is to be verified.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    vault: VaultArgs,
    /// A file with heads that were noted before, as `hawser audit heads` prints them, or the vaults' log as JSON.
    #[arg(long)]
    heads: Option<PathBuf>,
    /// One chain alone.
    #[arg(long)]
    chain: Option<String>,
}

/// A line of the log, as far as it is about a head.
#[derive(Deserialize)]
struct LogLine {
    #[serde(rename = "chain.id")]
    chain_id: String,
    sequence: i64,
    mac: String,
}

/// A vault works on one call for no longer than this.
const LONGEST: Duration = Duration::from_mins(10);
const HEAD_EVENT: &str = "access_chain_head";

/// Verifies the chains, one line for each.
///
/// # Errors
/// Where one is broken, or the vault cannot be asked.
pub async fn verify(args: VerifyArgs) -> Result<()> {
    let mut expected = match &args.heads {
        Some(file) => noted(file)?,
        None => Vec::new(),
    };
    let chain_id = args.chain.unwrap_or_default();
    expected.retain(|head| chain_id.is_empty() || head.chain_id == chain_id);
    let count = expected.len();
    let answer = ask(&args.vault, chain_id, expected).await?;
    for head in &answer.heads {
        say(&format!(
            "ok      {}  whole up to record {}",
            head.chain_id, head.sequence
        ))?;
    }
    for broken in &answer.broken_chains {
        say(&format!(
            "BROKEN  {}  the first record that does not fit is {}",
            broken.chain_id, broken.first_broken_sequence
        ))?;
    }
    say(&format!(
        "{} records fit, in {} chains; {count} noted heads were looked for",
        answer.records_checked,
        answer.heads.len()
    ))?;
    match answer.broken_chains.len() {
        0 => Ok(()),
        1 => bail!("one chain is broken: somebody has written to the vault's database"),
        broken => bail!("{broken} chains are broken: somebody has written to the vault's database"),
    }
}

/// Prints the heads, to be kept where who writes to the database cannot.
///
/// # Errors
/// Where a chain is broken, which has no head, or the vault cannot be asked.
pub async fn heads(args: VaultArgs) -> Result<()> {
    let answer = ask(&args, String::new(), Vec::new()).await?;
    for head in &answer.heads {
        say(&format!(
            "{} {} {}",
            head.chain_id,
            head.sequence,
            hex::encode(&head.mac)
        ))?;
    }
    ensure!(
        answer.broken_chains.is_empty(),
        "{} chains are broken and have no head; see `hawser audit verify`",
        answer.broken_chains.len()
    );
    Ok(())
}

async fn ask(
    args: &VaultArgs,
    chain_id: String,
    expected_heads: Vec<ChainHead>,
) -> Result<VerifyAccessRecordsResponse> {
    let channel = channel_to(args)?;
    let request = VerifyAccessRecordsRequest {
        chain_id,
        expected_heads,
    };
    let answer = VaultAdminServiceClient::new(channel)
        .verify_access_records(rpc::within(LONGEST, request))
        .await
        .map_err(CallError::from)
        .context("the vault does not verify its access records")?;
    Ok(answer.into_inner())
}

fn channel_to(args: &VaultArgs) -> Result<Channel> {
    let deps = Deps::system("hawser");
    let (Some(address), Some(ca), Some(cert), Some(key)) =
        (&args.vault, &args.ca, &args.cert, &args.key)
    else {
        let instance = Instance::read(&DataDir::at(&args.data_dir)?)?;
        return Ok(Remote::operator(&instance, &deps)?.vault);
    };
    let tls = TlsConfig {
        ca_file: ca.clone(),
        cert_file: cert.clone(),
        key_file: key.clone(),
    };
    let address = ClientConfig {
        address: address.clone(),
    };
    let tls = Tls::load(&tls, deps.clock.clone())?;
    Ok(Client::new(tls, &deps).channel("token-vault", &address)?)
}

/// The newest head of each chain in the file.
fn noted(file: &Path) -> Result<Vec<ChainHead>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("{} cannot be read", file.display()))?;
    let mut newest: BTreeMap<String, ChainHead> = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let head = head_of(line.trim()).with_context(|| {
            format!(
                "line {} of {} is neither a head nor a line of the log",
                number + 1,
                file.display()
            )
        })?;
        let Some(head) = head else { continue };
        let known = newest.get(&head.chain_id);
        if known.is_none_or(|known| known.sequence < head.sequence) {
            newest.insert(head.chain_id.clone(), head);
        }
    }
    ensure!(!newest.is_empty(), "{} has no heads", file.display());
    Ok(newest.into_values().collect())
}

/// `None` for an empty line, and for what else is in the log.
fn head_of(line: &str) -> Result<Option<ChainHead>> {
    let (chain_id, sequence, mac) = if line.starts_with('{') {
        if !line.contains(HEAD_EVENT) {
            return Ok(None);
        }
        let line: LogLine = serde_json::from_str(line)?;
        (line.chain_id, line.sequence, line.mac)
    } else {
        match line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
            [] => return Ok(None),
            [chain_id, sequence, mac] => (chain_id.to_owned(), sequence.parse()?, mac.to_owned()),
            _ => bail!("a head is a chain's id, a sequence and a MAC"),
        }
    };
    Ok(Some(ChainHead {
        chain_id,
        sequence,
        mac: hex::decode(mac).context("a MAC has hexadecimal digits")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_they_are_printed_and_as_they_are_logged() {
        let head = |sequence| ChainHead {
            chain_id: "c".to_owned(),
            sequence,
            mac: vec![0xab, 1],
        };
        let read = |line| head_of(line).expect("it is a head");
        assert_eq!(read("c 7 ab01"), Some(head(7)));
        assert_eq!(
            read(r#"{"event":"access_chain_head","chain.id":"c","sequence":8,"mac":"ab01"}"#),
            Some(head(8))
        );
        assert_eq!(read(r#"{"event":"process_started"}"#), None);
        assert_eq!(read(""), None);
        for wrong in [
            "c 7",
            "c seven ab01",
            "c 7 xyz",
            r#"{"event":"access_chain_head"}"#,
        ] {
            head_of(wrong).expect_err(wrong);
        }
    }
}
